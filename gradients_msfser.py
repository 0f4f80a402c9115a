"""Which parameters get gradients: frozen parts, parts without a use, and adapters (peft).

The config freezes parts when a model is built or loaded. From then on `requires_grad` of the parameters decides: a
part is trained if one of its parameters is.
"""

from typing import Any

from torch import nn
from transformers.models.wavlm.modeling_wavlm import WavLMAttention
from transformers.models.whisper.modeling_whisper import WhisperEncoder


def is_trained(module: nn.Module) -> bool:
    """Whether a module has a parameter that wants a gradient."""
    return any(parameter.requires_grad for parameter in module.parameters())


def front_end(encoder: Any) -> list[nn.Module]:
    """The convolutions between the input and the transformer."""
    if isinstance(encoder, WhisperEncoder):
        return [encoder.conv1, encoder.conv2]
    if not hasattr(encoder, "feature_extractor"):
        raise ValueError(f"{type(encoder).__name__} does not read the waveform through a convolutional front end.")
    return [encoder.feature_extractor]


def freeze(config: Any, audio_encoder: Any = None, text_encoder: Any = None) -> None:
    """Freezes what a [`MsfSerConfig`] says, and what is never trained, in the encoders that there are."""
    if audio_encoder is not None:
        frozen = {"all": [audio_encoder], "front_end": front_end(audio_encoder), "none": []}[config.freeze_audio]
        for module in frozen:
            module.requires_grad_(False)
        if config.is_mel:
            audio_encoder.embed_positions.requires_grad_(False)  # sinusoids
        _freeze_unused(audio_encoder)
    if text_encoder is not None and config.freeze_text:
        text_encoder.requires_grad_(False)


def prepare_training(encoder: Any) -> None:
    """Puts an encoder into the mode that its parameters ask for, when the model changes to training.

    A frozen encoder runs in evaluation mode: no dropout, no SpecAugment. A frozen front end records no gradients.
    """
    if not is_trained(encoder):
        encoder.eval()
    _freeze_unused(encoder)
    for module in encoder.modules():
        if hasattr(module, "_requires_grad"):  # the library's own note on a front end, which makes its input want one
            module._requires_grad = is_trained(module)


def _freeze_unused(audio_encoder: Any) -> None:
    """Freezes SpecAugment's vector where nothing is replaced by it; several processes would wait for its gradient."""
    config, vector = audio_encoder.config, getattr(audio_encoder, "masked_spec_embed", None)
    if vector is not None and not (getattr(config, "apply_spec_augment", True) and config.mask_time_prob > 0):
        vector.requires_grad_(False)


def has_adapters(module: nn.Module) -> bool:
    """Whether a module contains layers of peft's adapters, merged or not."""
    return any(_is_adapter(part) for part in module.modules())


def refuse_ignored_adapters(module: nn.Module) -> None:
    """Refuses adapters on layers whose weights are read and whose forward is not called, unless they are merged.

    Raises:
        ValueError: The weights of such a layer are not those of its active adapters; the sentence names the layer.
    """
    for name, attention in module.named_modules():
        # The faster subclass of WavLM's attention calls its projections, and peft's own layer around an attention
        # takes care of them.
        stock = type(attention) is WavLMAttention or isinstance(attention, nn.MultiheadAttention)
        if not stock or name.endswith("base_layer"):
            continue
        for part, layer in attention.named_children():
            if _is_adapter(layer) and part != "gru_rel_pos_linear" and not _weights_are_current(layer):
                raise ValueError(
                    f"The adapter on {part} of {name or type(attention).__name__} has no effect, since this attention "
                    "reads the weights alone: merge the adapter (and unmerge it to switch it off), choose other "
                    "target_modules or, for WavLM, load the model with fast_encoders=True."
                )


def _is_adapter(module: nn.Module) -> bool:
    return hasattr(module, "base_layer") and hasattr(module, "merged_adapters")


def _weights_are_current(layer: Any) -> bool:
    return set(layer.merged_adapters) == (set() if layer.disable_adapters else set(layer.active_adapters))
