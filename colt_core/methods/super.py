"""Super tickets: whole units, channels and hidden neurons, cut by how little they matter to the loss (2105.12002).

The paper cuts heads and feed-forward blocks of pretrained language models, once, and at low sparsity finds networks
that are better than the whole one. Here the units are channels; what is cut is silent (`Ticket.silent`).
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from .. import masks, models
from ..data import Images
from ..masks import Mask
from ..models.channels import losing
from ..seeding import choose_device, generator
from ..tickets import Cost, Round
from ..training import CrossEntropy, Recipe
from ..training.units import order_of_units, unit_importance
from .checks import refuse
from .cycles import Cut, begin, step_flops, straight, told, train_round
from .method import Look, Method, Setting
from .options import Equal, Order, SuperOptions


def super_tickets(
    network: nn.Module,
    images: Images,
    recipe: Recipe,
    densities: list[float],
    *,
    order: Order = "winning",
    equal: Equal = "weights",
    **options: Any,
) -> Iterator[Round]:
    """Train the whole network once, and cut the units that matter least, straight to each density.

    Masks are nested. A layer keeps one unit at least.

    Parameters
    ----------
    network, images, recipe, densities
        As for `oneshot`. A density is that of weights, as of every method: as few units go as bring a mask down to it.
    order
        "winning": the least important go first; "losing": the most important; "random": as drawn from the seed. The
        other two are the controls.
    equal
        What orders have in common at a density: the "weights" that are left, or how many "units" went, the paper's way:
        as many as the winning order takes to come down to it. Channels differ in weights, so the two are not the same;
        heads and blocks of a language model do not (`colt_core.text`).
    **options
        As for `colt`.

    Yields
    ------
    Round
        Round 0 is dense; the others are silent.

    Raises
    ------
    ValueError
        At the call: as `oneshot`; for a network whose channels cannot be followed, or layers that are neither
        convolutions nor linear.
    """
    search = begin(network, [images], recipe, 0.5, 0.5, densities, {"whole": images} | options)
    refuse(search.options, "super tickets")
    if order not in ("winning", "losing", "random"):
        raise ValueError(f"unknown order {order!r}; allowed: winning, losing, random")
    if equal not in ("weights", "units"):
        raise ValueError(f"unknown equal {equal!r}; allowed: weights, units")
    if type(search.options.objective) is not CrossEntropy:  # KD is one, too
        raise ValueError("units are ranked by cross-entropy: give another objective to scoring")
    layers = _layers(network, search.dense)

    def prepare(dense: Round) -> Cut:
        copies, cost = train_round(search, dense.ticket, 1, lambda *_: ([search.dense], search.dense))
        copy, count = copies[0], len(images)
        where = choose_device(search.where.device)
        importance = unit_importance(copy.network, images, layers, where, threads=search.where.threads)
        looked = Cost(count, count * step_flops(copy.network, images), 0.0, 0)  # forward and backward, once
        rng = generator(search.options.seed, "units")
        units = order_of_units(importance, order, rng)
        by = order_of_units(importance) if equal == "units" else units

        def cut(density: float) -> Mask:
            return without(search.dense, units[: count_to(search.dense, by, density)])

        return Cut(cut, cost + looked, told(copies))

    found = straight(search, densities, prepare)
    return (replace(one, ticket=one.ticket.silent()) if one.number else one for one in found)


def _layers(network: nn.Module, mask: Mask) -> list[str]:
    """Return the layers of a mask; refuse those whose rows are no units, as of tokens or called more than once."""
    head, followed = models.head_name(network), losing(network)
    for name in mask:
        layer, _, part = name.rpartition(".")
        module = network.get_submodule(layer)
        plain = isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1)
        if part != "weight" or layer == head or not plain or layer not in followed:
            raise ValueError(f"{name} has no units that could be cut whole: leave it out of what is prunable")
    return [name.removesuffix(".weight") for name in mask]


def without(mask: Mask, units: list[tuple[str, int]]) -> Mask:
    """Return a mask without the rows of some units."""
    left = {name: kept.clone() for name, kept in mask.items()}
    for layer, unit in units:
        left[f"{layer}.weight"][unit] = False
    return left


def count_to(mask: Mask, units: list[tuple[str, int]], density: float) -> int:
    """Return how many units go, in their order, until the density is `density` or less; all if none reaches it."""
    wanted = density * masks.size(mask)
    counts = torch.tensor([0] + [mask[f"{layer}.weight"][unit].numel() for layer, unit in units]).cumsum(0)
    reached = (masks.count(mask) - counts <= wanted + 1e-6).nonzero()
    return int(reached[0]) if len(reached) else len(units)


def _find(setting: Setting) -> Iterator[Round]:
    return setting.over_everything(super_tickets, setting.trajectory(), **setting.own.model_dump())


SUPER = Method(
    name="super",
    about="train once, and cut the channels that matter least to the loss (gates), to COLT's densities (2105.12002)",
    law=r"m_t = [\text{units } u \text{ with the largest } I_u], \qquad I_u = \operatorname{mean}_x "
    r"\Big|\frac{\partial L(x)}{\partial g_u}\Big| \text{ at gates } g_u = 1",
    papers=("2105.12002",),
    find=_find,
    look=Look("super ticket", "#DDAA33", (5, 1, 0)),
    follows="colt",
    takes="densities",
    trains="once",
    options=SuperOptions,
)
