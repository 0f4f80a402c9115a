"""LoRA adapters in the encoders of a run (`lora_rank`), by peft; the saved model has them merged into its weights."""

from typing import TYPE_CHECKING, Any

from ..modeling_msfser import MsfSerModel

if TYPE_CHECKING:
    from peft import PeftModel

# The attention projections of the speech encoders, and of BERT and RoBERTa.
_TARGETS = ("q_proj", "v_proj", "query", "value")


def with_adapters(model: MsfSerModel, rank: int) -> "PeftModel":
    """The model with adapters that are trained in place of the encoders; all other parts are trained in full.

    Args:
        model: It is changed in place.
        rank: Of the adapters, whose scale is 2.
    """
    from peft import LoraConfig, get_peft_model

    heads = [name for name, part in model.named_children() if not name.endswith("_encoder") and [*part.parameters()]]
    lora: Any = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=[*_TARGETS], modules_to_save=heads)
    return get_peft_model(model, lora)  # type: ignore[return-value]


def merged(model: Any) -> Any:
    """The model without adapters, whose predictions differ from those with them by rounding alone."""
    return model.merge_and_unload() if hasattr(model, "merge_and_unload") else model
