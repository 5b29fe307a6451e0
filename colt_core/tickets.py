"""A ticket (initial weights + mask), the round that found it, and its score."""

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from . import masks, models
from .data import Dataset, _hash_into
from .files import write_whole
from .masks import Mask, Overlap
from .seeding import choose_device, reproducible
from .training import Recipe, accuracy, train

if TYPE_CHECKING:
    from .trainings import Checkpoint

State = dict[str, torch.Tensor]


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
    theta0: State
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
        for name, tensor in sorted(self._tensors().items()):
            digest.update(name.encode())
            _hash_into(digest, tensor.reshape(-1))
        return digest.hexdigest()

    def model(self, classes: int | None = None, seed: int = 0) -> nn.Module:
        """Return the network with theta0 under the mask, ready to train.

        Parameters
        ----------
        classes
            None keeps theta0's own head. A number draws a fresh head of so many outputs from `seed`: the same one for
            every ticket of this architecture. Nothing else changes, and nothing is frozen.
        """
        arch = self.architecture
        with torch.device("meta"):  # no initialisation that is overwritten at once
            network = models.build(arch["name"], arch["classes"], **arch["arguments"])
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

    def redraw(self, seed: int) -> "Ticket":
        """Return the same mask over another random initialisation: the control for theta0."""
        arch = self.architecture
        other = models.build(arch["name"], arch["classes"], seed, **arch["arguments"])
        return replace(Ticket.of(other, self.mask), provenance=self.provenance | {"redrawn": seed})

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
        from safetensors.torch import save_file

        tensors = self._tensors() | {k: v.contiguous() for k, v in (extra or {}).items()}
        about: dict[str, Any] = {"architecture": self.architecture, "provenance": self.provenance}
        about |= {"weights": list(self.theta0), "masks": list(self.mask)}  # the network's order: a file has its own
        about |= {"sha256": _checksum(tensors, about)}
        # One metadata key: safetensors writes several in no fixed order.
        metadata = {"ticket": json.dumps(about, sort_keys=True)}
        return write_whole(Path(path), lambda part: save_file(tensors, part, metadata))

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
        return _read(Path(path))[0]

    def _tensors(self) -> State:
        weights = {f"weight/{name}": value for name, value in self.theta0.items()}
        return weights | {f"mask/{name}": kept.contiguous() for name, kept in self.mask.items()}


def _checksum(tensors: State, about: dict[str, Any]) -> str:
    """Return a SHA-256 over all tensors and metadata of a file."""
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(name.encode())
        _hash_into(digest, tensor.reshape(-1))
    return digest.hexdigest()


