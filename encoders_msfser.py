"""The pretrained encoders: loading them by name, building them from a config, and running them on a batch.

The name of an encoder is a Hub name or a folder. What loads it raises `OSError` if it is not available or lacks some
of its weights, and `ValueError` if it is of another kind; the sentence names the remedy.
"""

import functools
import inspect
import pickle
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import constants, get_session, is_offline_mode
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    WhisperForConditionalGeneration,
)
from transformers.masking_utils import create_bidirectional_mask
from transformers.models.whisper.modeling_whisper import WhisperEncoder
from transformers.utils import logging

from .configuration_msfser import MsfSerConfig
from .fast_encoders_msfser import speed_up

logger = logging.get_logger(__name__)

# The published encoders that `msfser encoders` prepares where the Hub cannot be reached.
_FETCHED = {"speech": "openai/whisper-tiny.en", "text": "sentence-transformers/all-MiniLM-L6-v2"}
# A checkpoint may lack these: they are not used here, or start untrained (SpecAugment's vector).
_DISPENSABLE = ("pooler.", "decoder.", "masked_spec_embed")
# Text encoders whose attention knows the order of tokens by their position ids alone.
_JOINS_TEXTS = ("bert", "roberta", "xlm-roberta", "camembert")
# Tokens. Of longer texts most of the time is arithmetic, which joining them does not save; tokens of different
# texts add to it.
_MOST_JOINED = 256
# Waveform encoders whose output for an item does not depend on padding, if their front end normalizes each frame
# ("layer"). The others are run item by item.
_PADDING_SAFE = ("wavlm", "wav2vec2", "hubert", "unispeech", "unispeech-sat")


# Loading


def load_audio_encoder(name: str) -> PreTrainedModel:
    """Loads a pretrained speech encoder in float32; of Whisper, the encoder alone."""
    source, options, config = _find(name, "speech")
    model = _load_whole(AutoModel, name, source, options, _DISPENSABLE)
    return _named(model.encoder if config.model_type == "whisper" else model, name)


def load_text_encoder(name: str) -> PreTrainedModel:
    """Loads a pretrained BERT-like text encoder in float32, without its pooler."""
    source, options, _ = _find(name, "text")
    model = _load_whole(AutoModel, name, source, options, _DISPENSABLE)
    if hasattr(model, "pooler"):
        model.pooler = None
    return _named(model, name)


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """Loads the tokenizer of a text encoder."""
    source, options, _ = _find(name, "text")
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(source, **options)
    tokenizer.name_or_path = name
    return tokenizer


def positions_of(name: str) -> int | None:
    """How many tokens the text encoder of this name has positions for; `None` where its positions do not end."""
    _, _, config = _find(name, "text")
    with torch.device("meta"):
        return text_positions(AutoModel.from_config(config))


def feature_settings(name: str) -> dict[str, Any]:
    """The arguments of [`MsfSerFeatureExtractor`] that a speech encoder needs."""
    source, options, config = _find(name, "speech")
    if config.model_type == "whisper":
        return {"kind": "log_mel", "feature_size": config.num_mel_bins}
    try:
        normalize = AutoFeatureExtractor.from_pretrained(source, **options).do_normalize
    except (OSError, ValueError, AttributeError):
        # data2vec-audio has the layer norm only, and no such field.
        normalize = getattr(config, "feat_extract_norm", "layer") == "layer"
        logger.warning(f"{name} does not say whether its input is normalized: do_normalize={normalize} is assumed.")
    return {"kind": "waveform", "do_normalize": normalize}


def load_recognizer(name: str) -> tuple[WhisperForConditionalGeneration, PreTrainedTokenizerBase]:
    """Loads a whole Whisper in float32 with its generation config, and its tokenizer."""
    source, options, config = _find(name, "speech")
    if config.model_type != "whisper":
        raise ValueError(f"{name!r} is a {config.model_type} model: words are recognized by Whisper only.")
    model = _load_whole(WhisperForConditionalGeneration, name, source, options)
    return _named(model, name), AutoTokenizer.from_pretrained(source, **options)


