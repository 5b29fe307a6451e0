"""A ticket: initial weights and a mask over them, in one file that any safetensors library reads."""

import hashlib
import json
import warnings
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .. import masks, models
from ..files import Damaged, Tensors, hash_into, read_tensors, write_tensors
from ..foreign import check_trusted, fingerprint, named_by_a_file, trust
from ..masks import Mask
from ..models.compacted import unpacked
from ..training.distillation import network_of
from .compact import compact_with_mask, effective_mask


@dataclass(frozen=True, eq=False)
class Ticket:
    """Initial weights and a mask: what a finder finds.

    Attributes
    ----------
    architecture
        {"name", "classes", "arguments"} of `models.build`; "code", the version of code that is not this package's;
        "silent", where channels that are cut whole are held at zero, see `silent`: True, or by layer rows that are not;
        "own_head", where the head belongs to theta0, as of weights that were made to fit the mask.
    theta0
        The network's whole state dict at the rewind point, BatchNorm statistics included; unmasked.
    mask
        Bool tensors by parameter name, prunable parameters only.
    provenance
        Where it comes from: experiment hash, method, round, parent's hash, library versions. No time, host or path.
    template
        The network itself, where it has no name by which `build` could make it again; it lies in no file.
    """

    architecture: dict[str, Any]
    theta0: Tensors
    mask: Mask
    provenance: dict[str, Any] = field(default_factory=dict)
    template: nn.Module | None = field(default=None, repr=False)

    @classmethod
    def of(cls, network: nn.Module, mask: Mask | None = None, names: list[str] | None = None) -> "Ticket":
        """Take a network as it stands now for theta0; without a mask, the dense one over `names` (or `prunable`)."""
        state = {name: value.detach().cpu().clone().contiguous() for name, value in network.state_dict().items()}
        mask = mask if mask is not None else masks.dense(state, names or models.prunable(network))
        masks.check(mask, state, models.architecture(network)["name"])
        kept, about = {name: kept.cpu() for name, kept in mask.items()}, models.architecture(network)
        template = None
        if not models.is_as_built(network):
            about["name"] += " (changed)" if models.is_a_name(about["name"]) else ""
            template = deepcopy(network)
        return cls(about, state, kept, template=template)

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

    def effective(self) -> Mask:
        """Return the weights that are left in its compact form, as a mask over the whole network: see `effective_mask`.

        Raises
        ------
        ValueError
            As `compact`.
        """
        whole = self._skeleton()
        models.fill(whole, {name: value.clone() for name, value in self.theta0.items()}, assign=True)
        return effective_mask(whole, self.mask)

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

    def scored_anew(self, classes: int) -> bool:
        """Tell whether scores draw a fresh head: where it has one, which is not its own or tells other classes."""
        kept = self.architecture.get("own_head") and self.architecture["classes"] == classes
        return self.has_head and not kept

    @property
    def transposed(self) -> frozenset[str]:
        """The layers whose input channels come first, see `masks.by_layer`; none of a network that it cannot build."""
        try:
            return models.transposed(self._skeleton())
        except ValueError:
            return frozenset()

    @property
    def depthwise(self) -> frozenset[str] | None:
        """The depthwise convolutions, see `masks.refill`; None of a network that it cannot build."""
        try:
            return models.depthwise(self._skeleton())
        except ValueError:
            return None

    def _skeleton(self, network: nn.Module | None = None) -> nn.Module:
        """Return the network, whatever its weights: a copy of the one given, of the template, or built by name."""
        if (given := network if network is not None else self.template) is not None:
            return deepcopy(given)
        arch = self.architecture
        if not models.is_a_name(name := arch["name"]):
            raise ValueError(f"this ticket is of a {name}, which has no name to build it by: give one, network=...")
        check_code(name, arch.get("code"))
        with named_by_a_file():  # whatever the name hides, nothing that is not trusted is imported
            return models.skeleton(name, arch["classes"], arch["arguments"])

    def model(self, classes: int | None = None, seed: int = 0, network: nn.Module | None = None) -> nn.Module:
        """Return the network with theta0 under the mask, ready to train.

        Parameters
        ----------
        classes
            None keeps theta0's own head. A number draws a fresh head of so many outputs from `seed`: the same one for
            every ticket of this architecture. Nothing else changes, and nothing is frozen.
        seed
            Of the fresh head.
        network
            A module to copy, which then takes theta0: for tickets of networks without a name, and for those whose code
            is not trusted. It is not changed itself.

        Raises
        ------
        ValueError
            For a fresh head where the network has none; a module that is another network, with the first layer that
            differs; a network that only a file names, whose code is not trusted (see `Ticket.load`).
        """
        network = self._skeleton(network)
        self.check_fit(network)
        assign = next(network.parameters()).is_meta  # else copied: weights that are shared stay so
        models.fill(network, {name: value.clone() for name, value in self.theta0.items()}, assign=assign)
        if classes is not None:
            network = models.replace_head(network, classes, seed)
        masks.apply(self.mask_for(network, fresh_head=classes is not None), network)
        return network

    def check_fit(self, network: nn.Module) -> None:
        """Raise a `ValueError` for a network that theta0 does not fit, with the first layer that differs."""
        own = {name: tuple(value.shape) for name, value in network.state_dict().items()}
        theirs = {name: tuple(value.shape) for name, value in self.theta0.items()}
        for name in [*theirs, *own]:
            if own.get(name) != theirs.get(name):
                shapes = [str(shapes[name]) if name in shapes else "nothing" for shapes in (theirs, own)]
                about = f"{name} is {shapes[0]} in the ticket, {shapes[1]} in the network"
                raise ValueError(f"the ticket is for another network: {about}")

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
        if not (silent := self.architecture.get("silent")):
            return kept
        there = dict(kept)
        for layer, rows in ({} if silent is True else silent).items():
            if (name := f"{layer}.weight") in kept:
                there[name] = kept[name].clone()
                there[name][unpacked(rows, layer)] = True
        return kept | masks.silenced(there, network)

    def silent(self, on: bool = True) -> "Ticket":
        """Return the ticket whose channels, where they are cut whole, are zero in every training: normalisation too.

        Else batch normalisation gives them a constant that is learnt (`masks.silenced`); the mask, hence every density,
        is the same. What is silent and what it is when it is compact are one function, also while they train.
        """
        about = {name: value for name, value in self.architecture.items() if name != "silent"}
        return replace(self, architecture=about | ({"silent": True} if on else {}))

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
        return Ticket(self.architecture, weights, kept, self.provenance | about, self.template)

    def redraw(self, seed: int, **about: Any) -> "Ticket":
        """Return the same mask over another random initialisation: the control for theta0; `about` as for `derived`.

        Whatever head this one had learnt, the other's scores draw a fresh one.
        """
        arch = self.architecture
        if self.template is not None or not models.is_a_name(arch["name"]):
            raise ValueError(f"a {arch['name']} has no name to build another by: it cannot be drawn again")
        check_code(arch["name"], arch.get("code"))
        with named_by_a_file():
            other = models.build(arch["name"], arch["classes"], seed, **arch["arguments"])
        drawn = self.derived(theta0=Ticket.of(other, self.mask).theta0, **(about or {"redrawn": seed}))
        return replace(drawn, architecture={name: value for name, value in arch.items() if name != "own_head"})

    def compact(self, multiple: int = 1) -> "Ticket":
        """Return the same function as a ticket of a physically smaller network: see `compact`.

        theta0 and mask are those of the channels that are left; the network is built by its name, "compact:" before it.
        Of a silent ticket the rows that `multiple` leaves in place are silent too.

        Raises
        ------
        ValueError
            As `compact`; for a network without a name.
        """
        whole = self._skeleton()
        models.fill(whole, {name: value.clone() for name, value in self.theta0.items()}, assign=True)
        small, mask, emptied = compact_with_mask(whole, self.mask, multiple)
        if not models.is_as_built(small):
            raise ValueError(f"a {self.architecture['name']} has no name to build its compact form by: use compact()")
        found = replace(Ticket.of(small, mask), provenance=self.provenance | {"parent": self.hash, "compact": multiple})
        kept: dict[str, Any] = {"own_head": True} if self.architecture.get("own_head") else {}
        if multiple > 1 and self.architecture.get("silent"):  # else nothing is left that could be
            kept["silent"] = emptied or True
        return replace(found, architecture=found.architecture | kept) if kept else found

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

        Raises
        ------
        ValueError
            For a file name that says that it is something else.
        """
        if Path(path).suffix in (".pt", ".pth", ".bin", ".ckpt", ".onnx", ".npz"):
            raise ValueError(f"a ticket's file is safetensors: let its name end so, not with {Path(path).suffix}")
        tensors = self._tensors() | {k: v.contiguous() for k, v in (extra or {}).items()}
        about: dict[str, Any] = {"architecture": self.architecture, "provenance": self.provenance}
        about |= {"weights": list(self.theta0), "masks": list(self.mask)}  # the network's order: a file has its own
        about |= {"sha256": _checksum(tensors, about)}
        # One metadata key: safetensors writes several in no fixed order.
        return write_tensors(path, tensors, {"ticket": json.dumps(about, sort_keys=True)})

    @classmethod
    def load(cls, path: str | Path, trust: bool = False) -> "Ticket":
        """Read and verify a ticket. No code is imported; `model()` needs that of the network.

        Parameters
        ----------
        path
            The file.
        trust
            Whether `model()` may import the module that the file names, where the network is not this package's own,
            torchvision's or timm's. Else it must have been named or allowed before: see `colt_core.trust`.

        Raises
        ------
        ValueError
            If the file is no ticket, is truncated or altered, or its mask does not fit its weights.
        FileNotFoundError
            If there is no such file.
        """
        ticket = read_ticket(Path(path))[0]
        if trust:
            allow(ticket.architecture["name"])
        return ticket

    def _tensors(self) -> Tensors:
        weights = {f"weight/{name}": value for name, value in self.theta0.items()}
        return weights | {f"mask/{name}": kept.contiguous() for name, kept in self.mask.items()}


@network_of.register
def _(given: Ticket) -> nn.Module:
    return given.model()


@network_of.register(str)
@network_of.register(Path)
def _(given: str | Path) -> nn.Module:
    return Ticket.load(given).model()


def check_code(name: str, code: str | None) -> None:
    """Let a ticket's network be built: its code must be trusted; where it is another version, that is said once.

    Raises
    ------
    ValueError
        Where only the ticket names it.
    """
    if own := models.code_of(name):
        check_trusted(own, "the ticket's network")
    if code is not None and (now := fingerprint(name.removeprefix(models.PREFIX))) != code:
        _warn_once(f"the code of {name} is {now}; the ticket was found with {code}")


def allow(name: str) -> None:
    """Trust the module that a file names, if it names any."""
    if own := models.code_of(name):
        trust(own)


@cache
def _warn_once(text: str) -> None:
    warnings.warn(text, stacklevel=4)


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
