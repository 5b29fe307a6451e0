"""`Experiment`: a validated description; `run()`: its records, resumed, never computed twice; `Study`: many of them."""

import hashlib
import json
import math
import os
import platform
from collections.abc import Iterator
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from pydantic import Field, field_validator, model_validator
from tqdm import tqdm

from . import data as datasets
from . import models
from .data import Dataset
from .early_bird import EarlyBird
from .files import locked, sweep, write_text
from .methods import FOLLOW_COLT, METHODS, Setting
from .methods.consensus import Pooling
from .seeding import choose_device, cores
from .settings import Settings
from .tickets import Round, Score, Ticket, evaluate
from .training import Recipe

if TYPE_CHECKING:
    import pandas as pd

FORMAT = 2  # part of every hash: raise it when the same description comes to mean another computation
OPTIONAL = ("early_bird", "pooling")  # joined later: where they are None an experiment's hash is what it was before
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
            "network_args": json.dumps(self.network_args, sort_keys=True),
            "recipe": json.dumps(self.recipe.model_dump(mode="json"), sort_keys=True),
        }


# --- running -----------------------------------------------------------------------------------------------------


def store_folder(store: str | Path | None = None) -> Path:
    """Return the store: the one given, else `$COLT_STORE`, else `runs`."""
    place = str(store or os.environ.get("COLT_STORE") or "runs")
    if "://" in place:
        raise ValueError(f"the store must be a folder, not {place!r}: buckets are not supported yet")
    return Path(place)


def run(
    experiment: Experiment, store: str | Path | None = None, device: str = "auto", threads: int = 1
) -> "pd.DataFrame":
    """Carry an experiment out, or what is missing of it, and return its records.

    Parameters
    ----------
    experiment
        What to do.
    store
        A folder (default `$COLT_STORE` or `runs`). What is there is read, not computed again.
    device, threads
        Where to compute; written into each record.

    Returns
    -------
    pandas.DataFrame
        A row a record: `kind` is "round" or "score" (those have an `accuracy`).

    Raises
    ------
    ValueError, OSError
        In one line, before any training: bad settings, bad data, an unwritable store.
    """
    import pandas as pd

    _finish(experiment, store_folder(store), str(choose_device(device)), threads)
    return pd.DataFrame(read_records(store_folder(store) / experiment.hash))


def rounds(
    experiment: Experiment, store: str | Path | None = None, device: str = "auto", threads: int = 1
) -> Iterator[Round]:
    """Yield an experiment's rounds: those in the store first, then newly found ones, each saved as it comes."""
    return _rounds(experiment, store_folder(store), str(choose_device(device)), threads)


def _finish(experiment: Experiment, store: Path, device: str, threads: int) -> None:
    """Find every round, and score those asked for."""
    folder = store / experiment.hash
    target = experiment.score_on or experiment.dataset
    scored = {r["round"] for r in read_records(folder) if r["kind"] == "score" and r["scored_on"] == target}
    open_scores = sorted(experiment.scores or ())
    for found in _rounds(experiment, store, device, threads):
        wanted = experiment.scores == ()
        while open_scores and found.sparsity >= open_scores[0] - 1e-12:
            wanted, _ = True, open_scores.pop(0)
        if wanted and found.number not in scored:
            score, where = _score(found.ticket, experiment, target, store, device, threads)
            spent = {
                "image_epochs": found.image_epochs,
                "seconds": found.seconds,
            }  # to find it; the rest is the score's
            own = {f"score_{name}": getattr(score, name) for name in spent}
            values = found.record() | score.as_dict() | spent | own | where
            _append(folder, experiment, "score", values | {"scored_on": target, "score_data": _prints(target)})


def _finish_described(experiment: dict[str, Any], store: str, device: str) -> None:
    """What a worker process does for `study`. A user's folder may have changed since it was last read."""
    if not datasets.is_built_in(experiment["dataset"]):
        _data.cache_clear()
        _prints.cache_clear()
    _finish(Experiment(**experiment), Path(store), device, 1)


def _rounds(experiment: Experiment, store: Path, device: str, threads: int) -> Iterator[Round]:
    folder = store / experiment.hash
    _check_data(folder, experiment)
    records = [r for r in read_records(folder) if r["kind"] == "round"]
    last = None
    for record in records:
        last = Round.load(folder / f"round-{record['round']:02d}.safetensors", record)
        yield last
    if (folder / "complete").exists():
        return
    finder = METHODS[experiment.method](_setting(experiment, store, device, threads, last))
    _start(folder, experiment)  # only now: what the method refuses leaves no folder behind
    for found in finder:
        found.save(folder / f"round-{found.number:02d}.safetensors")
        images = {"train_images": len(_data(experiment.dataset).train), "device": device, "threads": threads}
        _append(folder, experiment, "round", found.record() | images | {"accuracy": None})
        yield found
    write_text(folder / "complete", "")


