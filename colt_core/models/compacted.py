"""Compact networks by name: "compact:conv3" is a conv3 without some of its channels; see `tickets.compact`."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from ..settings import check_whole
from .anatomy import anatomy_of
from .shrinking import shrunk

PREFIX = "compact:"
MULTIPLE = "multiple_of"  # to which the channels are filled up, among the arguments of the compact one
WHOLE_CLASSES_AS = "whole_classes_as"  # `classes_as` of the whole network, among the arguments of the compact one
Make = Callable[..., nn.Module]


def packed(alive: torch.Tensor) -> str:
    """Return which rows of a layer are there as text: hexadecimal digits, the first row's bit the highest."""
    bits = "".join("1" if one else "0" for one in alive.tolist())
    return f"{len(bits)}:{int(bits, 2):x}"


def unpacked(text: Any, layer: str) -> torch.Tensor:
    """Return the rows that `packed` wrote; raise a `ValueError` for other text."""
    try:
        count, _, digits = str(text).partition(":")
        bits = f"{int(digits, 16):0{int(count)}b}"
    except ValueError:
        bits, count = "", "0"
    if len(bits) != int(count) or not bits:
        raise ValueError(f"the rows of {layer} must be as a compact ticket says them, not {text!r}")
    return torch.tensor([bit == "1" for bit in bits])


def maker(make: Callable[[int, str | None, Mapping[str, Any]], nn.Module]) -> Make:
    """Return what builds compact networks, from what builds the whole one.

    `make` takes the number of classes, the keyword under which the factory takes it, and arguments.
    """

    def compacted(
        num_classes: int,
        rows: Mapping[str, str],
        whole_classes_as: str | None = None,
        multiple_of: int = 1,
        **arguments: Any,
    ) -> nn.Module:
        check_whole(MULTIPLE, multiple_of, 1)
        whole = make(num_classes, whole_classes_as, arguments)
        layers = dict(whole.named_modules())
        alive = {name: unpacked(text, name) for name, text in rows.items()}
        for name, kept in alive.items():
            count = getattr(layers.get(name), "weight", torch.empty(0)).shape[0]
            if count != len(kept):
                raise ValueError(f"layer {name} has {count} rows, not {len(kept)}")
        return with_anatomy(shrunk(whole, alive, multiple_of), whole)

    return compacted


def with_anatomy(small: nn.Module, whole: nn.Module) -> nn.Module:
    """Declare a network's anatomy on its compact form, and return that."""
    parts = anatomy_of(whole)
    vars(small)["anatomy"] = {"head": parts.head, "prunable": list(parts.prunable)}
    return small
