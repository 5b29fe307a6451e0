"""Trainings in a store: looked up by content, continued from their last epoch, carried out by one process at a time."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..files import Damaged, Tensors, hash_into, read_tensors, under
from ..masks import Mask
from ..models import fill
from ..seeding import memory_format
from ..training import History, Trainer, Training, epochs
from .store import Store, open_store

BROKEN = (
    Damaged,
    KeyError,
    ValueError,
    RuntimeError,
    TypeError,
    AttributeError,
)  # what a file that is not whole may raise


@dataclass(frozen=True)
class Checkpoint:
    """Where the state of one training is kept between epochs: `drive` takes a trainer through its epochs so.

    Attributes
    ----------
    store
        The store's URL.
    key
        The training's identity.
    every
        Keep each epoch's state, not the last alone: then a continued training passes through them again, for those
        who watch it (early-bird stopping).
    """

    store: str
    key: str
    every: bool = False

    def drive(self, trainer: Trainer) -> Iterator[History]:
        """Train from where the store has it on; the end is the same, bit for bit."""
        if not self.every:  # at once to the last epoch; whoever watches each epoch is given them one by one instead
            self.restore(trainer)
        while not trainer.over:
            if not (self.every and self.restore(trainer)):
                trainer.epoch()
                if not trainer.over:  # the end itself is kept by whoever drives
                    self.save(trainer)
            yield trainer.history

    def save(self, trainer: Trainer) -> None:
        """Keep the state after an epoch: weights, optimiser, history, best weights."""
        tensors = {f"weight/{name}": value for name, value in trainer.network.state_dict().items()}
        tensors |= {f"best/{name}": value for name, value in (trainer.history.best_state or {}).items()}
        for i, parameter in enumerate(trainer.optimizer.parameters):
            state = trainer.optimizer.state.get(parameter, {})
            tensors |= {f"optimizer/{i}/{name}": value for name, value in state.items()}
        name = self._name(len(trainer.history.epochs))
        open_store(self.store).save_tensors(name, tensors, _about(name, tensors, trainer.history))

    def restore(self, trainer: Trainer) -> bool:
        """Bring a training to where it was after one more epoch, or, where only the last is kept, after that one."""
        found = _read(open_store(self.store), self._name(len(trainer.history.epochs) + 1))
        if found is None:
            return False
        tensors, history = found
        history.best_state = {name: v.clone() for name, v in under(tensors, "best/").items()} or None
        fill(trainer.network, under(tensors, "weight/"))
        for name, value in under(tensors, "optimizer/").items():
            i, _, kind = name.partition("/")
            like = trainer.optimizer.parameters[int(i)]
            mine = torch.empty_like(like) if value.shape == like.shape else torch.empty_like(value, device=like.device)
            mine.copy_(value)  # in the parameter's memory order, as fused steps need
            trainer.optimizer.state.setdefault(like, {})[kind] = mine
        trainer.history = history
        return True

    def clear(self) -> None:
        """Remove what is kept."""
        store = open_store(self.store)
        for name in store.names(f"trainings/{self.key}.epoch*"):
            store.remove(name)

    def tidy(self) -> None:
        """Remove the last epoch of a training whose end is known: it was killed after that, before it could."""
        open_store(self.store).remove(self._name(0))

    def _name(self, epoch: int) -> str:
        return f"trainings/{self.key}.epoch{f'-{epoch:04d}' if self.every else ''}"


def kept(
    network: nn.Module, training: Training, device: str | torch.device, checkpoint: Checkpoint | None = None
) -> Iterator[History]:
    """`epochs`, but what the store holds is looked up: the end of this training at once, or its last epoch.

    One process at a time carries it out; others wait for its result. Looked-up histories hold no best weights.
    """
    if checkpoint is None:
        yield from epochs(network, training, device)
        return
    if checkpoint.every:  # its epochs are watched one by one: its end alone would not do
        yield from epochs(network, training, device, checkpoint.drive)
        return
    store, name = open_store(checkpoint.store), f"trainings/{checkpoint.key}"

    def work() -> Iterator[History]:
        history = History()
        for history in epochs(network, training, device, checkpoint.drive):
            yield history
        _keep(store, name, network, training, history)
        _plain_zeros(network, training.mask or {})
        checkpoint.clear()

    def known() -> History | None:
        found = _look_up(store, name, network, training, device)
        if found is not None:
            checkpoint.tidy()
        return found

    yield from store.once(name, known, work)


def train_kept(network: nn.Module, training: Training, store: Store | None, device: torch.device) -> History:
    """Train one network to the end of its recipe as `kept` does; without a store nothing is looked up or kept."""
    checkpoint = Checkpoint(store.url, training.key(network, device)) if store else None
    *_, history = kept(network, training, device, checkpoint)
    return history


def _keep(store: Store, name: str, network: nn.Module, training: Training, history: History) -> None:
    """Write the trained state; of masked weights those that are left, for the others are zero."""
    mask, tensors = training.mask or {}, {}
    for key, value in network.state_dict().items():
        plain = value.detach().cpu().contiguous()
        tensors[key] = plain[mask[key].cpu()] if key in mask else plain  # at 96 % sparsity a 25th of the disk
    file = f"{name}.safetensors"
    store.save_tensors(file, tensors, _about(file, tensors, history))


def _plain_zeros(network: nn.Module, mask: Mask) -> None:
    """Leave masked weights as they are when looked up: a weight below zero times a mask is -0.0, of other bytes.

    What goes on from this network (`soup`) is known by its bytes.
    """
    parameters = dict(network.named_parameters())
    for name, kept in mask.items():
        parameters[name].data.masked_fill_(~kept.to(parameters[name].device), 0.0)


def _look_up(
    store: Store, name: str, network: nn.Module, training: Training, device: str | torch.device
) -> History | None:
    """Give the network the state that this training ended with, if the store has it whole."""
    found = _read(store, f"{name}.safetensors")
    if found is None:
        return None
    # Into a copy first: a file that turns out to be broken must not leave the network half changed.
    mask, state = training.mask or {}, {key: value.clone() for key, value in network.state_dict().items()}
    try:
        for key, value in found[0].items():
            if key in mask:
                state[key] = state[key].cpu().contiguous().zero_().masked_scatter_(mask[key].cpu(), value)
            else:
                state[key] = value
        fill(network, state)
    except BROKEN:
        return None
    network.to(device).to(memory_format=memory_format(torch.device(device), training.recipe.precision))
    return found[1]


def _about(name: str, tensors: Mapping[str, torch.Tensor], history: History) -> dict[str, str]:
    """Return a file's metadata: the history, and a checksum over everything, for disks and hands do alter files."""
    told = history.told()
    return {"history": json.dumps({"sha256": _checksum(name, tensors, told), "told": told})}


def _checksum(name: str, tensors: Mapping[str, torch.Tensor], told: dict[str, Any]) -> str:
    """The file's name is part of it: whole as it may be, its content must be this training's."""
    digest = hashlib.sha256(json.dumps([name, told]).encode())
    for key, tensor in sorted(tensors.items()):
        digest.update(f"{key}/{tuple(tensor.shape)}/{tensor.dtype}".encode())
        hash_into(digest, tensor.detach().cpu().contiguous().reshape(-1))
    return digest.hexdigest()


def _read(store: Store, name: str) -> tuple[Tensors, History] | None:
    """Return a file's tensors and history; None where it is missing, or its checksum is not that of its content.

    Then the training takes place again, and gives the same.
    """
    with store.fetched(name) as path:
        try:
            tensors, metadata = read_tensors(path)
            about = json.loads(metadata["history"])
            if about["sha256"] != _checksum(name, tensors, about["told"]):
                return None
            copies = {key: value.clone() for key, value in tensors.items()}  # a bucket's file goes at once
            return copies, History(**about["told"])
        except (OSError, *BROKEN):
            return None
