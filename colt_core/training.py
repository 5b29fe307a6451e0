"""How one network is trained: `Recipe`, `train()`. Images stay uint8 tensors on the device."""

import math
import os
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch
from pydantic import Field
from torch import nn
from torch.optim.adam import adam
from torch.optim.sgd import sgd
from tqdm import tqdm

from .augmentation import augment, draw, epoch_order, normalise
from .data import Images
from .masks import Mask, check
from .models import architecture
from .seeding import choose_device, derive, keeping_memory, reproducible
from .settings import Settings

if TYPE_CHECKING:
    from .trainings import Checkpoint

PAUSE = "COLT_PAUSE"  # names a file; while it is there, trainings wait between two steps


class Recipe(Settings):
    """How to train: optimiser, schedule, augmentation, precision. Frozen; `changed(epochs=3)` makes another.

    The learning rate rises linearly over the first `warmup` epochs (fractions allowed), then is multiplied by `gamma`
    after each of the `milestones` (schedule "step"), falls along a cosine to zero, or stays ("constant").
    Augmentation: random crop after zero-padding by `crop` pixels, flip, rotation by up to `rotation` degrees.
    Precision: "float32"; "tf32" (the same, but CUDA may round what it multiplies to TF32); "bfloat16" (autocast, the
    weights stay in float32; on CUDA the rest in TF32).
    """

    epochs: int = Field(50, ge=1)
    batch_size: int = Field(256, ge=2)
    optimizer: Literal["sgd", "adam"] = "sgd"
    learning_rate: float = Field(0.1, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(5e-4, ge=0)
    schedule: Literal["step", "cosine", "constant"] = "step"
    warmup: float = Field(1.0, ge=0)
    milestones: tuple[int, ...] = (20, 30, 45)
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
    # The COLT authors' settings (ALGORITHMS.md section 1). Their conv3 runs Adam at 0.1; see README.
    "official": _OFFICIAL,
    "official-adam": _OFFICIAL.changed(optimizer="adam", learning_rate=3e-3, weight_decay=1e-4),
    "official-tiny": _OFFICIAL.changed(crop=0, rotation=20.0),
    # Short ones for CPUs: no rotation, a cosine to zero.
    "mini": _SHORT.changed(
        epochs=2, batch_size=32, optimizer="adam", learning_rate=3e-3, weight_decay=1e-4, warmup=0.5, crop=0
    ),
    "small": _SHORT,
}


@dataclass
class History:
    """What one training did.

    Attributes
    ----------
    epochs
        One dict an epoch: `loss` (mean cross-entropy of the batches), `accuracy` (on the training batches, running),
        `validation_accuracy` (where validation images were given).
    planned
        Epochs that the recipe asks for; fewer are in `epochs` where the training was ended early.
    images
        Training images seen, an image counted once for each epoch.
    steps
        Optimiser steps taken.
    seconds
        Time spent computing.
    best_epoch, best_state
        Of the highest validation accuracy (the first of equals), kept apart from the last weights, on the CPU.
    """

    epochs: list[dict[str, float]] = field(default_factory=list)
    planned: int = 0
    images: int = 0
    steps: int = 0
    seconds: float = 0.0
    best_epoch: int | None = None
    best_state: dict[str, torch.Tensor] | None = None

    @property
    def validation_accuracy(self) -> float | None:
        """Validation accuracy after the last epoch, in [0, 1]."""
        return self.epochs[-1].get("validation_accuracy") if self.epochs else None

    @property
    def saved(self) -> int:
        """Epochs that were planned and not needed."""
        return self.planned - len(self.epochs)


def train(network: nn.Module, images: Images, recipe: Recipe, *, progress: bool | None = None, **how: Any) -> History:
    """Train a network in place.

    Parameters
    ----------
    network
        Moved to the device and left there.
    images
        The training set.
    recipe
        How.
    progress
        A bar; by default only on a terminal.
    **how
        See `epochs`: mask, validation, seed, device, threads, first_step, steps, checkpoint.

    Raises
    ------
    ValueError
        If labels and head, or mask and network, do not fit, or `first_step` is past the end.
    FloatingPointError
        If the loss is no longer finite.
    """
    hidden = not sys.stderr.isatty() if progress is None else not progress
    history = History()
    with tqdm(disable=hidden, leave=False) as bar:
        for history in epochs(network, images, recipe, **how):
            bar.total = history.planned
            bar.update()
    return history


