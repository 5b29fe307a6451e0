"""Crossfit, a variant of COLT: the weights of a copy are judged by the images that the other copies were trained on."""

from collections.abc import Iterator
from typing import Any

from torch import nn

from ..data import Images
from ..files import Tensors
from ..masks import Mask
from ..seeding import reproducible
from ..tickets import Round
from ..training import CROSS_ENTROPY, Objective, Recipe
from ..training.saliency import CPU, sample, snip_scores
from .checks import check_several, one_head
from .cycles import Networks, begin, by_scores
from .method import Look, Method, Setting

PER_CLASS = 50  # images of each class of a partition on which other copies' weights are judged


def crossfit(
    network: nn.Module,
    parts: list[Images],
    recipe: Recipe,
    rate: float = 0.15,
    target: float = 0.991,
    *,
    densities: list[float] | None = None,
    **options: Any,
) -> Iterator[Round]:
    """Find tickets by sum_i |w_i dL_j/dw_i|, j other than i: saliency of what was learnt on images not learnt from.

    The cost counts trainings alone: looking takes P (P - 1) passes over 50 images of each class a round.

    Parameters
    ----------
    network, parts, recipe, target, densities, **options
        As for `colt`; all partitions must have the same classes.
    rate
        The fraction of the remaining weights that goes each round.

    Yields
    ------
    Round
        Round 0 is dense. `partition_masks` are what each copy alone would have kept by magnitude.

    Raises
    ------
    ValueError
        At the call, before any training.

    References
    ----------
    Saliency |w g|: arXiv 1810.02340, there at initialisation; cross-fitting: arXiv 1608.00060.
    """
    check_several(parts, "crossfit")
    if not one_head(network, parts):
        raise ValueError("crossfit needs copies with one head: not partitions by class")
    search = begin(network, parts, recipe, rate, target, densities, options)
    seed, threads = search.options.seed, search.where.threads

    def scores(copies: Networks, mask: Mask) -> Tensors:
        with reproducible(CPU, seed, threads):
            looked = [sample(part, seed, PER_CLASS) for part in parts]
            return saliency(copies, looked, mask, search.options.objective)

    return by_scores(search, scores)


def saliency(copies: Networks, looked: list[Images], mask: Mask, objective: Objective = CROSS_ENTROPY) -> Tensors:
    """Return sum_i sum_(j != i) |w_i dL_j/dw_i| for each weight of `mask`; L_j is the mean loss over `looked[j]`."""
    found = [
        snip_scores(copy, images, list(mask), objective)
        for i, copy in enumerate(copies)
        for j, images in enumerate(looked)
        if i != j
    ]
    return {name: sum((scores[name] for scores in found[1:]), found[0][name]) for name in mask}


def _crossfit(setting: Setting) -> Iterator[Round]:
    if setting.by == "order":
        raise ValueError("crossfit needs copies that have seen other images: not partitions by order")
    return setting.over_partitions(crossfit, densities=setting.trajectory())


CROSSFIT = Method(
    name="crossfit",
    about="each copy's weights by their saliency on the other partitions, at COLT's densities",
    law=r"m_{t+1} = \operatorname{top}\Big(\sum_{i} \sum_{j \neq i} \Big|w_i \frac{\partial L_j}{\partial "
    r"w_i}\Big|;\, m_t\Big) \text{ of density } d_{t+1}",
    papers=("1810.02340", "1608.00060"),
    find=_crossfit,
    look=Look("crossfit", "#999933", (3, 1, 180)),
    follows="colt",
    takes="densities",
    trains="copies",
    contender=True,
)
