"""What a finder may be told besides its own arguments: of what it is to find (`Options`), and where (`Where`)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from ..compute.store import Store
from ..data import Images
from ..seeding import choose_device
from ..settings import Settings, check_whole, shown
from ..tickets import Round
from ..training import CROSS_ENTROPY, EarlyBird, History, Objective
from ..training.objective import check_objective

Source = Literal["colt", "imp"]
Fill = Literal["overlap", "copies"]
Order = Literal["winning", "losing", "random"]
Equal = Literal["weights", "units"]


@dataclass(frozen=True)
class Options:
    """What a finder may be told of what it is to find.

    Attributes
    ----------
    scope
        "global" (the paper) or "layer": the pool in which magnitudes are compared.
    rewind
        Step k to rewind to; 0 is the initialisation. The first k steps are trained once, on `whole`.
    whole
        The undivided training images, for `rewind`.
    validation
        Images to score each copy on, one set a partition.
    objective
        What the copies learn; by default what the network declares.
    seed
        Of order, augmentation and fresh heads.
    early_bird
        End each round's trainings once their masks have settled (see `EarlyBird`); None: train the whole recipe.
    best_epoch
        The first round prunes the weights of the best validation epoch instead of the last (the COLT authors' code).
    keep_statistics
        BatchNorm's running statistics are not rewound (their code again): a copy goes on with those of its last round.
    count_all
        `target` counts every weight of a copy, its head and normalisation too (and again).
    stem, head
        False, True: leave the first layer out of the mask, take the classifier in.
    resume
        A round to go on from; it is not yielded again.
    provenance
        Joins every ticket's provenance.
    """

    scope: str = "global"
    rewind: int = 0
    whole: Images | None = None
    validation: list[Images] | None = None
    objective: Objective = CROSS_ENTROPY
    seed: int = 0
    early_bird: EarlyBird | None = None
    best_epoch: bool = False
    keep_statistics: bool = False
    count_all: bool = False
    stem: bool = True
    head: bool = False
    resume: Round | None = None
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.scope not in ("global", "layer"):
            raise ValueError(f"unknown scope {self.scope!r}; allowed: global, layer")
        check_whole("rewind", self.rewind, 0)
        check_objective(self.objective)
        if self.resume is not None and not isinstance(self.resume, Round):
            raise ValueError(f"resume must be the Round to go on from, not {shown(self.resume)}")
        if self.early_bird is not None and not isinstance(self.early_bird, EarlyBird):
            raise ValueError(f"early_bird must be an EarlyBird(delta, window, on) or None, not {self.early_bird!r}")

    @property
    def done(self) -> int:
        """The number of the last round that is there already; -1: none."""
        return self.resume.number if self.resume else -1


@dataclass(frozen=True)
class Where:
    """Where a finder computes, and who watches.

    Attributes
    ----------
    device, threads
        Threads of each training on a CPU; like the device they belong to what fixes a result.
    workers
        Copies side by side (see `train_copies`); no result depends on it.
    store
        Where trainings are looked up and kept between epochs; None: nowhere (see `compute.checkpoints`).
    watch
        Called after every epoch of a training with the number of the round that it decides, that of the copy, and the
        training's history; from whichever thread drives it.
    """

    device: str = "auto"
    threads: int = 1
    workers: int | None = None
    store: Store | None = None
    watch: Callable[[int, int, History], None] | None = None

    def __post_init__(self) -> None:
        if self.threads < 1:
            raise ValueError(f"threads must be at least 1, not {self.threads}")
        choose_device(self.device)


class RefillOptions(Settings):
    """Whose masks are filled up, COLT's or IMP's; the share of the other channels that stays too (refill+).

    Whether the overlap is filled up, or each copy's mask before the overlap; and, as a control, whether random masks
    with the same layers' densities are filled up instead: see `filled`.
    """

    source: Source = "colt"
    extra: float = Field(0.0, ge=0, lt=1)
    fill: Fill = "overlap"
    shuffled: bool = False


class RegroupOptions(Settings):
    """Whose masks are regrouped, how many rows a block has, and how wide it is: see `masks.blocks`."""

    source: Source = "colt"
    rows: int | None = Field(None, ge=1, strict=True)
    rule: Literal["budget", "paper"] = "budget"


class SuperOptions(Settings):
    """Which units go first: the least important ("winning"), the most ("losing"), or any ("random").

    At a density all orders leave as many weights, or have lost as many units as the winning one.
    """

    order: Order = "winning"
    equal: Equal = "weights"


class ChannelOptions(RefillOptions, SuperOptions):
    """Whose tickets of whole channels a control goes by, refill's where nothing is said; then that method's options."""

    of: Literal["super"] | None = None

    @model_validator(mode="after")
    def _of_it(self) -> Self:
        _check_of(self, {None: RefillOptions, "super": SuperOptions})
        return self


class DensityOptions(RefillOptions, RegroupOptions, SuperOptions):
    """To whose effective densities IMP goes, refill's where nothing is said; then that method's options."""

    of: Literal["regroup", "super"] | None = None

    @model_validator(mode="after")
    def _of_it(self) -> Self:
        _check_of(self, {None: RefillOptions, "regroup": RegroupOptions, "super": SuperOptions})
        return self


def _check_of(given: ChannelOptions | DensityOptions, known: Mapping[str | None, type[Settings]]) -> None:
    """Refuse options of another method than the one that is followed."""
    allowed, said = known[given.of].model_fields, given.model_dump(exclude_defaults=True)
    if odd := [name for name in said if name != "of" and name not in allowed]:
        raise ValueError(f"{odd[0]} is no option of {given.of or 'refill'}; allowed: {', '.join(allowed)}")
