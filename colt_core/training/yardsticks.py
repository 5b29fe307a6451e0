"""What reconstructions and samples are held against: simple images, PCA, a Frechet distance in our own features."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from ..data import Dataset, Images
from ..models import head_name
from ..seeding import generator
from .reconstruction import batches, colour_error

CHUNK = 2_000  # images at a time
SMALL = 1_024  # values of an image


def simple_errors(data: Dataset, components: Iterable[int] = ()) -> dict[str, float]:
    """Return the test error of what needs no network, fitted on the training images: mean squared, pixels in [0, 1].

    Parameters
    ----------
    data
        Where.
    components
        Numbers of principal components; a linear autoencoder with a latent of as many numbers cannot do better on the
        images that it was fitted to.

    Returns
    -------
    dict of float
        "one colour" (the best for the test set: what a dead network can give), "mean image", "PCA of 128", ...

    Raises
    ------
    ValueError
        For a number of components outside 1..values of an image.
    """
    values, wanted = math.prod(data.train.shape), list(components)
    if odd := [count for count in wanted if not 1 <= count <= values]:
        raise ValueError(f"components must lie in 1..{values}, the values of an image, not {odd[0]}")
    mean = torch.stack([chunk.sum(0) for chunk in _flat(data.train)]).sum(0) / len(data.train)
    rest = sum(float((chunk - mean).square().sum()) for chunk in _flat(data.test)) / (len(data.test) * values)
    found = {"one colour": colour_error(data.test), "mean image": rest}
    if wanted:
        directions = principal(data.train, mean, max(wanted))
        taken = [((chunk - mean) @ directions).square().sum(0) for chunk in _flat(data.test)]
        reached = torch.stack(taken).sum(0).cumsum(0) / (len(data.test) * values)
        found |= {f"PCA of {count}": rest - float(reached[count - 1]) for count in wanted}
    return found


def principal(images: Images, mean: torch.Tensor, count: int) -> torch.Tensor:
    """Return the first `count` principal directions of some images about a mean, [values, count], float64."""
    from scipy.linalg import eigh
    from scipy.sparse.linalg import eigsh

    values = len(mean)
    spread = torch.zeros(values, values, dtype=torch.float64)
    for chunk in _flat(images):
        rest = (chunk - mean).float()
        spread += rest.T @ rest
    if values <= SMALL or 3 * count > values:
        _, vectors = eigh(spread.numpy(), subset_by_index=[values - count, values - 1])
    else:  # a few of many: in a tenth of the time
        _, vectors = eigsh(spread.numpy(), count, v0=torch.ones(values, dtype=torch.float64).numpy())
    return torch.from_numpy(vectors).flip(1)


def _flat(images: Images) -> Iterable[torch.Tensor]:
    """Yield chunks of images as rows of pixels in [0, 1], float64."""
    for index in torch.arange(len(images)).split(CHUNK):
        yield images.batch(index.to(images.labels.device)).cpu().flatten(1).double() / 255


@torch.no_grad()
def features_of(classifier: nn.Module, images: Images) -> torch.Tensor:
    """Return what a classifier's head reads of each image, its penultimate features, [N, F] of float64.

    Raises
    ------
    ValueError
        If it has no head.
    """
    name = head_name(classifier)
    if name is None:
        raise ValueError("features are what a classifier's head reads: this network has no head")
    seen: list[torch.Tensor] = []
    handle = classifier.get_submodule(name).register_forward_pre_hook(
        lambda _, given: seen.append(given[0].flatten(1).cpu().double())
    )
    classifier.eval()
    try:
        for pixels, _ in batches(classifier, images):
            classifier(pixels)
    finally:
        handle.remove()
    return torch.cat(seen)


def frechet(a: torch.Tensor, b: torch.Tensor) -> float:
    """Return the Frechet distance of two sets of features, each taken for a Gaussian; never FID: see below.

    |mean_a - mean_b|^2 + trace(A + B - 2 (A B)^(1/2)), A and B the covariances (over n). FID is this in the features of
    one certain network, of 299-pixel images, with 50,000 samples a side; no number of other features is comparable.

    Parameters
    ----------
    a, b
        [N, F] each, two rows or more.

    Raises
    ------
    ValueError
        For sets that cannot be compared.

    References
    ----------
    Dowson and Landau 1982, equation 4.
    """
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise ValueError(
            f"two sets of features [N, F] are compared, two rows or more, not {list(a.shape)}, {list(b.shape)}"
        )
    means = [one.double().mean(0) for one in (a, b)]
    covariances = [torch.cov(one.double().T, correction=0).reshape(a.shape[1], -1) for one in (a, b)]
    root = _root(covariances[0])
    # The eigenvalues of A B are those of A^(1/2) B A^(1/2), which is symmetric.
    both = torch.linalg.eigvalsh(root @ covariances[1] @ root).clamp(min=0).sqrt().sum()
    apart = (means[0] - means[1]).square().sum() + covariances[0].trace() + covariances[1].trace() - 2 * both
    return max(0.0, float(apart))


def _root(matrix: torch.Tensor) -> torch.Tensor:
    """Return the square root of a symmetric matrix with no negative eigenvalue."""
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T


def frechet_null(features: torch.Tensor, seed: int = 0) -> float:
    """Return the Frechet distance between two random halves of one set: what it is where nothing differs."""
    order = torch.randperm(len(features), generator=generator(seed, "halves"))
    half = len(features) // 2
    return frechet(features[order[:half]], features[order[half : 2 * half]])


@torch.no_grad()
def samples(network: Any, count: int, like: Images, seed: int = 0) -> Images:
    """Return images that a VAE decodes from draws of the prior N(0, 1), all of the first class.

    Parameters
    ----------
    network
        A trained VAE.
    count
        How many.
    like
        Images whose size, normalisation and classes they take.

    Raises
    ------
    ValueError
        For a network without a prior.
    """
    if not (hasattr(network, "posterior") and hasattr(network, "decode")):
        raise ValueError(f"a {type(network).__name__} has no prior to draw from: it is no VAE")
    network.eval()
    device, rng = next(network.parameters()).device, generator(seed, "prior", count)
    shape = network.posterior(torch.zeros(1, *like.shape, device=device))[0].shape[1:]
    codes = torch.randn(count, *shape, generator=rng).to(device)
    pixels = [(network.decode(code, like.shape[1:]) * 255).round().byte().cpu() for code in codes.split(256)]
    return Images(torch.cat(pixels), torch.zeros(count, dtype=torch.int64), like.classes, like.mean, like.std)


@torch.no_grad()
def traversals(network: Any, image: Images, numbers: int, reach: float = 3.0, steps: int = 7) -> torch.Tensor:
    """Return what a VAE decodes while one number of an image's latent moves from -reach to reach, the others fixed.

    The numbers shown are those whose posterior is narrowest, hence tell most of this image.

    Returns
    -------
    torch.Tensor
        float [numbers, steps, C, H, W] in [0, 1].
    """
    network.eval()
    pixels, _ = next(iter(batches(network, image.take(torch.tensor([0])))))
    mean, log_variance = network.posterior(pixels)
    told = log_variance.flatten().argsort()[:numbers]
    codes = mean.flatten().repeat(len(told), steps, 1)
    codes[torch.arange(len(told)), :, told] = torch.linspace(-reach, reach, steps, device=codes.device)
    decoded = network.decode(codes.view(-1, *mean.shape[1:]), image.shape[1:])
    found: torch.Tensor = decoded.view(len(told), steps, *image.shape).cpu()
    return found