def load_weights(load: Callable[..., Any], source: Any, *args: Any, **options: Any) -> tuple[Any, dict[str, Any]]:
    """A model by some class's `from_pretrained`, and the report of `output_loading_info`.

    Raises:
        ValueError: The weights are damaged, are a pickle of other things than tensors, or (without
            `ignore_mismatched_sizes=True`) have other shapes than the config asks for.
        OSError: There are no weights.
    """
    ignore_mismatched_sizes = options.pop("ignore_mismatched_sizes", False)
    try:
        model, report = load(source, *args, **options, output_loading_info=True, ignore_mismatched_sizes=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{str(source)!r}: the weights are a pickle that holds more than tensors, or is damaged; nothing of it "
            "was run or loaded. Give safetensors."
        ) from error
    except SafetensorError as error:
        raise ValueError(
            f"{str(source)!r}: the weights are no whole safetensors file ({_first_sentence(error)}): copy or download "
            "them again."
        ) from error
    if (mismatched := sorted(report["mismatched_keys"])) and not ignore_mismatched_sizes:
        name, found, expected = mismatched[0]
        raise ValueError(
            f"{str(source)!r}: {len(mismatched)} of the weights do not have the shapes of its config, such as {name}, "
            f"which is {tuple(found)} and should be {tuple(expected)}: use weights and config.json of the same run, "
            "or ignore_mismatched_sizes=True, which starts such weights anew."
        )
    return model, report


def prepared_folder(name: str) -> Path:
    """The folder in which `msfser encoders` puts an encoder, whether or not it exists."""
    return Path(constants.HF_HOME) / "msfser" / "encoders" / name.replace("/", "--")


def is_path(name: str) -> bool:
    """Whether a model's name is a path, and not one on the Hub or a plain word."""
    try:
        validate_repo_id(name)
    except HFValidationError:
        return True
    return False


def last_part(path: str) -> str:
    """The last part of a path of any system, which tells nothing of the machine."""
    return re.split(r"[/\\]", path.rstrip("/\\"))[-1]


def hub_options(source: str) -> dict[str, Any]:
    """The options with which `from_pretrained` asks the Hub only for what is no folder, and only if it answers."""
    return {"local_files_only": Path(source).is_dir() or not _hub_is_reachable()}


def is_available(name: str) -> bool:
    """Whether an encoder is a folder, prepared, on the Hub, or in its cache."""
    try:
        _find(name, None)
    except OSError:
        return False
    return True


def _find(name: str, modality: str | None) -> tuple[str, dict[str, bool], PreTrainedConfig]:
    """What to load an encoder from (a folder or its Hub name), the loading options, and its config."""
    folder = next((path for path in (Path(name), prepared_folder(name)) if path.is_dir()), None)
    source = name if folder is None else str(folder)
    options = hub_options(source)
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(source, **options)
    except (OSError, ValueError) as error:
        if folder is not None:
            raise
        fetched = name if name in _FETCHED.values() else _FETCHED[modality or "speech"]
        if is_path(name):
            raise OSError(
                f"there is no model folder {name!r}: check the path, or run `msfser encoders {fetched}` and use that "
                "one."
            ) from error
        raise OSError(
            f"{name!r} is no folder, and neither the Hub nor its cache has it ({_first_sentence(error)}): download it "
            f"where the Hub can be reached and give its folder, or run `msfser encoders {fetched}` and use that one."
        ) from error
    # Every waveform encoder of transformers starts with convolutions and says so.
    found = "speech" if config.model_type == "whisper" or hasattr(config, "conv_kernel") else "text"
    if modality not in (found, None):
        raise ValueError(f"{name!r} is a {found} encoder ({config.model_type}), not a {modality} encoder.")
    return source, options, config


