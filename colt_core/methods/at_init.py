"""Pruning at initialisation: by magnitude, SNIP, GraSP and SynFlow. Controls at matched density, cut from theta0."""

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import nn

from .. import masks
from ..data import Images
from ..files import Tensors
from ..masks import Mask
from ..seeding import reproducible
from ..tickets import Cost, Round
from ..training import Objective, Recipe
from ..training.saliency import CPU, grasp_scores, sample, snip_scores
from .cycles import Cut, Search, begin, rate_to, step_flops, straight
from .method import Look, Method

STEPS = 100  # of SynFlow's exponential schedule


def initial(
    network: nn.Module, images: Images, recipe: Recipe, densities: list[float], **options: Any
) -> Iterator[Round]:
    """Prune theta0 to each density by its own magnitude: no training, no image. What tickets inherit is this.

    Parameters as for `snip`; the images are looked at only on the way to a rewind point.
    """
    search = _search(network, images, recipe, densities, options)
    scope = search.options.scope

    def prepare(dense: Round) -> Cut:
        weights, mask = dense.ticket.theta0, dense.ticket.mask
        return Cut(lambda density: masks.magnitude(weights, mask, rate_to(density, mask), scope), Cost())

    return straight(search, densities, prepare)


def snip(network: nn.Module, images: Images, recipe: Recipe, densities: list[float], **options: Any) -> Iterator[Round]:
    """Prune theta0 to each density by SNIP: |g w|, the weights to which the loss is most sensitive stay.

    Parameters
    ----------
    network
        The initialised network; it is not changed.
    images
        The training set: ten images of each class are looked at.
    recipe
        Only for a rewind point (`rewind=k`).
    densities
        One round each, every one cut straight from the dense network.
    **options
        As for `colt`.

    References
    ----------
    arXiv 1810.02340, equation 5.
    """
    return _by_scores(network, images, recipe, densities, options, snip_scores, passes=1)


def grasp(
    network: nn.Module, images: Images, recipe: Recipe, densities: list[float], **options: Any
) -> Iterator[Round]:
    """Prune theta0 to each density by GraSP: w (Hg), the weights that carry the gradient flow stay.

    Parameters as for `snip`. References: arXiv 2002.07376, equation 8 (there the negative is kept lowest).
    """
    # Three passes over the images: one for the gradient g, two for Hg, the gradient of a gradient's product with g.
    return _by_scores(network, images, recipe, densities, options, grasp_scores, passes=3)


def synflow(
    network: nn.Module, images: Images, recipe: Recipe, densities: list[float], **options: Any
) -> Iterator[Round]:
    """Prune theta0 to each density by SynFlow, in 100 exponential steps and without looking at any image.

    Parameters as for `snip`; of the images only the shape counts. References: arXiv 2006.05467, algorithm 1.
    """
    search = _search(network, images, recipe, densities, options)

    def prepare(dense: Round) -> Cut:
        start, mask = dense.ticket.model(), dense.ticket.mask

        def cut(density: float) -> Mask:
            with reproducible(CPU, search.options.seed, search.where.threads):
                return synflow_mask(start, mask, density, images.shape, search.options.scope)

        return Cut(cut, Cost(0, STEPS * step_flops(start, images)))

    return straight(search, densities, prepare)


def _by_scores(
    network: nn.Module,
    images: Images,
    recipe: Recipe,
    densities: list[float],
    options: dict[str, Any],
    scores: Callable[[nn.Module, Images, list[str], Objective], Tensors],
    passes: int,
) -> Iterator[Round]:
    """Score every weight once, and cut the lowest scores to each density."""
    search = _search(network, images, recipe, densities, options)
    scope = search.options.scope

    def prepare(dense: Round) -> Cut:
        start, mask = dense.ticket.model(), dense.ticket.mask
        with reproducible(CPU, search.options.seed, search.where.threads):
            some = sample(images, search.options.seed)
            looked = scores(start, some, list(mask), search.options.objective)
        seen = passes * len(some)
        cut = lambda density: masks.prune_lowest(looked, mask, rate_to(density, mask), scope)  # noqa: E731
        return Cut(cut, Cost(seen, seen * step_flops(start, images)))

    return straight(search, densities, prepare)


def _search(
    network: nn.Module, images: Images, recipe: Recipe, densities: list[float], options: dict[str, Any]
) -> Search:
    return begin(network, [images], recipe, 0.5, 0.5, densities, {"whole": images} | options)


