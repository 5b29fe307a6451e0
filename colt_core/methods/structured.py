"""Structured tickets: COLT's or IMP's masks, made into whole channels (refill) or dense blocks (regroup).

References: arXiv 2202.04736, sections 3.2 and 3.3. The search goes on with the unstructured mask, as theirs does; what
is yielded, and scored, is the structured one.
"""

from collections.abc import Callable, Collection, Iterator
from typing import Any

import torch
from torch import nn

from .. import masks, models
from ..data import Images
from ..files import Tensors
from ..masks import Mask
from ..seeding import generator
from ..tickets import Round, Ticket
from ..training import Recipe
from .choices import by_magnitude, by_overlap
from .cycles import Networks, begin, cycles
from .method import Look, Method, Setting
from .options import Fill, RefillOptions, RegroupOptions, Source

Reshaped = Callable[[Mask, list[Mask], list[Tensors], int], Mask]


def structured(
    network: nn.Module,
    parts: list[Images],
    recipe: Recipe,
    rate: float = 0.15,
    target: float = 0.991,
    *,
    reshape: Reshaped,
    silent: bool = False,
    densities: list[float] | None = None,
    **options: Any,
) -> Iterator[Round]:
    """Find tickets as COLT does (several parts) or IMP (one), and give each round's mask another shape.

    Parameters
    ----------
    network, parts, recipe, rate, target, densities
        As for `colt`; one part, all images, makes it `imp`.
    reshape
        Makes a mask of a round's mask, each copy's own mask and magnitudes, and the round's number.
    silent
        Hold channels that are cut whole at zero when tickets are scored: then the compact ticket is the same function.
    **options
        As for `colt`.

    Yields
    ------
    Round
        Its ticket has the reshaped mask; what the search goes on with is its `own`.

    Raises
    ------
    ValueError
        At the call: as `colt`; with `silent` for a network whose channels cannot be followed.
    FloatingPointError
        As `colt`; where a round's mask has lost a whole layer.
    """
    given = ({"whole": parts[0]} if len(parts) == 1 else {}) | options
    search = begin(network, parts, recipe, rate, target, densities, given)
    if silent:
        masks.silenced(search.dense, network)  # refuses what cannot be followed

    plain = by_magnitude(search) if len(parts) == 1 else by_overlap(search)
    kept: list[Mask] = []  # each copy's own mask, of the last choice

    def choose(copies: Networks, mask: Mask, number: int) -> tuple[list[Mask], Mask]:
        kept[:], combined = plain(copies, mask, number)
        return list(kept), combined

    def shape(ticket: Ticket, copies: Networks) -> Mask:
        number = int(ticket.provenance["round"])
        try:
            return reshape(ticket.mask, kept, magnitudes(copies, ticket.mask), number)
        except ValueError as problem:  # an emptied layer: the same search would come to it again
            raise FloatingPointError(f"the mask of round {number} cannot be reshaped: {problem}") from None

    return cycles(search, choose, shape, silent=silent)


@torch.no_grad()
def magnitudes(copies: Networks, mask: Mask) -> list[Tensors]:
    """Return each copy's |w|, by parameter name, on the CPU."""
    return [{name: copy.get_parameter(name).detach().abs().cpu() for name in mask} for copy in copies]


