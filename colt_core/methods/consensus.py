"""Consensus, our own variant of COLT: one score for every weight over the copies, and one cut, instead of an AND."""

from collections.abc import Iterator
from typing import Any, Literal, get_args

import torch
from torch import nn

from ..data import Images
from ..masks import Mask
from ..settings import Settings
from ..tickets import Round
from ..training import Recipe
from .checks import check_several
from .cycles import Networks, begin, by_scores
from .method import Look, Method

Pooling = Literal["smallest", "geometric", "mean"]


def consensus(
    network: nn.Module,
    parts: list[Images],
    recipe: Recipe,
    rate: float = 0.15,
    target: float = 0.991,
    *,
    pooling: Pooling = "geometric",
    densities: list[float] | None = None,
    **options: Any,
) -> Iterator[Round]:
    """Find tickets as COLT does, but prune by what the copies think of a weight together.

    Every copy's magnitudes are divided by their Euclidean norm over the weights that are left; the copies' values of a
    weight are pooled into one score; the lowest fraction `rate` of all scores goes. All partitions have a say, and
    unlike COLT's the rate of a cycle is a choice.

    Parameters
    ----------
    network, parts, recipe, target, densities, **options
        As for `colt`.
    rate
        The fraction of the remaining weights that goes each cycle.
    pooling
        "smallest": a weight is worth what the copy that needs it least gives it (AND-like); "geometric" or "mean".

    Yields
    ------
    Round
        Round 0 is dense. `partition_masks` are what each copy alone would have kept at the cycle's rate.

    Raises
    ------
    ValueError
        At the call, before any training.
    """
    check_several(parts, "consensus")
    if pooling not in get_args(Pooling):
        raise ValueError(f"unknown pooling {pooling!r}; allowed: smallest, geometric, mean")
    search = begin(network, parts, recipe, rate, target, densities, options)
    return by_scores(search, lambda copies, mask: pooled(copies, mask, pooling))


@torch.no_grad()
def pooled(copies: Networks, mask: Mask, pooling: Pooling = "geometric") -> dict[str, torch.Tensor]:
    """Return a score for each weight of `mask`, float64: the copies' magnitudes, each over its norm, pooled."""
    shares = []
    for copy in copies:
        weights = {name: copy.get_parameter(name).detach().cpu().double().abs() * mask[name].cpu() for name in mask}
        norm = sum(float(w.square().sum()) for w in weights.values()) ** 0.5
        shares.append({name: w / norm if norm else w for name, w in weights.items()})
    pools = {
        "smallest": lambda values: values.amin(0),
        "geometric": lambda values: values.prod(0) ** (1 / len(values)),
        "mean": lambda values: values.mean(0),
    }
    return {name: pools[pooling](torch.stack([share[name] for share in shares])) for name in mask}


class ConsensusOptions(Settings):
    """How the copies' magnitudes become one score; None: by the geometric mean."""

    pooling: Pooling | None = None


CONSENSUS = Method(
    name="consensus",
    about="one score for every weight over the copies, and one cut, at COLT's densities",
    law=r"m_{t+1} = \operatorname{top}(s;\, m_t) \text{ of density } d_{t+1}, \qquad s = \Big(\prod_{i=1}^{P} "
    r"\frac{|w_i|}{\lVert w_i \rVert}\Big)^{1/P}",
    find=lambda s: s.over_partitions(consensus, pooling=s.own.pooling or "geometric", densities=s.trajectory()),
    look=Look("consensus", "#882255", "p"),
    follows="colt",
    takes="densities",
    trains="copies",
    options=ConsensusOptions,
    contender=True,
)
