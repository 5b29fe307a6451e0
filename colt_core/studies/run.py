"""One experiment, from its description to its records: `run()`; resumed after a kill, and never computed twice."""

import json
import platform
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from .. import models
from ..compute.store import Store, open_store
from ..methods import Setting, method_of
from ..seeding import choose_device
from ..settings import check_whole, first_line, shown
from ..tickets import Round
from ..training import History, objective_of
from .experiment import FORMAT, MEASURED, Experiment, reached
from .inputs import as_seen, dataset_of, prints_of
from .records import (
    KEY,
    Place,
    check_stored,
    is_complete,
    is_scored,
    read_records,
    records_of,
    rounds_scored,
    saved_rounds,
    scored_as,
    ticket_name,
)
from .scoring import check_scoring, finite, score_record
from .teachers import teacher, untrained
from .watching import watched

if TYPE_CHECKING:
    import pandas as pd

Report = Callable[[dict[str, Any]], None]
Watch = Callable[[str, int, int, History], None]  # experiment's hash, round, copy, history so far


def run(
    experiment: Experiment,
    store: Place = None,
    device: str = "auto",
    threads: int = 1,
    callback: Report | None = None,
    progress: bool | None = None,
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
    progress
        A bar that says the round, the density, and what is left; see `progress.bar`.

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

    _check_arguments(experiment, threads)
    place = open_store(store)
    check_stored(experiment, place)
    if not (is_complete(experiment, place) and is_scored(experiment, place)):
        check(experiment, device, place)
    with watched([experiment], place, progress):
        carry_out(experiment, place, str(choose_device(device)), threads, callback)
    return pd.DataFrame(records_of([experiment], place))


def _check_arguments(experiment: Any, threads: Any) -> None:
    if not isinstance(experiment, Experiment):
        raise ValueError(f"an Experiment is run, cc.Experiment(method='imp') for example, not {shown(experiment)}")
    check_whole("threads", threads, 1)


def rounds(experiment: Experiment, store: Place = None, device: str = "auto", threads: int = 1) -> Iterator[Round]:
    """Yield an experiment's rounds: those in the store first, then newly found ones, each saved as it comes."""
    _check_arguments(experiment, threads)
    return _rounds(experiment, open_store(store), str(choose_device(device)), threads)


def carry_out(
    experiment: Experiment,
    store: Store,
    device: str,
    threads: int,
    callback: Report | None = None,
    watch: Watch | None = None,
) -> None:
    """Find every round, and score those asked for; meanwhile a claim tells others where there is nothing to do.

    Raises
    ------
    ValueError, OSError
        As `run`.
    FloatingPointError
        Where a training diverges, or a mask loses a layer that is to be filled; a record says so ("failed"), for it
        would again.
    """
    check_stored(experiment, store)
    if is_complete(experiment, store) and is_scored(experiment, store):
        return
    # This claim only informs (status, queues): the work itself is claimed training by training.
    with store.claim(f"{experiment.hash}/experiment"):
        _find_and_score(experiment, store, device, threads, callback, watch)


def _find_and_score(
    experiment: Experiment, store: Store, device: str, threads: int, callback: Report | None, watch: Watch | None
) -> None:
    experiment.check_code()
    known = read_records(experiment, store)
    scored = rounds_scored(experiment, known)
    told = {r["round"] for r in known if r["kind"] == "round"}
    open_scores = sorted(experiment.scores or ())
    at: dict[str, str] = {}  # what is being scored: tickets that cannot be scored on one data set may be on another
    try:
        for found in _rounds(experiment, store, device, threads, watch):
            if callback and found.number not in told:
                callback(_labelled(experiment, "round", found.record()))
            wanted = experiment.scores == ()
            sparsity = reached(found.record(), experiment.densities) if open_scores else 0.0
            while open_scores and sparsity >= open_scores[0] - 1e-12:
                wanted, _ = True, open_scores.pop(0)
            if wanted and found.number not in scored:
                check_stored(experiment, store)  # a score is of the data as it is now, and that must be what it was
                at = scored_as(experiment)
                values = score_record(found, experiment, store, device, threads)
                at = {}
                _append(store, experiment, "score", values)
                if callback:
                    callback(_labelled(experiment, "score", values))
    except FloatingPointError as problem:
        _start(store, experiment)  # it may have failed with the run that it follows
        done = sum(r["kind"] == "round" for r in read_records(experiment, store))
        _append(store, experiment, "failed", {"round": done, "problem": first_line(problem)} | at)
        raise


def carry_out_described(experiment: dict[str, Any], store: str, device: str) -> None:
    """What a worker process does for `study`."""
    carry_out(Experiment.as_sent(experiment), open_store(store), device, 1)


def _rounds(
    experiment: Experiment, store: Store, device: str, threads: int, watch: Watch | None = None
) -> Iterator[Round]:
    """Rounds are worked on by whoever asks for them: trainings are claimed one by one, the rest takes no time."""
    check_stored(experiment, store)
    last = None
    for last in saved_rounds(experiment, store):
        yield last
    if is_complete(experiment, store):
        return
    setting = _setting(experiment, store, device, threads, last, watch)
    _teach(setting, lambda called: teacher(called, experiment, setting.data, store, device, threads))
    finder = method_of(experiment.method).begin(setting)
    _start(store, experiment)  # only now: what the method refuses leaves no folder behind
    for found in finder:
        store.save(ticket_name(experiment, found.number), found.save)  # first: a record without its file is damage
        about = {"train_images": len(dataset_of(experiment.dataset).train), "device": device, "threads": threads}
        about |= {"ticket": found.ticket.hash[:16], "accuracy": None}
        _append(store, experiment, "round", found.record() | about)
        last = found
        yield found
    _complete(store, experiment, last)


def _complete(store: Store, experiment: Experiment, last: Round | None) -> None:
    """Mark a run complete, if everything is there: files may have been removed since."""
    names = [ticket_name(experiment, number) for number in range(last.number + 1 if last else 0)]
    told = sum(r["kind"] == "round" for r in read_records(experiment, store))
    missing = [name for name in names if not store.exists(name)]
    if missing or told != len(names):
        gone = missing[0] if missing else f"{experiment.hash}/records.jsonl"
        raise ValueError(f"{store.url}/{gone} was removed or replaced during the run; run it again")
    store.write(f"{experiment.hash}/complete", f"{told} rounds\n")


def check(experiment: Experiment, device: str = "auto", store: Place = None) -> None:
    """Refuse, before any training, what only the data and the network can tell: see the errors of `run`."""
    plain = [experiment, *experiment.references()][-1]
    if experiment.scores is not None:
        check_scoring(experiment)
    where, place = str(choose_device(device)), open_store(store)
    method_of(plain.method).begin(_checked(plain, where, place))
    if plain is not experiment:
        # What it will follow is not there yet; any densities do to see whether it takes what it is given.
        setting = replace(_checked(experiment, where, place), reference=list)
        method_of(experiment.method).begin(replace(setting, densities=setting.densities or (0.5,)))


def _checked(experiment: Experiment, device: str, store: Store) -> Setting:
    """Return the setting of a run that only looks whether it could begin: its teachers are not trained."""
    setting = _setting(experiment, store, device, 1, None)
    _teach(setting, lambda called: untrained(called, experiment, setting.data))
    return setting


def _teach(setting: Setting, made: Callable[[str], nn.Module]) -> None:
    setting.options["objective"] = setting.options["objective"].taught(made, setting.data.train)


def _setting(
    experiment: Experiment, store: Store, device: str, threads: int, last: Round | None, watch: Watch | None = None
) -> Setting:
    data = as_seen(experiment.dataset, experiment.official)
    reference = experiment.reference()
    switches = {"best_epoch": "best-epoch", "keep_statistics": "statistics-kept", "count_all": "all-counted"}
    names = ("rate", "target", "parts", "by", "seed")
    follows = reference if method_of(experiment.method).takes == "densities" else None
    return Setting(
        network=models.build(experiment.network, len(data.classes), experiment.seed, **experiment.network_args),
        data=data,
        recipe=experiment.found_with,
        **{name: getattr(experiment, name) for name in names},
        densities=_recorded(follows, store) if follows else experiment.densities,
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


def _recorded(followed: Experiment, store: Store) -> tuple[float, ...] | None:
    """Return the densities of a finished run of which the records alone were kept; None where tickets tell them."""
    if not is_complete(followed, store):
        return None
    told = {r["round"]: r["density"] for r in read_records(followed, store) if r["kind"] == "round"}
    if any(store.exists(ticket_name(followed, number)) for number in told):
        return None  # they are read, and verified
    check_stored(followed, store)
    return tuple(density for number, density in told.items() if number)


def _start(store: Store, experiment: Experiment) -> None:
    """Write the description, and sweep what dead processes left."""
    for folder in (experiment.hash, "trainings", "scores"):
        store.sweep(folder)
    name = f"{experiment.hash}/experiment.json"
    if not store.exists(name):
        about = experiment.model_dump(mode="json", exclude=MEASURED)
        about |= {"format": FORMAT, "data": prints_of(experiment.dataset)}
        store.write(name, json.dumps(about, indent=1))


def _append(store: Store, experiment: Experiment, kind: str, values: dict[str, Any]) -> None:
    store.append(experiment.hash, _labelled(experiment, kind, values), KEY)


def _labelled(experiment: Experiment, kind: str, values: dict[str, Any]) -> dict[str, Any]:
    """Return a record: what it is of, the values, the versions."""
    of_rounds = ("curves", "overlap", "accuracies", "epochs_saved", "measures")
    values = {k: v for k, v in values.items() if kind == "round" or k not in of_rounds}
    versions = {"torch": torch.__version__, "python": platform.python_version()}
    return dict(finite({"kind": kind, **experiment.labels(), **values, **versions}))