def _setting(experiment: Experiment, store: Path, device: str, threads: int, last: Round | None) -> Setting:
    data = _data(experiment.dataset)
    reference = experiment.reference()
    names = ("recipe", "rate", "target", "parts", "by", "seed")
    return Setting(
        network=models.build(experiment.network, len(data.classes), experiment.seed, **experiment.network_args),
        data=data,
        **{name: getattr(experiment, name) for name in names},
        options={
            **{name: getattr(experiment, name) for name in ("scope", "rewind", "seed", "early_bird")},
            **{"device": device, "threads": threads, "resume": last},
            "provenance": {"experiment": experiment.hash, "method": experiment.method, "torch": torch.__version__},
        },
        pooling=experiment.pooling or "geometric",
        reference=lambda: list(_rounds(reference, store, device, threads)) if reference else [],
    )


def check(experiment: Experiment, device: str = "auto") -> None:
    """Refuse, before any training, what only the data and the network can tell: see the errors of `run`."""
    plain = experiment.reference() or experiment
    for name in {experiment.dataset, experiment.score_on or experiment.dataset}:
        _data(name)
    METHODS[plain.method](_setting(plain, store_folder(), str(choose_device(device)), 1, None))


def _score(
    ticket: Ticket, experiment: Experiment, target: str, store: Path, device: str, threads: int
) -> tuple[Score, dict[str, Any]]:
    """Score a ticket, or look the score up where any experiment has scored the very same."""
    data, prints = _data(target), _prints(target)
    where = {"device": device, "threads": threads}
    recipe = experiment.recipe.model_dump(mode="json")
    key = json.dumps([FORMAT, ticket.hash, prints, recipe, experiment.seed, where, torch.__version__], sort_keys=True)
    path = store / "scores" / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.json"
    if path.exists():
        return Score.from_dict(json.loads(path.read_text())), where
    score = evaluate(ticket, data, experiment.recipe, experiment.seed, device, threads)
    write_text(path, json.dumps(score.as_dict()))
    return score, where


@lru_cache(maxsize=4)
def _data(name: str) -> Dataset:
    return datasets.load(name)


@lru_cache(maxsize=16)
def _prints(name: str) -> tuple[str, ...]:
    """The fingerprints of a data set's three parts."""
    data = _data(name)
    return tuple(part.fingerprint() for part in (data.train, data.validation, data.test))


def _check_data(folder: Path, experiment: Experiment) -> None:
    """Refuse to read or go on where the data has changed since the run began.

    The built-in sets have checksums of their own, and a finished run of theirs can be read where they are not at hand.
    """
    path = folder / "experiment.json"
    if not path.exists() or (datasets.is_built_in(experiment.dataset) and (folder / "complete").exists()):
        return
    if json.loads(path.read_text())["data"] != list(_prints(experiment.dataset)):
        raise ValueError(f"the data set {experiment.dataset!r} has changed since {folder} was begun; use another store")


def _start(folder: Path, experiment: Experiment) -> None:
    """Write the description, and sweep what dead processes left."""
    about = experiment.model_dump(mode="json", exclude={"scores", "score_on"})
    sweep(folder)
    path = folder / "experiment.json"
    if not path.exists():
        about |= {"format": FORMAT, "data": _prints(experiment.dataset)}
        write_text(path, json.dumps(about, indent=1))


def read_records(folder: Path) -> list[dict[str, Any]]:
    """Return the records of a folder; a torn last line is left out, and of work done twice the first counts."""
    path = folder / "records.jsonl"
    if not path.exists():
        return []
    whole, _, _ = path.read_text(encoding="utf-8").rpartition("\n")
    records = [json.loads(line) for line in whole.splitlines() if line]
    return list({(r["kind"], r["round"], r.get("scored_on")): r for r in reversed(records)}.values())[::-1]


def _append(folder: Path, experiment: Experiment, kind: str, values: dict[str, Any]) -> None:
    """Add one line to the records, after cutting off what a torn write left."""
    path = folder / "records.jsonl"
    of_rounds = ("curves", "overlap", "accuracies", "epochs_saved")
    values = {k: v for k, v in values.items() if kind == "round" or k not in of_rounds}
    versions = {"torch": torch.__version__, "python": platform.python_version()}
    line = json.dumps(_finite({"kind": kind, **experiment.labels(), **values, **versions}), allow_nan=False) + "\n"
    try:
        with open(path, "ab+") as file, locked(file):
            file.seek(0)
            content = file.read()
            file.truncate(content.rfind(b"\n") + 1)
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())
    except OSError as problem:
        raise OSError(f"{path} cannot be written ({problem.strerror})") from None


