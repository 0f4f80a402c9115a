"""The text encoder of the starters: the published one with a low-rank update that `fit_text_encoder.py` fitted.

The weight `W` of a linear layer is replaced by `W + U D`, with `U` `(outputs, rank)` and `D` `(rank, inputs)` (LoRA,
arXiv 2106.09685). The update is a small file of the package, the same for all starters.
"""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

TEXT_WEIGHTS = Path(__file__).parent / "text_encoder.safetensors"
_UP, _DOWN = ".up", ".down"


def adapt_text_encoder(encoder: nn.Module, file: Path = TEXT_WEIGHTS) -> None:
    """Adds the update to the weights of the published text encoder, in place.

    Args:
        encoder: The text encoder.
        file: The update, `LAYER.up` and `LAYER.down` for each layer.

    Raises:
        OSError: The file is missing.
        ValueError: It is that of another encoder.
    """
    if not file.is_file():
        raise OSError(f"{file} is missing: install the package again, or run msfser.starter.fit_text_encoder.")
    update = load_file(file)
    weights = dict(encoder.named_parameters())
    with torch.no_grad():
        for layer in (name.removesuffix(_UP) for name in update if name.endswith(_UP)):
            weight, change = weights.get(f"{layer}.weight"), update[layer + _UP] @ update[layer + _DOWN]
            if weight is None or weight.shape != change.shape:
                raise ValueError(f"{file} does not fit the text encoder: install the package again.")
            weight.add_(change)


def write_update(published: nn.Module, trained: nn.Module, rank: int, file: Path = TEXT_WEIGHTS) -> None:
    """Writes how the weights of a trained encoder differ from those of the published one.

    Args:
        published: As the Hub has it.
        trained: Of the same layers, changed by updates of at most this rank.
        rank: Of the updates.
        file: Where they are written.

    Raises:
        ValueError: A weight was changed by more than such an update.
    """
    before, update = dict(published.named_parameters()), {}
    for name, weight in trained.named_parameters():
        change = (weight.detach().cpu() - before[name].detach().cpu()).double()
        if not change.any():
            continue
        if change.dim() != 2:
            raise ValueError(f"{name} is no matrix: only matrices of linear layers may be trained.")
        up, sizes, down = torch.linalg.svd(change, full_matrices=False)
        if sizes[rank:].norm() > 1e-3 * sizes.norm():
            raise ValueError(f"the change of {name} has a rank above {rank}: train with --lora_rank {rank}.")
        layer, roots = name.removesuffix(".weight"), sizes[:rank].sqrt()
        update[layer + _UP] = (up[:, :rank] * roots).float().contiguous()
        update[layer + _DOWN] = (roots[:, None] * down[:rank]).float().contiguous()
    save_file(update, file, metadata={"format": "pt"})
    file.chmod(0o644)
