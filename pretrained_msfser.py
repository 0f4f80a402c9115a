"""What every model of transformers can do besides computing: loading, saving, attention, embeddings.

[`MsfSerPreTrainedModel`] is the base class of [`MsfSerModel`]. A setting of the whole model is passed to each encoder
that has it.
"""

import contextlib
import os
import stat
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Self

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.utils import CONFIG_NAME, logging

from .attention_msfser import attention_by_encoder, check_attentions, choose_attention, layer_classes
from .configuration_msfser import MsfSerConfig
from .encoders_msfser import load_weights
from .fast_encoders_msfser import quantize_linear_layers
from .fast_products_msfser import check_precision, forget_packed, in_precision
from .fusion_msfser import MsfSerLayerMix, MsfSerMissingInputEmbedding, MsfSerRouting, MsfSerZeroLinear
from .gradients_msfser import freeze, has_adapters, prepare_training
from .intervals_msfser import MsfSerIntervals, set_intervals

logger = logging.get_logger(__name__)

# Lists to which an encoder appends its `hidden_states` and `attentions`, as far as they are asked for.
Record = dict[str, list[torch.Tensor]]

_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


class MsfSerPreTrainedModel(PreTrainedModel):
    """Loading, saving and initial values of [`MsfSerModel`], and what the library asks of every model."""

    config_class = MsfSerConfig
    base_model_prefix = "msfser"
    main_input_name = "input_values"
    input_modalities = ["audio", "text"]  # noqa: RUF012 - the library's own form
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = False
    # Each encoder decides; see `set_attn_implementation`.
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True

    is_8_bit = False  # whether `quantize` was called
    precision = "float32"  # see `set_precision`
    audio_encoder: Any  # a `PreTrainedModel`, as the text encoder
    text_encoder: Any
    intervals: MsfSerIntervals | None

    def __init__(self, config: MsfSerConfig):
        choose_attention(config)
        super().__init__(config)

    def post_init(self) -> None:
        """As in [`PreTrainedModel`], with the layers and the main input of these encoders."""
        super().post_init()
        # The encoders' classes name too few layers (WavLM) or layers that are not there (Whisper's decoder).
        present = {type(module).__name__ for module in self.modules()}
        layers = {name for encoder in self._encoders().values() for name in layer_classes(encoder)}
        self._no_split_modules = (set(self._no_split_modules or ()) & present) | layers
        if not self.config.audio:
            texts = self.config.semantics
            self.main_input_name = f"{'gs' if 'gs' in texts else texts[0]}_input_ids"
        elif self.config.is_mel:
            self.main_input_name = "input_features"

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        # All initial values that differ from the library's are set here: `post_init` overwrites what `__init__` has
        # set, and skips modules of remote code that hold no parameter themselves.
        if isinstance(module, MsfSerZeroLinear):
            init.zeros_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, MsfSerLayerMix):
            init.zeros_(module.scores)
        elif isinstance(module, MsfSerRouting):
            init.zeros_(module.table)
        elif isinstance(module, MsfSerMissingInputEmbedding):
            init.normal_(module.embedding, std=self.config.initializer_range)
        elif isinstance(module, MsfSerIntervals):
            init.zeros_(module.base)
            init.ones_(module.share)
            init.constant_(module.quantiles, torch.inf)
        elif isinstance(module, nn.MultiheadAttention):
            init.normal_(module.in_proj_weight, std=self.config.initializer_range)
            init.zeros_(module.in_proj_bias)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str] | None,
        *args: Any,
        output_loading_info: bool = False,
        precision: str = "float32",
        **kwargs: Any,
    ) -> Any:
        """As in [`PreTrainedModel`]; loading makes every weight trainable, so the frozen ones are frozen again.

        Only safetensors are read, whatever `use_safetensors` says: a pickle could bring code with it. The encoders
        compute in `precision`, see [`set_precision`].

        Raises:
            ValueError: The weights are a pickle, are damaged, or have other shapes than the config asks for (without
                `ignore_mismatched_sizes=True`, which starts such weights anew); the sentence names them. Or there is
                no such precision.
            OSError: There are no weights.
        """
        check_precision(precision)
        kwargs["use_safetensors"] = True
        try:
            model, report = load_weights(super().from_pretrained, pretrained_model_name_or_path, *args, **kwargs)
        except OSError as error:
            folder = Path(pretrained_model_name_or_path or "", kwargs.get("subfolder") or "")
            if pretrained_model_name_or_path and (found := _pickled_weights(folder)):
                raise ValueError(
                    f"{str(folder)!r}: the weights are a pickle ({found}), which could bring code with it and is not "
                    "read: save the model again, as safetensors."
                ) from error
            raise
        if not getattr(model, "_hf_peft_config_loaded", False):  # peft freezes all but its adapters
            model._freeze()
        model.set_precision(precision)
        return (model, report) if output_loading_info else model

    def save_pretrained(self, save_directory: str | os.PathLike[str], *args: Any, **kwargs: Any) -> Any:
        """As in [`PreTrainedModel`], with the code of model and pipeline.

        Raises:
            ValueError: The model has 8-bit layers, or layers of an adapter that peft itself has to save.
        """
        if self.is_8_bit:
            raise ValueError("A model with 8-bit layers cannot be saved: save it before quantize(), or reload it.")
        if has_adapters(self) and not getattr(self, "_hf_peft_config_loaded", False):
            raise ValueError("The model has adapters: save the model that peft made, or merge_and_unload() first.")
        # The pipeline imports this module. The library saves the code of all that is imported here, so the pipeline's.
        from .pipeline_msfser import MsfSerPipeline

        self.config.custom_pipelines = {
            "audio-classification": {
                "impl": f"pipeline_msfser.{MsfSerPipeline.__name__}",
                "pt": ["AutoModelForAudioClassification"],
            }
        }
        # One class serves both auto classes, but the library registers a class for one only.
        auto_map = getattr(self.config, "auto_map", None) or {}
        name = f"modeling_msfser.{type(self).__name__}"
        self.config.auto_map = {**auto_map, "AutoModelForAudioClassification": name}
        saved = super().save_pretrained(save_directory, *args, **kwargs)
        config = Path(save_directory, CONFIG_NAME)
        if config.is_file():
            # safetensors writes files that only their owner can read.
            for weights in Path(save_directory).glob("*.safetensors"):
                weights.chmod(stat.S_IMODE(config.stat().st_mode))
        return saved

    def set_attn_implementation(
        self, attn_implementation: str | dict[str, Any], allow_all_kernels: bool = False
    ) -> None:
        """As in [`PreTrainedModel`]; one name for all is set where an encoder has it, and a log names the others.

        Args:
            attn_implementation: `"eager"`, `"sdpa"`, `"flash_attention_2"`, `"flex_attention"` or another name that
                the library knows; or names by `"audio_config"` and `"text_config"`.
            allow_all_kernels: Whether kernels of any Hub repository are loaded.

        Raises:
            ValueError: The name is unknown, or an encoder that is named in a dictionary does not have it.
        """
        requested: str | dict[str, Any] = attn_implementation
        if isinstance(attn_implementation, str):
            requested = attention_by_encoder(self._encoders(), attn_implementation, self.config.fast_encoders)
        else:
            check_attentions(self._encoders(), attn_implementation)
        super().set_attn_implementation(requested, allow_all_kernels)

    def set_precision(self, precision: str) -> "MsfSerPreTrainedModel":
        """Chooses the precision in which the encoders compute, and returns the model.

        With `"bfloat16"` their matrix products and convolutions are in bfloat16, which is faster on a GPU and on a CPU
        with AVX512-BF16 or AMX; other CPUs stay in float32, with a log. Weights, norms, sums of layers, fusion, heads
        and outputs are in float32, and the model is saved as before. On a CPU, the encoders' rounded weights are kept
        in addition, until the precision is float32 again, the weights are trained, or the model is moved.

        Args:
            precision: `"bfloat16"`, or `"float32"`, with which the encoders compute as their weights are: a model with
                16-bit or 8-bit weights stays as it is.

        Raises:
            ValueError: There is no such precision; or `"bfloat16"` is asked for and the weights are not in float32, or
                the model has 8-bit layers.
        """
        check_precision(precision)
        if precision != "float32" and (self.dtype != torch.float32 or self.is_8_bit):
            found = "8-bit layers" if self.is_8_bit else f"weights in {self.dtype}"
            raise ValueError(
                f"The model has {found}, and precision={precision!r} needs weights in float32: reload it without, or "
                "leave precision out."
            )
        self.precision = precision
        if precision == "float32":
            forget_packed(self.parameters())
        return self

    def _in_precision(self) -> contextlib.AbstractContextManager[Any]:
        """What the encoders run in."""
        return in_precision(self.precision, self.device)

    def _returned(self, tensors: Iterable[torch.Tensor]) -> list[torch.Tensor]:
        """What the encoders return, in float32 whatever they compute in."""
        return [tensor if self.precision == "float32" else tensor.float() for tensor in tensors]

    def get_input_embeddings(self) -> nn.Module:
        """The text encoder's; without texts there are none (`NotImplementedError`), as in a speech encoder."""
        source: Any = self.text_encoder if self.config.semantics else super()
        embeddings: nn.Module = source.get_input_embeddings()
        return embeddings

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replaces the text encoder's."""
        target: Any = self.text_encoder if self.config.semantics else super()
        target.set_input_embeddings(value)

    def _encoders(self) -> dict[str, Any]:
        """The encoders that there are, by `"audio"` and `"text"`."""
        return {
            name: getattr(self, f"{name}_encoder") for name in ("audio", "text") if hasattr(self, f"{name}_encoder")
        }

    def _records(self, hidden_states: bool | None, attentions: bool | None) -> dict[str, Record]:
        """A record for each input, if any is asked for."""
        asked = {
            "hidden_states": self.config.output_hidden_states if hidden_states is None else hidden_states,
            "attentions": self.config.output_attentions if attentions is None else attentions,
        }
        kinds = {kind for kind, is_asked in asked.items() if is_asked}
        records: dict[str, Record] = {}
        for name, encoder in self._encoders().items() if kinds else ():
            possible = kinds
            if "attentions" in kinds and (implementation := encoder.config._attn_implementation) != "eager":
                possible = kinds - {"attentions"}
                logger.warning_once(
                    f"output_attentions: the {name} encoder's {implementation!r} attention does not compute attention "
                    "weights, and none are returned: call model.set_attn_implementation('eager')."
                )
            for part in ["audio"] if name == "audio" else self.config.semantics:
                records[part] = {kind: [] for kind in possible}
        return records

    def _freeze(self) -> None:
        freeze(self.config, **{f"{name}_encoder": encoder for name, encoder in self._encoders().items()})
        if self.intervals is not None:
            self.intervals.requires_grad_(False)

    def quantize(self) -> Self:
        """Replaces the encoders' linear layers by 8-bit ones, in place, for faster inference on a CPU.

        Fusion and heads stay in float32. The same model is returned; it can neither be trained nor saved any more.

        Raises:
            ValueError: The model is not on a CPU, its weights or its precision are not float32, or it has adapters.
        """
        if self.device.type != "cpu" or self.dtype != torch.float32:
            raise ValueError(
                f"The model is {self.dtype} on {self.device}, and 8-bit layers are made from float32 on a CPU: use "
                "model.float().cpu().quantize()."
            )
        if self.precision != "float32":
            raise ValueError(
                f"The encoders compute in {self.precision}, and 8-bit layers are made from float32: use "
                'model.set_precision("float32").quantize().'
            )
        if has_adapters(self):
            raise ValueError("The model has adapters, which 8-bit layers ignore: merge_and_unload() them first.")
        for name in ("audio_encoder", "text_encoder"):
            if hasattr(self, name) and not self.is_8_bit:
                quantize_linear_layers(getattr(self, name))
        self.is_8_bit = True
        return self.eval()

    def uncalibrate(self) -> Self:
        """Removes the intervals and `config.scale`, in place: they are those of numbers that training would change.

        The same model is returned, with the same numbers.
        """
        set_intervals(self, None)
        self.config.scale = None
        return self

    def train(self, mode: bool = True) -> "MsfSerPreTrainedModel":
        """As `nn.Module.train`, but a frozen encoder stays in evaluation mode: no dropout, no SpecAugment.

        An encoder is frozen if none of its parameters wants a gradient, whatever the config says.

        Raises:
            ValueError: The model has 8-bit layers.
        """
        if mode and self.is_8_bit:
            raise ValueError("A model with 8-bit layers cannot be trained: reload it.")
        super().train(mode)
        for encoder in self._encoders().values():
            prepare_training(encoder)
            if mode:  # products with these weights are recorded from now on
                forget_packed(parameter for parameter in encoder.parameters() if parameter.requires_grad)
        return self

    def _apply(self, *args: Any, **kwargs: Any) -> Any:
        moved = super()._apply(*args, **kwargs)
        forget_packed(self.parameters())
        return moved

    def _set_gradient_checkpointing(
        self,
        enable: bool = True,
        gradient_checkpointing_func: Callable[..., Any] = checkpoint,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        """What all ways to switch checkpointing call.

        Raises:
            ValueError: Its reentrant form is asked for, with WavLM.
        """
        audio = self._encoders().get("audio")
        is_reentrant = getattr(gradient_checkpointing_func, "keywords", {}).get("use_reentrant")
        if enable and is_reentrant and audio is not None and audio.config.model_type == "wavlm":
            raise ValueError(
                "use_reentrant=True: with the position bias that WavLM's layers share, the backward pass would never "
                "end: use use_reentrant=False, the default."
            )
        super()._set_gradient_checkpointing(enable, gradient_checkpointing_func, *args, **kwargs)


def _pickled_weights(folder: Path) -> str | None:
    """The name of a file of weights that is a pickle."""
    return min((file.name for kind in _PICKLES for file in folder.glob(kind)), default=None)
