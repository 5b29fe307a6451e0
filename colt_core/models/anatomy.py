"""What of a network is its head, what is prunable, what a pass costs; and exact head surgery."""

import json
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn

from ..seeding import drawing
from .build import architecture
from .zoo import NETWORKS


@dataclass(frozen=True)
class Anatomy:
    """The parts of a network that pruning must know, as they were declared, else as they are guessed.

    Attributes
    ----------
    head
        The module name of the classifier, a linear layer that is made anew for other classes; None: there is none.
    prunable
        The names of the parameters that are pruned, in the network's order, the head's left out.
    """

    head: str | None
    prunable: tuple[str, ...]


def anatomy_of(network: nn.Module) -> Anatomy:
    """Return a network's anatomy.

    It is what the network's attribute `anatomy` says, a mapping with "head" (a module's name or None) and "prunable"
    (names or patterns of parameters), set by the network's own class or by `build(..., head=, prunable=)`. What is not
    said is guessed: the head is the last linear layer; prunable are all convolution weights (first, depthwise and 1x1
    shortcut convolutions included), and where a network has hidden linear layers and at most two convolutions (fc1,
    lenet5) those linear layers too, as the lottery ticket papers do.

    Raises
    ------
    ValueError
        If a declared head is no linear layer, or a pattern fits no parameter with two dimensions or more.
    """
    said: Mapping[str, Any] = getattr(network, "anatomy", {})
    convolutions = [f"{n}.weight" for n, m in network.named_modules() if isinstance(m, nn.Conv2d)]
    linear = [n for n, m in network.named_modules() if isinstance(m, nn.Linear)]
    head = said["head"] if "head" in said else next(reversed(linear), None)
    if head is not None and head not in linear:
        raise ValueError(
            f"the head {head!r} is no linear layer of the network; there are: {', '.join(linear) or 'none'}"
        )
    if "prunable" in said:
        return Anatomy(head, _matching(network, said["prunable"]))
    hidden = [f"{name}.weight" for name in linear if name != head]
    return Anatomy(head, tuple(convolutions + (hidden if len(convolutions) <= 2 else [])))


def _matching(network: nn.Module, patterns: Any) -> tuple[str, ...]:
    """Return the parameters that any of the patterns fits, in the network's order."""
    names = [name for name, weight in network.named_parameters() if weight.ndim > 1]
    patterns = [patterns] if isinstance(patterns, str) else patterns
    if not (isinstance(patterns, list | tuple) and all(isinstance(pattern, str) for pattern in patterns)):
        raise ValueError(f"prunable must be names or patterns of parameters, not {patterns!r}")
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ValueError(f"prunable {pattern!r} fits no weight of the network; there are: {', '.join(names)}")
    return tuple(name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns))


def prunable(network: nn.Module, stem: bool = True, head: bool = False) -> list[str]:
    """Name the parameters that are pruned, in the network's order: see `anatomy_of`.

    Parameters
    ----------
    stem
        False leaves the first layer out.
    head
        True takes the classifier in (a ticket with a pruned head keeps that part only for the same classes).

    Raises
    ------
    ValueError
        If the head is asked for and there is none.
    """
    parts = anatomy_of(network)
    if head and parts.head is None:
        raise ValueError(f"{architecture(network)['name']} has no head that could be pruned")
    return list(parts.prunable)[0 if stem else 1 :] + ([f"{parts.head}.weight"] if head else [])


def head_name(network: nn.Module) -> str | None:
    """Return the module name of the classifier; None where there is none."""
    return anatomy_of(network).head


def with_head(network: nn.Module, classes: int, seed: int = 0) -> nn.Module:
    """Return a copy with a fresh head of `classes` outputs; every other byte is unchanged.

    The head depends on the seed and the number of classes alone, so that all tickets of one comparison share it.

    Raises
    ------
    ValueError
        If the network has no head.
    """
    return replace_head(deepcopy(network), classes, seed)


def replace_head(copy: nn.Module, classes: int, seed: int = 0) -> nn.Module:
    """Do what `with_head` does to the network itself, and return it."""
    name = head_name(copy)
    if name is None:
        raise ValueError(f"{architecture(copy)['name']} has no head that could be made anew for {classes} classes")
    old = copy.get_submodule(name)
    assert isinstance(old, nn.Linear)
    with drawing(seed, "head", classes):
        new = nn.Linear(old.in_features, classes, bias=old.bias is not None).to(old.weight.device)
    # Drawn on the CPU, from the seed and the classes alone: two tickets that are compared get the very same head.
    parent, _, leaf = name.rpartition(".")
    setattr(copy.get_submodule(parent), leaf, new)
    vars(copy)["architecture"] = architecture(copy) | {"classes": classes}
    return copy


@torch.no_grad()
def forward_flops(network: nn.Module, shape: Sequence[int] = (3, 32, 32)) -> int:
    """Return the floating-point operations of one image's dense forward pass; `shape`: channels, height, width.

    A multiply-add is 2. Of a network of convolutions and linear layers they are counted here, and are what PyTorch's
    counter counts, which imports its compiler: two seconds in every process. Attention is left to that.
    """
    about = json.dumps(architecture(network), sort_keys=True), str(network), tuple(shape)
    if (known := _FLOPS.get(about)) is None:
        probe, images = deepcopy(network).cpu().eval(), torch.zeros(1, *shape)
        ours = architecture(network)["name"] in NETWORKS
        known = _FLOPS[about] = (_layers_flops if ours else _all_flops)(probe, images)
    return known


_FLOPS: dict[tuple[str, str, tuple[int, ...]], int] = {}  # counted once for each network as it prints itself


def _layers_flops(probe: nn.Module, images: torch.Tensor) -> int:
    """Count the operations of convolutions and linear layers."""
    counted = 0

    def count(module: nn.Module, _: Any, output: torch.Tensor) -> None:
        nonlocal counted
        counted += 2 * output.numel() * module.get_parameter("weight")[0].numel()

    for module in probe.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.register_forward_hook(count)
    probe(images)
    return counted


def _all_flops(probe: nn.Module, images: torch.Tensor) -> int:
    """Count what PyTorch's own counter knows: attention too."""
    from torch.utils.flop_counter import FlopCounterMode

    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # one call that the counter does not know
    try:
        with FlopCounterMode(display=False) as counter:
            probe(images)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return int(counter.get_total_flops())
