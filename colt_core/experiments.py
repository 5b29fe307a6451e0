"""`Experiment`: a validated description of one way to find tickets; `Study`: a grid of them, read from a file."""

import hashlib
import json
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from . import data as datasets
from . import models
from .early_bird import EarlyBird
from .methods import FOLLOW_COLT, METHODS
from .methods.consensus import Pooling
from .settings import Settings
from .training import Recipe

FORMAT = 2  # part of every hash: raise it when the same description comes to mean another computation
OPTIONAL = (
    "early_bird",
    "pooling",
    "official",
)  # joined later: where they are None an experiment's hash is what it was before
Choice = Literal["best-epoch", "statistics-kept", "all-counted", "test-selected", "cifar100-normalised"]
STUDIES = Path(__file__).parent / "studies"


class Experiment(Settings):
    """One way to find tickets, and where to score them. Frozen.

    Attributes
    ----------
    dataset, parts, by
        What tickets are found on (`load`), and how it is split (`partition`).
    network, network_args
        `build(network, classes, seed, **network_args)`.
    method
        One of `METHODS`. Those that follow COLT take the densities of the COLT run with the same settings.
    recipe
        A `Recipe` or the name of a ready one.
    rate
        The fraction of remaining weights pruned a round; by default 0.2 for imp, else 0.15 (COLT's, which `matched`,
        `random` and the others that follow COLT share).
    target
        Prunable-only sparsity to stop at.
    scope, rewind
        "global" or "layer"; the step to rewind to.
    early_bird
        None: every training lasts its recipe. Else see `EarlyBird`; scores always last theirs.
    pooling
        Of consensus alone: "smallest", "geometric" (where none is named) or "mean".
    official
        Choices of the COLT authors' code that are no part of the method, as switches (notebook 13 measures each):
        "best-epoch", the first round prunes the weights of the best validation epoch, not the last;
        "statistics-kept", BatchNorm's running statistics are not rewound; "all-counted", `target` counts every weight,
        head and normalisation too; "test-selected", the accuracy is that of the best epoch on the test set;
        "cifar100-normalised", any data set is normalised with CIFAR-100's mean and standard deviation.
    seed
        Of everything: initialisation, splits, training.
    scores
        Sparsities to score: for each, the first round at or beyond it. Empty: every round. None: none.
    score_on
        The data set to score on; None is `dataset`, any other is transfer.

    The hash of all but `scores` and `score_on` (how much is measured, not what is found) names the folder.
    """

    dataset: str = "cifar10-mini"
    parts: int = Field(2, ge=1)
    by: str = "class"
    network: str = "conv3"
    network_args: dict[str, Any] = {}
    method: str = "colt"
    recipe: Recipe = "mini"  # type: ignore[assignment]
    rate: float = None  # type: ignore[assignment]
    target: float = Field(0.991)
    scope: str = "global"
    rewind: int = Field(0, ge=0)
    early_bird: EarlyBird | None = None
    pooling: Pooling | None = None
    official: tuple[Choice, ...] | None = None
    seed: int = Field(0, ge=0)
    scores: tuple[float, ...] | None = ()
    score_on: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, values: Any) -> Any:
        rate = 0.2 if values.get("method") == "imp" else 0.15
        recipe = values.get("recipe", "mini")
        named = Recipe.named(recipe) if isinstance(recipe, str) else recipe
        return values | {"recipe": named, "rate": rate if values.get("rate") is None else values["rate"]}

    @field_validator("method", "by", "network", "scope")
    @classmethod
    def _known(cls, value: str, info: Any) -> str:
        tables: dict[str, Any] = {
            "method": METHODS,
            "by": datasets.PARTITIONINGS,
            "network": models.NETWORKS,
            "scope": ("global", "layer"),
        }
        if value not in tables[info.field_name]:
            raise ValueError(f"unknown {info.field_name} {value!r}; allowed: {', '.join(tables[info.field_name])}")
        return value

    @field_validator("dataset", "score_on")
    @classmethod
    def _loadable(cls, value: str | None) -> str | None:
        if value is not None:
            datasets.check_name(value)
        return value

    @field_validator("rate", "target")
    @classmethod
    def _fraction(cls, value: float, info: Any) -> float:
        datasets.check_fraction(info.field_name, value)
        return value

    @field_validator("scores")
    @classmethod
    def _fractions(cls, values: tuple[float, ...] | None) -> tuple[float, ...] | None:
        for value in values or ():
            datasets.check_fraction("scores", value)
        return values

    @field_validator("official")
    @classmethod
    def _each_once(cls, values: tuple[Choice, ...] | None) -> tuple[Choice, ...] | None:
        return tuple(sorted(set(values))) if values else None

    @model_validator(mode="after")
    def _pooling_of_consensus(self) -> Self:
        if self.pooling and self.method != "consensus":
            raise ValueError(f"pooling belongs to the method consensus alone, not to {self.method}")
        return self

    @cached_property
    def hash(self) -> str:
        """16 hexadecimal digits of the SHA-256 over the canonical JSON."""
        found_by = self.model_dump(mode="json", exclude={"scores", "score_on"}) | {"format": FORMAT}
        found_by = {k: v for k, v in found_by.items() if k not in OPTIONAL or v is not None}
        return hashlib.sha256(json.dumps(found_by, sort_keys=True).encode()).hexdigest()[:16]

    def reference(self) -> "Experiment | None":
        """Return the COLT experiment that this one follows, if its method does."""
        changes: dict[str, Any] = {"method": "colt", "scores": None, "score_on": None, "pooling": None}
        return self.changed(**changes) if self.method in FOLLOW_COLT else None

    def labels(self) -> dict[str, Any]:
        """Return what identifies this experiment in every record."""
        names = ("dataset", "network", "method", "parts", "by", "rate", "target", "scope", "rewind", "seed")
        return {
            "experiment": self.hash,
            **{name: getattr(self, name) for name in names},
            "pooling": self.pooling,
            "early_bird": json.dumps(self.early_bird.model_dump(), sort_keys=True) if self.early_bird else None,
            **({"official": " ".join(self.official)} if self.official else {}),
            "network_args": json.dumps(self.network_args, sort_keys=True),
            "recipe": json.dumps(self.recipe.model_dump(mode="json"), sort_keys=True),
        }


