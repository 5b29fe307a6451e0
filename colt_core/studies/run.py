"""One experiment, from its description to its records: `run()`; resumed after a kill, and never computed twice."""

import hashlib
import json
import math
import platform
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from .. import data as datasets
from .. import models
from ..compute.checkpoints import Checkpoint
from ..compute.store import Store, open_store
from ..data import Dataset
from ..methods import Setting, method_of
from ..seeding import choose_device
from ..tickets import Round, Score, Ticket, evaluate
from ..training import History, objective_of
from .experiment import FORMAT, MEASURED, Experiment

if TYPE_CHECKING:
    import pandas as pd

Place = Store | str | Path | None
Report = Callable[[dict[str, Any]], None]
Watch = Callable[[str, int, int, History], None]  # experiment's hash, round, copy, history so far
KEY = ("kind", "round", "scored_on", "scored_by")  # of a record within its experiment


def store_folder(store: str | Path | None = None) -> Path:
    """Return the store's folder: the one given, else `$COLT_STORE`, else `runs`. A bucket has none (`open_store`)."""
    place = open_store(store)
    if place.local is None:
        raise ValueError(f"the store {place.url} is no folder")
    return place.local


def run(
    experiment: Experiment,
    store: Place = None,
    device: str = "auto",
    threads: int = 1,
    callback: Report | None = None,
) -> "pd.DataFrame":
    """Carry an experiment out, or what is missing of it, and return its records.

    Parameters
    ----------
    experiment
        What to do.
    store
        A folder or an fsspec URL (default `$COLT_STORE` or `runs`). What is there is read, not computed again.
    device, threads
        Where to compute; written into each record.
    callback
        Called with every new record, a dict (see `trackers`).

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

    place = open_store(store)
    carry_out(experiment, place, str(choose_device(device)), threads, callback)
    return pd.DataFrame(read_records(experiment, place))


def rounds(experiment: Experiment, store: Place = None, device: str = "auto", threads: int = 1) -> Iterator[Round]:
    """Yield an experiment's rounds: those in the store first, then newly found ones, each saved as it comes."""
    return _rounds(experiment, open_store(store), str(choose_device(device)), threads)


def saved_rounds(experiment: Experiment, store: Place = None) -> Iterator[Round]:
    """Yield the rounds that the store has of an experiment; nothing is computed."""
    place = open_store(store)
    for record in [r for r in read_records(experiment, place) if r["kind"] == "round"]:
        with place.fetched(ticket_name(experiment, record["round"])) as path:
            found = Round.load(path, record)
        yield found


def read_records(experiment: Experiment | str, store: Place = None) -> list[dict[str, Any]]:
    """Return the records of an experiment or a hash, round by round; of work done twice the first counts.

    The order is the same whichever process finished first: each round, then its scores by the data set's name.
    """
    name = experiment if isinstance(experiment, str) else experiment.hash
    records = {tuple(r.get(k) for k in KEY): r for r in reversed(open_store(store).lines(name))}
    return sorted(records.values(), key=lambda r: (r["round"], r["kind"], r.get("scored_on") or ""))


def carry_out(
    experiment: Experiment,
    store: Store,
    device: str,
    threads: int,
    callback: Report | None = None,
    watch: Watch | None = None,
) -> None:
    """Find every round, and score those asked for; meanwhile a claim tells others where there is nothing to do."""
    _check_data(store, experiment)
    if is_complete(experiment, store) and is_scored(experiment, store):
        return
    known = read_records(experiment, store)
    scored = rounds_scored(experiment, known)
    told = {r["round"] for r in known if r["kind"] == "round"}
    open_scores = sorted(experiment.scores or ())
    # This claim only informs (status, queues): the work itself is claimed training by training.
    with store.claim(f"{experiment.hash}/experiment"):
        for found in _rounds(experiment, store, device, threads, watch):
            if callback and found.number not in told:
                callback(_labelled(experiment, "round", found.record()))
            wanted = experiment.scores == ()
            while open_scores and found.sparsity >= open_scores[0] - 1e-12:
                wanted, _ = True, open_scores.pop(0)
            if wanted and found.number not in scored:
                values = _score_record(found, experiment, store, device, threads)
                _append(store, experiment, "score", values)
                if callback:
                    callback(_labelled(experiment, "score", values))


def carry_out_described(experiment: dict[str, Any], store: str, device: str) -> None:
    """What a worker process does for `study`. A user's folder may have changed since it was last read."""
    if not datasets.is_built_in(experiment["dataset"]):
        dataset_of.cache_clear()
        _as_seen.cache_clear()
        _prints.cache_clear()
    carry_out(Experiment(**experiment), open_store(store), device, 1)


