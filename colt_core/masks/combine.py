"""Masks made from masks: the overlap, the union, what k of N keep, what one keeps and another does not."""

from functools import reduce

import torch

from .mask import Mask, check_boolean


def overlap(*masks: Mask) -> Mask:
    """Keep the weights that every mask keeps (AND): COLT's step."""
    return vote(*masks, least=len(masks))


def union(*masks: Mask) -> Mask:
    """Keep the weights that any mask keeps (OR)."""
    return vote(*masks, least=1)


def vote(*masks: Mask, least: int) -> Mask:
    """Keep the weights that at least `least` of the masks keep (k of N; AND and OR are its two ends)."""
    if not masks:
        raise ValueError("at least one mask is needed")
    if not 1 <= least <= len(masks):
        raise ValueError(f"least must lie in 1..{len(masks)}, the number of masks, not {least}")
    same_network(*masks)
    if least in (1, len(masks)):
        join = torch.logical_or if least == 1 else torch.logical_and
        return {name: reduce(join, (m[name] for m in masks)).clone() for name in masks[0]}
    return {name: torch.stack([m[name] for m in masks]).sum(0) >= least for name in masks[0]}


def combine(masks: list[Mask], how: str | int) -> Mask:
    """Combine the copies' masks: "and" (overlap), "or" (union), or a number k of copies that must agree."""
    least = {"and": len(masks), "or": 1}.get(how, how) if isinstance(how, str) else how
    if not isinstance(least, int):
        raise ValueError(f"unknown way to combine masks {how!r}; allowed: and, or, or a number of copies")
    return vote(*masks, least=least)


def difference(a: Mask, b: Mask) -> Mask:
    """Keep what `a` keeps and `b` does not: the weights that only a's partition wanted (its specialists)."""
    same_network(a, b)
    return {name: a[name] & ~b[name] for name in a}


def same_network(*masks: Mask) -> None:
    """Raise one clear `ValueError` unless masks hold booleans and have the same names, shapes and devices.

    The order of the names does not matter: masks are read by name.
    """
    if not masks:
        raise ValueError("at least one mask is needed")
    for other in masks:
        for name in masks[0].keys() ^ other.keys():
            raise ValueError(f"the masks belong to different networks: one alone has {name!r}")
        for name, kept in other.items():
            _check_layer(name, masks[0][name], kept)


def _check_layer(name: str, a: torch.Tensor, b: torch.Tensor) -> None:
    """Refuse two tensors of one name that torch would broadcast, convert or not take."""
    if a.shape != b.shape:
        shapes = f"{tuple(a.shape)} and {tuple(b.shape)}"
        raise ValueError(f"the masks belong to different networks: {name!r} has shapes {shapes}")
    if a.device != b.device:
        raise ValueError(f"the masks lie on different devices: {name!r} on {a.device} and {b.device}")
    check_boolean(name, b)
