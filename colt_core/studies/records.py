"""An experiment's records and tickets as a store has them: read, verified, and what is still missing of them."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from .. import data as datasets
from ..compute.store import Store, open_store
from ..methods import method_of
from ..tickets import Round
from .experiment import Experiment, reached
from .inputs import prints_of

Place = Store | str | Path | None
KEY = ("kind", "round", "scored_on", "scored_by")  # of a record within its experiment


def store_folder(store: str | Path | None = None) -> Path:
    """Return the store's folder: the one given, else `$COLT_STORE`, else `runs`. A bucket has none (`open_store`)."""
    place = open_store(store)
    if place.local is None:
        raise ValueError(f"the store {place.url} is no folder")
    return place.local


def ticket_name(experiment: Experiment | str, number: int) -> str:
    """Return the name that a round's file has in a store."""
    name = experiment if isinstance(experiment, str) else experiment.hash
    return f"{name}/round-{number:02d}.safetensors"


def saved_rounds(experiment: Experiment, store: Place = None) -> Iterator[Round]:
    """Yield the rounds that the store has of an experiment, verified; nothing is computed.

    Raises
    ------
    ValueError, FileNotFoundError
        In one line that names the file: it is missing or damaged, or holds another run's or another round's ticket.
    """
    place, hashes = open_store(store), list[str]()
    for record in [r for r in read_records(experiment, place) if r["kind"] == "round"]:
        name = ticket_name(experiment, record["round"])
        with place.fetched(name) as path:
            found = Round.load(path, record)
        hashes.append(_verified(found, record, experiment, f"{place.url}/{name}", hashes))
        yield found


def _verified(found: Round, record: dict[str, Any], experiment: Experiment, place: str, before: list[str]) -> str:
    """Return a ticket's hash if it is the one that this round of this experiment found; `before` are the others'."""
    about, own = found.ticket.provenance, found.ticket.hash
    foreign = about.get("experiment") != experiment.hash or about.get("round") != record["round"]
    altered = record.get("ticket", own[:16]) != own[:16] or found.density != record["density"]
    # Who follows another method names its tickets as parents: those lie in another folder.
    orphan = before and method_of(experiment.method).follows is None and about.get("parent") not in before
    if foreign or altered or orphan:
        raise ValueError(f"{place} holds another ticket than round {record['round']} found; remove the run's folder")
    return own


def read_records(experiment: Experiment | str, store: Place = None) -> list[dict[str, Any]]:
    """Return the records of an experiment or a hash, round by round; of work done twice the first counts.

    The order is the same whichever process finished first: each round, then its scores by the data set's name.

    Raises
    ------
    ValueError
        In one line that names the file, where a line is damaged or a round between others is missing.
    """
    name, place = experiment if isinstance(experiment, str) else experiment.hash, open_store(store)
    lines = place.lines(name)
    if foreign := [r["experiment"] for r in lines if r.get("experiment", name) != name]:
        raise ValueError(f"{place.url}/{name} holds a record of {foreign[0]}: restore or remove the folder")
    records = {tuple(r.get(k) for k in KEY): r for r in reversed(lines)}
    numbers = sorted(r["round"] for r in records.values() if r["kind"] == "round")
    scored = max((r["round"] for r in records.values() if r["kind"] == "score"), default=-1)
    gaps = set(range(max(scored, *numbers, -1) + 1)) - set(numbers)
    if gaps:
        raise ValueError(
            f"{place.url}/{name}/records.jsonl lacks the record of round {min(gaps)}: restore or remove it"
        )
    return sorted(records.values(), key=lambda r: (r["round"], r["kind"], r.get("scored_on") or ""))


def records_of(experiments: Iterable[Experiment], store: Place = None) -> list[dict[str, Any]]:
    """Return the records of some experiments: every round, and of the scores those that they ask for.

    A store may hold scores of the same run on other data, or made in another way: they are of other experiments.

    Raises
    ------
    ValueError
        As `read_records`.
    """
    asked: dict[str, list[dict[str, str]]] = {}
    for experiment in experiments:
        asked.setdefault(experiment.hash, []).append(scored_as(experiment))
    return [
        record
        for name, ways in asked.items()
        for record in read_records(name, store)
        if (record["kind"] != "score" and "scored_on" not in record) or _way_of(record) in ways
    ]


def _way_of(record: dict[str, Any]) -> dict[str, str]:
    """Return of a score, or of one whose training diverged, on what and how it was made; see `scored_as`."""
    return {name: record[name] for name in ("scored_on", "scored_by") if record.get(name)}


