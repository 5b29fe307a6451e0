"""Ticket sharing: every task, a partition's classes, has channels of its own over shared weights (2105.12002)."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from typing import Any, Self

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..data import Images
from ..data.augmentation import normalise
from ..files import Tensors
from ..masks import Mask
from ..models.channels import norms_after
from ..seeding import generator
from .objective import Objective

MOST = 2048  # training images of a task, over which its statistics are taken
SIZES = ("num_features", "out_channels", "out_features")  # how modules say how many channels they give


class Sharing(Objective):
    """Learn several tasks at once, each through its own channels: only they learn from its images.

    Normalisation is each task's own too: in training by its batch, when scored by statistics over its training images
    (`fitted` to them), for the running ones mix what all tasks have sent through.

    A task is a set of classes, and told: an image is judged among its own task's classes, in training and in the
    metric, whatever the channels. So the metric is comparable between channels, not with plain accuracy.

    Parameters
    ----------
    tasks
        The classes of each task, as numbers; together all of them.
    gates
        For each task bool [channels] by the name of the module whose output is gated; see `gates_of`.

    Raises
    ------
    ValueError
        In one line: fewer than two tasks, classes that two tasks share, another number of gates.
    """

    def __init__(self, tasks: Sequence[Sequence[int]], gates: Sequence[Mapping[str, torch.Tensor]]) -> None:
        self.tasks = [[int(one) for one in task] for task in tasks]
        self.gates = [dict(one) for one in gates]
        self.images: Images | None = None
        named = [one for task in self.tasks for one in task]
        if len(self.tasks) < 2 or not all(self.tasks) or len(set(named)) != len(named):
            raise ValueError(f"tasks must be two or more, of different classes, not {self.tasks}")
        if len(self.gates) != len(self.tasks):
            raise ValueError(f"{len(self.tasks)} tasks need {len(self.tasks)} sets of gates, not {len(self.gates)}")

    def fitted(self, images: Images) -> Self:
        """Return it with the images over which each task's statistics are taken."""
        twin = copy(self)
        twin.images = images
        return twin

    def check(self, network: nn.Module, images: Images) -> None:
        """Raise a `ValueError` where a class has no task, or a gate does not fit its module."""
        if sorted(one for task in self.tasks for one in task) != list(range(len(images.classes))):
            raise ValueError(f"the tasks {self.tasks} are not the images' {len(images.classes)} classes")
        modules = dict(network.named_modules())
        for name in {name for gates in self.gates for name in gates}:
            if name not in modules:
                raise ValueError(f"there is no module {name!r} to put a gate behind")
            size = next((getattr(modules[name], one) for one in SIZES if hasattr(modules[name], one)), None)
            given = {len(gates[name]) for gates in self.gates if name in gates}
            if size is not None and given != {size}:
                raise ValueError(f"the module {name!r} gives {size} channels, and its gates have {sorted(given)}")

    def loss(self, network: nn.Module, pixels: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the mean cross-entropy within tasks, and the number of correct answers.

        Each task's images go through the network by themselves; of a single one normalisation has no variance, so a
        task with one image in a batch sits that batch out.
        """
        total, right, seen = pixels.new_zeros(()), labels.new_zeros(()), 0
        for task, (classes, gates) in enumerate(zip(self.tasks, self.gates, strict=True)):
            mine = torch.isin(labels, torch.tensor(classes, device=labels.device))
            count = int(mine.sum())
            if count < 2:
                continue
            scores, own = self._through(network, pixels[mine], gates, classes), self._place(labels[mine], task)
            total = total + nn.functional.cross_entropy(scores, own, reduction="sum")
            right = right + (scores.detach().argmax(1) == own).sum()
            seen += count
        if not seen:  # nothing to learn from, which a step can take all the same
            return sum((p.sum() for p in network.parameters() if p.requires_grad), total) * 0.0, right
        return total / seen, right

    @torch.no_grad()
    def score(self, network: nn.Module, images: Images) -> float:
        """Return the share of images that are told from the others of their task."""
        device, right = next(network.parameters()).device, 0
        network.eval()
        for task, (classes, gates) in enumerate(zip(self.tasks, self.gates, strict=True)):
            rows = torch.isin(images.labels.cpu(), torch.tensor(classes)).nonzero().flatten()
            with self._normalised(network, task):
                for index in rows.split(256):
                    pixels = _pixels(images, index, device)
                    own = self._place(images.labels[index.to(images.labels.device)].to(device), task)
                    right += int((self._through(network, pixels, gates, classes).argmax(1) == own).sum())
        return right / len(images)

    @contextmanager
    def _normalised(self, network: nn.Module, task: int) -> Iterator[None]:
        """Put a task's statistics in place of the running ones while the block runs; unfitted, nothing is changed."""
        norms = [m for m in network.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]
        own = torch.tensor(self.tasks[task])
        rows = torch.isin(self.images.labels.cpu(), own).nonzero().flatten() if self.images else own[:0]
        # At random: where images lie class by class, the first ones, or a chunk, would be of one class.
        rows = rows[torch.randperm(len(rows), generator=generator(0, "statistics", task))[:MOST]]
        if not norms or len(rows) < 2:
            yield
            return
        assert self.images is not None
        device = next(network.parameters()).device
        before = [({name: value.clone() for name, value in m.named_buffers()}, m.momentum) for m in norms]
        try:
            for m in norms:
                m.train().reset_running_stats()
            for i, index in enumerate(rows.tensor_split(-(-len(rows) // 256))):  # alike: no chunk of a single image
                for m in norms:
                    m.momentum = 1 / (i + 1)  # the mean over all chunks
                self._through(network, _pixels(self.images, index, device), self.gates[task], self.tasks[task])
            for m in norms:
                m.eval()
            yield
        finally:
            for m, (buffers, momentum) in zip(norms, before, strict=True):
                m.eval().momentum = momentum
                for name, value in buffers.items():
                    m.get_buffer(name).copy_(value)

    def chance(self, images: Images) -> float:
        """Return the metric of guessing within the tasks."""
        counts = torch.bincount(images.labels.cpu(), minlength=len(images.classes)).double()
        return float(sum(counts[task].sum() / len(task) for task in self.tasks) / counts.sum())

    def settings(self) -> dict[str, Any]:
        """Return the tasks; the gates are tensors."""
        return {"tasks": self.tasks}

    def tensors(self) -> Tensors:
        """Return the gates as "<task>/<module>"."""
        return {f"{i}/{name}": gate for i, gates in enumerate(self.gates) for name, gate in gates.items()}

    @classmethod
    def rebuilt(cls, settings: Mapping[str, Any], tensors: Tensors) -> Self:
        """Make it anew; without tensors every channel is open."""
        gates: list[dict[str, torch.Tensor]] = [{} for _ in settings["tasks"]]
        for name, gate in tensors.items():
            task, _, module = name.partition("/")
            gates[int(task)][module] = gate
        return cls(**settings, gates=gates)

    def _place(self, labels: torch.Tensor, task: int) -> torch.Tensor:
        """Return labels as places among a task's classes."""
        classes = torch.tensor(self.tasks[task], device=labels.device)
        return (labels[:, None] == classes).int().argmax(1)

    def _through(
        self, network: nn.Module, pixels: torch.Tensor, gates: Mapping[str, torch.Tensor], classes: list[int]
    ) -> torch.Tensor:
        with gated(network, gates):
            scores: torch.Tensor = network(pixels)[:, classes]
        return scores


def _pixels(images: Images, index: torch.Tensor, device: torch.device) -> torch.Tensor:
    return normalise(images.batch(index.to(images.labels.device)).to(device), images.mean, images.std)


@contextmanager
def gated(network: nn.Module, gates: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """Multiply the outputs of some modules by gates while the block runs: no hook outlives it."""
    hooks = []
    try:
        for name, gate in gates.items():
            hooks.append(network.get_submodule(name).register_forward_hook(_closing(gate)))
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _closing(gate: torch.Tensor) -> Any:
    def close(_: nn.Module, __: Any, output: torch.Tensor) -> torch.Tensor:
        return output * gate.to(output).view(-1, *[1] * (output.ndim - 2))

    return close


def gates_of(network: nn.Module, mask: Mask) -> dict[str, torch.Tensor]:
    """Return the gates of a mask of whole channels: behind what normalises a layer, open where its row keeps a weight.

    Raises
    ------
    ValueError
        For a network that cannot be followed.
    """
    rows = {name.removesuffix(".weight"): kept.flatten(1).any(1) for name, kept in mask.items()}
    places = norms_after(network, list(rows))
    return {places[layer]: kept for layer, kept in rows.items()}
