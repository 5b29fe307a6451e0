"""`Experiment`: a validated description of one way to find tickets, and where to score them."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from contextvars import ContextVar
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from .. import data as datasets
from ..foreign import check_trusted, named_by_a_file
from ..methods import method_of
from ..models import check_network, code_of, declared_objective
from ..settings import FrozenDict, JsonDict, Number, Settings, check_fraction, check_rounds, shown
from ..tickets.score import Head
from ..training import EarlyBird, Recipe, described, objective_for, objective_of
from .fields import (
    PLAIN,
    as_it_comes,
    code_in,
    declared,
    finding_of,
    judged_by,
    last_of,
    no_classifier,
    numbers_of,
    objective_in,
    options_of,
    versions,
)

FORMAT = 2  # part of every hash: raise it when the same description comes to mean another computation
MEASURED = {"scores", "score_on", "scoring"}  # how much is measured, not what is found: no part of the hash
LATER = ("official", "objective", "finding", "densities", "code")  # joined later: left out of records where they are
OPTIONAL = ("early_bird", *LATER)  # None, and of hashes, which are what they were before
SETTINGS = (
    *("dataset", "parts", "by", "network", "network_args", "method", "options", "pooling", "recipe", "finding"),
    *("rate", "target", "densities", "scope", "rewind", "early_bird", "official", "objective", "code", "seed"),
)  # what tells experiments apart, in records and descriptions; `pooling` had a place of its own before `options`
NESTED = ("network_args", "options", "recipe", "finding", "densities", "early_bird", "objective", "code")  # as JSON
Choice = Literal["best-epoch", "statistics-kept", "all-counted", "test-selected", "cifar100-normalised"]
NEAR = 0.01  # of a density
OF_BUILD = ("name", "classes", "seed")  # arguments of `build` that an experiment has in other places


class Scoring(Settings):
    """How tickets are scored where that is not as they were found. Frozen.

    Attributes
    ----------
    objective
        What a scored ticket is trained for; None: as in finding.
    head
        "fresh" or "own" (theta0's); None: fresh where the network has one, but own for weights made to fit a mask.
    """

    objective: Annotated[JsonDict | None, BeforeValidator(judged_by)] = None
    head: Head | None = None

    def __str__(self) -> str:
        told = []
        if self.objective:  # two teachers of one kind are two ways of scoring
            usual = as_it_comes(self.objective["name"])
            own = ", ".join(f"{name} {value}" for name, value in self.objective.items() if usual.get(name) != value)
            told = [self.objective["name"] + (f" ({own})" if own else "")]
        return ", ".join(told + ([f"{self.head} head"] if self.head else [])) or "as found"


class Experiment(Settings):
    """One way to find tickets, and where to score them. Frozen.

    Attributes
    ----------
    dataset, parts, by
        What tickets are found on (`load`; a `Dataset` is taken by its name, see `Dataset.named`), and how it is split
        (`partition`).
    network, network_args
        `build(network, classes, seed, **network_args)`.
    method
        One of `METHODS`, or "package.module:NAME" of a `Method`. Those that follow COLT take the densities of the COLT
        run with the same settings.
    recipe
        A `Recipe` or the name of a ready one.
    finding
        What of the recipe is another while tickets are found, {"epochs": 6} for example; scores keep to `recipe`.
    rate
        The fraction of remaining weights pruned a round; by default the method's own: 0.2 for imp, else 0.15 (COLT's,
        which `matched`, `random` and the others that follow COLT share).
    target
        Prunable-only sparsity to stop at.
    densities
        In place of rate and target: the density after each round, falling, the same for every method. Copies whose
        masks are combined are each pruned as far as it takes. Who follows COLT for its densities alone follows nobody.
    scope, rewind
        "global" or "layer"; the step to rewind to. Searches train on from that step, scores train the whole recipe.
    early_bird
        None: every training lasts its recipe. Else see `EarlyBird`; scores always last theirs.
    options
        What only the method knows, validated by it; each may also be given as a field of its own: `pooling` of
        consensus ("smallest", "geometric", where none is named, or "mean").
    objective
        What is learnt while finding, and scored: see `training.objective_of`. None: what the network declares, else
        cross-entropy.
    official
        Choices of the COLT authors' code that are no part of the method, as switches (notebook 13 measures each):
        "best-epoch", the first round prunes the weights of the best validation epoch, not the last;
        "statistics-kept", BatchNorm's running statistics are not rewound; "all-counted", `target` counts every weight,
        head and normalisation too; "test-selected", the accuracy is that of the best epoch on the test set;
        "cifar100-normalised", any data set is normalised with CIFAR-100's mean and standard deviation.
    code
        The versions of code that is not this package's, of network, method, objective, data set and pretrained weights:
        filled in, never given. Edited code makes another experiment.
    seed
        Of everything: initialisation, splits, training.
    scores
        Sparsities to score: for each, the first round at or beyond it. Empty: every round. None: none. Dense has one
        round, which stands beside every sparsity: whatever is named, it is scored.
    score_on
        The data set to score on; None is `dataset`, any other is transfer.
    scoring
        Another objective or head for scores, see `Scoring`; None: as in finding, with a fresh head.

    The hash of all but `scores`, `score_on` and `scoring` (what is measured, not what is found) names the folder.
    """

    dataset: str = "cifar10-mini"
    parts: int = Field(2, ge=1)
    by: str = "class"
    network: str = "conv3"
    network_args: JsonDict = FrozenDict()
    method: str = "colt"
    recipe: Recipe = "mini"  # type: ignore[assignment]
    finding: JsonDict | None = None
    rate: Number = None  # type: ignore[assignment]
    target: Number = 0.991
    densities: tuple[Number, ...] | None = None
    scope: str = "global"
    rewind: int = Field(0, ge=0)
    early_bird: EarlyBird | None = None
    options: JsonDict = FrozenDict()
    official: tuple[Choice, ...] | None = None
    objective: Annotated[JsonDict | None, BeforeValidator(objective_in)] = None
    code: JsonDict | None = None
    seed: int = Field(0, ge=0)
    scores: tuple[Number, ...] | None = ()
    score_on: str | None = None
    scoring: Scoring | None = None

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, values: Any) -> Any:
        values = dict(values)
        name = values.get("method", "colt")
        if not isinstance(name, str):
            raise ValueError(f"method must be text, not {shown(name)}")
        method = method_of(name)
        values["options"] = options_of(method, values, cls.model_fields)
        if not _AS_STORED.get() and isinstance(values.get("code"), Mapping | None):
            values["code"] = versions(values)
        values["objective"] = declared(values.get("network"), values.get("objective"))
        recipe = values.get("recipe", "mini")
        values["recipe"] = Recipe.named(recipe) if isinstance(recipe, str) else recipe
        values["finding"] = finding_of(values.get("finding"), values["recipe"])
        values["rate"] = method.rate if values.get("rate") is None else values["rate"]
        if values.get("densities") is not None:
            values["densities"] = numbers_of(values["densities"])
            if isinstance(values["rate"], int | float):  # no part of what is found, nor of the hash
                values["rate"] = method.rate
            values["target"] = last_of(values["densities"], values.get("target"))
        elif "target" in values and values["target"] is None:
            del values["target"]
        return values

    @field_validator("network")
    @classmethod
    def _buildable(cls, value: str) -> str:
        check_network(value)
        return value

    @field_validator("network_args")
    @classmethod
    def _of_the_network(cls, value: Any) -> Any:
        if taken := [name for name in value if name in OF_BUILD]:
            raise ValueError(f"{taken[0]} is no argument of the network alone")
        return value

    @field_validator("by", "scope")
    @classmethod
    def _known(cls, value: str, info: Any) -> str:
        allowed: dict[str, Any] = {"by": datasets.PARTITIONINGS, "scope": ("global", "layer")}
        if value not in allowed[info.field_name]:
            raise ValueError(f"unknown {info.field_name} {value!r}; allowed: {', '.join(allowed[info.field_name])}")
        return value

    @field_validator("dataset", "score_on", mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        return value.named() if isinstance(value, datasets.Dataset) else value

    @field_validator("dataset", "score_on")
    @classmethod
    def _loadable(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                datasets.check_name(value)
            except (AssertionError, OSError):  # more than one line, or longer than a path can be
                raise ValueError(f"unknown data set {shown(value)}") from None
        return value

    @field_validator("rate", "target")
    @classmethod
    def _fraction(cls, value: float, info: Any) -> float:
        check_fraction(info.field_name, value)
        return value

    @field_validator("densities")
    @classmethod
    def _falling(cls, values: tuple[float, ...] | None) -> tuple[float, ...] | None:
        for value, before in zip(values or (), (1.0, *(values or ())), strict=False):
            check_fraction("densities", value)
            if value >= before:
                raise ValueError(f"densities must fall from one round to the next: {value:g} follows {before:g}")
        return values

    @field_validator("scores")
    @classmethod
    def _fractions(cls, values: tuple[float, ...] | None, info: Any) -> tuple[float, ...] | None:
        for value in values or ():
            check_fraction("scores", value)
        return () if values and info.data.get("method") == "dense" else values

    @field_validator("official")
    @classmethod
    def _each_once(cls, values: tuple[Choice, ...] | None) -> tuple[Choice, ...] | None:
        return tuple(sorted(set(values))) if values else None

    @model_validator(mode="after")
    def _ends(self) -> Self:
        check_rounds(self.rate, self.target)
        return self

    @model_validator(mode="after")
    def _scorable(self) -> Self:
        own = declared_objective(self.network)
        if own is not None and self.scoring is not None and self.scoring.objective == PLAIN:
            raise ValueError(no_classifier(self.network, own))
        objective_of(self.objective).check_recipe(self.recipe)
        return self

    @cached_property
    def hash(self) -> str:
        """16 hexadecimal digits of the SHA-256 over the canonical JSON."""
        return hash_of(self.model_dump(mode="json") | {"format": FORMAT})

    @classmethod
    def from_description(cls, about: Mapping[str, Any]) -> Self:
        """Return the experiment of a description as `experiment.json` has it, of this version or an older one.

        Code that it names is not imported unless it is trusted, and is of the version that it says.

        Raises
        ------
        ValueError
            In one line, where it is none, or names code that is not trusted.
        """
        known = {name: value for name, value in about.items() if name not in ("format", "data")}
        scoring = known.get("scoring")
        scored = code_in({"objective": scoring.get("objective")} if isinstance(scoring, Mapping) else {})
        elsewhere = code_in({"dataset": known.get("score_on")})
        for what, name in (*code_in(known).items(), *scored.items(), *elsewhere.items()):
            if (own := name if what in ("method", "dataset", "objective") else code_of(name)) is not None:
                check_trusted(own, f"the {what}")
        token = _AS_STORED.set(True)
        try:
            with named_by_a_file():
                return cls(**known)
        finally:
            _AS_STORED.reset(token)

    @classmethod
    def as_sent(cls, about: Mapping[str, Any]) -> Self:
        """Return the experiment that another process of the same caller describes; its code must still be the same."""
        one = cls(**about)
        if one.code != about.get("code"):
            raise ValueError(f"the code that the experiment names has changed meanwhile; run it again ({one.code})")
        return one

    def reference(self) -> "Experiment | None":
        """Return the experiment whose rounds this one follows, if its method does."""
        method = method_of(self.method)
        follows = method.follows
        if follows is None or (method.takes == "densities" and self.densities is not None):
            return None
        if not isinstance(follows, str):
            return follows(self)  # type: ignore[no-any-return]
        return self.changed(method=follows, options={}, **dict.fromkeys(MEASURED))

    def references(self) -> "list[Experiment]":
        """Return the experiment that this one follows, the one that that follows, and so on."""
        one = self.reference()
        return [] if one is None else [one, *one.references()]

    def changed(self, **update: Any) -> Self:
        """Return a copy with some fields changed, validated again.

        The target goes with the densities, and what a network has declared to learn with the network.
        """
        along: dict[str, Any] = {"target": None} if "densities" in update else {}
        if "network" in update and self.objective == described(objective_for(self.network)):
            along["objective"] = None
        return super().changed(**(along | update))

    @property
    def found_with(self) -> Recipe:
        """The recipe of the trainings that find."""
        return self.recipe.changed(**self.finding) if self.finding else self.recipe

    def check_code(self) -> None:
        """Raise a `ValueError` where code that it names has changed since it was described."""
        if self.code is None:
            return
        names = ("dataset", "network", "method", "network_args", "options", "objective")
        now = versions({name: getattr(self, name) for name in names}) or {}
        for what, then in self.code.items():
            if (found := now.get(what)) != then:
                raise ValueError(f"the code of its {what} is {found}; the run {self.hash} was begun with {then}")

    def labels(self) -> dict[str, Any]:
        """Return what identifies this experiment in every record."""
        nested = {name: getattr(self, name) for name in NESTED}
        nested |= {"recipe": self.recipe.model_dump(mode="json")}
        nested |= {"early_bird": self.early_bird.model_dump() if self.early_bird else None}
        told: dict[str, Any] = {"experiment": self.hash}
        for name in SETTINGS:
            if name in NESTED:
                told[name] = json.dumps(nested[name], sort_keys=True) if nested[name] is not None else None
            elif name == "official":
                told[name] = " ".join(self.official) if self.official else None
            elif name != "pooling":
                told[name] = getattr(self, name)
        later = ("options", *LATER)  # left out of records where there is nothing to tell
        return {name: value for name, value in told.items() if name not in later or value not in (None, "{}")}


def hash_of(about: Mapping[str, Any]) -> str:
    """Return the hash of an experiment's description, as `experiment.json` holds it; nothing of it is validated."""
    found_by = {k: v for k, v in about.items() if k not in MEASURED | {"options", "data"}}
    found_by = {k: v for k, v in found_by.items() if k not in OPTIONAL or v is not None}
    # A method's options stand beside the fields: consensus's `pooling` was one.
    return hashlib.sha256(json.dumps(found_by | about.get("options", {}), sort_keys=True).encode()).hexdigest()[:16]


