"""Scores of an experiment's rounds: looked up where any experiment has scored the very same ticket."""

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch

from .. import models
from ..compute.checkpoints import Checkpoint
from ..compute.store import Store
from ..data import Dataset
from ..foreign import fingerprint
from ..tickets import Round, Score, Ticket, evaluate
from ..tickets.score import Head
from ..training import Training, doubt, objective_of
from .experiment import FORMAT, Experiment
from .fields import PLAIN, versions
from .inputs import as_seen, dataset_of, prints_of
from .records import scored_by
from .teachers import head_of, teacher, untrained

RECORDED = {"kind", "round", "density", "density_all", "image_epochs", "flops", "seconds", "steps", "curves", "overlap"}


def score_record(found: Round, experiment: Experiment, store: Store, device: str, threads: int) -> dict[str, Any]:
    """Score a round. `image_epochs` and `seconds` are what finding it cost; the score's own are beside them."""
    target = experiment.score_on or experiment.dataset
    score = _score(found.ticket, experiment, target, store, device, threads)
    spent = {"image_epochs": found.image_epochs, "seconds": found.seconds}
    own = {f"score_{name}": getattr(score, name) for name in spent}
    told = score.as_dict()
    others = told.pop("others", {})
    values = found.record() | told | spent | own | {"device": device, "threads": threads}
    if taken := sorted(others.keys() & (values.keys() | {"scored_on", "score_data", *experiment.labels()})):
        raise ValueError(f"others() of the objective names {', '.join(taken)}, a column of every record: rename it")
    values |= others
    last = score.curve[-1] if score.curve else {}
    error = "" if score.higher_is_better else score.metric
    if doubtful := doubt(last, score.chance, score.train_images, error):
        values["warnings"] = [*values.get("warnings", []), f"the score's training {doubtful}"]
    return values | {"scored_on": target, "score_data": prints_of(target)} | scored_by(experiment)


def check_scoring(experiment: Experiment) -> None:
    """Refuse, before there is any ticket, what its scores could only fail of: objective, head, teacher or judge.

    Raises
    ------
    ValueError
        In one line.
    """
    classes = len(dataset_of(experiment.dataset).classes)
    data = as_seen(experiment.score_on or experiment.dataset, experiment.official, scoring=True)
    network = models.build(experiment.network, classes, experiment.seed, **experiment.network_args)
    objective, head = scored_with(experiment), head_of(experiment)
    if head == "fresh" or (head is None and models.head_name(network) is not None):
        network = models.replace_head(network, len(data.classes), experiment.seed)
    taught = objective_of(objective).taught(
        lambda called: untrained(called, experiment, data, Ticket.of(network)), data.train
    )
    Training(data.train, experiment.recipe, objective=taught).check(network)
    if taught.metric in (RECORDED | experiment.labels().keys()):
        raise ValueError(f"the objective's metric is called {taught.metric}, as a column of every record: rename it")


def _score(ticket: Ticket, experiment: Experiment, target: str, store: Store, device: str, threads: int) -> Score:
    """Score a ticket, or look the score up where any experiment has scored the very same."""
    data = as_seen(target, experiment.official, scoring=True)
    name, objective, head = _score_name(ticket, experiment, data, device, threads)

    checkpoint = Checkpoint(store.url, name.removeprefix("scores/"))

    def known() -> Score | None:
        found = _read_score(name, store.read(f"{name}.json"))
        if found is not None:
            checkpoint.tidy()
        return found

    def work() -> Iterator[Score]:
        taught = objective_of(objective).taught(
            lambda called: teacher(called, experiment, data, store, device, threads, ticket), data.train
        )
        how: dict[str, Any] = {"objective": taught, "head": head, "drive": checkpoint.drive}
        score = evaluate(ticket, data, experiment.recipe, experiment.seed, device, threads, **how)
        values = finite(score.as_dict())
        store.write(f"{name}.json", json.dumps(values | {"sha256": _digest(name, values)}))
        checkpoint.clear()
        yield score

    [score] = store.once(name, known, work)
    return replace(score, value=score.best_value) if data.validation is data.test else score


def _read_score(name: str, text: bytes | None) -> Score | None:
    """Return a stored score; None where it is missing or damaged: then it is taken again, and is the same."""
    try:
        values = json.loads(text or b"")
        altered = values.pop("sha256", None) != _digest(name, values)
        return None if altered else Score.from_dict(values)
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None


def _digest(name: str, values: dict[str, Any]) -> str:
    """The name is part of it: whole as it may be, a score must be this ticket's."""
    return hashlib.sha256(json.dumps([name, values], sort_keys=True).encode()).hexdigest()


def _score_name(
    ticket: Ticket, experiment: Experiment, data: Dataset, device: str, threads: int
) -> tuple[str, dict[str, Any] | None, Head | None]:
    """Return the name of a score in the store, which says all that fixes it, with the objective and the head."""
    objective, head = scored_with(experiment), head_of(experiment, ticket)
    prints = [part.fingerprint() for part in (data.train, data.validation, data.test)]
    where = {"device": device, "threads": threads}
    recipe = experiment.recipe.model_dump(mode="json")
    about: list[Any] = [FORMAT, ticket.hash, prints, recipe, experiment.seed, where, torch.__version__]
    if objective or head:  # keys of plain scores are older than both
        code = {"code": fingerprint(objective["name"])} if objective and ":" in objective["name"] else {}
        further = {what: v for what, v in (versions({"objective": objective}) or {}).items() if what != "objective"}
        about.append({"objective": objective, "head": head} | code | ({"versions": further} if further else {}))
    key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:24]
    return f"scores/{key}", objective, head


def scored_with(experiment: Experiment) -> dict[str, Any] | None:
    """Return the objective of an experiment's scores; None: cross-entropy."""
    scoring = experiment.scoring
    objective = scoring.objective if scoring and scoring.objective else experiment.objective
    return None if objective == PLAIN else objective


def finite(value: Any) -> Any:
    """Return plain JSON values with None in place of NaN."""
    if isinstance(value, dict):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
