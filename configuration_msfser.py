"""Configuration of MSF-SER (arXiv 2510.05749): which inputs, which encoders, which fusion."""

import copy
import math
from typing import Any, Literal

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig

LABELS = ("valence", "arousal", "dominance")
# What data call a text, and what the paper and the tensors call it: local emphasized, global and extended semantics.
TENSOR_NAMES = {"emphasis": "les", "transcript": "gs", "description": "es"}
SEMANTICS = tuple(TENSOR_NAMES.values())
_LABELS: dict[str, dict[Any, Any]] = {
    "id2label": dict(enumerate(LABELS)),
    "label2id": {label: index for index, label in enumerate(LABELS)},
}

# The two encoders of the paper, as transformers describes microsoft/wavlm-large and FacebookAI/roberta-large.
WAVLM_LARGE: dict[str, Any] = {
    "model_type": "wavlm",
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
    "conv_bias": False,
    "num_buckets": 320,
    "max_bucket_distance": 800,
}
ROBERTA_LARGE: dict[str, Any] = {
    "model_type": "roberta",
    "vocab_size": 50265,
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "max_position_embeddings": 514,
    "type_vocab_size": 1,
    "layer_norm_eps": 1e-5,
}

# What encoders call the probability with which a layer is skipped in training.
_LAYERDROP = ("layerdrop", "encoder_layerdrop")