def epochs(
    network: nn.Module,
    images: Images,
    recipe: Recipe,
    *,
    mask: Mask | None = None,
    validation: Images | None = None,
    seed: int = 0,
    device: str | torch.device = "auto",
    threads: int = 1,
    first_step: int = 0,
    steps: int | None = None,
    checkpoint: "Checkpoint | None" = None,
) -> Iterator[History]:
    """Train a network in place, and yield its history, one and the same object, after every epoch.

    Between two epochs other trainings may take place, and whoever asks for no more epochs ends this one.

    Parameters
    ----------
    network, images, recipe
        As for `train`.
    mask
        Weights outside it are exactly zero at every forward pass.
    validation
        Scored after every epoch; best and last weights are kept apart. Never trained on.
    seed
        Of order, augmentation and dropout; together with the weights it fixes the result on one machine.
    device, threads
        Where; the number of CPU threads is part of what fixes the result.
    first_step, steps
        Start at this step of the schedule (late rewinding), and take at most so many steps.
    checkpoint
        Where the state is kept after every epoch but the last, and taken up again: the end is the same, bit for bit.
    """
    _check_head(network, images)
    where = choose_device(device)
    if not len(images):
        raise ValueError("there are no images to train on")
    per_epoch = recipe.steps(len(images))
    end = min(recipe.epochs * per_epoch, first_step + (steps if steps is not None else recipe.epochs * per_epoch))
    if first_step >= recipe.epochs * per_epoch:
        raise ValueError(f"step {first_step} is past the recipe's {recipe.epochs * per_epoch} steps")
    network.to(where).to(memory_format=torch.channels_last)
    keep = _MaskedWeights(network, mask)
    optimizer = Optimizer(recipe, network)
    images, held_out = images.to(where), validation.to(where) if validation is not None else None
    first, last = first_step // per_epoch, math.ceil(end / per_epoch)
    history, step = History(planned=last - first), first_step
    keep.apply()
    with keeping_memory(where):
        for epoch in range(first, last):
            if len(history.epochs) > epoch - first:  # over already
                continue
            begin = checkpoint is not None and (checkpoint.every or epoch == first)
            if checkpoint and begin and (found := checkpoint.restore(network, optimizer, epoch - first + 1)):
                history, step = found, first_step + found.steps
                if checkpoint.every:
                    yield history
                continue
            begun, seen, before, held = time.perf_counter(), 0, step, 0.0
            with reproducible(where, derive(seed, "dropout", epoch), threads, recipe.precision != "float32"):
                network.train()
                totals = torch.zeros(2, device=where)
                for pixels, labels in _batches(images, recipe, seed, epoch, step, end):
                    held += _hold()
                    optimizer.learning_rate = recipe.rate_at(step, per_epoch)
                    loss, correct = _step(network, pixels, labels, recipe, optimizer)
                    keep.apply()
                    totals += torch.stack((loss * len(labels), correct))
                    step, seen = step + 1, seen + len(labels)
                _close_epoch(history, network, totals, seen, held_out)
            history.steps += step - before
            history.seconds += time.perf_counter() - begun - held
            if checkpoint and epoch + 1 < last:
                checkpoint.save(network, optimizer, history)
            yield history


@torch.no_grad()
def accuracy(network: nn.Module, images: Images, batch: int | None = None) -> float:
    """Return the share of images classified correctly, in [0, 1]; no augmentation, BatchNorm in eval mode."""
    device = next(network.parameters()).device
    batch = batch or (256 if device.type == "cpu" else 2000)  # on a CPU larger ones only take memory
    network.eval()
    correct = 0
    for index in torch.arange(len(images)).split(batch):
        index = index.to(images.labels.device)
        pixels = images.batch(index).to(device)
        scores = network(normalise(pixels, images.mean, images.std))
        correct += int((scores.argmax(1) == images.labels[index].to(device)).sum())
    return correct / len(images)


# --- the steps of the loop ---------------------------------------------------------------------------------------


def _hold() -> float:
    """Wait while the file that `$COLT_PAUSE` names is there (see `live`); return the seconds waited."""
    flag = os.environ.get(PAUSE)
    if not flag or not os.path.exists(flag):
        return 0.0
    begun = time.perf_counter()
    while os.path.exists(flag):
        time.sleep(0.05)
    return time.perf_counter() - begun