def _load_whole(
    model_class: Any, name: str, source: str, options: dict[str, bool], dispensable: tuple[str, ...] = ()
) -> Any:
    """A model that is pretrained to the last weight: transformers fills gaps at random."""
    model, report = load_weights(model_class.from_pretrained, source, dtype=torch.float32, **options)
    if missing := sorted(key for key in report["missing_keys"] if not key.startswith(dispensable)):
        raise OSError(
            f"{name!r} lacks {len(missing)} of its weights, such as {missing[0]}: give the whole checkpoint."
        )
    return model


def _named(encoder: Any, name: str) -> Any:
    """Notes the Hub name or the folder's name in the config, in place of a path on this machine."""
    encoder.config._name_or_path = Path(name).resolve().name if Path(name).is_dir() else name
    return encoder


@functools.cache
def _hub_is_reachable() -> bool:
    """Whether the Hub can be reached: tried once, so that an offline start does not wait for retries."""
    if is_offline_mode():
        return False
    try:
        get_session().head(constants.ENDPOINT, timeout=5)
    except Exception as error:  # whatever the HTTP library raises: no route, no name, a wall
        logger.info(f"The Hub does not answer ({error}): only folders and its cache are used.")
        return False
    return True


def _first_sentence(error: Exception) -> str:
    return str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__


# Building


def build_audio_encoder(config: MsfSerConfig) -> PreTrainedModel:
    """A speech encoder with random weights."""
    build: Callable[..., PreTrainedModel] = WhisperEncoder._from_config if config.is_mel else AutoModel.from_config
    encoder = build(config.audio_config)
    return speed_up(encoder) if config.fast_encoders else encoder


def build_text_encoder(config: MsfSerConfig) -> PreTrainedModel:
    """A text encoder with random weights, without a pooler, whose weights no gradient would reach."""
    model_class: Any = AutoModel._model_mapping[type(config.text_config)]  # type: ignore[index]
    parameters = inspect.signature(model_class.__init__).parameters
    options = {"add_pooling_layer": False} if "add_pooling_layer" in parameters else {}
    encoder: Any = AutoModel.from_config(config.text_config, **options)
    if hasattr(encoder, "pooler"):
        encoder.pooler = None
    built: PreTrainedModel = speed_up(encoder) if config.fast_encoders else encoder
    return built


def text_positions(encoder: nn.Module) -> int | None:
    """How many tokens a text encoder has positions for; `None` where its positions do not end."""
    table = _position_table(encoder)
    return None if table is None else table.num_embeddings - _first_position(table)


def _position_table(encoder: nn.Module) -> nn.Embedding | None:
    for name, module in encoder.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            return module
    return None


def _first_position(table: nn.Embedding) -> int:
    # RoBERTa counts from behind the padding's index.
    return 0 if table.padding_idx is None else table.padding_idx + 1


# Running


def at_least_one(mask: torch.Tensor) -> torch.Tensor:
    """Unmasks the first position of each empty row of `(batch, length)`, so that a softmax over it is finite."""
    first = torch.zeros_like(mask)
    first[:, 0] = True
    return mask | (first & ~mask.any(-1, keepdim=True))


def cast(tensor: torch.Tensor, module: nn.Module, unless_autocast: bool = False) -> torch.Tensor:
    """A floating-point tensor in the precision of a module's parameters."""
    precision = next(parameter.dtype for parameter in module.parameters() if parameter.is_floating_point())
    if not tensor.is_floating_point() or tensor.dtype == precision:
        return tensor
    return tensor if unless_autocast and torch.is_autocast_enabled(tensor.device.type) else tensor.to(precision)


