"""Networks that give images back: `Autoencoder` and `VAE`; nothing in them depends on classes."""

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn

FACTOR = 8  # three convolutions of stride 2: a side of the latent is an eighth of the image's
USUAL = 32 // FACTOR  # the latent's side for images of 32 pixels, of which `latent` is told
SIDES = ("both", "encoder", "decoder")


class Autoencoder(nn.Module):
    """Three convolutions of stride 2, a latent squeezed by a 1x1 convolution, and their mirror, transposed.

    The encoder's convolutions have conv3's names and shapes, so that one's ticket fits the other. It takes normalised
    pixels [N, C, H, W] and gives pixels in [0, 1], of any size: the latent is an eighth as high and wide. A size
    that is no multiple of 8 is filled up with its border, and cut off again.

    Parameters
    ----------
    classes
        Not used: every network takes it.
    width
        Channels are width, 2 width, 4 width.
    latent
        Numbers of the latent of a 32 x 32 image, a multiple of 16; of other sizes in proportion to their area.
    side
        What is prunable: "both", the "encoder" (the latent's convolution is its last), or the "decoder". The
        initialisation does not depend on it.
    channels
        Of the images, 3 or 1.

    Raises
    ------
    ValueError
        In one line, for an argument out of range: a latent larger than the image would squeeze nothing.

    References
    ----------
    arXiv 2010.02350, section 3 (there a latent of 2,048 numbers for 3,072: almost nothing is left to learn).
    """

    objective = "reconstruction"

    def __init__(
        self, classes: int = 10, width: int = 16, latent: int = 128, side: str = "both", channels: int = 3
    ) -> None:
        super().__init__()
        code = _code(width, latent, side, channels)
        widths = [channels, width, 2 * width, 4 * width]
        down: dict[str, nn.Module] = {}
        for i, (into, out) in enumerate(pairwise(widths), 1):
            down[f"conv{i}"] = nn.Conv2d(into, out, 3, stride=2, padding=1, bias=False)
            down |= {f"norm{i}": nn.BatchNorm2d(out), f"relu{i}": nn.ReLU()}
        up: dict[str, nn.Module] = {"expand": nn.Conv2d(code, widths[-1], 1, bias=False)}
        for i, (out, into) in reversed(list(enumerate(pairwise(widths), 1))):
            up |= {f"norm{i}": nn.BatchNorm2d(into), f"relu{i}": nn.ReLU()}
            up[f"deconv{i}"] = nn.ConvTranspose2d(into, out, 4, stride=2, padding=1, bias=i == 1)
        self.encoder = nn.Sequential(OrderedDict(down))
        self.latent = nn.Conv2d(widths[-1], code, 1)
        self.decoder = nn.Sequential(OrderedDict(up))
        self.pixels = nn.Sigmoid()
        self.anatomy = {"head": None, "prunable": self._prunable(side)}

    def _prunable(self, side: str) -> list[str]:
        own = {"encoder": ["encoder.*", "latent.*"], "decoder": ["decoder.*"]}
        return own["encoder"] + own["decoder"] if side == "both" else own[side]

    def features(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return what the encoder's last convolution gives, [N, 4 width, ceil(H / 8), ceil(W / 8)]."""
        height, width = pixels.shape[2:]
        if height % FACTOR or width % FACTOR:
            pixels = nn.functional.pad(pixels, (0, -width % FACTOR, 0, -height % FACTOR), mode="replicate")
        features: torch.Tensor = self.encoder(pixels)
        return features

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the latent of normalised pixels, [N, latent / 16, ceil(H / 8), ceil(W / 8)]."""
        code: torch.Tensor = self.latent(self.features(pixels))
        return code

    def decode(self, code: torch.Tensor, size: Sequence[int] | None = None) -> torch.Tensor:
        """Return pixels in [0, 1] from a latent; `size`: height and width, by default eight times the latent's."""
        height, width = size or [FACTOR * side for side in code.shape[2:]]
        pixels: torch.Tensor = self.pixels(self.decoder(code))
        return pixels[:, :, :height, :width]

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.decode(self.encode(pixels), pixels.shape[2:])


class VAE(Autoencoder):
    """The autoencoder whose latent is a Gaussian: a second 1x1 convolution gives the logarithm of its variance.

    `forward` decodes the mean, and draws nothing; what is drawn in training its objective draws. Parameters and errors
    as `Autoencoder`; both convolutions of the latent are the encoder's.

    References
    ----------
    arXiv 1312.6114, appendix B; 2010.02350, section 3.
    """

    objective = "vae"

    def __init__(
        self, classes: int = 10, width: int = 16, latent: int = 128, side: str = "both", channels: int = 3
    ) -> None:
        super().__init__(classes, width, latent, side, channels)
        self.log_variance = nn.Conv2d(4 * width, self.latent.out_channels, 1)

    def _prunable(self, side: str) -> list[str]:
        return super()._prunable(side) + (["log_variance.*"] if side != "decoder" else [])

    def posterior(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return mean and log-variance of the latent of normalised pixels."""
        features = self.features(pixels)
        return self.latent(features), self.log_variance(features)

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the posterior's mean."""
        return self.posterior(pixels)[0]


def _code(width: int, latent: int, side: str, channels: int) -> int:
    """Return the latent's channels; refuse what does not go together."""
    if width < 1:
        raise ValueError(f"width must be at least 1, not {width}")
    if side not in SIDES:
        raise ValueError(f"unknown side {side!r}; allowed: {', '.join(SIDES)}")
    most = channels * FACTOR**2 * USUAL**2
    if latent > most:
        raise ValueError(f"a latent of {latent} is larger than the image: a 32 x 32 image has {most} numbers")
    if latent < 1 or latent % USUAL**2:
        raise ValueError(f"latent must be a multiple of {USUAL**2}, from {USUAL**2} to {most}, not {latent}")
    return latent // USUAL**2
