"""Trainings in a store: looked up by content, continued from their last epoch, carried out by one process at a time."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from .data import Images, _hash_into
from .masks import Mask
from .seeding import choose_device
from .store import Store, open_store
from .training import History, Optimizer, Recipe, epochs

FORMAT = 1  # part of every key: raise it when the same training comes to give other weights
BROKEN = (SafetensorError, KeyError, ValueError, RuntimeError)


@dataclass(frozen=True)
class Checkpoint:
    """Where the state of one training is kept between epochs: give it to `epochs`.

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

    def save(self, network: nn.Module, optimizer: Optimizer, history: History) -> None:
        """Keep the state after an epoch: weights, optimiser, history, best weights."""
        from safetensors.torch import save_file

        best = {f"best/{name}": value for name, value in (history.best_state or {}).items()}
        tensors = {f"weight/{name}": value for name, value in network.state_dict().items()} | best
        for i, parameter in enumerate(optimizer.parameters):
            state = optimizer.state.get(parameter, {})
            tensors |= {f"optimizer/{i}/{name}": value for name, value in state.items()}
        about = {"history": json.dumps(told(history))}
        plain = {name: v.detach().cpu().clone(memory_format=torch.contiguous_format) for name, v in tensors.items()}
        open_store(self.store).save(self._name(len(history.epochs)), lambda path: save_file(plain, path, about))

    def restore(self, network: nn.Module, optimizer: Optimizer, epoch: int) -> History | None:
        """Bring a training to where it was after so many epochs, or, where only the last is kept, after that one."""
        found = _read(open_store(self.store), self._name(epoch))
        if found is None:
            return None
        tensors, about = found
        history = History(**json.loads(about["history"]))
        best = {name.removeprefix("best/"): v.clone() for name, v in tensors.items() if name.startswith("best/")}
        history.best_state = best or None
        network.load_state_dict(_group(tensors, "weight/"))
        for name, value in _group(tensors, "optimizer/").items():
            i, _, kind = name.partition("/")
            like = optimizer.parameters[int(i)]
            mine = torch.empty_like(like) if value.shape == like.shape else torch.empty_like(value, device=like.device)
            mine.copy_(value)  # in the parameter's memory order, as fused steps need
            optimizer.state.setdefault(like, {})[kind] = mine
        return history

    def clear(self) -> None:
        """Remove what is kept."""
        store = open_store(self.store)
        for name in store.names(f"trainings/{self.key}.epoch*"):
            store.remove(name)

    def _name(self, epoch: int) -> str:
        return f"trainings/{self.key}.epoch{f'-{epoch:04d}' if self.every else ''}"


def key_of(
    network: nn.Module,
    images: Images,
    recipe: Recipe,
    *,
    mask: Mask | None = None,
    validation: Images | None = None,
    device: str | torch.device = "cpu",
    **how: Any,
) -> str:
    """Return what identifies a training: the weights it starts from, mask, images, recipe, seed, where it runs."""
    digest = hashlib.sha256()
    for kind, tensors in (("weight", network.state_dict()), ("mask", mask or {})):
        for name, tensor in tensors.items():
            digest.update(f"{kind}/{name}/{tuple(tensor.shape)}".encode())
            _hash_into(digest, tensor.detach().cpu().contiguous().reshape(-1))
    sets = [images.fingerprint(), validation.fingerprint() if validation is not None else None]
    about = [FORMAT, sets, recipe.model_dump(mode="json"), how, torch.device(device).type, torch.__version__]
    digest.update(json.dumps(about, sort_keys=True).encode())
    return digest.hexdigest()[:32]


def kept(
    network: nn.Module,
    images: Images,
    recipe: Recipe,
    checkpoint: Checkpoint | None = None,
    mask: Mask | None = None,
    **how: Any,
) -> Iterator[History]:
    """`epochs`, but what the store holds is looked up: the end of this training at once, or its last epoch.

    One process at a time carries it out; others wait for its result. Looked-up histories hold no best weights.
    """
    if checkpoint is None or checkpoint.every:
        yield from epochs(network, images, recipe, mask=mask, checkpoint=checkpoint, **how)
        return
    store, name = open_store(checkpoint.store), f"trainings/{checkpoint.key}"
    where = how["device"]
    while True:
        if (found := _look_up(store, name, network, mask, where)) is not None:
            yield found
            return
        with store.claim(name, until=lambda: store.exists(f"{name}.safetensors")) as mine:
            if not mine or store.exists(f"{name}.safetensors"):
                if _look_up(store, name, network, mask, where) is None:
                    store.remove(f"{name}.safetensors")  # damaged
                continue
            history = History()
            for history in epochs(network, images, recipe, mask=mask, checkpoint=checkpoint, **how):
                yield history
            _keep(store, name, network, mask, history)
            checkpoint.clear()
            return


def train_kept(network: nn.Module, images: Images, recipe: Recipe, store: Store | None, **how: Any) -> History:
    """Train one network to the end of its recipe as `kept` does; without a store nothing is looked up or kept."""
    where = choose_device(how.pop("device"))
    checkpoint = Checkpoint(store.url, key_of(network, images, recipe, device=where, **how)) if store else None
    return list(kept(network, images, recipe, checkpoint, device=where, **how))[-1]


def told(history: History) -> dict[str, Any]:
    """Return a history as JSON can hold it: without the best weights."""
    return {name: value for name, value in vars(history).items() if name != "best_state"}


def _keep(store: Store, name: str, network: nn.Module, mask: Mask | None, history: History) -> None:
    """Write the trained state; of masked weights those that are left, for the others are zero."""
    from safetensors.torch import save_file

    tensors = {}
    for key, value in network.state_dict().items():
        plain = value.detach().cpu().contiguous()
        tensors[key] = (plain[mask[key].cpu()] if mask and key in mask else plain).clone()
    about = {"history": json.dumps(told(history))}
    store.save(f"{name}.safetensors", lambda path: save_file(tensors, path, about))


def _look_up(
    store: Store, name: str, network: nn.Module, mask: Mask | None, device: str | torch.device
) -> History | None:
    """Give the network the state that this training ended with, if the store has it whole."""
    found = _read(store, f"{name}.safetensors")
    if found is None:
        return None
    state = {key: value.clone() for key, value in network.state_dict().items()}
    try:
        for key, value in found[0].items():
            if mask and key in mask:
                state[key] = state[key].cpu().contiguous().zero_().masked_scatter_(mask[key].cpu(), value)
            else:
                state[key] = value
        history = History(**json.loads(found[1]["history"]))
        network.load_state_dict(state)
    except BROKEN:
        return None
    network.to(device).to(memory_format=torch.channels_last)
    return history


def _read(store: Store, name: str) -> tuple[dict[str, torch.Tensor], dict[str, str]] | None:
    """Return a file's tensors and metadata; None where it is missing or not whole (a power cut, say)."""
    from safetensors import safe_open

    with store.fetched(name) as path:
        try:
            with safe_open(path, "pt") as file:
                tensors = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118 (not a dict)
                about = dict(file.metadata() or {})
            json.loads(about["history"])
        except (FileNotFoundError, OSError, *BROKEN):
            return None
    return tensors, about


def _group(tensors: dict[str, torch.Tensor], kind: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(kind): value for name, value in tensors.items() if name.startswith(kind)}


def described(checkpoint: Checkpoint | None) -> dict[str, Any] | None:
    """Return a checkpoint as JSON can hold it."""
    return asdict(checkpoint) if checkpoint else None