_AS_STORED: ContextVar[bool] = ContextVar("as_stored", default=False)


def counts_as(number: int, density: float, densities: Sequence[float] | None) -> float:
    """Return the sparsity that a round counts as: what it was to be cut to, where it came as near as weights allow.

    `densities` is the experiment's trajectory. Of so many weights no whole number may be that very share, and copies
    whose masks are combined may miss it by a few.
    """
    if densities is not None and 0 < number <= len(densities) and abs(density / densities[number - 1] - 1) < NEAR:
        return 1 - densities[number - 1]
    return 1 - density


def reached(record: Mapping[str, Any], densities: Sequence[float] | None) -> float:
    """Return the sparsity that a round's record counts as; of channels cut whole, by the weights left when compact."""
    return counts_as(record["round"], really_left(record), densities)


def really_left(record: Mapping[str, Any]) -> float:
    """Return the density of a round's record; of channels cut whole, that of the weights left when it is compact."""
    left = record.get("density_effective")
    return float(record["density"] if left is None else left)


def listed(experiments: Any) -> list[Experiment]:
    """Return an experiment, several, or all of a study, as a list; in one line refuse what is none."""
    if hasattr(experiments, "everything"):
        return list(experiments.everything())
    one = isinstance(experiments, Settings | Mapping | str) or not isinstance(experiments, Iterable)
    given: list[Any] = [experiments] if one else list(experiments)
    if wrong := [each for each in given if not isinstance(each, Experiment)]:
        known = "; a study by its name: cc.Study.named('mini')" if isinstance(wrong[0], str) else ""
        raise ValueError(f"experiments are taken, or a Study, not {shown(wrong[0])}{known}")
    return given


def settings_in(about: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that a record or a description names: JSON opened, what is not set left out.

    Whatever shows experiments (tables, cards, trackers) asks here, so that none of them leaves one out.
    """
    found: dict[str, Any] = {}
    for name in SETTINGS:
        value = about.get(name)
        if value is None or value != value:  # NaN, in a data frame's row
            continue
        value = json.loads(value) if name in NESTED and isinstance(value, str) else value
        if name == "options":
            found |= value
        elif not (isinstance(value, dict | list | tuple) and not value):
            found[name] = " ".join(value) if name == "official" and not isinstance(value, str) else value
    return found


def method_in_words(settings: Mapping[str, Any]) -> str:
    """Return the method that settings name, and the authors' choices under which it ran: "colt (official: best-epoch)".

    `settings` is what `settings_in` returned.
    """
    official = settings.get("official")
    return f"{settings['method']} (official: {official})" if official else str(settings["method"])