# --- studies -----------------------------------------------------------------------------------------------------


CARRIED = ("colt", "random", "reinit")  # what is carried over: tickets, and two controls made of each


class Transfer(Settings):
    """The transfer matrix of a study: tickets of every source trained on every target.

    Attributes
    ----------
    among
        Data sets; each is source and target. None: the two halves of the study's classes.
    scores
        Sparsities at which tickets are scored. None: the study's `levels`.
    target
        Sparsity at which finding stops. None: the study's own.
    seeds
        None: the study's.
    """

    among: tuple[str, ...] | None = None
    scores: tuple[float, ...] | None = Field(None, min_length=1)
    target: float | None = None
    seeds: tuple[int, ...] | None = Field(None, min_length=1)

    @field_validator("among")
    @classmethod
    def _several(cls, values: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if values is not None and (len(values) < 2 or len(set(values)) < len(values)):
            raise ValueError(f"transfer needs at least two different data sets, not {', '.join(values) or 'none'}")
        return values


class Study(Settings):
    """A preset: the experiments behind the notebooks, read from a YAML file.

    Attributes
    ----------
    name, title
        The file's stem; one line on what it is and how long it takes.
    base
        The fields of `Experiment` that all share.
    methods
        For each method name, the fields that differ from `base`. Another name makes a second arm of a method, which it
        then gives: `smallest: {method: consensus, pooling: smallest}`.
    grid
        Fields of `Experiment` with a list of values each: every combination, for every method and seed. Fields that a
        method sets itself stay; dense and imp know no partitions. Twice the same experiment is one.
    seeds
        One run each.
    transfer
        See `Transfer`; `transfers()` gives its experiments. None: they are no part of the study (notebook 04 then takes
        the two halves of its classes).
    pieces
        Studies in the order in which they are to be run, each with a `name` and what it changes of `title`, `base`,
        `methods`, `grid`, `seeds` and `transfer`; see `each`.
    cell_timeout
        Seconds that one notebook cell may take in a headless run.
    """

    name: str
    title: str
    base: dict[str, Any]
    methods: dict[str, dict[str, Any]]
    grid: dict[str, list[Any]] = {}
    seeds: tuple[int, ...] = Field((0,), min_length=1)
    transfer: Transfer | None = None
    pieces: tuple[dict[str, Any], ...] = ()
    cell_timeout: int = Field(3600, ge=1)

    @classmethod
    def named(cls, name: str, dataset: str = "") -> Self:
        """Read a ready study (a preset), or a YAML or JSON file; `dataset` puts it, without its pieces, on another set.

        Raises
        ------
        ValueError
            For an unknown preset or mistakes in the file.
        """
        import yaml  # not at the top: the core also runs on a bare GPU machine

        ready = sorted(path.stem for path in STUDIES.glob("*.yaml"))
        path = STUDIES / f"{name}.yaml" if name in ready else Path(name)
        if path.suffix not in (".yaml", ".yml", ".json") or not path.is_file():
            raise ValueError(f"unknown preset {name!r}; allowed: {', '.join(ready)}, or a YAML or JSON file")
        try:
            content: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as problem:
            raise ValueError(f"{path} is no YAML: {' '.join(str(problem).split())}") from None
        if not isinstance(content, dict):
            raise ValueError(f"{path} holds no study; its keys are {', '.join(cls.model_fields)}")
        if dataset and isinstance(content.get("base"), dict):
            content["base"] |= {"dataset": dataset}
            content["grid"] = {k: v for k, v in (content.get("grid") or {}).items() if k != "dataset"}
            content["pieces"] = []
            if isinstance(content.get("transfer"), dict):
                content["transfer"] = content["transfer"] | {"among": None}
        study = cls(**{"name": path.stem, **content})
        for piece in study.each():
            piece.experiments()
        return study

    @field_validator("pieces")
    @classmethod
    def _named_pieces(cls, values: tuple[dict[str, Any], ...]) -> tuple[dict[str, Any], ...]:
        names = [piece.get("name") for piece in values]
        if not all(isinstance(name, str) and name for name in names) or len(set(names)) < len(names):
            raise ValueError("every piece needs a name of its own")
        return values

    @field_validator("grid")
    @classmethod
    def _of_fields(cls, value: dict[str, list[Any]]) -> dict[str, list[Any]]:
        allowed = [name for name in Experiment.model_fields if name not in ("method", "seed")]
        if unknown := [name for name in value if name not in allowed]:
            raise ValueError(f"unknown key {unknown[0]!r}; allowed: {', '.join(allowed)}")
        if empty := [name for name, values in value.items() if not values]:
            raise ValueError(f"{empty[0]} has no values")
        return value

    @field_validator("methods")
    @classmethod
    def _some(cls, value: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        if not value:
            raise ValueError(f"at least one is needed, of {', '.join(METHODS)}")
        return value

    @property
    def levels(self) -> list[float]:
        """The sparsities of the tables: those that are scored, or 80, 90, 95 % and the target where every round is."""
        fields = [self.experiment(method) for method in self.methods]
        asked = {level for e in fields for level in e.scores or ()}
        return sorted(asked or {0.8, 0.9, 0.95, *(e.target for e in fields if e.method == "colt")})

    @property
    def dataset(self) -> str:
        """The data set that all experiments share."""
        return str(self.base.get("dataset", Experiment.model_fields["dataset"].default))

    def each(self) -> "list[Study]":
        """Return the study's pieces as studies, in order; a study without pieces is its own only one.

        Raises
        ------
        ValueError
            For mistakes in a piece.
        """
        whole = {name: getattr(self, name) for name in type(self).model_fields if name != "pieces"}
        pieces = [dict(piece) for piece in self.pieces]
        for piece in pieces:
            piece["name"] = f"{self.name}/{piece['name']}"
            piece["base"] = self.base | (piece.get("base") or {})
            piece.setdefault("transfer", None)
        return [type(self)(**(whole | piece)) for piece in pieces] or [self]

    def carried_among(self) -> tuple[str, ...]:
        """Return the data sets of the transfer matrix.

        Raises
        ------
        ValueError
            If there are too few classes to be halved.
        """
        return (self.transfer and self.transfer.among) or datasets.halves(self.dataset)

    def transfers(self, seeds: tuple[int, ...] | list[int] | None = None) -> "list[Experiment]":
        """Return the experiments of the transfer matrix, for the given seeds or the transfer's own.

        For every source its COLT tickets, random ones with their layer densities, and their masks over a re-drawn
        initialisation, each scored on every data set, the source itself among them; and every dense network.
        """
        names, found, how = self.carried_among(), [], self.transfer or Transfer()
        chosen = how.seeds or self.seeds if seeds is None else seeds
        base: dict[str, Any] = {"scores": self.carried_scores}
        base |= {"target": how.target} if how.target else {}
        for seed, source in product(chosen, names):
            found.append(self.experiment("dense", seed, **base | {"dataset": source, "scores": ()}))
            ticket = self.experiment("colt", seed, **base | {"dataset": source})
            for method, target in product(CARRIED, names):
                found.append(ticket.changed(method=method, score_on=None if target == source else target))
        return found

    @property
    def carried_scores(self) -> list[float]:
        """The sparsities of the transfer matrix."""
        return sorted((self.transfer and self.transfer.scores) or self.levels)

    def experiment(self, method: str, seed: int = 0, **fields: Any) -> Experiment:
        """Return the study's experiment for one method and seed, some fields changed."""
        own = {"method": method} | (self.methods.get(method) or {})
        return Experiment(**(self.base | own | {"seed": seed} | fields))

    def experiments(self, seeds: tuple[int, ...] | list[int] | None = None) -> list[Experiment]:
        """Return all of them, for the given seeds or the study's own."""
        found: dict[tuple[Any, ...], Experiment] = {}
        for values in product(*self.grid.values()):
            point = dict(zip(self.grid, values, strict=True))
            for seed in self.seeds if seeds is None else seeds:
                for method, own in self.methods.items():
                    without = ("parts", "by") if (own or {}).get("method", method) in ("dense", "imp") else ()
                    fields = {k: v for k, v in point.items() if k not in (own or {}) and k not in without}
                    one = self.experiment(method, seed, **fields)
                    found.setdefault((one.hash, one.scores, one.score_on), one)
        return list(found.values())
