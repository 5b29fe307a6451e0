"""A ticket: initial weights and a mask over them, in one file that any safetensors library reads."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .. import masks, models
from ..files import Damaged, Tensors, hash_into, read_tensors, write_tensors
from ..masks import Mask


@dataclass(frozen=True, eq=False)
class Ticket:
    """Initial weights and a mask: what a finder finds.

    Attributes
    ----------
    architecture
        {"name", "classes", "arguments"} of `models.build`.
    theta0
        The network's whole state dict at the rewind point, BatchNorm statistics included; unmasked.
    mask
        Bool tensors by parameter name, prunable parameters only.
    provenance
        Where it comes from: experiment hash, method, round, parent's hash, library versions. No time, host or path.
    """

    architecture: dict[str, Any]
    theta0: Tensors
    mask: Mask
    provenance: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, network: nn.Module, mask: Mask | None = None, names: list[str] | None = None) -> "Ticket":
        """Take a network as it stands now for theta0; without a mask, the dense one over `names` (or `prunable`)."""
        state = {name: value.detach().cpu().clone().contiguous() for name, value in network.state_dict().items()}
        mask = mask if mask is not None else masks.dense(state, names or models.prunable(network))
        masks.check(mask, state, models.architecture(network)["name"])
        return cls(models.architecture(network), state, {name: kept.cpu() for name, kept in mask.items()})

    def __repr__(self) -> str:
        about = f"{self.architecture['name']}, {self.architecture['classes']} classes"
        return f"Ticket({about}: {masks.count(self.mask):,} of {masks.size(self.mask):,} prunable weights kept)"

    @property
    def density(self) -> float:
        """Kept / prunable weights."""
        return masks.density(self.mask)

    @property
    def density_all(self) -> float:
        """Kept / all weights, the head and normalisation counted (biases not)."""
        return masks.density_all(self.mask, self.theta0)

    @property
    def hash(self) -> str:
        """SHA-256 over architecture, theta0 and mask: the ticket's identity, whoever found it."""
        digest = hashlib.sha256(json.dumps(self.architecture, sort_keys=True).encode())
        for name, tensor in sorted(self._tensors().items()):  # sorted: a file gives them back in another order
            digest.update(name.encode())
            hash_into(digest, tensor.reshape(-1))
        return digest.hexdigest()

    @property
    def has_head(self) -> bool:
        """Whether its network has a head that can be made anew."""
        return models.head_name(self._skeleton()) is not None

    def _skeleton(self) -> nn.Module:
        """Return the network without weights: no initialisation that is overwritten at once."""
        arch = self.architecture
        with torch.device("meta"):
            return models.build(arch["name"], arch["classes"], **arch["arguments"])

    def model(self, classes: int | None = None, seed: int = 0) -> nn.Module:
        """Return the network with theta0 under the mask, ready to train.

        Parameters
        ----------
        classes
            None keeps theta0's own head. A number draws a fresh head of so many outputs from `seed`: the same one for
            every ticket of this architecture. Nothing else changes, and nothing is frozen.

        Raises
        ------
        ValueError
            For a fresh head where the network has none.
        """
        network = self._skeleton()
        network.load_state_dict({name: value.clone() for name, value in self.theta0.items()}, assign=True)
        if classes is not None:
            network = models.replace_head(network, classes, seed)
        masks.apply(self.mask_for(network, fresh_head=classes is not None), network)
        return network

    def mask_for(self, network: nn.Module, fresh_head: bool = False) -> Mask:
        """Return the mask for training `network`; a fresh head is not masked, whatever the old one was.

        Raises
        ------
        ValueError
            If the ticket is for another network.
        """
        head = f"{models.head_name(network)}." if fresh_head else None
        kept = {n: m for n, m in self.mask.items() if not (head and n.startswith(head))}
        masks.check(kept, dict(network.named_parameters()), models.architecture(network)["name"])
        return kept

    def derived(self, *, theta0: Tensors | None = None, mask: Mask | None = None, **about: Any) -> "Ticket":
        """Return another ticket made of this one: what is not given stays, and this one is named as its parent.

        Parameters
        ----------
        theta0, mask
            The other ticket's.
        **about
            Joins its provenance, over what stands there.
        """
        about = about if "parent" in about else about | {"parent": self.hash}  # a hash of all weights takes its time
        kept, weights = self.mask if mask is None else mask, self.theta0 if theta0 is None else theta0
        return Ticket(self.architecture, weights, kept, self.provenance | about)

    def redraw(self, seed: int, **about: Any) -> "Ticket":
        """Return the same mask over another random initialisation: the control for theta0; `about` as for `derived`."""
        arch = self.architecture
        other = models.build(arch["name"], arch["classes"], seed, **arch["arguments"])
        return self.derived(theta0=Ticket.of(other, self.mask).theta0, **(about or {"redrawn": seed}))

    def to_torch_prune(self, classes: int | None = None, seed: int = 0) -> nn.Module:
        """Return the network pruned by `torch.nn.utils.prune` (parameters `weight_orig`, buffers `weight_mask`)."""
        from torch.nn.utils import prune

        network = self.model(classes, seed)
        for name, kept in self.mask_for(network, classes is not None).items():
            module, _, parameter = name.rpartition(".")
            prune.custom_from_mask(network.get_submodule(module), parameter, kept)
        return network

    def save(self, path: str | Path, extra: Mapping[str, torch.Tensor] | None = None) -> Path:
        """Write one safetensors file, whole or not at all: `weight/<name>`, `mask/<name>`, JSON metadata `ticket`.

        The same ticket gives the same bytes. Readable with safetensors alone.
        """
        tensors = self._tensors() | {k: v.contiguous() for k, v in (extra or {}).items()}
        about: dict[str, Any] = {"architecture": self.architecture, "provenance": self.provenance}
        about |= {"weights": list(self.theta0), "masks": list(self.mask)}  # the network's order: a file has its own
        about |= {"sha256": _checksum(tensors, about)}
        # One metadata key: safetensors writes several in no fixed order.
        return write_tensors(path, tensors, {"ticket": json.dumps(about, sort_keys=True)})

    @classmethod
    def load(cls, path: str | Path) -> "Ticket":
        """Read and verify a ticket.

        Raises
        ------
        ValueError
            If the file is no ticket, is truncated or altered, or its mask does not fit its weights.
        FileNotFoundError
            If there is no such file.
        """
        return read_ticket(Path(path))[0]

    def _tensors(self) -> Tensors:
        weights = {f"weight/{name}": value for name, value in self.theta0.items()}
        return weights | {f"mask/{name}": kept.contiguous() for name, kept in self.mask.items()}


def _checksum(tensors: Tensors, about: dict[str, Any]) -> str:
    """Return a SHA-256 over all tensors and metadata of a file."""
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(name.encode())
        hash_into(digest, tensor.reshape(-1))
    return digest.hexdigest()


def read_ticket(path: Path) -> tuple[Ticket, Tensors]:
    """Return the ticket of a file, verified, and all the file's tensors; errors as of `Ticket.load`."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no ticket at {path}")
    try:
        tensors, metadata = read_tensors(path)
        about = json.loads(metadata["ticket"])
    except (Damaged, KeyError, json.JSONDecodeError) as problem:
        raise ValueError(f"{path} is no ticket or is truncated ({problem})") from None
    if about.pop("sha256", None) != _checksum(tensors, about):
        raise ValueError(f"{path} is altered: its checksum differs")
    theta0 = {name: tensors[f"weight/{name}"] for name in about["weights"]}
    mask = {name: tensors[f"mask/{name}"] for name in about["masks"]}
    masks.check(mask, theta0, str(path))
    return Ticket(about["architecture"], theta0, mask, about["provenance"]), tensors
