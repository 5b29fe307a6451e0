"""Whole channels of several masks: how many they share, beside chance."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from .mask import Mask, outputs_first


@dataclass(frozen=True)
class Shared:
    """The channels of one layer that several masks keep.

    Attributes
    ----------
    layer, channels
        Its name, and how many it has.
    kept
        How many each mask keeps.
    shared
        How many all of them keep.
    expected, spread
        Mean and standard deviation of that number for channels drawn at random, as many a mask.
    p
        The probability that as many or more are shared by chance.
    """

    layer: str
    channels: int
    kept: tuple[int, ...]
    shared: int
    expected: float
    spread: float
    p: float

    @property
    def z(self) -> float:
        """How many standard deviations more are shared than by chance; NaN where chance leaves no choice."""
        return (self.shared - self.expected) / self.spread if self.spread > 1e-12 else math.nan


def shared_channels(*masks: Mask, transposed: Collection[str] = ()) -> list[Shared]:
    """Return for each layer how many output channels all masks keep, beside the hypergeometric null.

    A channel is kept where its row keeps a weight. Of two masks with k and l of C channels the shared number is
    hypergeometric with mean k l / C; of more, each one draws from what those before it share, and the distribution is
    computed exactly. At C = 16 a Jaccard index alone says little: report z. Of `transposed` layers (see
    `models.transposed`) the input channels come first.

    Raises
    ------
    ValueError
        For fewer than two masks, or masks over different layers.
    """
    if len(masks) < 2:
        raise ValueError(f"channels are shared by two masks or more, not {len(masks)}")
    if any(mask.keys() != masks[0].keys() for mask in masks):
        raise ValueError("the masks are over different layers")
    found, masks = [], tuple(outputs_first(mask, transposed) for mask in masks)
    for name in masks[0]:
        rows = np.stack([mask[name].flatten(1).any(1).cpu().numpy() for mask in masks])
        kept, shared = rows.sum(1), int(rows.all(0).sum())
        chances = chance_of_sharing(rows.shape[1], [int(count) for count in kept])
        numbers = np.arange(len(chances))
        mean = float(chances @ numbers)
        spread = math.sqrt(max(0.0, float(chances @ (numbers - mean) ** 2)))
        tail = min(1.0, float(chances[shared:].sum()))
        layer = name.removesuffix(".weight")
        found.append(Shared(layer, rows.shape[1], tuple(map(int, kept)), shared, mean, spread, tail))
    return found


def chance_of_sharing(channels: int, kept: Sequence[int]) -> np.ndarray:
    """Return the probability of each number, 0 to C, of channels that all of several random sets have in common."""
    from scipy.stats import hypergeom

    numbers = np.arange(channels + 1)
    chances = (numbers == kept[0]).astype(float)
    for count in kept[1:]:
        chances = sum(chances[i] * hypergeom.pmf(numbers, channels, i, count) for i in numbers if chances[i] > 0)
    return chances