class _MaskedWeights:
    """The masked parameters beside their masks as floats, multiplied in place in one fused call."""

    def __init__(self, network: nn.Module, mask: Mask | None) -> None:
        parameters = dict(network.named_parameters())
        check(mask or {}, parameters)
        self.weights = [parameters[name].data for name in mask or {}]
        self.factors = [
            kept.to(weight).contiguous(memory_format=torch.channels_last) if weight.ndim == 4 else kept.to(weight)
            for kept, weight in zip((mask or {}).values(), self.weights, strict=True)
        ]

    @torch.no_grad()
    def apply(self) -> None:
        if self.weights:
            torch._foreach_mul_(self.weights, self.factors)


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
        moved: list[torch.Tensor] = [p for p in self.parameters if p.grad is not None]
        states = [self.state.setdefault(p, {}) for p in moved]
        common: dict[str, Any] = {"lr": self.learning_rate, "weight_decay": self.recipe.weight_decay}
        common |= {"maximize": False, "foreach": False, "fused": True}
        gradients = [p.grad for p in moved if p.grad is not None]
        if self.recipe.optimizer == "adam":
            for p, state in zip(moved, states, strict=True):
                if not state:
                    fresh = torch.zeros((), device=p.device), torch.zeros_like(p), torch.zeros_like(p)
                    state.update(zip(("step", "exp_avg", "exp_avg_sq"), fresh, strict=True))
            mean, square, count = ([s[name] for s in states] for name in ("exp_avg", "exp_avg_sq", "step"))
            common |= {"amsgrad": False, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8}
            adam(moved, gradients, mean, square, [], count, **common)
            return
        momentum = self.recipe.momentum
        buffers = [state.get("momentum_buffer") for state in states] if momentum else []
        sgd(moved, gradients, buffers, momentum=momentum, dampening=0.0, nesterov=False, **common)
        for state, buffer in zip(states, buffers, strict=False):  # no buffers without momentum
            assert buffer is not None
            state["momentum_buffer"] = buffer

    def zero_grad(self) -> None:
        for p in self.parameters:
            p.grad = None


def _batches(
    images: Images, recipe: Recipe, seed: int, epoch: int, first: int = 0, end: int | None = None
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield an epoch's batches, normalised pixels and labels, from step `first` to `end` of the whole schedule.

    Batches are of equal size to within one image, at most `recipe.batch_size`. Small ones are made several at a time:
    on a CPU the start of each operation costs as much as its work on 32 images.
    """
    steps, device = recipe.steps(len(images)), images.labels.device
    order, rng = epoch_order(images, seed, epoch)
    shifts = draw(len(images), recipe.crop, recipe.flip, recipe.rotation, rng)
    pieces = torch.arange(len(images)).tensor_split(steps)[max(0, first - epoch * steps) :]
    pieces = pieces[: end - max(first, epoch * steps)] if end is not None else pieces
    together = max(1, 256 // recipe.batch_size)
    for i in range(0, len(pieces), together):
        where, sizes = torch.cat(pieces[i : i + together]), [len(piece) for piece in pieces[i : i + together]]
        index = order[where].to(device)
        moves = {name: values[where].to(device) for name, values in shifts.items()}
        moved = augment(images.batch(index), moves, bool(recipe.crop or recipe.flip), recipe.rotation > 0)
        pixels = normalise(moved, images.mean, images.std)
        yield from zip(pixels.split(sizes), images.labels[index].split(sizes), strict=True)


def _step(
    network: nn.Module, pixels: torch.Tensor, labels: torch.Tensor, recipe: Recipe, optimizer: Optimizer
) -> tuple[torch.Tensor, torch.Tensor]:
    """One optimiser step; returns its loss and its count of correct answers, both left on the device."""
    low = recipe.precision == "bfloat16"
    with torch.autocast(pixels.device.type, torch.bfloat16) if low else nullcontext():
        scores = network(pixels)
        loss = nn.functional.cross_entropy(scores, labels)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()  # at once: gradients that outlive the step would cut up the free memory
    return loss.detach(), (scores.detach().argmax(1) == labels).sum()


def _close_epoch(
    history: History, network: nn.Module, totals: torch.Tensor, seen: int, validation: Images | None
) -> None:
    loss, correct = (totals / seen).tolist()
    if not math.isfinite(loss):
        raise FloatingPointError(
            f"training diverged in epoch {len(history.epochs)}: the loss is {loss}; lower the recipe's learning rate"
        )
    entry = {"loss": loss, "accuracy": correct}
    history.images += seen
    if validation is not None:
        entry["validation_accuracy"] = accuracy(network, validation)
        best = max((e["validation_accuracy"] for e in history.epochs), default=-1.0)
        if entry["validation_accuracy"] > best:
            history.best_epoch = len(history.epochs)
            history.best_state = {k: v.detach().cpu().clone() for k, v in network.state_dict().items()}
    history.epochs.append(entry)


def _check_head(network: nn.Module, images: Images) -> None:
    outputs = architecture(network)["classes"]
    if outputs != len(images.classes):
        raise ValueError(f"the head has {outputs} outputs but the images have {len(images.classes)} classes")
