"""The loop: one network is trained, an epoch at a time. Images stay uint8 tensors on the device."""

import hashlib
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import nn

from .. import models
from ..data import Images, check_images
from ..data.augmentation import augment, draw, epoch_order, normalise
from ..files import hash_into
from ..foreign import fingerprint
from ..masks import Mask, check
from ..models import check_output, computes
from ..progress import bar, left
from ..seeding import choose_device, derive, drawing, memory_format, reproducible
from ..settings import meant
from .history import History
from .memory import keeping_memory
from .objective import CROSS_ENTROPY, Objective, batch_loss, check_objective, described, objective_for, scored
from .optimizer import Optimizer
from .recipe import Recipe

PAUSE = "COLT_PAUSE"  # names a file; while it is there, trainings wait between two steps
FORMAT = 1  # part of every training's key: raise it when the same training comes to give other weights


@dataclass(frozen=True, eq=False)
class Training:
    """Everything that, with the weights it starts from, fixes what comes out of a training. Frozen.

    Attributes
    ----------
    images, recipe
        What is trained on, and how.
    mask
        Weights outside it are exactly zero at every forward pass.
    validation
        Scored after every epoch; best and last weights are kept apart. Never trained on.
    seed
        Of order, augmentation and dropout.
    threads
        CPU threads: the sums of a step depend on their number.
    first_step, steps
        Start at this step of the schedule (late rewinding), and take at most so many steps.
    objective
        What is learnt and how it is scored; it is fitted to the images.
    """

    images: Images
    recipe: Recipe
    mask: Mask | None = None
    validation: Images | None = None
    seed: int = 0
    threads: int = 1
    first_step: int = 0
    steps: int | None = None
    objective: Objective = CROSS_ENTROPY

    def __post_init__(self) -> None:
        check_objective(self.objective)
        object.__setattr__(self, "objective", self.objective.fitted(self.images))

    @property
    def steps_per_epoch(self) -> int:
        """The optimiser steps of one epoch."""
        return self.recipe.steps(len(self.images))

    @property
    def end(self) -> int:
        """The step of the recipe's schedule before which it ends."""
        whole = self.recipe.total(len(self.images))
        return whole if self.steps is None else min(whole, self.first_step + self.steps)

    def check(self, network: nn.Module) -> None:
        """Raise a `ValueError` in one line where it cannot be carried out with this network."""
        if not isinstance(self.recipe, Recipe):
            raise ValueError(f"recipe must be a Recipe, for example Recipe.named('mini'), not {self.recipe!r}")
        check_images(self.images)
        self.objective.check(network, self.images)
        self.objective.check_recipe(self.recipe)
        if not len(self.images):
            raise ValueError("there are no images to train on")
        if not any(parameter.requires_grad for parameter in network.parameters()):
            raise ValueError("every weight of the network is frozen (requires_grad=False): nothing would be learnt")
        if self.first_step >= (whole := self.recipe.total(len(self.images))):
            raise ValueError(f"step {self.first_step} is past the recipe's {whole} steps")
        check(self.mask or {}, dict(network.named_parameters()))
        check_output(network, self.images.shape, self.objective.gives)
        self.check_batches(network)

    def check_batches(self, network: nn.Module) -> None:
        """Raise a `ValueError` where a batch is one image, of which this network's normalisation has no variance."""
        whole, count = self.steps_per_epoch, len(self.images)
        steps = range(self.first_step, min(self.end, self.first_step + whole))
        if count // whole > 1 or not any(step % whole >= count % whole for step in steps):
            return
        probe = deepcopy(network).cpu().train()
        with torch.no_grad(), drawing(self.seed, "probe"):
            try:
                probe(torch.zeros(1, *self.images.shape))
            except Exception as problem:  # any other will show in the training, with the real images
                if "more than 1 value per channel" in str(problem):
                    about = f"{count} images at batch_size {self.recipe.batch_size} leave a batch of one image"
                    raise ValueError(f"{about}, of which batch normalisation has no variance") from None

    def key(self, network: nn.Module, device: str | torch.device = "cpu") -> str:
        """Return what identifies it: the weights it starts from, mask, images, recipe, seed, where it runs.

        Of networks and objectives that are not the workbook's own what they compute, too: arguments and code.
        """
        digest = hashlib.sha256()
        for kind, tensors in (("weight", network.state_dict()), ("mask", self.mask or {})):
            for name, tensor in tensors.items():
                digest.update(f"{kind}/{name}/{tuple(tensor.shape)}".encode())
                hash_into(digest, tensor.detach().cpu().contiguous().reshape(-1))
        sets = [self.images.fingerprint(), self.validation.fingerprint() if self.validation is not None else None]
        how: dict[str, Any] = {"seed": self.seed, "threads": self.threads}
        how |= {"first_step": self.first_step} if self.first_step or self.steps is None else {}
        how |= {"steps": self.steps} if self.steps is not None else {}
        if (objective := described(self.objective)) is not None:  # cross-entropy's keys are older than objectives
            learnt = self.objective.tensors()
            how |= {"objective": objective, "tensors": {name: list(value.shape) for name, value in learnt.items()}}
            hash_into(digest, *(value.detach().cpu().reshape(-1) for value in learnt.values()))
            how |= {"code": fingerprint(objective["name"])} if ":" in objective["name"] else {}
        if own := computes(network):  # of the workbook's own networks the weights say all
            how |= {"network": own}
        about = [FORMAT, sets, self.recipe.model_dump(mode="json"), how, torch.device(device).type, torch.__version__]
        digest.update(json.dumps(about, sort_keys=True).encode())
        return digest.hexdigest()[:32]