def _read(path: Path) -> tuple[Ticket, State]:
    """Return the ticket of a file, verified, and all the file's tensors."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise FileNotFoundError(f"there is no ticket at {path}")
    try:
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {})["ticket"])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, KeyError, json.JSONDecodeError) as problem:
        raise ValueError(f"{path} is no ticket or is truncated ({problem})") from None
    if about.pop("sha256", None) != _checksum(tensors, about):
        raise ValueError(f"{path} is altered: its checksum differs")
    theta0 = {name: tensors[f"weight/{name}"] for name in about["weights"]}
    mask = {name: tensors[f"mask/{name}"] for name in about["masks"]}
    masks.check(mask, theta0, str(path))
    return Ticket(about["architecture"], theta0, mask, about["provenance"]), tensors


# --- rounds ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cost:
    """What was spent: training images seen (once an epoch each), dense floating-point operations, seconds.

    FLOPs count a forward and a backward pass (three forwards) of the dense network: unstructured masks save none.
    """

    images: int = 0
    flops: float = 0.0
    seconds: float = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.images + other.images, self.flops + other.flops, self.seconds + other.seconds)


@dataclass(frozen=True, eq=False)
class Round:
    """What a finder yields.

    Attributes
    ----------
    number
        How many times its ticket has been pruned; 0 is the dense network.
    ticket
        theta0 with this round's mask.
    partition_masks
        Each copy's own mask, before they were combined (empty where there is one copy, or none was trained).
    overlap
        How far those masks agree, beside chance; None where there is one copy.
    accuracies
        Validation accuracy of each copy whose training decided this mask, in [0, 1]: trained at the density *before*
        this round's pruning, each on its own partition's classes. Empty without validation images.
    curves
        For each of those copies, the epochs of its `training.History`.
    cost
        Every training that took place before this mask existed.
    epochs_saved
        For each of those copies, the epochs of the recipe that early-bird stopping spared.
    """

    number: int
    ticket: Ticket
    partition_masks: list[Mask] = field(default_factory=list)
    overlap: Overlap | None = None
    accuracies: list[float] = field(default_factory=list)
    curves: list[list[dict[str, float]]] = field(default_factory=list)
    cost: Cost = Cost()
    epochs_saved: list[int] = field(default_factory=list)

    @property
    def density(self) -> float:
        """Kept / prunable weights."""
        return self.ticket.density

    @property
    def sparsity(self) -> float:
        """1 - density."""
        return 1 - self.ticket.density

    @property
    def density_all(self) -> float:
        """Kept / all weights."""
        return self.ticket.density_all

    @property
    def image_epochs(self) -> int:
        """Training images seen so far, an image counted once an epoch."""
        return self.cost.images

    @property
    def flops(self) -> float:
        """Dense training FLOPs so far."""
        return self.cost.flops

    @property
    def seconds(self) -> float:
        """Training seconds so far."""
        return self.cost.seconds

    def record(self) -> dict[str, Any]:
        """Return everything but tensors as plain Python objects."""
        return {
            "round": self.number,
            "pruned": list(self.ticket.mask),
            "density": self.density,
            "density_all": self.density_all,
            "image_epochs": self.cost.images,
            "flops": self.cost.flops,
            "seconds": self.cost.seconds,
            "accuracies": self.accuracies,
            "curves": self.curves,
            "epochs_saved": self.epochs_saved,
            "overlap": self.overlap.as_dict() if self.overlap else None,
        }

    def save(self, path: str | Path) -> Path:
        """Write the ticket's file with the partitions' masks beside it: tensors `partition/<i>/<name>`."""
        extra = {f"partition/{i}/{n}": kept for i, m in enumerate(self.partition_masks) for n, kept in m.items()}
        return self.ticket.save(path, extra)

    @classmethod
    def load(cls, path: str | Path, record: Mapping[str, Any]) -> "Round":
        """Read a round from its file and its record."""
        if not Path(path).is_file():
            raise FileNotFoundError(f"the records name a round whose file is missing: {path}")
        ticket, tensors = _read(Path(path))
        count = 1 + max((int(k.split("/")[1]) for k in tensors if k.startswith("partition/")), default=-1)
        return cls(
            number=record["round"],
            ticket=ticket,
            partition_masks=[{n: tensors[f"partition/{i}/{n}"] for n in ticket.mask} for i in range(count)],
            overlap=Overlap(**record["overlap"]) if record["overlap"] else None,
            accuracies=record["accuracies"],
            curves=record["curves"],
            cost=Cost(record["image_epochs"], record["flops"], record["seconds"]),
            epochs_saved=record.get("epochs_saved", []),
        )


# --- scores ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Score:
    """How well a ticket trains.

    Attributes
    ----------
    accuracy
        On the test set, last epoch, in [0, 1]. Only to report: no choice may rest on it.
    validation_accuracy
        On the validation split, last epoch.
    best_epoch, best_validation_accuracy, best_accuracy
        Of the epoch that was best on validation, kept apart; `best_accuracy` is its test accuracy.
    chance
        The accuracy of guessing: one over the number of classes.
    train_images, test_images
        How many images it was trained and tested on.
    image_epochs, seconds
        What this one training cost.
    curve
        The epochs of its `training.History`.
    """

    accuracy: float
    validation_accuracy: float
    best_epoch: int
    best_validation_accuracy: float
    best_accuracy: float
    chance: float
    train_images: int
    test_images: int
    image_epochs: int
    seconds: float
    curve: list[dict[str, float]] = field(repr=False, default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain Python objects."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Score":
        """Return the score of a stored dict."""
        return cls(**{f.name: values[f.name] for f in fields(cls)})


def evaluate(
    ticket: Ticket,
    data: Dataset,
    recipe: Recipe,
    seed: int = 0,
    device: str | torch.device = "auto",
    threads: int = 1,
    checkpoint: "Checkpoint | None" = None,
) -> Score:
    """Train a ticket from theta0 on a full training set, with a fresh head, and test it.

    The head, the order of the images and their augmentation come from `seed` alone, so tickets scored with one seed
    differ in nothing but themselves. On data of other classes or another image size this is transfer.

    Parameters
    ----------
    ticket
        What to score.
    data
        Trained on `data.train`; `data.validation` is scored each epoch, `data.test` at the end.
    recipe
        How to train.
    device, threads, checkpoint
        As for `training.epochs`.

    Raises
    ------
    ValueError, FloatingPointError
        As `train`.

    References
    ----------
    arXiv 2212.12770, section III; ALGORITHMS: steps 6 (evaluation) and 7 (transfer).
    """
    network = ticket.model(len(data.classes), seed)
    mask = ticket.mask_for(network, fresh_head=True)
    history = train(
        network, data.train, recipe, mask=mask, validation=data.validation, seed=seed, device=device, threads=threads,
        checkpoint=checkpoint,
    )  # fmt: skip
    where, start = choose_device(device), time.perf_counter()
    with reproducible(where, seed, threads):
        last = accuracy(network, data.test)
    assert history.best_state is not None and history.best_epoch is not None
    if (best := history.best_epoch) != len(history.epochs) - 1:
        network.load_state_dict(history.best_state)
        with reproducible(where, seed, threads):
            best_accuracy = accuracy(network, data.test)
    else:
        best_accuracy = last
    return Score(
        accuracy=last,
        validation_accuracy=history.epochs[-1]["validation_accuracy"],
        best_epoch=best,
        best_validation_accuracy=history.epochs[best]["validation_accuracy"],
        best_accuracy=best_accuracy,
        chance=1 / len(data.classes),
        train_images=len(data.train),
        test_images=len(data.test),
        image_epochs=history.images,
        seconds=history.seconds + time.perf_counter() - start,
        curve=history.epochs,
    )
