"""COLT: train a copy on each partition, prune each, keep what every copy kept, rewind, repeat (arXiv 2212.12770)."""

from collections.abc import Iterator
from typing import Any

from torch import nn

from .. import masks
from ..data import Images
from ..masks import Mask
from ..tickets import Round
from ..training import Recipe
from .checks import check_several
from .cycles import Networks, begin, cycles, magnitude_masks
from .method import Look, Method


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
        See `Options` and `Where`: scope, rewind, whole, validation, objective, seed, device, threads, stem, head, ...

    Yields
    ------
    Round
        Round 0 is dense; round r has been pruned r times.

    Raises
    ------
    ValueError
        At the call, before any training: for bad fractions, an unreachable target, fewer than two partitions.
    """
    check_several(parts, "COLT")
    search = begin(network, parts, recipe, rate, target, densities, options)
    scope = search.options.scope
    if combine not in ("and", "or", *range(1, len(parts) + 1)):
        raise ValueError(f"unknown way to combine masks {combine!r}; allowed: and, or, or a number up to {len(parts)}")

    def choose(copies: Networks, mask: Mask, number: int) -> tuple[list[Mask], Mask]:
        if densities is not None:
            return _to_density(copies, mask, densities[number - 1], combine, scope)
        kept = magnitude_masks(copies, mask, rate, scope)  # each copy loses its smallest weights ...
        return kept, masks.combine(kept, combine)  # ... and what every copy kept goes on

    return cycles(search, choose)


def _to_density(
    copies: Networks, mask: Mask, density: float, combine: str | int, scope: str
) -> tuple[list[Mask], Mask]:
    """Bisect the number of weights each copy loses until the combined mask is as near to `density` as it can be."""
    alive, wanted = masks.count(mask), round(density * masks.size(mask))

    def prune(lost: int) -> tuple[list[Mask], Mask]:
        kept = magnitude_masks(copies, mask, lost / alive, scope)
        return kept, masks.combine(kept, combine)

    # The combined mask shrinks with every weight that each copy loses, so the count can be halved in on.
    low, high = 0, alive  # losing `low` leaves too many, losing `high` at most what is wanted
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if masks.count(prune(middle)[1]) > wanted else (low, middle)
    return min((prune(low), prune(high)), key=lambda found: abs(masks.count(found[1]) - wanted))


COLT = Method(
    name="colt",
    about="train a copy on each partition, prune each, keep what every copy kept, rewind, repeat",
    find=lambda s: s.over_partitions(colt),
    look=Look("COLT", "#D55E00", "o"),
    trains="copies",
    contender=True,
    control=True,
)
UNION = Method(
    name="union",
    about="as COLT, but keep what any copy kept, at COLT's densities",
    find=lambda s: s.over_partitions(colt, combine="or", densities=s.trajectory()),
    look=Look("union", "#009E73", "X"),
    follows="colt",
    takes="densities",
    trains="copies",
    control=True,
)
VOTE = Method(
    name="vote",
    about="as COLT, but keep what more than half of the copies kept, at COLT's densities",
    find=lambda s: s.over_partitions(colt, combine=s.parts // 2 + 1, densities=s.trajectory()),
    look=Look("vote", "#E69F00", "^"),
    follows="colt",
    takes="densities",
    trains="copies",
)