class Trainer:
    """One network in training: `epoch()` trains it for one epoch in place.

    It knows nothing of files: whoever drives it may put its state away between two epochs, and bring it back.

    Attributes
    ----------
    network, training, device
        What is trained, by what, where.
    optimizer, history
        Its state beside the weights.
    """

    def __init__(self, network: nn.Module, training: Training, device: str | torch.device = "auto") -> None:
        """Move the network to the device, mask it and get ready.

        Raises
        ------
        ValueError
            As `Training.check`.
        """
        training.check(network)
        self.network, self.training, self.device = network, training, choose_device(device)
        network.to(self.device).to(memory_format=memory_format(self.device, training.recipe.precision))
        self.masked = _MaskedWeights(network, training.mask)
        self.masked.apply()
        self.optimizer = Optimizer(training.recipe, network)
        self.images = training.images.to(self.device)
        self.validation = training.validation.to(self.device) if training.validation is not None else None
        self.first = training.first_step // training.steps_per_epoch  # the epoch of the schedule it begins in
        planned = math.ceil(training.end / training.steps_per_epoch) - self.first
        self.history = History(planned=planned, metric=training.objective.metric)

    @property
    def over(self) -> bool:
        """Whether every epoch of the recipe has been trained."""
        return len(self.history.epochs) >= self.history.planned

    def epoch(self) -> History:
        """Train for one epoch; return the history, one and the same object every time.

        Raises
        ------
        FloatingPointError
            If the loss is no longer finite.
        """
        training, history = self.training, self.history
        epoch, first_step = self.first + len(history.epochs), training.first_step + history.steps
        low = training.recipe.precision != "float32"
        begun, held = time.perf_counter(), 0.0
        with reproducible(self.device, derive(training.seed, "dropout", epoch), training.threads, low):
            self.network.train()
            step, seen = first_step, 0
            totals = torch.zeros(2, device=self.device)  # loss and metric: read back only when the epoch is over
            for pixels, labels in _batches(self.images, training.recipe, training.seed, epoch, step, training.end):
                held += _hold()
                loss, metric = self._step(step, pixels, labels)
                totals += torch.stack((loss * len(labels), metric))
                step, seen = step + 1, seen + len(labels)
            self._close_epoch((totals / seen).tolist())
        history.images += seen
        history.steps += step - first_step
        history.seconds += time.perf_counter() - begun - held
        return history

    def _step(self, step: int, pixels: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Take one optimiser step; return its loss and the summed metric, both left on the device."""
        recipe, objective = self.training.recipe, self.training.objective
        low = recipe.precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16) if low else nullcontext():
            loss, metric = batch_loss(objective, self.network, pixels, labels)
        loss.backward()
        objective.pull(self.network, step)
        self.optimizer.learning_rate = recipe.rate_at(step, self.training.steps_per_epoch)
        self.optimizer.step()
        self.optimizer.zero_grad()  # at once: gradients that outlive the step would cut up the free memory
        self.masked.apply()
        return loss.detach(), metric

    def _close_epoch(self, means: list[float]) -> None:
        history, objective = self.history, self.training.objective
        if not math.isfinite(means[0]):
            raise FloatingPointError(
                f"training diverged in epoch {len(history.epochs)}: the loss is {means[0]}; "
                "lower the recipe's learning rate"
            )
        entry = {"loss": means[0], objective.metric: means[1]}
        if self.validation is not None:
            name, sign = f"validation_{objective.metric}", 1 if objective.higher_is_better else -1
            entry[name] = scored(objective, self.network, self.validation)
            if all(sign * entry[name] > sign * earlier[name] for earlier in history.epochs):
                history.best_epoch = len(history.epochs)
                history.best_state = {k: v.detach().cpu().clone() for k, v in self.network.state_dict().items()}
        history.epochs.append(entry)


Drive = Callable[[Trainer], Iterator[History]]  # takes a trainer through its epochs, and yields after each


def plainly(trainer: Trainer) -> Iterator[History]:
    """Take a trainer through its epochs, and keep nothing."""
    while not trainer.over:
        yield trainer.epoch()


def epochs(
    network: nn.Module, training: Training, device: str | torch.device = "auto", drive: Drive = plainly
) -> Iterator[History]:
    """Train a network in place, and yield its history, one and the same object, after every epoch.

    Between two epochs other trainings may take place, and whoever asks for no more epochs ends this one. Errors are
    those of `Trainer`.
    """
    trainer = Trainer(network, training, device)
    with keeping_memory(trainer.device):
        yield from drive(trainer)


def train(
    network: nn.Module,
    images: Images,
    recipe: Recipe,
    *,
    device: str | torch.device = "auto",
    progress: bool | None = None,
    drive: Drive = plainly,
    **how: Any,
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
    device
        Where.
    progress
        A bar; see `progress.bar`.
    drive
        What takes it through its epochs: `compute.checkpoints` has one that keeps its state between them.
    **how
        See `Training`: mask, validation, seed, threads, first_step, steps, objective (by default the network's own).

    Raises
    ------
    ValueError
        If images and network, or mask and network, do not fit, or `first_step` is past the end.
    FloatingPointError
        If the loss is no longer finite.
    """
    models.architecture(network)  # refuses what is none
    known = [one.name for one in fields(Training) if one.name not in ("images", "recipe")]
    if odd := [name for name in how if name not in known]:
        raise ValueError(f"unknown option {odd[0]!r}; allowed: {', '.join(known)}{meant(odd[0], known)}")
    how = {"objective": objective_for(network)} | how
    return followed(epochs(network, Training(images, recipe, **how), device, drive), progress)


def followed(histories: Iterable[History], progress: bool | None = None) -> History:
    """Take a training to its end, and show on a bar how far it is; return its history."""
    history, begun = History(), time.monotonic()
    with bar(progress) as shown:
        for history in histories:
            if shown.shows:
                share = len(history.epochs) / max(1, history.planned)
                rest = left(time.monotonic() - begun, share)
                text = f"training: {len(history.epochs)} of {history.planned} epochs{'; ' if rest else ''}{rest}"
                shown.say(text, share)
    return history


# --- the parts of a step -----------------------------------------------------------------------------------------


def is_held() -> bool:
    """Tell whether trainings of this process wait, for the file that `$COLT_PAUSE` names is there: `studies.live`."""
    flag = os.environ.get(PAUSE)
    return bool(flag) and os.path.exists(str(flag))


def _hold() -> float:
    """Wait while trainings are to wait; return the seconds waited."""
    if not is_held():
        return 0.0
    begun = time.perf_counter()
    while is_held():
        time.sleep(0.05)
    return time.perf_counter() - begun


class _MaskedWeights:
    """The masked parameters beside their masks as floats, multiplied in place in one fused call."""

    def __init__(self, network: nn.Module, mask: Mask | None) -> None:
        parameters = dict(network.named_parameters())
        self.weights = [parameters[name].data for name in mask or {}]
        pairs = zip((mask or {}).values(), self.weights, strict=True)
        self.factors = [torch.empty_like(weight).copy_(kept) for kept, weight in pairs]  # memory of equal order

    @torch.no_grad()
    def apply(self) -> None:
        if self.weights:
            torch._foreach_mul_(self.weights, self.factors)


def _batches(
    images: Images, recipe: Recipe, seed: int, epoch: int, first: int = 0, end: int = sys.maxsize
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield an epoch's batches, normalised pixels and labels, from step `first` to `end` of the whole schedule.

    Batches are of equal size to within one image, at most `recipe.batch_size`. Small ones are made several at a time:
    on a CPU the start of each operation costs as much as its work on 32 images.
    """
    steps, device = recipe.steps(len(images)), images.labels.device
    order, rng = epoch_order(images, seed, epoch)
    shifts = draw(len(images), recipe.crop, recipe.flip, recipe.rotation, rng)
    pieces = torch.arange(len(images)).tensor_split(steps)[max(0, first - epoch * steps) :]
    pieces = pieces[: end - max(first, epoch * steps)]
    together = max(1, 256 // recipe.batch_size)
    for i in range(0, len(pieces), together):
        where, sizes = torch.cat(pieces[i : i + together]), [len(piece) for piece in pieces[i : i + together]]
        index = order[where].to(device)
        moves = {name: values[where].to(device) for name, values in shifts.items()}
        moved = augment(images.batch(index), moves, bool(recipe.crop or recipe.flip), recipe.rotation > 0)
        pixels = normalise(moved, images.mean, images.std)
        yield from zip(pixels.split(sizes), images.labels[index].split(sizes), strict=True)