def joined_text_states(encoder: PreTrainedModel, texts: Sequence[torch.Tensor]) -> list[torch.Tensor] | None:
    """Runs a text encoder on several short texts at once, which takes little longer than one of them alone.

    They are one sequence, in which each token attends to its own text, at its position there.

    Args:
        encoder: The text encoder.
        texts: The token ids of each, `(tokens,)`, at least one.

    Returns:
        Its last states of each, `(tokens, size)`, as of the text alone but for rounding; `None` if this encoder cannot
        do so or the texts are too long.
    """
    lengths, table = [len(text) for text in texts], _position_table(encoder)
    is_able = encoder.config.model_type in _JOINS_TEXTS and encoder.config._attn_implementation == "sdpa"
    if not is_able or table is None or sum(lengths) > min(_MOST_JOINED, table.num_embeddings - _first_position(table)):
        return None
    ids = torch.cat([*texts])
    numbers = torch.repeat_interleave(torch.tensor(lengths)).to(ids.device)
    positions = torch.cat([torch.arange(length) for length in lengths]).to(ids.device) + _first_position(table)
    own_text = (numbers[:, None] == numbers)[None, None]  # (1, 1, tokens, tokens)
    output = encoder(input_ids=ids[None], position_ids=positions[None], attention_mask=own_text, return_dict=True)
    return list(output.last_hidden_state[0].split(lengths))


