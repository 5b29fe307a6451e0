"""How networks are trained: `Recipe`, `train()`, `train_copies()`. Images stay uint8 tensors on the device."""

import math
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from pydantic import Field
from torch import nn
from tqdm import tqdm

from .data import Images
from .masks import Mask, check
from .models import architecture
from .seeding import choose_device, derive, generator, reproducible
from .settings import Settings


class Recipe(Settings):
    """How to train: optimiser, schedule, augmentation, precision. Frozen; `changed(epochs=3)` makes another.

    The learning rate rises linearly over the first `warmup` epochs (fractions allowed), then is multiplied by `gamma`
    after each of the `milestones` (schedule "step"), falls along a cosine to zero, or stays ("constant").
    Augmentation: random crop after zero-padding by `crop` pixels, flip, rotation by up to `rotation` degrees.
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
    precision: Literal["float32", "bfloat16"] = "float32"

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
    # Short ones for CPUs: no rotation (3-4x the cost of crop and flip there), a cosine to zero.
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
    images
        Training images seen, an image counted once for each epoch.
    steps
        Optimiser steps taken.
    seconds
        Wall time.
    best_epoch, best_state
        Of the highest validation accuracy (the first of equals), kept apart from the last weights, on the CPU.
    """

    epochs: list[dict[str, float]] = field(default_factory=list)
    images: int = 0
    steps: int = 0
    seconds: float = 0.0
    best_epoch: int | None = None
    best_state: dict[str, torch.Tensor] | None = None

    @property
    def validation_accuracy(self) -> float | None:
        """Validation accuracy after the last epoch, in [0, 1]."""
        return self.epochs[-1].get("validation_accuracy") if self.epochs else None