def is_complete(experiment: Experiment, store: Store) -> bool:
    """Tell whether every round has been found."""
    return store.exists(f"{experiment.hash}/complete")


def is_scored(experiment: Experiment, store: Store) -> bool:
    """Tell whether every score asked for is in the records."""
    if experiment.scores is None:
        return True
    records = read_records(experiment, store)
    sparsities = {r["round"]: 1 - r["density"] for r in records if r["kind"] == "round"}
    firsts = [next((n for n, s in sorted(sparsities.items()) if s >= w - 1e-12), None) for w in experiment.scores]
    wanted = {n for n in firsts if n is not None} if experiment.scores else set(sparsities)
    return wanted <= rounds_scored(experiment, records)


def rounds_scored(experiment: Experiment, records: list[dict[str, Any]]) -> set[int]:
    """Return the rounds that these records have scores of, on the data and in the way that the experiment asks for."""
    target, way = experiment.score_on or experiment.dataset, _scored_by(experiment)
    return {
        r["round"]
        for r in records
        if r["kind"] == "score" and r["scored_on"] == target and r.get("scored_by") == way.get("scored_by")
    }


def _scored_by(experiment: Experiment) -> dict[str, str]:
    """Return what a score's record says of how it was scored; nothing where that is as it was found."""
    return {"scored_by": str(experiment.scoring)} if experiment.scoring else {}


def _rounds(
    experiment: Experiment, store: Store, device: str, threads: int, watch: Watch | None = None
) -> Iterator[Round]:
    """Rounds are worked on by whoever asks for them: trainings are claimed one by one, the rest takes no time."""
    _check_data(store, experiment)
    last = None
    for last in saved_rounds(experiment, store):
        yield last
    if is_complete(experiment, store):
        return
    finder = method_of(experiment.method).find(_setting(experiment, store, device, threads, last, watch))
    _start(store, experiment)  # only now: what the method refuses leaves no folder behind
    for found in finder:
        store.save(ticket_name(experiment, found.number), found.save)  # first: a record without its file is damage
        images = {"train_images": len(dataset_of(experiment.dataset).train), "device": device, "threads": threads}
        _append(store, experiment, "round", found.record() | images | {"accuracy": None})
        yield found
    store.write(f"{experiment.hash}/complete", "")


def ticket_name(experiment: Experiment | str, number: int) -> str:
    """Return the name that a round's file has in a store."""
    name = experiment if isinstance(experiment, str) else experiment.hash
    return f"{name}/round-{number:02d}.safetensors"


def check(experiment: Experiment, device: str = "auto") -> None:
    """Refuse, before any training, what only the data and the network can tell: see the errors of `run`."""
    plain = experiment.reference() or experiment
    for name in {experiment.dataset, experiment.score_on or experiment.dataset}:
        dataset_of(name)
    method_of(plain.method).find(_setting(plain, open_store(), str(choose_device(device)), 1, None))


def _setting(
    experiment: Experiment, store: Store, device: str, threads: int, last: Round | None, watch: Watch | None = None
) -> Setting:
    data = _as_seen(experiment.dataset, experiment.official)
    reference = experiment.reference()
    switches = {"best_epoch": "best-epoch", "keep_statistics": "statistics-kept", "count_all": "all-counted"}
    names = ("recipe", "rate", "target", "parts", "by", "seed")
    return Setting(
        network=models.build(experiment.network, len(data.classes), experiment.seed, **experiment.network_args),
        data=data,
        **{name: getattr(experiment, name) for name in names},
        own=method_of(experiment.method).own_options(experiment.options),
        options={
            **{name: getattr(experiment, name) for name in ("scope", "rewind", "seed", "early_bird")},
            **{name: choice in (experiment.official or ()) for name, choice in switches.items()},
            **{"device": device, "threads": threads, "resume": last, "store": store},
            "objective": objective_of(experiment.objective),
            "watch": partial(watch, experiment.hash) if watch else None,
            "provenance": {"experiment": experiment.hash, "method": experiment.method, "torch": torch.__version__},
        },
        reference=lambda: list(_rounds(reference, store, device, threads, watch)) if reference else [],
    )


# --- scores ------------------------------------------------------------------------------------------------------


def _score_record(found: Round, experiment: Experiment, store: Store, device: str, threads: int) -> dict[str, Any]:
    """Score a round. `image_epochs` and `seconds` are what finding it cost; the score's own are beside them."""
    target = experiment.score_on or experiment.dataset
    score = _score(found.ticket, experiment, target, store, device, threads)
    spent = {"image_epochs": found.image_epochs, "seconds": found.seconds}
    own = {f"score_{name}": getattr(score, name) for name in spent}
    values = found.record() | score.as_dict() | spent | own | {"device": device, "threads": threads}
    return values | {"scored_on": target, "score_data": _prints(target)} | _scored_by(experiment)


