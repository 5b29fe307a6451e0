"""Displacement, a variant of COLT: the copies' ways from theta0 are added up, and where that leads is cut."""

from collections.abc import Iterator
from typing import Any

from pydantic import Field
from torch import nn

from ..data import Images
from ..files import Tensors
from ..masks import Mask
from ..settings import Number, Settings
from ..tickets import Round
from ..training import Recipe
from .cycles import Networks, begin, by_scores, mean_weights
from .method import Look, Method


def displacement(
    network: nn.Module,
    parts: list[Images],
    recipe: Recipe,
    rate: float = 0.15,
    target: float = 0.991,
    *,
    gain: float | None = None,
    densities: list[float] | None = None,
    **options: Any,
) -> Iterator[Round]:
    """Find tickets by |theta0 + gain mean_i(w_i - theta0)|: each copy has taken a P-th of the steps.

    Parameters
    ----------
    network, recipe, target, densities, **options
        As for `colt`.
    parts
        One or more: of one, all images, it is IMP with its way from theta0 made longer, the control.
    rate
        The fraction of the remaining weights that goes each round.
    gain
        How often the mean way counts; by default once a copy, P.

    Yields
    ------
    Round
        Round 0 is dense. `partition_masks` are what each copy alone would have kept.

    Raises
    ------
    ValueError
        At the call, before any training.
    """
    if gain is not None and not gain > 0:
        raise ValueError(f"gain must be positive, not {gain}")
    search = begin(network, parts, recipe, rate, target, densities, options)
    times = float(len(parts) if gain is None else gain)

    def scores(copies: Networks, mask: Mask) -> Tensors:
        start, mean = search.start.ticket.theta0, mean_weights(copies, mask)
        begun = {name: start[name].detach().cpu().double() for name in mask}
        return {name: (begun[name] + times * (mean[name] - begun[name])).abs() for name in mask}

    return by_scores(search, scores)


class DisplacementOptions(Settings):
    """How often the copies' mean way from theta0 counts; None: once a copy."""

    gain: Number | None = Field(None, gt=0)


DISPLACEMENT = Method(
    name="displacement",
    about="cut theta0 plus the sum of the copies' ways from it, at COLT's densities",
    law=r"m_{t+1} = \operatorname{top}\Big(\Big|\theta_0 + \gamma \, \frac{1}{P}\sum_{i=1}^{P} (w_i - "
    r"\theta_0)\Big|;\, m_t\Big) \text{ of density } d_{t+1}, \qquad \gamma = P",
    find=lambda s: s.over_partitions(displacement, gain=s.own.gain, densities=s.trajectory()),
    look=Look("displacement", "#6699CC", (4, 1, 45)),
    follows="colt",
    takes="densities",
    trains="copies",
    options=DisplacementOptions,
    contender=True,
)
