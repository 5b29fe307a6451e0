"""A generator and a discriminator in one network: `DCGAN` (1511.06434), for a GPU."""

from collections import OrderedDict
from itertools import pairwise

import torch
from torch import nn

FACTOR = 8  # three convolutions of stride 2
SIDES = ("both", "generator", "discriminator")


class DCGAN(nn.Module):
    """Transposed convolutions from noise to pixels in [0, 1]; their mirror tells images from what they make.

    Parameters
    ----------
    classes
        Not used: every network takes it.
    width
        Channels are width, 2 width, 4 width.
    latent
        Numbers of the noise.
    side
        What is prunable: "both", "generator" or "discriminator"; never the generator's first and the discriminator's
        last layer (2010.02350's code). The initialisation does not depend on it.
    image_size
        Height and width of the images, a multiple of 8.
    channels
        Of the images, 3 or 1.

    Raises
    ------
    ValueError
        In one line, for an argument out of range.

    References
    ----------
    arXiv 1511.06434, section 3; 2010.02350, section 3.
    """

    objective = "adversarial"

    def __init__(
        self,
        classes: int = 10,
        width: int = 64,
        latent: int = 128,
        side: str = "both",
        image_size: int = 32,
        channels: int = 3,
    ) -> None:
        super().__init__()
        if min(width, latent) < 1:
            raise ValueError(f"width and latent must be at least 1, not {width} and {latent}")
        if side not in SIDES:
            raise ValueError(f"unknown side {side!r}; allowed: {', '.join(SIDES)}")
        if image_size < FACTOR or image_size % FACTOR:
            raise ValueError(f"image_size must be a multiple of {FACTOR}, not {image_size}")
        self.latent, small = latent, image_size // FACTOR
        widths = [channels, width, 2 * width, 4 * width]
        up: dict[str, nn.Module] = {"expand": nn.ConvTranspose2d(latent, widths[-1], small, bias=False)}
        down: dict[str, nn.Module] = {}
        for i, (out, into) in reversed(list(enumerate(pairwise(widths), 1))):
            up |= {f"norm{i}": nn.BatchNorm2d(into), f"relu{i}": nn.ReLU()}
            up[f"deconv{i}"] = nn.ConvTranspose2d(into, out, 4, stride=2, padding=1, bias=i == 1)
        for i, (into, out) in enumerate(pairwise(widths), 1):
            down[f"conv{i}"] = nn.Conv2d(into, out, 4, stride=2, padding=1, bias=i == 1)
            down |= {f"norm{i}": nn.BatchNorm2d(out)} if i > 1 else {}
            down[f"relu{i}"] = nn.LeakyReLU(0.2)
        self.generator = nn.Sequential(OrderedDict(up | {"pixels": nn.Sigmoid()}))
        self.discriminator = nn.Sequential(OrderedDict(down | {"verdict": nn.Conv2d(widths[-1], 1, small)}))
        own = {"generator": ["generator.deconv*"], "discriminator": ["discriminator.conv*"]}
        self.anatomy = {
            "head": None,
            "prunable": [*own["generator"], *own["discriminator"]] if side == "both" else own[side],
        }

    def generate(self, noise: torch.Tensor) -> torch.Tensor:
        """Return pixels in [0, 1], [N, C, H, W], made of noise [N, latent]."""
        pixels: torch.Tensor = self.generator(noise[:, :, None, None])
        return pixels

    def judge(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return for each of some normalised images how real it looks, [N], a logit."""
        verdicts: torch.Tensor = self.discriminator(pixels)
        return verdicts.flatten()

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the verdicts on normalised images, and as many images made of no noise: a pass through all of it."""
        return self.judge(pixels), self.generate(pixels.new_zeros(len(pixels), self.latent))
