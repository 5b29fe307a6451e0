"""Bound, a variant of COLT: a weight is worth what all copies agree on, the lower confidence bound of its size."""

from collections.abc import Iterator
from typing import Any, Literal, get_args

import torch
from pydantic import Field
from torch import nn

from ..data import Images
from ..files import Tensors
from ..masks import Mask
from ..settings import Number, Settings
from ..tickets import Round
from ..training import Recipe
from .checks import check_several
from .cycles import Networks, begin, by_scores
from .method import Look, Method

Of = Literal["growth", "magnitude", "signed"]


def bound(
    network: nn.Module,
    parts: list[Images],
    recipe: Recipe,
    rate: float = 0.15,
    target: float = 0.991,
    *,
    of: Of = "growth",
    spread: float = 1.0,
    densities: list[float] | None = None,
    **options: Any,
) -> Iterator[Round]:
    """Find tickets by mean - spread * deviation over the copies: what one copy alone thinks important counts little.

    Parameters
    ----------
    network, parts, recipe, target, densities, **options
        As for `colt`; deviations of fewer than three copies say little.
    rate
        The fraction of the remaining weights that goes each round.
    of
        "growth": |w_i| - |theta0|, what training has added to a weight. "magnitude": |w_i|. "signed": w_i times the
        sign that most copies gave it, so that copies which disagree in sign take from each other; where as many gave
        either it is 0 in all copies, above a bound below 0: with an even number of copies prefer another.
    spread
        How many standard deviations (over the copies) the bound lies below the mean; 0 is the mean.

    Yields
    ------
    Round
        Round 0 is dense. `partition_masks` are what each copy alone would have kept.

    Raises
    ------
    ValueError
        At the call, before any training.
    """
    check_several(parts, "bound")
    if of not in get_args(Of):
        raise ValueError(f"unknown bound of {of!r}; allowed: {', '.join(get_args(Of))}")
    if not spread >= 0:
        raise ValueError(f"spread must not be negative, not {spread}")
    search = begin(network, parts, recipe, rate, target, densities, options)
    return by_scores(search, lambda copies, mask: lower_bound(copies, search.start.ticket.theta0, mask, of, spread))


@torch.no_grad()
def lower_bound(copies: Networks, theta0: Tensors, mask: Mask, of: Of, spread: float) -> Tensors:
    """Return mean - spread * deviation of each weight of `mask` over the copies, float64 on the CPU."""
    scores = {}
    for name in mask:
        several = torch.stack([copy.get_parameter(name).detach().cpu().double() for copy in copies])
        values = several.abs()
        if of == "growth":
            values = values - theta0[name].detach().cpu().double().abs()
        elif of == "signed":
            values = several * several.sign().sum(0).sign()
        scores[name] = values.mean(0) - spread * values.std(0)
    return scores


class BoundOptions(Settings):
    """Of what the bound is, and how many deviations below the mean."""

    of: Of = "growth"
    spread: Number = Field(1.0, ge=0)


BOUND = Method(
    name="bound",
    about="the lower confidence bound over the copies of a weight's growth, at COLT's densities",
    law=r"m_{t+1} = \operatorname{top}(\operatorname{mean}_i b_i - k \operatorname{sd}_i b_i;\, m_t) \text{ of "
    r"density } d_{t+1}, \qquad b_i = |w_i| - |\theta_0|",
    find=lambda s: s.over_partitions(bound, of=s.own.of, spread=s.own.spread, densities=s.trajectory()),
    look=Look("bound", "#DDCC77", (6, 1, 0)),
    follows="colt",
    takes="densities",
    trains="copies",
    options=BoundOptions,
    contender=True,
)