@strict
class MsfSerConfig(PreTrainedConfig):
    r"""Configuration of [`MsfSerModel`].

    The inputs are one utterance and up to three texts about it: `les`, the local emphasized semantics (the emphasized
    words); `gs`, the global semantics (the transcript); `es`, the extended semantics (a description of the voice). The
    outputs are valence, arousal and dominance, in this order, each in 0..1. The defaults are the paper's full model on
    WavLM-Large and RoBERTa-Large; "paper" or "ours" says whose choice a default is.

    Args:
        audio_config: The speech encoder: a waveform encoder of the wav2vec2 family (wavlm, wav2vec2, hubert,
            data2vec-audio, ...) or `whisper`, of which only the encoder is built. LayerDrop is switched off. `None`
            is WavLM-Large (paper).
        text_config: The text encoder, BERT-like, shared by the three texts. `None` is RoBERTa-Large (paper).
        audio: Whether the sound is an input. `False` builds no speech encoder.
        semantics: Which texts are inputs; `None` is all three. An empty list is the acoustic-only model and builds no
            text encoder.
        intra_fusion: How LES and GS become one vector; `gate` is `g*h_les + (1-g)*h_gs` (paper). It has no effect
            unless both are inputs.
        cross_fusion: How sound and texts are fused; `fm_moe` is the FiLM-modulated mixture of experts (paper). `film`
            needs the sound and at least one text. `none` is the baseline of the MSP-Podcast challenges: the sound
            alone, with one hidden layer for all three numbers.
        film_position: Whether FiLM modulates the pooled sound vector (ours; the paper does not say) or each frame
            before pooling.
        routing: Whether the experts' weights are learned constants (`static`, paper) or also depend on the input. Only
            for `fm_moe`.
        audio_states: Which hidden states of the speech encoder are pooled: the last one (paper) or a learned softmax
            mix of all, each layer-normalized (`weighted`, ours; better on a frozen encoder).
        freeze_audio: Which part of the speech encoder is not trained: none, its convolutional front end (paper), or
            all of it. This is set when the model is built or loaded; then `requires_grad` of the parameters decides.
        freeze_text: Whether the text encoder is not trained; as above.
        fast_encoders: Whether the encoders run on faster kernels than the stock ones. WavLM's attention weights are
            then returned only if the encoder itself is called with `output_attentions=True`.
        fusion_size: Width of the projected sound vector, of the experts and of the heads.
        head_dropout: Dropout in the three regression heads (paper), in 0..1 without 1, as all dropouts here.
        expert_dropout: Dropout in the experts.
        text_dropout: Probability with which training replaces each text of an item by its missing-input embedding.
            An item always keeps one of its inputs.
        audio_dropout: The same for the sound of an item.
        initializer_range: Standard deviation of the initial weights of all parts but the encoders.
        unrated: Dimensions of which no training item had a label: their predictions are meaningless.
        intervals: Whether the model has a prediction interval for each dimension (`intervals_msfser.py`).
        scale: What the numbers are compared with: `of`, the name of the corpus that the model was fitted to, and
            `labels` and `predictions`, for each dimension evenly spaced quantiles from the least to the greatest.
        weights_license: Identifier of the license of the weights, or of those that the training started from; `None`
            where it is not known.
        weights_sources: The corpora whose license it is.
    """

    model_type = "msfser"
    sub_configs = {"audio_config": AutoConfig, "text_config": AutoConfig}  # noqa: RUF012 - the library's own form
    keys_to_ignore_at_inference = [  # noqa: RUF012
        *("low", "high", "gate", "routing", "layer_weights", "embedding", "contributions", "baseline"),
        *(f"{name}_{kind}" for kind in ("hidden_states", "attentions") for name in ("audio", *SEMANTICS)),
    ]

    audio_config: dict[str, Any] | PreTrainedConfig | None = None
    text_config: dict[str, Any] | PreTrainedConfig | None = None
    audio: bool = True
    semantics: list[str] | None = None
    intra_fusion: Literal["gate", "attention", "concat"] = "gate"
    cross_fusion: Literal["fm_moe", "film", "attention", "concat", "none"] = "fm_moe"
    film_position: Literal["pooled", "frames"] = "pooled"
    routing: Literal["static", "input"] = "static"
    audio_states: Literal["last", "weighted"] = "last"
    freeze_audio: Literal["none", "front_end", "all"] = "front_end"
    freeze_text: bool = True
    fast_encoders: bool = True
    fusion_size: int = 1024
    head_dropout: float = 0.5
    expert_dropout: float = 0.1
    text_dropout: float = 0.1
    audio_dropout: float = 0.05
    initializer_range: float = 0.02
    unrated: list[str] | None = None
    intervals: bool = False
    scale: dict[str, Any] | None = None
    weights_license: str | None = None
    weights_sources: list[str] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        """Builds the two sub-configs and checks the fields.

        Raises:
            ValueError: A field has an impossible value, or the settings contradict each other.
        """
        semantics = list(SEMANTICS) if self.semantics is None else self.semantics
        if len(set(semantics) & set(SEMANTICS)) != len(semantics):
            raise ValueError(f"semantics={list(semantics)}: name each of {list(SEMANTICS)} at most once.")
        self.semantics = [name for name in SEMANTICS if name in semantics]
        if not self.audio and not self.semantics:
            raise ValueError("audio=False and semantics=[] leave no input: switch on the audio or one of the texts.")
        if self.cross_fusion == "film" and not (self.audio and self.semantics):
            raise ValueError(
                "cross_fusion='film' modulates the sound by the texts and needs both: switch on audio and one of "
                f"{list(SEMANTICS)}, or choose cross_fusion='concat'."
            )
        if self.cross_fusion == "none" and (self.semantics or not self.audio):
            raise ValueError("cross_fusion='none' is for the sound alone: set audio=True and semantics=[].")
        for name in ("head_dropout", "expert_dropout", "text_dropout", "audio_dropout"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"{name}={getattr(self, name)} is not in 0..1 (1 excluded).")
        if self.fusion_size < 1:
            raise ValueError(f"fusion_size={self.fusion_size} is not a positive width.")
        if not 0.0 <= self.initializer_range < math.inf:
            raise ValueError(f"initializer_range={self.initializer_range} is no standard deviation: give 0 or more.")
        if self.unrated and len(set(self.unrated) & set(LABELS)) != len(self.unrated):
            raise ValueError(f"unrated={self.unrated}: name each of {list(LABELS)} at most once.")
        _check_scale(self.scale)
        self.audio_config = _sub_config(self.audio_config, WAVLM_LARGE) if self.audio else None
        self.text_config = _sub_config(self.text_config, ROBERTA_LARGE) if self.semantics else None
        if getattr(self.audio_config, "add_adapter", False):
            raise ValueError("A speech encoder with an adapter (add_adapter=True) is not supported: switch it off.")
        for of_encoder, name in ((c, n) for c in (self.audio_config, self.text_config) for n in _LAYERDROP):
            # A dropped layer has no hidden state to mix, and leaves weights without gradients on some processes.
            if hasattr(of_encoder, name):
                setattr(of_encoder, name, 0.0)
        if (num_labels := kwargs.pop("num_labels", None)) is not None:
            self.num_labels = num_labels
        # `problem_type` keeps the stock pipeline from a softmax.
        self.problem_type = "regression"
        if kwargs.get("attn_implementation") is None:
            # The library would reset what a given sub-config says.
            configs = {"audio_config": self.audio_config, "text_config": self.text_config}
            chosen = {name: config._attn_implementation for name, config in configs.items() if config is not None}
            default = {"": "eager"} | dict.fromkeys(chosen, "eager") if kwargs.get("output_attentions") else chosen
            kwargs["attn_implementation"] = default
        super().__post_init__(**kwargs)

    @property
    def num_labels(self) -> int:
        """Always three."""
        return len(LABELS)

    @num_labels.setter
    def num_labels(self, value: int) -> None:
        if value != len(LABELS):
            raise ValueError(f"num_labels={value}: the model has one output for each of {', '.join(LABELS)}.")

    @property
    def is_mel(self) -> bool:
        """Whether the speech encoder's input is log-mel frames (Whisper) and not the waveform."""
        return getattr(self.audio_config, "model_type", None) == "whisper"

    def __setattr__(self, key: str, value: Any) -> None:
        """Refuses other labels, which the library sets on a config that is loaded, too."""
        if key in _LABELS:
            # JSON has strings only as keys.
            if value and {str(k): str(v) for k, v in value.items()} != {
                str(k): str(v) for k, v in _LABELS[key].items()
            }:
                raise ValueError(f"{key}={value}: the outputs are {', '.join(LABELS)}, in this order; leave it out.")
            value = dict(_LABELS[key])
        super().__setattr__(key, value)


