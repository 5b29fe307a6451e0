"""SGD and Adam by PyTorch's own fused functions."""

from typing import Any

import torch
from torch import nn
from torch.optim.adam import adam
from torch.optim.sgd import sgd

from .recipe import Recipe

Many = list[torch.Tensor]
States = list[dict[str, torch.Tensor]]


class Optimizer:
    """Adam or SGD of a recipe, by PyTorch's own fused functions.

    `torch.optim.Adam` and `SGD` call the same functions, but import PyTorch's compiler first: two seconds in every
    process that trains. Attributes: learning_rate, of the next step; parameters; state, by parameter, its tensors.
    """

    def __init__(self, recipe: Recipe, network: nn.Module) -> None:
        self.recipe, self.learning_rate = recipe, recipe.learning_rate
        self.parameters = list(network.parameters())
        self.state: dict[torch.Tensor, dict[str, torch.Tensor]] = {}

    @torch.no_grad()
    def step(self) -> None:
        """Move every parameter that has a gradient."""
        moved: list[torch.Tensor] = [p for p in self.parameters if p.grad is not None]
        gradients = [p.grad for p in moved if p.grad is not None]
        common: dict[str, Any] = {"lr": self.learning_rate, "weight_decay": self.recipe.weight_decay}
        common |= {"maximize": False, "foreach": False, "fused": True}
        kind = self._adam if self.recipe.optimizer == "adam" else self._sgd
        kind(moved, gradients, [self.state.setdefault(p, {}) for p in moved], common)

    def _adam(self, moved: Many, gradients: Many, states: States, common: dict[str, Any]) -> None:
        for p, state in zip(moved, states, strict=True):
            if not state:  # the count lies in a tensor too: fused steps read it on the device
                fresh = torch.zeros((), device=p.device), torch.zeros_like(p), torch.zeros_like(p)
                state.update(zip(("step", "exp_avg", "exp_avg_sq"), fresh, strict=True))
        mean, square, count = ([s[name] for s in states] for name in ("exp_avg", "exp_avg_sq", "step"))
        common |= {"amsgrad": False, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8}
        adam(moved, gradients, mean, square, [], count, **common)

    def _sgd(self, moved: Many, gradients: Many, states: States, common: dict[str, Any]) -> None:
        momentum = self.recipe.momentum
        buffers = [state.get("momentum_buffer") for state in states] if momentum else []
        if len({buffer is None for buffer in buffers}) > 1:  # weights whose first gradient comes later than others'
            buffers = [torch.zeros_like(p) if b is None else b for p, b in zip(moved, buffers, strict=True)]
        sgd(moved, gradients, buffers, momentum=momentum, dampening=0.0, nesterov=False, **common)
        for state, buffer in zip(states, buffers, strict=False):  # no buffers without momentum
            assert buffer is not None  # PyTorch's function has put the first ones into the list
            state["momentum_buffer"] = buffer

    def zero_grad(self) -> None:
        """Let go of the gradients: a None costs nothing, zeros would be written."""
        for p in self.parameters:
            p.grad = None