def _score(ticket: Ticket, experiment: Experiment, target: str, store: Store, device: str, threads: int) -> Score:
    """Score a ticket, or look the score up where any experiment has scored the very same."""
    data = _as_seen(target, experiment.official, scoring=True)
    name, objective, head = _score_name(ticket, experiment, data, device, threads)

    def known() -> Score | None:
        text = store.read(f"{name}.json")
        return Score.from_dict(json.loads(text)) if text else None

    def work() -> Iterator[Score]:
        checkpoint = Checkpoint(store.url, name.removeprefix("scores/"))
        how: dict[str, Any] = {"objective": objective_of(objective), "head": head, "drive": checkpoint.drive}
        score = evaluate(ticket, data, experiment.recipe, experiment.seed, device, threads, **how)
        store.write(f"{name}.json", json.dumps(score.as_dict()))
        checkpoint.clear()
        yield score

    [score] = store.once(name, known, work)
    return replace(score, value=score.best_value) if data.validation is data.test else score


def _score_name(
    ticket: Ticket, experiment: Experiment, data: Dataset, device: str, threads: int
) -> tuple[str, dict[str, Any] | None, Any]:
    """Return the name of a score in the store, which says all that fixes it, with the objective and the head."""
    scoring = experiment.scoring
    objective = scoring.objective if scoring and scoring.objective else experiment.objective
    head = scoring.head if scoring else None
    prints = [part.fingerprint() for part in (data.train, data.validation, data.test)]
    where = {"device": device, "threads": threads}
    recipe = experiment.recipe.model_dump(mode="json")
    about: list[Any] = [FORMAT, ticket.hash, prints, recipe, experiment.seed, where, torch.__version__]
    if objective or head:  # keys of plain scores are older than both
        about.append({"objective": objective, "head": head})
    key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:24]
    return f"scores/{key}", objective, head


# --- data --------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=4)
def dataset_of(name: str) -> Dataset:
    """Return a data set; the last few are kept."""
    return datasets.load(name)


@lru_cache(maxsize=4)
def _as_seen(name: str, official: tuple[str, ...] | None, scoring: bool = False) -> Dataset:
    """Return a data set as an experiment sees it: see `Experiment.official`."""
    data, choices = dataset_of(name), official or ()
    if "cifar100-normalised" in choices:
        mean, std = datasets.CIFAR100_STATISTICS
        parts = {n: replace(getattr(data, n), mean=mean, std=std) for n in ("train", "validation", "test")}
        data = replace(data, **parts)
    return replace(data, validation=data.test) if scoring and "test-selected" in choices else data


@lru_cache(maxsize=16)
def _prints(name: str) -> tuple[str, ...]:
    """The fingerprints of a data set's three parts."""
    data = dataset_of(name)
    return tuple(part.fingerprint() for part in (data.train, data.validation, data.test))


def _check_data(store: Store, experiment: Experiment) -> None:
    """Refuse to read or go on where the data has changed since the run began.

    The built-in sets have checksums of their own, and a finished run of theirs can be read where they are not at hand.
    """
    text = store.read(f"{experiment.hash}/experiment.json")
    if text is None or (datasets.is_built_in(experiment.dataset) and is_complete(experiment, store)):
        return
    if json.loads(text)["data"] != list(_prints(experiment.dataset)):
        where = f"{store.url}/{experiment.hash}"
        raise ValueError(f"the data set {experiment.dataset!r} has changed since {where} was begun; use another store")


def _start(store: Store, experiment: Experiment) -> None:
    """Write the description, and sweep what dead processes left."""
    for folder in (experiment.hash, "trainings", "scores"):
        store.sweep(folder)
    name = f"{experiment.hash}/experiment.json"
    if not store.exists(name):
        about = experiment.model_dump(mode="json", exclude=MEASURED)
        about |= {"format": FORMAT, "data": _prints(experiment.dataset)}
        store.write(name, json.dumps(about, indent=1))


def _append(store: Store, experiment: Experiment, kind: str, values: dict[str, Any]) -> None:
    store.append(experiment.hash, _labelled(experiment, kind, values), KEY)


def _labelled(experiment: Experiment, kind: str, values: dict[str, Any]) -> dict[str, Any]:
    """Return a record: what it is of, the values, the versions."""
    of_rounds = ("curves", "overlap", "accuracies", "epochs_saved")
    values = {k: v for k, v in values.items() if kind == "round" or k not in of_rounds}
    versions = {"torch": torch.__version__, "python": platform.python_version()}
    return dict(_finite({"kind": kind, **experiment.labels(), **values, **versions}))


def _finite(value: Any) -> Any:
    """Return plain JSON values with None in place of NaN."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