def synflow_mask(network: nn.Module, mask: Mask, density: float, shape: Sequence[int], scope: str = "global") -> Mask:
    """Return what SynFlow leaves of a mask, by |dR/dw w| with R = 1^T prod |W| 1, in 100 exponential steps.

    Normalisation layers are neutral, biases zero; the network sees one image of ones.
    """
    copy = masks.neutral(deepcopy(network).cpu().double().eval())
    with torch.no_grad():
        for name, tensor in copy.state_dict(keep_vars=True).items():
            if tensor.ndim > 1:
                tensor.abs_()
            elif tensor.is_floating_point():
                tensor.fill_(1.0 if name.endswith(("weight", "running_var")) else 0.0)
    weights = [copy.get_parameter(name) for name in mask]
    # Exponential steps: each keeps the same share, so that no layer is cut off at once (their section 5).
    start, ones = masks.density(mask), torch.ones(1, *shape, dtype=torch.float64)
    for step in range(1, STEPS + 1):
        masks.apply(mask, copy)
        output = copy(ones)
        if not isinstance(output, torch.Tensor):
            raise ValueError(f"SynFlow needs a network that gives one tensor, not a {type(output).__name__}")
        flow = torch.autograd.grad(output.sum(), weights, allow_unused=True)
        if unused := [name for name, gradient in zip(mask, flow, strict=True) if gradient is None]:
            raise ValueError(f"nothing flows from {unused[0]} to the output: leave it out of what is prunable")
        if step == 1 and not any(g.any() for g in flow):
            raise ValueError("SynFlow's scores are all zero: nothing flows, or the output saturates (a sigmoid does)")
        scores = {name: (g * w).detach().abs() for name, g, w in zip(mask, flow, weights, strict=True)}
        mask = masks.prune_lowest(scores, mask, rate_to(start * (density / start) ** (step / STEPS), mask), scope)
    return mask


INITIAL = Method(
    name="initial",
    about="cut theta0 by its own magnitude, without any training, at COLT's densities",
    law=r"m_t = \operatorname{top}(|\theta_0|;\, 1) \text{ of density } d_t",
    papers=("2009.08576",),
    find=lambda s: s.over_everything(initial, s.trajectory()),
    look=Look("theta0 by magnitude", "#AA4499", (4, 1, 0)),
    follows="colt",
    takes="densities",
    trains="never",
)
SNIP = Method(
    name="snip",
    about="cut theta0 by SNIP's scores |g w|, at COLT's densities",
    law=r"m_t = \operatorname{top}\Big(\Big|\theta_0 \frac{\partial L}{\partial \theta_0}\Big|;\, 1\Big) "
    r"\text{ of density } d_t",
    papers=("1810.02340",),
    find=lambda s: s.over_everything(snip, s.trajectory()),
    look=Look("SNIP", "#8C6D31", "<"),
    follows="colt",
    takes="densities",
    trains="never",
)
GRASP = Method(
    name="grasp",
    about="cut theta0 by GraSP's scores w (Hg), at COLT's densities",
    law=r"m_t = \operatorname{top}(\theta_0 \, H g;\, 1) \text{ of density } d_t, \qquad g = \frac{\partial "
    r"L}{\partial \theta_0}, \; H = \frac{\partial^2 L}{\partial \theta_0^2}",
    papers=("2002.07376",),
    find=lambda s: s.over_everything(grasp, s.trajectory()),
    look=Look("GraSP", "#44AA99", ">"),
    follows="colt",
    takes="densities",
    trains="never",
)
SYNFLOW = Method(
    name="synflow",
    about="cut theta0 by SynFlow, without any image, at COLT's densities",
    law=r"m^{(k+1)} = \operatorname{top}\Big(\Big|\theta_0 \frac{\partial R}{\partial \theta_0}\Big|;\, "
    r"m^{(k)}\Big) \text{ of density } d_t^{(k+1)/100}, \qquad R = 1^T \prod_l |m^{(k)}_l \theta_{0,l}| \, "
    r"1",
    papers=("2006.05467",),
    find=lambda s: s.over_everything(synflow, s.trajectory()),
    look=Look("SynFlow", "#332288", "d"),
    follows="colt",
    takes="densities",
    trains="never",
)
