"""Soup, a variant of COLT: copies that begin together and part, and one cut of the mean of their signed weights."""

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from pydantic import Field
from torch import nn

from ..compute.checkpoints import train_kept
from ..compute.copies import Copy
from ..data import Images
from ..files import Tensors
from ..masks import Mask
from ..seeding import choose_device, derive
from ..settings import Number, Settings, check_fraction
from ..tickets import Cost, Round, Ticket
from ..training import Recipe, Training
from .checks import check_several, one_head, refuse
from .cycles import Choose, Networks, Search, Train, begin, beside, by_scores, copies_of, cost_of, mean_weights
from .method import Look, Method

WARM = 0.25  # of a copy's steps


def soup(
    network: nn.Module,
    parts: list[Images],
    recipe: Recipe,
    rate: float = 0.15,
    target: float = 0.991,
    *,
    warm: float = WARM,
    densities: list[float] | None = None,
    **options: Any,
) -> Iterator[Round]:
    """Find tickets by the mean of copies that set out together: |mean_i w_i|, the weights signed.

    Each round one network is trained on all images for the first part of a copy's steps; the copies go on from it,
    each on its partition. What they disagree about, in sign above all, cancels; the lowest fraction `rate` goes.

    Parameters
    ----------
    network, parts, recipe, target, densities, **options
        As for `colt`; the whole images (`whole`) are needed for the beginning.
    rate
        The fraction of the remaining weights that goes each round.
    warm
        The share of a copy's steps that is shared, in [0, 1).

    Yields
    ------
    Round
        Round 0 is dense. `partition_masks` are what each copy alone would have kept.

    Raises
    ------
    ValueError
        At the call, before any training.

    References
    ----------
    Averaging sparse networks of one mask: arXiv 2306.16788, 2305.14852. A shared beginning raises what masks have in
    common: arXiv 2104.14753.
    """
    check_several(parts, "soup")
    if warm:
        check_fraction("warm", warm)
    search = begin(network, parts, recipe, rate, target, densities, options)
    given = search.options
    if warm and given.whole is None:
        raise ValueError("to begin together, the whole training images are needed: whole=data.train")
    if warm and not one_head(network, parts):
        raise ValueError("copies that begin together need one head: not partitions by class (or warm=0)")
    if warm:
        refuse(given, "copies that begin together", "rewind")
        if shared_steps(recipe, parts, warm) >= (least := min(recipe.total(len(part)) for part in parts)):
            raise ValueError(f"trainings of {least} steps are too short to begin together: give more epochs, or warm=0")

    def scores(copies: Networks, mask: Mask) -> Tensors:
        return {name: mean.abs() for name, mean in mean_weights(copies, mask).items()}

    return by_scores(search, scores, _together(warm) if warm else None)


def shared_steps(recipe: Recipe, parts: list[Images], warm: float) -> int:
    """Return how many of a copy's steps are shared, at least one."""
    return max(1, math.floor(warm * recipe.total(len(parts[0]))))


def _together(warm: float) -> Train:
    """Return how copies are trained that share the first steps of their schedule."""

    def train(
        search: Search, ticket: Ticket, number: int, choose: Choose, before: list[Copy]
    ) -> tuple[list[Copy], Cost]:
        options, where = search.options, search.where
        assert options.whole is not None
        # On all images an epoch has more steps than on a part: told in so many times fewer epochs, the schedule of a
        # copy stays what it is, step by step.
        longer = search.recipe.steps(len(options.whole)) / search.recipe.steps(len(search.parts[0]))
        recipe, steps = search.recipe.shortened(longer), shared_steps(search.recipe, search.parts, warm)
        shared = ticket.model(None, options.seed)
        training = Training(
            options.whole, recipe, mask=ticket.mask_for(shared), steps=steps, threads=where.threads,
            seed=derive(options.seed, "together", number), objective=options.objective.fitted(options.whole),
        )  # fmt: skip
        history = train_kept(shared, training, where.store, choose_device(where.device))
        networks, trainings = copies_of(search, ticket, number)
        for network in networks:
            network.load_state_dict(shared.state_dict())
        rest = [replace(training, first_step=steps) for training in trainings]
        copies = beside(search, networks, rest, watch=partial(where.watch, number) if where.watch else None)
        return copies, cost_of(Copy(shared, training, history=history)) + Cost.beside(map(cost_of, copies))

    return train


class SoupOptions(Settings):
    """The share of a copy's steps that is shared."""

    warm: Number = Field(WARM, ge=0, lt=1)


def _passes(experiment: Any) -> float:
    """What is shared is trained once, and not by every copy."""
    warm = experiment.options.get("warm", WARM)
    return float((warm / experiment.parts + 1 - warm) * (experiment.parts if experiment.by == "order" else 1))


SOUP = Method(
    name="soup",
    about="copies that share the first quarter of their steps; one cut of their mean, signed, at COLT's densities",
    law=r"m_{t+1} = \operatorname{top}\Big(\Big|\frac{1}{P}\sum_{i=1}^{P} w_i\Big|;\, m_t\Big) \text{ of "
    r"density } d_{t+1}",
    papers=("2306.16788", "2305.14852", "2104.14753"),
    find=lambda s: s.over_partitions(soup, warm=s.own.warm, densities=s.trajectory()),
    look=Look("soup", "#117733", "8"),
    follows="colt",
    takes="densities",
    trains="copies",
    passes=_passes,
    options=SoupOptions,
    contender=True,
)
