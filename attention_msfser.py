"""One attention implementation for the whole model: what each encoder has, and what it runs in its place."""

from typing import Any

from transformers import AutoModel
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.utils import logging

from .configuration_msfser import MsfSerConfig

logger = logging.get_logger(__name__)

# The flag with which a class of transformers says that it has a kind of attention implementation.
_FLAGS = {"flash": "_supports_flash_attn", "flex": "_supports_flex_attn", "sdpa": "_supports_sdpa"}


def choose_attention(config: MsfSerConfig) -> None:
    """Replaces a request for the whole model by the default in each sub-config whose encoder does not have it.

    A log says so. Another implementation in a sub-config is the encoder's alone, and stays.
    """
    requested = config._attn_implementation
    for name in config.sub_configs:
        sub_config = getattr(config, name)
        if requested is None or sub_config is None or sub_config._attn_implementation != requested:
            continue
        encoder_class = AutoModel._model_mapping[type(sub_config)]
        if not _has_attention(encoder_class, requested):
            _log_substitute(encoder_class, requested, config.fast_encoders)
            sub_config._attn_implementation_internal = None


def attention_by_encoder(encoders: dict[str, Any], requested: str, fast: bool) -> dict[str, str]:
    """A request for the whole model as `set_attn_implementation` of the library needs it, by sub-config.

    An encoder that does not have it keeps what it runs, with a log.
    """
    chosen = {"": requested}
    for name, encoder in encoders.items():
        if _has_attention(type(encoder), requested):
            chosen[f"{name}_config"] = requested
        else:
            _log_substitute(type(encoder), requested, fast)
            chosen[f"{name}_config"] = encoder.config._attn_implementation
    return chosen


def check_attentions(encoders: dict[str, Any], requested: dict[str, Any]) -> None:
    """Checks attention implementations by sub-config.

    Raises:
        ValueError: There is no such encoder, or it does not have the implementation.
    """
    known = {f"{name}_config": encoder for name, encoder in encoders.items()}
    for name, implementation in requested.items():
        if name not in ("", *known):
            raise ValueError(f"attn_implementation has {name!r}: name an encoder by {' or '.join(known)}.")
        if name and isinstance(implementation, str) and not _has_attention(type(known[name]), implementation):
            raise ValueError(
                f"{type(known[name]).__name__} has no {implementation!r} attention in transformers: choose another."
            )


def layer_classes(encoder: Any) -> set[str]:
    """The class names of an encoder's transformer layers, which a device or an FSDP unit holds as a whole."""
    return {
        type(module).__name__
        for name, module in encoder.named_modules()
        if isinstance(module, GradientCheckpointingLayer) and "feature_extractor" not in name.split(".")
    }


def _has_attention(encoder_class: Any, name: str) -> bool:
    """Whether a class has an implementation; a name of no known kind, such as a registered one, is the library's."""
    flags = [flag for kind, flag in _FLAGS.items() if kind in name]
    return name == "eager" or not flags or bool(getattr(encoder_class, flags[0]))


def _log_substitute(encoder_class: Any, requested: str, fast: bool) -> None:
    is_fast = fast and encoder_class.__name__ == "WavLMModel"
    runs = "the fast kernels, which call scaled_dot_product_attention" if is_fast else "its default attention"
    log = logger.info if is_fast and "sdpa" in requested else logger.warning_once
    log(f"{encoder_class.__name__} has no {requested!r} attention in transformers: it runs {runs}.")