def whisper_states(
    encoder: WhisperEncoder,
    features: torch.Tensor,
    mask: torch.Tensor,
    attentions: list[torch.Tensor] | None = None,
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Runs Whisper's encoder on clips of any length, with masks.

    The stock forward needs 30 s of input, no less, and ignores masks. Here the position table is cut to the clip, and
    padding is set to zero before each convolution, like the convolutions' zero padding, and masked in attention. The
    features are `(batch, mel frames, mels)`, the mask `(batch, mel frames)`, bool. To `attentions`, if given, each
    layer's attention weights `(batch, heads, frames, frames)` are appended.

    Returns:
        `layers + 1` states `(batch, frames, size)`, the last one normalized, and the mask `(batch, frames)`;
        `frames` is half of `mel frames`, rounded up.

    Raises:
        ValueError: The clip is longer than the encoder's position table.
    """
    longest = encoder.config.max_source_positions
    if features.shape[1] > 2 * longest:
        raise ValueError(
            f"The sound has {features.shape[1]} mel frames and this encoder's positions end at {2 * longest} "
            f"({longest / 50:g} s): cut it into shorter windows."
        )
    visible = mask[..., None].to(features.dtype)
    x = nn.functional.gelu(encoder.conv1((features * visible).mT)).mT * visible
    x = nn.functional.gelu(encoder.conv2(x.mT)).mT  # (batch, frames, size)
    x = x.contiguous()  # or each layer would have to rearrange it
    frame_mask = mask[:, ::2]
    x = x + encoder.embed_positions(torch.arange(x.shape[1], device=x.device))
    x = nn.functional.dropout(x, p=encoder.dropout, training=encoder.training)
    attention = create_bidirectional_mask(
        config=encoder.config, inputs_embeds=x, attention_mask=at_least_one(frame_mask)
    )
    states = [x]
    layers: Any = encoder.layers
    for layer in layers:
        if attentions is not None:
            # A layer drops its weights. A hook that keeps them would see those of other threads, too.
            _, weights = layer.self_attn(layer.self_attn_layer_norm(states[-1]), attention_mask=attention)
            attentions.append(weights)
        states.append(layer(states[-1], attention))
    states[-1] = encoder.layer_norm(states[-1])
    return states, frame_mask


def check_lengths(config: PreTrainedConfig, mask: torch.Tensor, each: bool) -> None:
    """Checks that a batch of sound, `(batch, samples or mel frames)`, gives a speech encoder a frame.

    Args:
        config: The encoder's.
        mask: `(batch, samples or mel frames)`, bool; a row of zeros is an absent sound, which is not too short.
        each: Whether each item is checked, for which a GPU has to be waited for, or only the whole batch.

    Raises:
        ValueError: A sound is too short.
    """
    if torch.compiler.is_compiling():
        return
    is_mel = config.model_type == "whisper"
    shortest, length = 1 if is_mel else shortest_waveform(config), mask.shape[1]
    if length >= shortest and each:
        lengths = mask.sum(-1)
        length = int(torch.where(lengths > 0, lengths, length).min())
    if length < shortest:
        unit = "mel frames" if is_mel else "samples"
        raise ValueError(
            f"A sound has {length} {unit} and this speech encoder needs {shortest} or more: pad it with silence, as "
            "the processor does."
        )


def shortest_waveform(config: PreTrainedConfig, frames: int = 1) -> int:
    """The samples from which a waveform encoder makes so many frames."""
    for kernel, stride in zip(reversed(config.conv_kernel), reversed(config.conv_stride), strict=True):
        frames = (frames - 1) * stride + kernel
    return frames


def is_padding_safe(config: PreTrainedConfig) -> bool:
    """Whether a speech encoder with this config runs on a padded batch; the others are run item by item."""
    return config.model_type == "whisper" or (
        config.model_type in _PADDING_SAFE and config.feat_extract_norm == "layer"
    )


def waveform_states(
    encoder: Any,
    values: torch.Tensor,
    mask: torch.Tensor,
    fast: bool,
    attentions: list[torch.Tensor] | None = None,
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Runs WavLM or one of its relatives so that each item's states are those that it has alone.

    Values and mask (bool) are `(batch, samples)`; `fast` runs items of different lengths one by one if that is faster.
    To `attentions`, if given, each layer's attention weights `(batch, heads, frames, frames)` are appended.

    Returns:
        `layers + 1` states `(batch, frames, size)`, the last one as the encoder returns it, and the mask
        `(batch, frames)`.
    """
    safe = is_padding_safe(encoder.config)
    # Without gradients a CPU computes one clip as fast as a batch, so that padding only costs.
    alone = fast and values.device.type == "cpu" and not torch.is_grad_enabled() and not torch.compiler.is_compiling()
    asked = {"output_hidden_states": True, "return_dict": True}
    if attentions is not None:
        asked["output_attentions"] = True
    if safe and (not alone or mask.all()):
        visible = (mask | ~mask.any(-1, keepdim=True)).long()
        output = encoder(values, attention_mask=visible, **asked)
        if attentions is not None:
            attentions += output.attentions
        states = _hidden_states(output)
        frame_mask = encoder._get_feature_vector_attention_mask(states[0].shape[1], visible).bool()
        return states, frame_mask & mask.any(-1, keepdim=True)
    lengths = mask.sum(-1).tolist()
    outputs = [encoder(row[None, : length or None], **asked) for row, length in zip(values, lengths, strict=True)]
    states = [
        nn.utils.rnn.pad_sequence([state[0] for state in of_items], batch_first=True)
        for of_items in zip(*map(_hidden_states, outputs), strict=True)
    ]
    if attentions is not None:
        attentions += (_padded(of_items) for of_items in zip(*(o.attentions for o in outputs), strict=True))
    frames = [o.last_hidden_state.shape[1] if n else 0 for o, n in zip(outputs, lengths, strict=True)]
    ends = torch.tensor(frames, device=values.device)[:, None]
    return states, torch.arange(states[0].shape[1], device=values.device) < ends


def _hidden_states(output: Any) -> list[torch.Tensor]:
    return [*output.hidden_states[:-1], output.last_hidden_state]


def _padded(weights: Sequence[torch.Tensor]) -> torch.Tensor:
    """Attention weights of single items, `(1, heads, frames, frames)` each, as one batch with zeros behind the end."""
    longest = max(item.shape[-1] for item in weights)
    rest = [longest - item.shape[-1] for item in weights]
    return torch.cat([nn.functional.pad(item, (0, n, 0, n)) for item, n in zip(weights, rest, strict=True)])
