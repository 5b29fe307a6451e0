"""How much the loss on some images cares for each weight: |g w| and w (Hg), in float64 on the CPU."""

from collections.abc import Iterator
from copy import deepcopy

import torch
from torch import nn

from ..data import Images
from ..data.augmentation import normalise
from ..files import Tensors
from ..seeding import generator
from .objective import CROSS_ENTROPY, Objective, batch_loss

PER_CLASS = 10  # images of each class that SNIP and GraSP look at (GraSP's own choice)
CHUNK = 100  # images at a time
CPU = torch.device("cpu")  # scores are computed there in float64: the same on every machine with one seed


def sample(images: Images, seed: int, per_class: int = PER_CLASS) -> Images:
    """Return `per_class` images of every class, drawn at random; fewer where a class has fewer."""
    order = torch.randperm(len(images), generator=generator(seed, "sample"))
    labels = images.labels.cpu()[order]
    index = [order[(labels == c).nonzero().flatten()[:per_class]] for c in range(len(images.classes))]
    return images.take(torch.cat(index))


def _losses(network: nn.Module, images: Images, objective: Objective) -> Iterator[torch.Tensor]:
    """Yield the mean loss of each chunk of some images, in float64, weighted so that the sum is the mean."""
    fitted = objective.fitted(images)
    order = torch.randperm(len(images), generator=generator(0, "chunks", len(images)))
    for index in order.tensor_split(-(-len(images) // CHUNK)):
        pixels = normalise(images.batch(index).cpu(), images.mean, images.std).double()
        yield batch_loss(fitted, network, pixels, images.labels[index].cpu())[0] * (len(index) / len(images))


def _double(network: nn.Module, names: list[str]) -> tuple[nn.Module, list[nn.Parameter]]:
    copy = deepcopy(network).cpu().double().train()
    return copy, [copy.get_parameter(name) for name in names]


def _used(name: str, gradient: torch.Tensor | None) -> torch.Tensor:
    if gradient is None:
        raise ValueError(f"nothing flows from {name} to the loss: leave it out of what is prunable")
    return gradient


def snip_scores(network: nn.Module, images: Images, names: list[str], objective: Objective = CROSS_ENTROPY) -> Tensors:
    """Return |g w| for the named parameters, float64; g is the gradient of the mean loss over `images`."""
    copy, weights = _double(network, names)
    for loss in _losses(copy, images, objective):
        loss.backward()
    return {n: (_used(n, w.grad) * w).detach().abs() for n, w in zip(names, weights, strict=True)}


def grasp_scores(network: nn.Module, images: Images, names: list[str], objective: Objective = CROSS_ENTROPY) -> Tensors:
    """Return w (Hg) for the named parameters, float64: the lowest are removed first."""
    copy, weights = _double(network, names)
    gradient = [torch.zeros_like(w) for w in weights]
    for loss in _losses(copy, images, objective):
        found = torch.autograd.grad(loss, weights, allow_unused=True)
        gradient = [g + _used(name, new) for name, g, new in zip(names, gradient, found, strict=True)]
    curved = [torch.zeros_like(w) for w in weights]
    for loss in _losses(copy, images, objective):
        inner = torch.autograd.grad(loss, weights, create_graph=True)
        product = torch.stack([(i * g).sum() for i, g in zip(inner, gradient, strict=True)]).sum()
        curved = [h + new for h, new in zip(curved, torch.autograd.grad(product, weights), strict=True)]
    return {name: (w * h).detach() for name, w, h in zip(names, weights, curved, strict=True)}
