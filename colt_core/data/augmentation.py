"""Random crop, flip, rotation and normalisation: a few passes over a whole batch, on its device.

The three movements are composed into one map from output to source pixels, so every pixel moves once, as one 32-bit
word; only what has become the network's input is converted to floating point.
"""

import math
from collections.abc import Sequence
from functools import lru_cache

import torch

from ..seeding import generator
from .images import Images

Shifts = dict[str, torch.Tensor]


def draw(count: int, crop: int, flip: bool, rotation: float, rng: torch.Generator) -> Shifts:
    """Draw each image's movements.

    Returns
    -------
    dict of Tensor
        [count] each: `dy`, `dx` (pixels, in [-crop, crop]), `flip` (bool), `angle` (radians, up to `rotation` degrees).
    """
    return {
        "dy": torch.randint(-crop, crop + 1, (count,), generator=rng),
        "dx": torch.randint(-crop, crop + 1, (count,), generator=rng),
        "flip": torch.rand(count, generator=rng) < (0.5 if flip else 0.0),
        "angle": (torch.rand(count, generator=rng) * 2 - 1) * math.radians(rotation),
    }


def epoch_order(images: Images, seed: int, epoch: int) -> tuple[torch.Tensor, torch.Generator]:
    """Return an epoch's order of images, and the generator for its movements: the same on every device."""
    rng = generator(seed, "epoch", epoch)
    return torch.randperm(len(images), generator=rng), rng


def augment(pixels: torch.Tensor, shifts: Shifts, moves: bool = True, rotates: bool = True) -> torch.Tensor:
    """Shift, flip, then rotate each image about its centre; what comes from outside the image is black (zero).

    Rotation takes the nearest pixel and fills with zero, as torchvision's `RandomRotation` does by default.

    Parameters
    ----------
    pixels
        uint8 [B, C, H, W].
    shifts
        See `draw`; angles turn counter-clockwise.
    moves, rotates
        False leaves shifts and flips, or rotations, out.

    Returns
    -------
    torch.Tensor
        uint8 [B, C, H, W], a view with the channels last.
    """
    if not (moves or rotates):
        return pixels
    batch, channels, height, width = pixels.shape
    # A pixel is one word of four bytes, so that a single gather moves all its channels; the last word is black.
    words = torch.empty(batch * height * width + 1, 4, dtype=torch.uint8, device=pixels.device)
    words[-1] = 0
    words[:-1, :channels].view(batch, height, width, channels).copy_(pixels.permute(0, 2, 3, 1))
    source = _sources(height, width, shifts, moves, rotates).view(-1)
    moved = words.view(torch.int32).view(-1).index_select(0, source)
    return moved.view(torch.uint8).view(batch, height, width, 4)[..., :channels].permute(0, 3, 1, 2)


def _sources(height: int, width: int, shifts: Shifts, moves: bool, rotates: bool) -> torch.Tensor:
    """Return for each output pixel the number of its source pixel in the batch, int32 [B, H, W]; the last is black."""
    device = shifts["angle"].device
    batch = len(shifts["angle"])
    column = torch.arange(width, device=device, dtype=torch.float32) - (width - 1) / 2
    row = torch.arange(height, device=device, dtype=torch.float32)[:, None] - (height - 1) / 2
    # From output to source, backwards through the movements: turn, then flip, then shift.
    dx, dy, sign = torch.zeros(3, batch, 1, 1, device=device)
    sign = sign + 1.0
    if moves:
        dy, dx = shifts["dy"][:, None, None].float(), shifts["dx"][:, None, None].float()
        sign = 1.0 - 2.0 * shifts["flip"][:, None, None]
    if rotates:
        cos, sin = shifts["angle"].cos()[:, None, None], shifts["angle"].sin()[:, None, None]
        x = (sign * cos * column + (dx + (width - 1) / 2)) - sign * sin * row
        y = (sin * column + (dy + (height - 1) / 2)) + cos * row
        x, y = x.round_(), y.round_()
    else:
        x = sign * column + (dx + (width - 1) / 2)
        y = row + (dy + (height - 1) / 2)
    # A pixel must lie in the image and, turned back, in the window that the shift has cut out of it.
    inside = (x >= dx.clamp(min=0)) & (x <= (width - 1) + dx.clamp(max=0))
    inside = inside & ((y >= dy.clamp(min=0)) & (y <= (height - 1) + dy.clamp(max=0)))
    first = torch.arange(batch, device=device, dtype=torch.int32)[:, None, None] * (height * width)
    return ((y * width + x).int() + first).masked_fill_(~inside, batch * height * width)


def normalise(pixels: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """Return (pixels / 255 - mean) / std per channel: float32 [B, C, H, W], in channels_last memory but on CUDA.

    There plain memory leaves it to the network's weights in which memory its convolutions are.
    """
    # One multiplication and one addition a value: a division would cost as much as both.
    scale, shift = _line(tuple(mean), tuple(std), pixels.shape[2], pixels.shape[3], pixels.device)
    rows = pixels.permute(0, 2, 3, 1).to(torch.float32, memory_format=torch.contiguous_format, copy=True)
    normalised = rows.mul_(scale).add_(shift).permute(0, 3, 1, 2)
    return normalised.contiguous() if pixels.is_cuda else normalised


def original(pixels: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """Return normalised pixels as they were, in [0, 1]: what `normalise` took, divided by 255."""
    scale, shift = (_plane(tuple(values), pixels.device) for values in (std, mean))
    return pixels * scale + shift


def standardised(pixels: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """Return pixels in [0, 1] normalised: the way back of `original`, through which gradients pass."""
    scale, shift = (_plane(tuple(values), pixels.device) for values in (std, mean))
    return (pixels - shift) / scale


@lru_cache(maxsize=16)
def _plane(values: tuple[float, ...], device: torch.device) -> torch.Tensor:
    return torch.tensor(values, device=device)[:, None, None]


@lru_cache(maxsize=8)
def _line(
    mean: tuple[float, ...], std: tuple[float, ...], height: int, width: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return factor and summand for every value of an image, [H, W, C]: one long row is fast to apply."""
    scale = torch.tensor([1 / (255 * s) for s in std], device=device)
    shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)], device=device)
    return scale.expand(height, width, -1).contiguous(), shift.expand(height, width, -1).contiguous()