def filled(
    mask: Mask,
    kept: list[Mask],
    weights: list[Tensors],
    extra: float = 0.0,
    fill: Fill = "overlap",
    rng: Any = None,
    transposed: Collection[str] = (),
    depthwise: Collection[str] | None = None,
) -> Mask:
    """Return whole channels in place of the combined mask of some copies.

    Parameters
    ----------
    mask, kept, weights
        The combined mask, and each copy's own with its magnitudes.
    extra, transposed, depthwise
        As for `masks.refill`.
    fill
        "overlap": the combined mask is filled up, by the copies' summed magnitudes. "copies": each copy's mask is
        filled up by its own, and the channels that all copies chose are kept; a layer without one keeps the best. The
        two do not commute.
    rng
        A generator: fill up a random mask with the same layers' densities instead, the control for the mask. Its rows
        too are ranked by the copies' magnitudes, so much of what chooses channels stays.
    """
    if rng is not None:
        mask, kept = masks.random_like(mask, rng), [masks.random_like(own, rng) for own in kept]
    total = {name: torch.stack([own[name] for own in weights]).sum(0) for name in mask}
    if fill == "overlap":
        return masks.refill(mask, total, extra, transposed, depthwise)
    each = zip(kept, weights, strict=True)
    both = masks.overlap(*[masks.refill(own, of, extra, transposed, depthwise) for own, of in each])
    for name, whole in masks.outputs_first(both, transposed).items():
        if not bool(whole.any()):
            some = total[name] * torch.stack([own[name] for own in kept]).any(0)
            [sizes] = masks.outputs_first({name: some}, transposed).values()
            whole[sizes.flatten(1).cpu().double().sum(1).argmax()] = True  # MPS has no float64
    return both


def _find(setting: Setting, source: Source, reshape: Reshaped, silent: bool = False) -> Iterator[Round]:
    how = {"reshape": reshape, "silent": silent, "densities": list(setting.densities) if setting.densities else None}
    if source == "colt":
        return setting.over_partitions(structured, **how)

    def finder(network: nn.Module, images: Images, *given: Any, **options: Any) -> Iterator[Round]:
        return structured(network, [images], *given, **options)

    return setting.over_everything(finder, setting.rate, setting.target, **how)


def _trains_copies(experiment: Any) -> bool:
    return bool(experiment.options.get("source", "colt") == "colt")


def _refill(setting: Setting) -> Iterator[Round]:
    own, transposed, depthwise = setting.own, models.transposed(setting.network), models.depthwise(setting.network)

    def reshape(mask: Mask, kept: list[Mask], weights: list[Tensors], number: int) -> Mask:
        rng = generator(setting.seed, "shuffled", number) if own.shuffled else None
        return filled(mask, kept, weights, own.extra, own.fill, rng, transposed, depthwise)

    return _find(setting, own.source, reshape, silent=True)


def _regroup(setting: Setting) -> Iterator[Round]:
    own = setting.own
    check_rows(setting.network, own.rows)
    how = {"depthwise": models.depthwise(setting.network), "transposed": models.transposed(setting.network)}
    return _find(setting, own.source, lambda mask, *_: masks.regroup(mask, own.rows, own.rule, **how))


def check_rows(network: nn.Module, rows: int | None) -> None:
    """Raise a `ValueError` where a layer has fewer rows than a block, as `masks.blocks` would after a training."""
    for name in models.prunable(network):
        count = network.get_parameter(name).shape[name in models.transposed(network)]
        if rows is not None and count < rows and name not in models.depthwise(network):
            raise ValueError(f"rows must be at most {count}, as layer {name.removesuffix('.weight')} has, not {rows}")


REFILL = Method(
    name="refill",
    about="fill up the best channels of COLT's or IMP's masks, as many weights in whole channels (2202.04736)",
    law=r"\text{of layer } l \text{ keep whole the } \Big\lfloor \frac{|m_{t,l}|}{n_l} \Big\rfloor \text{ rows "
    r"of } n_l \text{ weights with the largest } \sum m_{t,l} |w_l|",
    papers=("2202.04736",),
    find=_refill,
    look=Look("refill", "#0F5E2B", (5, 1, 180)),
    trains="copies",
    copies=_trains_copies,
    options=RefillOptions,
)
REGROUP = Method(
    name="regroup",
    about="gather what COLT's or IMP's masks keep in dense blocks of rows and columns (2202.04736)",
    law=r"m'_{t,l} = \bigcup_{B} R_B \times C_B, \qquad R_B \text{ similar rows of } m_{t,l}, \; C_B \text{ "
    r"the columns that they keep most}",
    papers=("2202.04736",),
    find=_regroup,
    look=Look("regroup", "#6A3D9A", (6, 0, 30)),
    trains="copies",
    copies=_trains_copies,
    options=RegroupOptions,
)
