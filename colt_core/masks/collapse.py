"""Layer collapse: what a mask has cut off."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import nn

from ..models import transposed
from .mask import Mask, check, layer_row, outputs_first


@dataclass(frozen=True)
class Collapse:
    """What a mask has cut: layers without a weight, channels without one, and whether input still reaches output."""

    empty_layers: list[str]
    dead_channels: int
    connected: bool


NORMALISED_BY_IMAGE = (nn.LayerNorm, nn.GroupNorm, nn.InstanceNorm2d, nn.LocalResponseNorm)


def neutral(network: nn.Module) -> nn.Module:
    """Let what normalises image by image pass its input on (of ones it would make zeros); return the network."""
    for module in network.modules():
        if isinstance(module, NORMALISED_BY_IMAGE):
            module.register_forward_hook(lambda _, given, __: given[0])
    return network


def collapse(mask: Mask, network: nn.Module, shape: Sequence[int] = (3, 32, 32)) -> Collapse:
    """Report layer collapse under a mask; `shape`: channels, height and width of an image.

    Every weight is replaced by its mask, the normalisation is neutral and each layer's output is scaled to a maximum of
    one, and sigmoids let their input pass, so that the output to an image of ones is positive exactly where a path of
    kept weights is left (SynFlow's argument, arXiv 2006.05467).
    """

    probe = neutral(deepcopy(network).cpu().eval())
    check(mask, dict(probe.named_parameters()))
    with torch.no_grad():
        for name, tensor in probe.state_dict(keep_vars=True).items():
            if tensor.ndim > 1:
                tensor.copy_(mask[name] if name in mask else torch.ones_like(tensor))
            elif tensor.is_floating_point():
                tensor.fill_(1.0 if name.endswith(("weight", "running_var")) else 0.0)
        for module in probe.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
                module.register_forward_hook(lambda _, __, out: out / out.max().clamp(min=1e-30))
            elif isinstance(module, nn.Sigmoid):  # of nothing it would make a half
                module.register_forward_hook(lambda _, given, __: given[0])
        output = probe(torch.ones(1, *shape))
    if not isinstance(output, torch.Tensor):
        raise ValueError(
            f"whether anything passes is asked of one tensor, and this network gives a {type(output).__name__}"
        )
    table = [layer_row(name, kept) for name, kept in outputs_first(mask, transposed(network)).items()]
    return Collapse(
        empty_layers=[row["layer"] for row in table if row["kept"] == 0],
        dead_channels=sum(row["dead_out"] for row in table),
        connected=bool((output > 0).any()),
    )
