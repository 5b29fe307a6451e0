"""A generator against a discriminator: the non-saturating loss of both in one step (1406.2661; 1511.06434)."""

import math
from copy import deepcopy
from typing import Any

import torch
from torch import nn

from .. import models
from ..data import Images
from ..data.augmentation import standardised
from ..seeding import drawing, generator
from .reconstruction import Judged
from .yardsticks import features_of, frechet, frechet_null

MOST = 2_000  # images that a distance is taken from


class Adversarial(Judged):
    """Make images that a discriminator does not tell from real ones; scored by a Frechet distance, never called FID.

    The discriminator learns softplus(-D(x)) + softplus(D(G(z))), the generator softplus(-D(G(z))), which passes through
    a discriminator that is held still. Adam keeps a state for each weight, so one optimiser over both is an optimiser
    for each, at one rate; both take their step at once, one of each. The metric `frechet` is the distance between half
    of the images (at most 2,000) and as many drawn ones, in a judge's penultimate features: not measured while
    training. Beside it stands `null`, between that half and as many others: of fewer images it would be larger.

    Parameters as for `Judged`; without a judge features are random, those of an untrained conv3.
    """

    metric, higher_is_better = "frechet", False

    def check(self, network: Any, images: Images) -> None:
        """Raise a `ValueError` for a network that is no GAN, images of another size, a judge without features."""
        if not (hasattr(network, "generate") and hasattr(network, "judge")):
            raise ValueError(f"a {type(network).__name__} has no generate(noise) and judge(pixels): it is no GAN")
        with torch.no_grad(), drawing(0, "probe"):
            made = deepcopy(network).cpu().eval().generate(torch.zeros(2, network.latent))
        if made.shape[1:] != images.shape:
            found = " x ".join(map(str, made.shape[1:]))
            raise ValueError(f"the generator makes images of {found}, not {' x '.join(map(str, images.shape))}")
        if self.judge is not None:
            if models.head_name(self.judge) is None:
                raise ValueError("the judge has no head: features are what a classifier's head reads")
            models.check_output(self.judge, images.shape, "any")

    def loss(self, network: Any, pixels: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return both losses of a batch added up; the metric is not measured on it (NaN)."""
        noise = torch.randn(len(pixels), network.latent, device=pixels.device).to(pixels.dtype)
        made = standardised(network.generate(noise), self.mean, self.std)
        softplus = nn.functional.softplus
        told = softplus(-network.judge(pixels)) + softplus(network.judge(made.detach()))
        # What the generator learns from must not teach the discriminator, nor count in its running statistics.
        still = {name: value.detach() for name, value in network.discriminator.named_parameters()}
        still |= {name: value.clone() for name, value in network.discriminator.named_buffers()}
        fooled = softplus(-torch.func.functional_call(network.discriminator, still, (made,)).flatten())
        return (told + fooled).mean(), pixels.new_tensor(math.nan)

    @torch.no_grad()
    def score(self, network: Any, images: Images) -> float:
        """Return the Frechet distance between drawn images and some images."""
        real = self._real(images, network)
        return frechet(self._features(drawn(network, len(real), images), network), real)

    def others(self, network: Any, images: Images) -> dict[str, float]:
        """Return `null`: the distance between two random halves of twice as many images."""
        return {"null": frechet_null(self._real(images, network, 2))}

    def chance(self, images: Images) -> float:
        """Return the distance of images that all are of the best single colour."""
        colour = (torch.tensor(images.mean) * 255).round().byte()[None, :, None, None].expand(2, *images.shape)
        flat = Images(colour.contiguous(), torch.zeros(2, dtype=torch.int64), images.classes, images.mean, images.std)
        return frechet(self._features(flat), self._real(images))

    def _real(self, images: Images, network: nn.Module | None = None, halves: int = 1) -> torch.Tensor:
        count = halves * max(2, min(len(images) // 2, MOST))  # of a few images all: a covariance takes two
        rows = torch.arange(len(images))
        if len(images) > 1 and bool((images.labels.diff() >= 0).all()):  # class by class: else these were a few classes
            rows = torch.randperm(len(images), generator=generator(0, "real", len(images)))
        return self._features(images.take(rows[:count].to(images.labels.device)), network)

    def _features(self, images: Images, network: nn.Module | None = None) -> torch.Tensor:
        classifier = self.judge
        if classifier is None:
            classifier = models.build("conv3", 2, seed=0, width=16, channels=images.shape[0])
        device = next(network.parameters()).device if network is not None else torch.device("cpu")
        return features_of(classifier.to(device), images)


@torch.no_grad()
def drawn(network: Any, count: int, like: Images, seed: int = 0) -> Images:
    """Return images that a generator makes of noise from a seed; classes and normalisation are those of `like`."""
    network.eval()
    noise = torch.randn(count, network.latent, generator=generator(seed, "noise", count))
    device = next(network.parameters()).device
    made = [(network.generate(some.to(device)) * 255).round().byte().cpu() for some in noise.split(256)]
    return Images(torch.cat(made), torch.zeros(count, dtype=torch.int64), like.classes, like.mean, like.std)