def _finite(value: Any) -> Any:
    """Return plain JSON values with None in place of NaN."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


# --- studies -----------------------------------------------------------------------------------------------------


class Study(Settings):
    """A preset: the experiments behind the notebooks, read from a YAML file.

    Attributes
    ----------
    name, title
        The file's stem; one line on what it is and how long it takes.
    base
        The fields of `Experiment` that all share.
    methods
        For each method name, the fields that differ from `base`.
    seeds
        One run each.
    transfer
        {"source", "target"}: data sets for the transfer notebook; empty: the two halves of the base's classes.
    cell_timeout
        Seconds that one notebook cell may take in a headless run.
    """

    name: str
    title: str
    base: dict[str, Any]
    methods: dict[str, dict[str, Any]]
    seeds: tuple[int, ...] = (0,)
    transfer: dict[str, str] = {}
    cell_timeout: int = Field(3600, ge=1)

    @classmethod
    def named(cls, name: str, dataset: str = "") -> Self:
        """Read a ready study (a preset), or a YAML file; `dataset` puts it on another data set.

        Raises
        ------
        ValueError
            For an unknown preset or mistakes in the file.
        """
        import yaml  # not at the top: the core also runs on a bare GPU machine

        ready = sorted(path.stem for path in STUDIES.glob("*.yaml"))
        path = STUDIES / f"{name}.yaml" if name in ready else Path(name)
        if path.suffix != ".yaml" or not path.is_file():
            raise ValueError(f"unknown preset {name!r}; allowed: {', '.join(ready)}, or a YAML file")
        try:
            content: Any = yaml.safe_load(path.read_text())
        except yaml.YAMLError as problem:
            raise ValueError(f"{path} is no YAML: {' '.join(str(problem).split())}") from None
        if not isinstance(content, dict):
            raise ValueError(f"{path} holds no study; its keys are {', '.join(cls.model_fields)}")
        if dataset and isinstance(content.get("base"), dict):
            content["base"] |= {"dataset": dataset}
            content["transfer"] = {}
        study = cls(**{"name": path.stem, **content})
        study.experiments()
        return study

    @field_validator("transfer")
    @classmethod
    def _pair(cls, value: dict[str, str]) -> dict[str, str]:
        if value and set(value) != {"source", "target"}:
            raise ValueError(f"transfer needs the keys source and target, not {', '.join(sorted(value))}")
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

    def transfer_pair(self) -> tuple[str, str]:
        """Return source and target of the transfer notebook."""
        if self.transfer:
            return self.transfer["source"], self.transfer["target"]
        return datasets.halves(self.dataset)

    def experiment(self, method: str, seed: int = 0, **fields: Any) -> Experiment:
        """Return the study's experiment for one method and seed, some fields changed."""
        own = self.methods.get(method, {})
        return Experiment(**(self.base | own | {"method": method, "seed": seed} | fields))

    def experiments(self, seeds: tuple[int, ...] | list[int] | None = None) -> list[Experiment]:
        """Return all of them, for the given seeds or the study's own."""
        return [self.experiment(m, s) for s in (self.seeds if seeds is None else seeds) for m in self.methods]


def study(
    experiments: list[Experiment],
    store: str | Path | None = None,
    device: str = "auto",
    workers: int | None = None,
    progress: bool | None = None,
) -> "pd.DataFrame":
    """Run many experiments and return all their records, a row each.

    Parameters
    ----------
    experiments
        In any order; one that follows a COLT run waits for it.
    workers
        Processes side by side; by default one a CPU core, or a single one on a GPU. Results do not depend on it.
    progress
        A bar; by default only on a terminal.

    Raises
    ------
    RuntimeError, ValueError
        The first experiment's error; what others finished is kept.
    """
    import pandas as pd

    from .lanes import work_off

    where, folder = str(choose_device(device)), store_folder(store)
    count = workers or (cores() if where == "cpu" else 1)
    references = [e.reference() for e in experiments]
    known = {e.hash for e in experiments}
    jobs = [*experiments, *{r.hash: r for r in references if r and r.hash not in known}.values()]
    jobs = [job for job in jobs if not (_complete(job, folder) and _scored(job, folder))]
    hidden = None if progress is None else not progress
    for job in jobs:  # all mistakes before any training; and a data set is prepared once, not by every worker
        check(job, where)
    with tqdm(total=len(jobs), disable=hidden, unit="experiment", leave=False) as bar:
        for _ in work_off(sorted(jobs, key=_size, reverse=True), folder, where, count):
            bar.update()
    tables = [pd.DataFrame(read_records(folder / name)) for name in dict.fromkeys(e.hash for e in experiments)]
    return pd.concat(tables, ignore_index=True)


def _complete(experiment: Experiment, store: Path) -> bool:
    return (store / experiment.hash / "complete").exists()


def _scored(experiment: Experiment, store: Path) -> bool:
    """Tell whether every score asked for is in the records."""
    if experiment.scores is None:
        return True
    target, records = experiment.score_on or experiment.dataset, read_records(store / experiment.hash)
    sparsities = {r["round"]: 1 - r["density"] for r in records if r["kind"] == "round"}
    firsts = [next((n for n, s in sorted(sparsities.items()) if s >= w - 1e-12), None) for w in experiment.scores]
    wanted = {n for n in firsts if n is not None} if experiment.scores else set(sparsities)
    return wanted <= {r["round"] for r in records if r["kind"] == "score" and r["scored_on"] == target}


def _size(experiment: Experiment) -> float:
    """Guess the number of rounds, to start the longest first."""
    keep = 1 - experiment.rate if experiment.method == "imp" else (1 - experiment.rate) ** experiment.parts
    light = {"dense": 0.0, "random": 0.1, "reinit": 0.1, "oneshot": 0.2}
    return light.get(experiment.method, 1.0) * math.log(1 - experiment.target) / math.log(keep)
