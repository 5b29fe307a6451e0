"""How one network is trained: `Recipe`, and the ready ones."""

import math
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from ..settings import Settings, as_number


def _whole_if_it_can_be(value: float) -> float:
    """3.0 epochs are 3: they must be written alike, for hashes are taken of what is written."""
    return int(value) if value == int(value) else value


Epochs = Annotated[int | float, BeforeValidator(as_number), AfterValidator(_whole_if_it_can_be)]


class Recipe(Settings):
    """How to train: optimiser, schedule, augmentation, precision. Frozen; `changed(epochs=3)` makes another.

    Epochs may be fractions: of 1.5 the last half of an epoch's steps are left out. The learning rate rises linearly
    over the first `warmup` epochs, then is multiplied by `gamma` after each of the `milestones` (schedule "step"),
    falls along a cosine to zero, or stays ("constant").
    Augmentation: random crop after zero-padding by `crop` pixels, flip, rotation by up to `rotation` degrees.
    Precision: "float32"; "tf32" (the same, but CUDA may round what it multiplies to TF32); "bfloat16" (autocast, the
    weights stay in float32; on CUDA the rest in TF32).
    """

    epochs: Epochs = Field(50, gt=0)
    batch_size: int = Field(256, ge=2)
    optimizer: Literal["sgd", "adam"] = "sgd"
    learning_rate: float = Field(0.1, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(5e-4, ge=0)
    schedule: Literal["step", "cosine", "constant"] = "step"
    warmup: float = Field(1.0, ge=0)
    milestones: tuple[Epochs, ...] = (20, 30, 45)
    gamma: float = Field(0.2, gt=0, le=1)
    crop: int = Field(4, ge=0)
    flip: bool = True
    rotation: float = Field(15.0, ge=0, le=180)
    precision: Literal["float32", "tf32", "bfloat16"] = "float32"

    @classmethod
    def named(cls, name: str) -> "Recipe":
        """Return one of the ready recipes (`RECIPES`).

        Raises
        ------
        ValueError
            For an unknown name.
        """
        if name not in RECIPES:
            raise ValueError(f"unknown recipe {name!r}; allowed: {', '.join(RECIPES)}")
        return RECIPES[name]

    def steps(self, images: int) -> int:
        """Return the optimiser steps of an epoch over so many images."""
        return math.ceil(images / self.batch_size)

    def total(self, images: int) -> int:
        """Return the optimiser steps of the whole training, at least one."""
        return max(1, round(self.epochs * self.steps(images)))

    def shortened(self, times: float) -> "Recipe":
        """Return the recipe that takes the same course in a `times`-th of the epochs."""
        ends = tuple(milestone / times for milestone in self.milestones)
        return self.changed(epochs=self.epochs / times, warmup=self.warmup / times, milestones=ends)

    def rate_at(self, step: int, steps_per_epoch: int) -> float:
        """Return the learning rate of a step (counted from 0)."""
        rising = self.warmup * steps_per_epoch
        if step < rising:
            return self.learning_rate * min(1.0, (step + 1) / rising)
        if self.schedule == "cosine":
            done = (step - rising) / max(1.0, self.epochs * steps_per_epoch - rising)
            return self.learning_rate * 0.5 * (1 + math.cos(math.pi * done))
        if self.schedule == "constant":
            return self.learning_rate
        return self.learning_rate * self.gamma ** sum(step >= m * steps_per_epoch for m in self.milestones)


_OFFICIAL = Recipe()

_SHORT = _OFFICIAL.changed(epochs=8, batch_size=128, schedule="cosine", rotation=0.0)

RECIPES = {
    # The COLT authors' settings. Their conv3 runs Adam at 0.1: notebook 13.
    "official": _OFFICIAL,
    "official-adam": _OFFICIAL.changed(optimizer="adam", learning_rate=3e-3, weight_decay=1e-4),
    "official-tiny": _OFFICIAL.changed(crop=0, rotation=20.0),
    # Short ones for CPUs: no rotation, a cosine to zero.
    "mini": _SHORT.changed(
        epochs=2, batch_size=32, optimizer="adam", learning_rate=3e-3, weight_decay=1e-4, warmup=0.5, crop=0
    ),
    "small": _SHORT,
}
