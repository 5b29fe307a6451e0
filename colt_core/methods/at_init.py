"""Pruning at initialisation: SNIP, GraSP and SynFlow cut theta0 before any training. Controls at matched density."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from .. import masks, models
from ..augmentation import normalise
from ..data import Images
from ..masks import Mask
from ..seeding import generator, reproducible
from ..tickets import Cost, Round, Ticket
from ..training import Recipe
from .cycles import Options, check_inputs, first_round, rate_to, step_flops, stopping_rule

Scores = dict[str, torch.Tensor]
PER_CLASS = 10  # images of each class that SNIP and GraSP look at (GraSP's own choice)
CHUNK = 100  # images at a time
STEPS = 100  # of SynFlow's exponential schedule


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
        See `Options`.

    References
    ----------
    arXiv 1810.02340, equation 5.
    """
    return _at_init(network, images, recipe, densities, snip_scores, options)


def grasp(
    network: nn.Module, images: Images, recipe: Recipe, densities: list[float], **options: Any
) -> Iterator[Round]:
    """Prune theta0 to each density by GraSP: w (Hg), the weights that carry the gradient flow stay.

    Parameters as for `snip`. References: arXiv 2002.07376, equation 8 (there the negative is kept lowest).
    """
    return _at_init(network, images, recipe, densities, grasp_scores, options)


def synflow(
    network: nn.Module, images: Images, recipe: Recipe, densities: list[float], **options: Any
) -> Iterator[Round]:
    """Prune theta0 to each density by SynFlow, in 100 exponential steps and without looking at any image.

    Parameters as for `snip`; of the images only the size counts. References: arXiv 2006.05467, algorithm 1.
    """
    return _at_init(network, images, recipe, densities, None, options)


def _at_init(
    network: nn.Module,
    images: Images,
    recipe: Recipe,
    densities: list[float],
    scores: Callable[[nn.Module, Images, list[str]], Scores] | None,
    options: dict[str, Any],
) -> Iterator[Round]:
    given = Options(**({"whole": images} | options))
    check_inputs(network, [images], recipe, given)
    dense = masks.dense(dict(network.named_parameters()), models.prunable(network, given.stem, given.head))
    stopping_rule(densities, 0.5, 0.5, dense, given.scope)
    return _rounds(network, images, recipe, densities, scores, given)


def _rounds(
    network: nn.Module, images: Images, recipe: Recipe, densities: list[float], scores: Any, options: Options
) -> Iterator[Round]:
    dense = first_round(network, recipe, options)
    done = options.resume.number if options.resume else -1
    if done < 0:
        yield dense
    if done >= len(densities):
        return
    start, mask = dense.ticket.model(), dense.ticket.mask
    with reproducible(torch.device("cpu"), options.seed, options.threads):
        some = sample(images, options.seed)
        looked = scores(start, some, list(mask)) if scores else None
    for number, density in enumerate(densities, 1):
        if number > done:
            if looked is not None:
                kept = masks.prune_lowest(looked, mask, rate_to(density, mask), options.scope)
                seen = len(some) * (1 if scores is snip_scores else 3)  # Hg: a gradient, then a double one
            else:
                with reproducible(torch.device("cpu"), options.seed, options.threads):
                    kept = synflow_mask(start, mask, density, images.size, options.scope)
                seen = STEPS
            about = dense.ticket.provenance | {"round": number, "parent": dense.ticket.hash}
            ticket = Ticket(dense.ticket.architecture, dense.ticket.theta0, kept, about)
            cost = Cost(seen if scores else 0, seen * step_flops(start, images))
            yield Round(number, ticket, cost=dense.cost + cost)


def sample(images: Images, seed: int, per_class: int = PER_CLASS) -> Images:
    """Return `per_class` images of every class, drawn at random; fewer where a class has fewer."""
    order = torch.randperm(len(images), generator=generator(seed, "sample"))
    labels = images.labels.cpu()[order]
    index = [order[(labels == c).nonzero().flatten()[:per_class]] for c in range(len(images.classes))]
    return images.take(torch.cat(index))


def _losses(network: nn.Module, images: Images) -> Iterator[torch.Tensor]:
    """Yield the mean cross-entropy of each chunk of some images, in float64, weighted so that the sum is the mean."""
    order = torch.randperm(len(images), generator=generator(0, "chunks", len(images)))
    for index in order.tensor_split(-(-len(images) // CHUNK)):
        pixels = normalise(images.batch(index), images.mean, images.std).double()
        yield nn.functional.cross_entropy(network(pixels), images.labels[index]) * (len(index) / len(images))


def _double(network: nn.Module, names: list[str]) -> tuple[nn.Module, list[nn.Parameter]]:
    copy = models.copy_of(network).cpu().double().train()
    return copy, [copy.get_parameter(name) for name in names]


def snip_scores(network: nn.Module, images: Images, names: list[str]) -> Scores:
    """Return |g w| for the named parameters, float64; g is the gradient of the mean loss over `images`."""
    copy, weights = _double(network, names)
    for loss in _losses(copy, images):
        loss.backward()
    return {name: (w.grad * w).detach().abs() for name, w in zip(names, weights, strict=True) if w.grad is not None}


def grasp_scores(network: nn.Module, images: Images, names: list[str]) -> Scores:
    """Return w (Hg) for the named parameters, float64: the lowest are removed first."""
    copy, weights = _double(network, names)
    gradient = [torch.zeros_like(w) for w in weights]
    for loss in _losses(copy, images):
        gradient = [g + new for g, new in zip(gradient, torch.autograd.grad(loss, weights), strict=True)]
    curved = [torch.zeros_like(w) for w in weights]
    for loss in _losses(copy, images):
        inner = torch.autograd.grad(loss, weights, create_graph=True)
        product = torch.stack([(i * g).sum() for i, g in zip(inner, gradient, strict=True)]).sum()
        curved = [h + new for h, new in zip(curved, torch.autograd.grad(product, weights), strict=True)]
    return {name: (w * h).detach() for name, w, h in zip(names, weights, curved, strict=True)}


def synflow_mask(network: nn.Module, mask: Mask, density: float, size: int, scope: str = "global") -> Mask:
    """Return what SynFlow leaves of a mask, by |dR/dw w| with R = 1^T prod |W| 1, in 100 exponential steps.

    Normalisation layers are neutral, biases zero; the network sees one image of ones.
    """
    copy = models.copy_of(network).cpu().double().eval()
    with torch.no_grad():
        for name, tensor in copy.state_dict(keep_vars=True).items():
            if tensor.ndim > 1:
                tensor.abs_()
            elif tensor.is_floating_point():
                tensor.fill_(1.0 if name.endswith(("weight", "running_var")) else 0.0)
    weights = [copy.get_parameter(name) for name in mask]
    start, ones = masks.density(mask), torch.ones(1, 3, size, size, dtype=torch.float64)
    for step in range(1, STEPS + 1):
        masks.apply(mask, copy)
        flow = torch.autograd.grad(copy(ones).sum(), weights)
        scores = {name: (g * w).detach().abs() for name, g, w in zip(mask, flow, weights, strict=True)}
        mask = masks.prune_lowest(scores, mask, rate_to(start * (density / start) ** (step / STEPS), mask), scope)
    return mask
