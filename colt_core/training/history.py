"""What a training did, epoch by epoch, and whether it came to anything."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass
class History:
    """What one training did.

    Attributes
    ----------
    epochs
        One dict an epoch: `loss` (mean over the batches), the metric (`accuracy`; on the training batches, running),
        and `validation_<metric>` where validation images were given.
    planned
        Epochs that the recipe asks for; fewer are in `epochs` where the training was ended early.
    images
        Training images seen, an image counted once for each epoch.
    steps
        Optimiser steps taken.
    seconds
        Time spent computing.
    best_epoch, best_state
        Of the best validation metric (the first of equals), kept apart from the last weights, on the CPU.
    metric
        The name of the objective's metric.
    """

    epochs: list[dict[str, float]] = field(default_factory=list)
    planned: int = 0
    images: int = 0
    steps: int = 0
    seconds: float = 0.0
    best_epoch: int | None = None
    best_state: dict[str, torch.Tensor] | None = None
    metric: str = "accuracy"

    @property
    def validation_accuracy(self) -> float | None:
        """Validation accuracy, or the objective's other metric, after the last epoch."""
        return self.epochs[-1].get(f"validation_{self.metric}") if self.epochs else None

    @property
    def saved(self) -> int:
        """Epochs that were planned and not needed."""
        return self.planned - len(self.epochs)

    def told(self) -> dict[str, Any]:
        """Return it as JSON can hold it: without the best weights."""
        return {name: value for name, value in vars(self).items() if name != "best_state"}


def doubt(epoch: Mapping[str, float], chance: float | None, images: int, error: str = "") -> str:
    """Say in words where a training has come to nothing; "" where there is no doubt.

    Parameters
    ----------
    epoch
        Its last, of a `History`. What counts is the metric on the images that it was trained on.
    chance
        The metric of a network that has learnt nothing: the accuracy of guessing, 1 where there is one class alone;
        None: unknown.
    images
        How many it was trained on: by luck a guess rises up to three standard errors above chance.
    error
        The metric's name, where lower is better.
    """
    value = epoch.get(error)  # None in a stored score, where it is not measured in training
    if chance is not None and value is not None and value >= chance > 0:
        return f"ended at chance ({error} {value:.3g} of its training images, {chance:.3g} by chance)"
    if chance is None or "accuracy" not in epoch:
        return ""
    if chance >= 1:
        return "has a single class to learn"
    if epoch["accuracy"] > chance + 3 * math.sqrt(chance * (1 - chance) / images):
        return ""
    return f"ended at chance ({epoch['accuracy']:.1%} of its training images, loss {epoch['loss']:.3g})"
