"""Pretrained weights in place of an initialisation."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..files import Damaged, read_tensors
from ..settings import first_line

Weights = str | os.PathLike[str] | Mapping[str, torch.Tensor]


@torch.no_grad()
def load_weights(network: nn.Module, head: str | None, name: str, weights: Weights) -> None:
    """Put weights into a network; its head, of other outputs than theirs, keeps its initialisation.

    Raises
    ------
    ValueError
        In one line: no such file, none of weights, or the first tensor that does not fit, with both shapes.
    """
    found = dict(weights) if isinstance(weights, Mapping) else _read(os.fspath(weights), name)
    own = network.state_dict()
    fresh = {key for key in own if head and key.startswith(f"{head}.")}
    if all(key in found and found[key].shape == own[key].shape for key in fresh):
        fresh = set()
    for key, value in own.items():
        if key in fresh or (key not in found and key.endswith("num_batches_tracked")):
            continue
        if key not in found:
            raise ValueError(f"the weights do not fit {name}: they have no {key}, {tuple(value.shape)} in the network")
        if found[key].shape != value.shape:
            shapes = f"{tuple(found[key].shape)} in the weights, {tuple(value.shape)} in the network"
            raise ValueError(f"the weights do not fit {name}: {key} is {shapes}")
    if more := next((key for key in found if key not in own and not (head and key.startswith(f"{head}."))), None):
        raise ValueError(f"the weights do not fit {name}: the network has no {more}")
    for key, value in own.items():
        if key in found and key not in fresh:
            value.copy_(found[key])


def _read(path: str, name: str) -> dict[str, Any]:
    """Read a file of weights, or fetch a library's published ones by their name."""
    if not Path(path).is_file():
        if name.startswith("torchvision:") and Path(path).name == path:
            return _published(name.partition(":")[2], path)
        raise ValueError(f"there is no file of weights at {path}")
    try:
        if path.endswith(".safetensors"):
            return read_tensors(Path(path))[0]
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Damaged as problem:
        raise ValueError(f"{path} holds no weights that can be read ({problem})") from None
    except Exception as problem:  # torch.load says in many ways that a file is none of its own, or not safe
        raise ValueError(f"{path} holds no weights that can be read ({first_line(problem)})") from None
    found = found.get("state_dict", found) if isinstance(found, dict) else found
    if not (isinstance(found, dict) and all(isinstance(value, torch.Tensor) for value in found.values())):
        raise ValueError(f"{path} holds no state dict: names and tensors")
    return found


def _published(model: str, weights: str) -> dict[str, Any]:
    from torchvision.models import get_model_weights

    known = get_model_weights(model)
    try:
        chosen = known[weights]
    except KeyError:
        raise ValueError(
            f"there is no file of weights at {weights}, nor has torchvision's {model} any of that name; "
            f"it has {', '.join(known.__members__) or 'none'}"
        ) from None
    try:
        return dict(chosen.get_state_dict(progress=False, check_hash=True))
    except Exception as problem:  # no network, a full disk, a file that is not the official one
        raise ValueError(f"{chosen} could not be downloaded ({first_line(problem)})") from None