def train(
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
    progress: bool | None = None,
) -> History:
    """Train a network in place.

    Parameters
    ----------
    network
        Moved to the device and left there.
    images
        The training set.
    recipe
        How.
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
    progress
        A bar; by default only on a terminal.

    Raises
    ------
    ValueError
        If labels and head, or mask and network, do not fit, or `first_step` is past the end.
    FloatingPointError
        If the loss is no longer finite.
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
    optimizer = _optimizer(recipe, network)
    history, start, step = History(), time.perf_counter(), first_step
    images = images.to(where)
    held_out = validation.to(where) if validation is not None else None
    hidden = not sys.stderr.isatty() if progress is None else not progress
    keep.apply()
    with reproducible(where, seed, threads):
        for epoch in tqdm(range(first_step // per_epoch, math.ceil(end / per_epoch)), disable=hidden, leave=False):
            batches = epoch_batches(images, recipe, seed, epoch)[step - epoch * per_epoch : end - epoch * per_epoch]
            torch.manual_seed(derive(seed, "dropout", epoch))  # an epoch's draws do not depend on the epochs before it
            network.train()
            totals = torch.zeros(2, device=where)
            seen = 0
            for index, shifts in batches:
                for group in optimizer.param_groups:
                    group["lr"] = recipe.rate_at(step, per_epoch)
                loss, correct = _step(network, images, recipe, index, shifts, optimizer)
                keep.apply()
                totals += torch.stack((loss * len(index), correct))
                step, seen = step + 1, seen + len(index)
            _close_epoch(history, network, totals, seen, held_out)
    history.steps, history.seconds = step - first_step, time.perf_counter() - start
    return history


def train_copies(
    networks: Sequence[nn.Module],
    parts: Sequence[Images],
    recipe: Recipe,
    *,
    masks: Sequence[Mask] | None = None,
    seeds: Sequence[int] | None = None,
    validation: Sequence[Images] | None = None,
    first_steps: Sequence[int] | None = None,
    **options: Any,
) -> list[nn.Module]:
    """Train each network in place on its own images, independently; return them, in order.

    Each network gets an attribute `history` (see `History`). `options` go to `train`.

    Raises
    ------
    ValueError
        If the sequences differ in length.
    """
    count = len(networks)
    given = {"parts": parts, "masks": masks, "seeds": seeds, "validation": validation, "first_steps": first_steps}
    for name, values in given.items():
        if values is not None and len(values) != count:
            raise ValueError(f"{count} networks need {count} {name}, not {len(values)}")
    for i, network in enumerate(networks):
        vars(network)["history"] = train(
            network,
            parts[i],
            recipe,
            mask=masks[i] if masks else None,
            seed=seeds[i] if seeds else i,
            validation=validation[i] if validation else None,
            first_step=first_steps[i] if first_steps else 0,
            **options,
        )
    return list(networks)


def history_of(network: nn.Module) -> History:
    """Return what `train_copies` did to a network."""
    return vars(network)["history"]


@torch.no_grad()
def accuracy(network: nn.Module, images: Images, batch: int = 1000) -> float:
    """Return the share of images classified correctly, in [0, 1]; no augmentation, BatchNorm in eval mode."""
    device = next(network.parameters()).device
    network.eval()
    correct = 0
    for index in torch.arange(len(images)).split(batch):
        pixels = images.images[index.to(images.images.device)].to(device)
        scores = network(normalise(pixels, images.mean, images.std))
        correct += int((scores.argmax(1) == images.labels[index.to(images.labels.device)].to(device)).sum())
    return correct / len(images)


# --- augmentation, batched, on the device ------------------------------------------------------------------------

Shifts = dict[str, torch.Tensor]


def epoch_batches(images: Images, recipe: Recipe, seed: int, epoch: int) -> list[tuple[torch.Tensor, Shifts]]:
    """Return the batches of an epoch: indices and augmentation draws, on the images' device.

    The draws come from a CPU generator of (seed, epoch), so they are the same on every device. Batches are of equal
    size to within one image, at most `recipe.batch_size`.
    """
    n, device = len(images), images.images.device
    rng = generator(seed, "epoch", epoch)
    order = torch.randperm(n, generator=rng)
    draws = {
        "dy": torch.randint(-recipe.crop, recipe.crop + 1, (n,), generator=rng),
        "dx": torch.randint(-recipe.crop, recipe.crop + 1, (n,), generator=rng),
        "flip": torch.rand(n, generator=rng) < (0.5 if recipe.flip else 0.0),
        "angle": (torch.rand(n, generator=rng) * 2 - 1) * math.radians(recipe.rotation),
    }
    pieces = recipe.steps(n)
    columns = {name: values.to(device).tensor_split(pieces) for name, values in draws.items()}
    return [
        (index, {name: chunks[i] for name, chunks in columns.items()})
        for i, index in enumerate(order.to(device).tensor_split(pieces))
    ]


def augment(pixels: torch.Tensor, recipe: Recipe, shifts: Shifts) -> torch.Tensor:
    """Crop, flip and rotate a batch of uint8 [B, 3, H, W]; what comes from outside the image is black (zero).

    Returns
    -------
    torch.Tensor
        [B, 3, H, W] in channels_last memory, uint8; float32 in [0, 255] where the recipe rotates.
    """
    if recipe.crop or recipe.flip:
        pixels = _crop_and_flip(pixels, recipe.crop, shifts)
    return _rotate(pixels, shifts["angle"]) if recipe.rotation else pixels


def _crop_and_flip(pixels: torch.Tensor, crop: int, shifts: Shifts) -> torch.Tensor:
    """One gather: row i of the output is row i + dy of the image, columns likewise, mirrored where flipped."""
    if not crop:
        return torch.where(shifts["flip"][:, None, None, None], pixels.flip(3), pixels)
    batch, _, height, width = pixels.shape
    device = pixels.device
    rows = torch.arange(height, device=device) + shifts["dy"][:, None]
    columns = torch.arange(width, device=device).expand(batch, width)
    columns = torch.where(shifts["flip"][:, None], width - 1 - columns, columns) + shifts["dx"][:, None]
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
    image = torch.arange(batch, device=device)[:, None, None]
    gathered = pixels.permute(0, 2, 3, 1)[
        image, rows.clamp(0, height - 1)[:, :, None], columns.clamp(0, width - 1)[:, None, :]
    ]
    return (gathered * inside[..., None]).permute(0, 3, 1, 2)


def _rotate(pixels: torch.Tensor, angle: torch.Tensor) -> torch.Tensor:
    """Rotate each image about its centre, bilinear, zeros outside."""
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    matrix = torch.stack((torch.stack((cos, -sin, zero), 1), torch.stack((sin, cos, zero), 1)), 1)
    grid = nn.functional.affine_grid(matrix, list(pixels.shape), align_corners=False)
    return nn.functional.grid_sample(pixels.float(), grid, align_corners=False)


def normalise(pixels: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """Return (pixels / 255 - mean) / std per channel, float32, in channels_last memory."""
    scale = torch.tensor([1 / (255 * s) for s in std], device=pixels.device)[:, None, None]
    shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)], device=pixels.device)[:, None, None]
    return pixels.contiguous(memory_format=torch.channels_last).float().mul_(scale).add_(shift)


# --- the steps of the loop ---------------------------------------------------------------------------------------


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


def _optimizer(recipe: Recipe, network: nn.Module) -> torch.optim.Optimizer:
    common: dict[str, Any] = {"lr": recipe.learning_rate, "weight_decay": recipe.weight_decay, "foreach": True}
    if recipe.optimizer == "adam":
        return torch.optim.Adam(network.parameters(), **common)
    return torch.optim.SGD(network.parameters(), momentum=recipe.momentum, **common)


def _step(
    network: nn.Module,
    images: Images,
    recipe: Recipe,
    index: torch.Tensor,
    shifts: Shifts,
    optimizer: torch.optim.Optimizer,
) -> tuple[torch.Tensor, torch.Tensor]:
    """One optimiser step; returns its loss and its count of correct answers, both left on the device."""
    pixels = normalise(augment(images.images[index], recipe, shifts), images.mean, images.std)
    labels = images.labels[index]
    low = recipe.precision == "bfloat16"
    with torch.autocast(pixels.device.type, torch.bfloat16) if low else nullcontext():
        scores = network(pixels)
        loss = nn.functional.cross_entropy(scores, labels)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
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