def is_complete(experiment: Experiment, store: Store) -> bool:
    """Tell whether every round has been found."""
    return store.exists(f"{experiment.hash}/complete")


def has_failed(experiment: Experiment, store: Store) -> bool:
    """Tell whether a run diverged, and would again: in finding, or in the scoring that the experiment asks for."""
    asked = scored_as(experiment)
    failed = [r for r in read_records(experiment, store) if r["kind"] == "failed"]
    return any("scored_on" not in record or _way_of(record) == asked for record in failed)


def is_over(experiment: Experiment, store: Store) -> bool:
    """Tell whether there is nothing left to do: every round is found and scored, or the run has failed."""
    if is_complete(experiment, store) and is_scored(experiment, store):
        return True
    return has_failed(experiment, store)


def is_scored(experiment: Experiment, store: Store) -> bool:
    """Tell whether every score asked for is in the records."""
    if experiment.scores is None:
        return True
    records = read_records(experiment, store)
    sparsities = {r["round"]: reached(r, experiment.densities) for r in records if r["kind"] == "round"}
    firsts = [next((n for n, s in sorted(sparsities.items()) if s >= w - 1e-12), None) for w in experiment.scores]
    wanted = {n for n in firsts if n is not None} if experiment.scores else set(sparsities)
    return wanted <= rounds_scored(experiment, records)


def rounds_scored(experiment: Experiment, records: list[dict[str, Any]]) -> set[int]:
    """Return the rounds that these records have scores of, on the data and in the way that the experiment asks for."""
    target, way = experiment.score_on or experiment.dataset, scored_by(experiment)
    return {
        r["round"]
        for r in records
        if r["kind"] == "score" and r["scored_on"] == target and r.get("scored_by") == way.get("scored_by")
    }


def scored_as(experiment: Experiment) -> dict[str, str]:
    """Return what a record says of the data, and of the way, that an experiment scores on."""
    return {"scored_on": experiment.score_on or experiment.dataset} | scored_by(experiment)


def scored_by(experiment: Experiment) -> dict[str, str]:
    """Return what a score's record says of how it was scored; nothing where that is as it was found."""
    return {"scored_by": str(experiment.scoring)} if experiment.scoring else {}


def check_stored(experiment: Experiment, store: Store) -> None:
    """Refuse to read or go on where a run's files lack something, or the data has changed since it began.

    The built-in sets have checksums of their own, and a finished run of theirs can be read where they are not at hand.

    Raises
    ------
    ValueError
        In one line that names the file or the data set.
    """
    place, records = f"{store.url}/{experiment.hash}", read_records(experiment, store)
    marked, told = store.read(f"{experiment.hash}/complete"), sum(r["kind"] == "round" for r in records)
    complete = marked is not None
    if marked is not None and not 0 < told == _rounds_of(marked, told):
        raise ValueError(f"{place} is marked complete, but {told} of its rounds have records: restore or remove it")
    text = store.read(f"{experiment.hash}/experiment.json")
    if text is None:
        if records:
            raise ValueError(f"{place}/experiment.json is missing: restore or remove the folder")
        return
    data = _data_of(text, experiment, f"{place}/experiment.json")
    if not (complete and datasets.is_built_in(experiment.dataset)):
        _same(experiment.dataset, data, place)
    target = experiment.score_on or experiment.dataset
    if not datasets.is_built_in(target):
        for prints in [r["score_data"] for r in records if r.get("scored_on") == target and "score_data" in r]:
            _same(target, prints, place)


def _rounds_of(complete: bytes, told: int) -> int:
    """Return how many rounds a complete run has; older versions did not say."""
    text = complete.decode(errors="replace").split(" ")[0]
    return int(text) if text.isdecimal() else told if not text else -1


def _data_of(text: bytes, experiment: Experiment, path: str) -> list[str]:
    """Return the fingerprints of the data in a description, which must be this experiment's."""
    try:
        about = json.loads(text)
        data = list(about["data"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError(f"{path} does not say which data the run began with: restore or remove the folder") from None
    try:
        described = Experiment.from_description(about).hash
    except ValueError as problem:
        raise ValueError(f"{path} is damaged ({problem}): restore or remove the folder") from None
    if described != experiment.hash:
        raise ValueError(f"{path} describes another experiment: restore or remove the folder")
    return data


def _same(name: str, prints: list[str], place: str) -> None:
    if list(prints) != list(prints_of(name)):
        raise ValueError(f"the data set {name!r} has changed since {place} was begun; use another store")
