"""COLT: train a copy on each partition, prune each, keep what every copy kept, rewind, repeat (arXiv 2212.12770)."""

from collections.abc import Iterator
from typing import Any

from torch import nn

from ..data import Images
from ..tickets import Round
from ..training import Recipe
from .checks import check_several
from .choices import by_overlap
from .cycles import begin, cycles
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
    return cycles(search, by_overlap(search, combine))


COLT = Method(
    name="colt",
    about="train a copy on each partition, prune each, keep what every copy kept, rewind, repeat",
    law=r"m_{t+1} = \bigwedge_{i=1}^{P} \operatorname{top}_{1-q}(|w_i|;\, m_t), \qquad w_i = "
    r"\operatorname{train}(m_t \theta_0;\, D_i)",
    papers=("2212.12770",),
    find=lambda s: s.over_partitions(colt),
    look=Look("COLT", "#D55E00", "o"),
    trains="copies",
    contender=True,
    control=True,
)
UNION = Method(
    name="union",
    about="as COLT, but keep what any copy kept, at COLT's densities",
    law=r"m_{t+1} = \bigvee_{i=1}^{P} \operatorname{top}_{1-q'}(|w_i|;\, m_t), \qquad q' \text{ so that its "
    r"density is } d_{t+1}",
    papers=("2104.14753",),
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
    law=r"m_{t+1} = \Big[\sum_{i=1}^{P} \operatorname{top}_{1-q'}(|w_i|;\, m_t) > P/2\Big], \qquad q' \text{ "
    r"so that its density is } d_{t+1}",
    find=lambda s: s.over_partitions(colt, combine=s.parts // 2 + 1, densities=s.trajectory()),
    look=Look("vote", "#E69F00", "^"),
    follows="colt",
    takes="densities",
    trains="copies",
)
