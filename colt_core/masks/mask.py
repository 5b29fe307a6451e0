"""What a mask is, a plain `dict[str, torch.Tensor]` of bool tensors by parameter name, and how much it keeps."""

from collections.abc import Collection, Mapping
from typing import Any

import torch

from ..settings import meant, shown

Mask = dict[str, torch.Tensor]

Weights = Mapping[str, torch.Tensor]


def dense(weights: Weights, names: list[str]) -> Mask:
    """Return the mask that keeps every weight of the named parameters; a `ValueError` for one that is not there."""
    if missing := [name for name in names if name not in weights]:
        allowed = f"{', '.join(weights)}{meant(missing[0], weights)}"
        raise ValueError(f"there is no parameter {missing[0]!r}; allowed: {allowed}")
    return {name: torch.ones_like(weights[name], dtype=torch.bool) for name in names}


def check(mask: Weights, weights: Weights, what: str = "the network") -> None:
    """Raise one clear `ValueError` unless every tensor of `mask` is boolean and fits a parameter of `weights`."""
    if not isinstance(mask, Mapping):
        raise ValueError(f"a mask holds a boolean tensor for each parameter's name, not {shown(mask)}")
    for name, kept in mask.items():
        if name not in weights:
            raise ValueError(f"the mask is for another network: {what} has no parameter {name!r}")
        check_boolean(name, kept)
        if kept.shape != weights[name].shape:
            shapes = f"{tuple(kept.shape)} in the mask, {tuple(weights[name].shape)} in {what}"
            raise ValueError(f"the mask is for another network: {name!r} has shape {shapes}")


def check_boolean(name: str, kept: torch.Tensor) -> None:
    """Raise a `ValueError` unless a mask's tensor is boolean: of other types `&` and sums mean something else."""
    if not isinstance(kept, torch.Tensor):
        raise ValueError(f"a mask holds boolean tensors, but {name!r} is {shown(kept)}")
    if kept.dtype != torch.bool:
        raise ValueError(f"a mask holds booleans, but {name!r} is {kept.dtype}")


def count(mask: Mask) -> int:
    """Return the number of weights kept."""
    return sum(int(kept.count_nonzero()) for kept in mask.values())


def size(mask: Mask) -> int:
    """Return the number of weights that the mask covers, kept or not."""
    return sum(kept.numel() for kept in mask.values())


def density(mask: Mask) -> float:
    """Return kept / prunable, in [0, 1]; sparsity is one minus it."""
    return count(mask) / size(mask)


def density_all(mask: Mask, weights: Weights) -> float:
    """Return the share kept of *every* weight: prunable, head and normalisation weights (biases are not counted).

    The official code's sparsity is one minus this, which is why its conv3 with 50 classes cannot pass 96.55 %.
    """
    total = sum(w.numel() for name, w in weights.items() if name.endswith("weight"))
    return (total - size(mask) + count(mask)) / total


def flatten(mask: Mask) -> torch.Tensor:
    """Return the mask as one flat bool tensor, layers in the mask's order."""
    return torch.cat([kept.flatten() for kept in mask.values()])


@torch.no_grad()
def apply(mask: Mask, network: torch.nn.Module) -> None:
    """Set every masked weight of the network to exactly zero, in place."""
    parameters = dict(network.named_parameters())
    check(mask, parameters)
    for name, kept in mask.items():
        parameters[name].mul_(kept.to(parameters[name]))


def outputs_first(mask: Mask, transposed: Collection[str]) -> Mask:
    """Return the mask with every layer's output channels as its first dimension, its input channels as the second.

    So they are, but for transposed convolutions, whose weight is [in, out, ...]: `models.transposed` names them.
    """
    return {name: kept.transpose(0, 1) if name in transposed else kept for name, kept in mask.items()}


def layer_row(name: str, kept: torch.Tensor) -> dict[str, Any]:
    """Return how much of one layer is kept, and its dead channels (see `by_layer`)."""
    return {
        "layer": name.removesuffix(".weight"),
        "weights": kept.numel(),
        "kept": int(kept.count_nonzero()),
        "density": float(kept.cpu().double().mean()),
        "dead_out": int((~kept.flatten(1).any(1)).sum()),
        "dead_in": int((~kept.transpose(0, 1).flatten(1).any(1)).sum()),
    }
