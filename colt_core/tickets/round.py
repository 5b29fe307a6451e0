"""What a finder yields: `Round`, its ticket and how it was found, and what that cost."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .. import masks
from ..masks import Mask, Overlap
from .ticket import Ticket, read_ticket

NOTHING_LEARNT = ("ended at chance", "has a single class")  # how a doubt says so of a copy


@dataclass(frozen=True)
class Cost:
    """What was spent: training images seen (once an epoch each), dense floating-point operations, seconds, steps.

    FLOPs count a forward and a backward pass (three forwards) of the dense network, and a teacher's forward pass:
    unstructured masks save none. A teacher's own training is not counted: it is one for all that it teaches.
    Steps are the optimiser steps that must follow one another: of copies that can train at the same time, the longest
    one's. None: unknown, in records older than the count.
    """

    images: int = 0
    flops: float = 0.0
    seconds: float = 0.0
    steps: int | None = 0

    def __add__(self, other: "Cost") -> "Cost":
        steps = None if self.steps is None or other.steps is None else self.steps + other.steps
        return Cost(self.images + other.images, self.flops + other.flops, self.seconds + other.seconds, steps)

    @classmethod
    def beside(cls, costs: Iterable["Cost"]) -> "Cost":
        """Return the cost of what can be done at the same time."""
        several = list(costs)
        steps = [cost.steps or 0 for cost in several]
        return replace(sum(several, cls()), steps=max(steps, default=0))


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
        The validation metric (accuracy, in [0, 1]) of each copy whose training decided this mask: trained at the
        density *before* this round's pruning, each on its own partition's classes. Empty without validation images.
    curves
        For each of those copies, the epochs of its `training.History`.
    cost
        Every training that took place before this mask existed.
    epochs_saved
        For each of those copies, the epochs of the recipe that early-bird stopping spared.
    doubts
        What makes it no ticket worth having, a sentence each: a copy that has learnt nothing, a layer without a weight.
    own
        The mask that the finder goes on with, where it has given the ticket a reshaped one; None: the ticket's.
    measures
        What else the method tells of this round, by name.
    """

    number: int
    ticket: Ticket
    partition_masks: list[Mask] = field(default_factory=list)
    overlap: Overlap | None = None
    accuracies: list[float] = field(default_factory=list)
    curves: list[list[dict[str, float]]] = field(default_factory=list)
    cost: Cost = Cost()
    epochs_saved: list[int] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    own: Mask | None = None
    measures: dict[str, float] = field(default_factory=dict)

    @property
    def warnings(self) -> list[str]:
        """Its doubts, what they make of the copies' agreement, and the layers that its mask has emptied."""
        empty = [f"{name} has no weight left" for name, kept in self.ticket.mask.items() if not kept.any()]
        found = list(dict.fromkeys([*self.doubts, *empty]))
        if len(empty) == len(self.ticket.mask):
            found.append("nothing is left of the network (collapse)")
        if self.overlap and any(sign in told for told in self.doubts for sign in NOTHING_LEARNT):
            agreed = f"the copies' agreement (Jaccard index {self.overlap.jaccard:.2f}) means nothing"
            found.append(f"{agreed}: not all of them had something to learn, and learnt it")
        return list(dict.fromkeys(found))

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
        return (
            {
                "round": self.number,
                "pruned": list(self.ticket.mask),
                "density": self.density,
                "density_all": self.density_all,
                "image_epochs": self.cost.images,
                "flops": self.cost.flops,
                "seconds": self.cost.seconds,
                "steps": self.cost.steps,
                "accuracies": self.accuracies,
                "curves": self.curves,
                "epochs_saved": self.epochs_saved,
                "overlap": self.overlap.as_dict() if self.overlap else None,
            }
            | ({"warnings": self.warnings} if self.warnings else {})
            | ({"measures": self.measures} if self.measures else {})
            | self._effective()
        )

    def _effective(self) -> dict[str, float]:
        """Of tickets whose channels are cut whole: what is left of them when they are compact, the real density."""
        if not self.ticket.architecture.get("silent"):
            return {}
        return {"density_effective": masks.count(self.ticket.effective()) / masks.size(self.ticket.mask)}

    def save(self, path: str | Path) -> Path:
        """Write the ticket's file with the other masks beside it: `partition/<i>/<name>`, and `own/<name>`."""
        extra = {f"partition/{i}/{n}": kept for i, m in enumerate(self.partition_masks) for n, kept in m.items()}
        extra |= {f"own/{n}": kept for n, kept in (self.own or {}).items()}
        return self.ticket.save(path, extra)

    @classmethod
    def load(cls, path: str | Path, record: Mapping[str, Any]) -> "Round":
        """Read a round from its file and its record."""
        if not Path(path).is_file():
            raise FileNotFoundError(f"the records name a round whose file is missing: {path}")
        ticket, tensors = read_ticket(Path(path))
        count = 1 + max((int(k.split("/")[1]) for k in tensors if k.startswith("partition/")), default=-1)
        return cls(
            number=record["round"],
            ticket=ticket,
            partition_masks=[{n: tensors[f"partition/{i}/{n}"] for n in ticket.mask} for i in range(count)],
            overlap=Overlap(**record["overlap"]) if record["overlap"] else None,
            accuracies=record["accuracies"],
            curves=record["curves"],
            cost=Cost(record["image_epochs"], record["flops"], record["seconds"], record.get("steps")),
            epochs_saved=record.get("epochs_saved", []),
            doubts=record.get("warnings", []),
            measures=record.get("measures", {}),
            own={n: tensors[f"own/{n}"] for n in ticket.mask} if any(k.startswith("own/") for k in tensors) else None,
        )
