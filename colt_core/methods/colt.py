"""COLT: train a copy on each partition, prune each, keep what every copy kept, rewind, repeat (arXiv 2212.12770)."""

from collections.abc import Iterator
from typing import Any

from torch import nn

from .. import masks, models
from ..data import Images
from ..masks import Mask
from ..tickets import Round
from ..training import Recipe
from .cycles import Options, check_inputs, cycles, magnitude_masks, share_of, stopping_rule


def colt(
    network: nn.Module,
    parts: list[Images],
    recipe: Recipe,
    rate: float = 0.15,
    target: float = 0.991,
    *,
    combine: str | int = "and",
    densities: list[float] | None = None,
    **options: Any,
) -> Iterator[Round]:
    """Find Cyclic Overlapping Lottery Tickets.

    Parameters
    ----------
    network
        The initialised network; it is not changed.
    parts
        P partitions of the training images (`partition`), two or more.
    recipe
        How each copy is trained in each cycle.
    rate
        The fraction of its remaining weights that each copy loses a cycle. What is left of the overlap is emergent: the
        keep factor of a cycle lies between 1 - P rate and 1 - rate.
    target
        The prunable-only sparsity to stop at; the last round is the first at or beyond it.
    combine
        "and": COLT's overlap. "or": the union. k: what at least k of the copies keep.
    densities
        Follow this density trajectory, a value a round, instead of `rate` and `target`: each copy's rate is found by
        bisection so that the combined mask has that density (how union and vote are compared with COLT).
    **options
        See `Options`: scope, rewind, whole, validation, seed, device, threads, stem, head, resume, provenance.

    Yields
    ------
    Round
        Round 0 is dense; round r has been pruned r times.

    Raises
    ------
    ValueError
        At the call, before any training: for bad fractions, an unreachable target, fewer than two partitions.
    """
    given = Options(**options)
    if len(parts) < 2:
        raise ValueError(f"COLT needs at least two partitions, not {len(parts)}")
    check_inputs(network, parts, recipe, given)
    if combine not in ("and", "or", *range(1, len(parts) + 1)):
        raise ValueError(f"unknown way to combine masks {combine!r}; allowed: and, or, or a number up to {len(parts)}")
    names = models.prunable(network, given.stem, given.head)
    dense = masks.dense(dict(network.named_parameters()), names)
    done = stopping_rule(densities, rate, target, dense, given.scope, share_of(dense, network, given, parts))

    def choose(copies: list[nn.Module], mask: Mask, number: int) -> tuple[list[Mask], Mask]:
        if densities is None:
            kept = magnitude_masks(copies, mask, rate, given.scope)
            return kept, masks.combine(kept, combine)
        return _to_density(copies, mask, densities[number - 1], combine, given.scope)

    return cycles(network, parts, recipe, choose, done, given)


def _to_density(
    copies: list[nn.Module], mask: Mask, density: float, combine: str | int, scope: str
) -> tuple[list[Mask], Mask]:
    """Bisect the number of weights each copy loses until the combined mask is as near to `density` as it can be."""
    alive, wanted = masks.count(mask), round(density * masks.size(mask))

    def prune(lost: int) -> tuple[list[Mask], Mask]:
        kept = magnitude_masks(copies, mask, lost / alive, scope)
        return kept, masks.combine(kept, combine)

    low, high = 0, alive  # losing `low` leaves too many, losing `high` at most what is wanted
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if masks.count(prune(middle)[1]) > wanted else (low, middle)
    return min((prune(low), prune(high)), key=lambda found: abs(masks.count(found[1]) - wanted))