def _check_scale(scale: dict[str, Any] | None) -> None:
    """Checks that percentiles can be told by a scale, if there is one."""
    if scale is None:
        return
    parts = [scale.get(kind) for kind in ("labels", "predictions")]
    quantiles = [part.get(label) for part in parts if isinstance(part, dict) for label in LABELS]
    if (
        not isinstance(scale.get("of"), str)
        or len(quantiles) != 2 * len(LABELS)
        or not all(isinstance(rising, list) and _is_rising(rising) for rising in quantiles)
    ):
        raise ValueError(
            "scale has another form: give 'of', the name of the corpus, and 'labels' and 'predictions', each with a "
            f"list of rising numbers for each of {', '.join(LABELS)}; or leave it out."
        )


def _is_rising(values: list[Any]) -> bool:
    return all(isinstance(value, (int, float)) for value in values) and values == sorted(values)


def _sub_config(value: dict[str, Any] | PreTrainedConfig | None, default: dict[str, Any]) -> PreTrainedConfig:
    """An encoder's config as a copy: what building this model changes in it stays as it was for the caller."""
    if isinstance(value, PreTrainedConfig):
        config = copy.deepcopy(value)
        config.return_dict = True  # what the encoder returns is read by name
        return config
    fields = copy.deepcopy(dict(default if value is None else value)) | {"return_dict": True}
    model_type = fields.pop("model_type", None)
    if model_type is None:
        raise ValueError(f"An encoder's config needs its 'model_type', such as {default['model_type']!r}.")
    return AutoConfig.for_model(model_type, **fields)


MsfSerConfig.register_for_auto_class()
