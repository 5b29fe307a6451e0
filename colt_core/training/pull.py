"""Weights that are pulled to zero while a network learns: the regularised transformation of dual tickets."""

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import nn

from ..files import Tensors
from ..masks import Mask
from .objective import CrossEntropy
from .recipe import Recipe

ENOUGH = 7.0  # of `reach`: a weight that the loss leaves alone is then a thousandth of what it was
STRONG = 10.0  # of `reach`, where the learning rate is ours to choose


class Pull(CrossEntropy):
    """Cross-entropy, and an L2 penalty on chosen weights that grows step by step: lambda_t / 2 sum w^2.

    lambda_t = min(1, (1 + t) / ramp): the first increment falls on step 0. It is added to the gradients between
    backward and the optimiser, which must be SGD: Adam divides a pull away, and all weights move alike.

    Parameters
    ----------
    chosen
        bool, by parameter name: True where a weight is pulled.
    ramp
        Steps until lambda is 1.

    References
    ----------
    arXiv 2203.04248, section 3.2.
    """

    def __init__(self, chosen: Mask, ramp: int) -> None:
        if isinstance(ramp, bool) or not isinstance(ramp, int) or ramp < 1:
            raise ValueError(f"ramp must be a whole number of steps from 1, not {ramp!r}")
        self.chosen, self.ramp = dict(chosen), ramp

    def check_recipe(self, recipe: Recipe) -> None:
        """Raise a `ValueError` for Adam, which divides a pull away."""
        if recipe.optimizer != "sgd":
            raise ValueError("weights are pulled with the optimizer sgd alone: adam divides a pull away")

    def strength(self, step: int) -> float:
        """Return lambda at a step."""
        return min(1.0, (1 + step) / self.ramp)  # counted, not added up: 0.001 a thousand times is not 1

    @torch.no_grad()
    def pull(self, network: nn.Module, step: int) -> None:
        """Add lambda w to the gradients of the chosen weights."""
        strength = self.strength(step)
        for name, chosen in self.chosen.items():
            weight = network.get_parameter(name)
            if weight.grad is not None:
                weight.grad.add_(weight * chosen.to(weight.device), alpha=strength)

    def settings(self) -> dict[str, Any]:
        """Return the ramp; which weights is a tensor each."""
        return {"ramp": self.ramp}

    def tensors(self) -> Tensors:
        """Return the chosen weights, by name."""
        return dict(self.chosen)

    @classmethod
    def rebuilt(cls, settings: Mapping[str, Any], tensors: Tensors) -> Self:
        """Make it anew."""
        return cls({name: value.bool() for name, value in tensors.items()}, **settings)


def reach(learning_rate: float, momentum: float, ramp: int, hold: int) -> float:
    """Return E: without a gradient of the loss a pulled weight shrinks by about exp(-E) in ramp and hold.

    E = lr / (1 - mu) times the sum of lambda_t: (ramp + 1) / 2 + hold.
    """
    return learning_rate / (1 - momentum) * ((ramp + 1) / 2 + hold)


def remains(learning_rate: float, momentum: float, ramp: int, hold: int) -> float:
    """Return the share of a pulled weight that is left after ramp and hold, without a gradient of the loss.

    About exp(-E) (`reach`) where steps are many; momentum carries a weight past zero and back, and damps that by the
    square root of the momentum a step at best: how large a rate may be, a short schedule does not end.
    """
    weight, velocity = 1.0, 0.0
    for step in range(ramp + hold):
        velocity = momentum * velocity + min(1.0, (1 + step) / ramp) * weight
        weight -= learning_rate * velocity
    return abs(weight)
