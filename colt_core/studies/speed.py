"""How fast this machine trains: measured on noise before a run, and read off the trainings a store has finished."""

import json
import math
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import torch
from torch import nn

from .. import models
from ..compute.pool import lend
from ..compute.store import Store
from ..data import Images, Shape
from ..training import Recipe, objective_of, train
from .experiment import Experiment
from .records import read_records
from .scoring import scored_with
from .teachers import by_name

LONG = 1.0  # seconds that are timed: what begins and ends a training then weighs little
Learnt = dict[str, Any] | None  # an objective
Kind = tuple[str, str, str, str]  # network, its arguments, recipe, objective: trainings of one kind are of one speed


def speed(experiment: Experiment, learnt: Learnt, classes: int, shape: Shape, device: str, beside: int) -> float:
    """Return the training images a second of one worker while `beside` of them train what an experiment trains.

    Parameters
    ----------
    experiment
        Its network and recipe count.
    learnt
        The objective: of its rounds, or of its scores.
    classes, shape
        Of the images.
    device, beside
        Where, and how many trainings side by side.
    """
    network, arguments, recipe, objective = _kind(experiment, learnt)
    return _speed(network, arguments, classes, shape, recipe, objective, device, beside)


def _kind(experiment: Experiment, learnt: Learnt) -> Kind:
    labels = experiment.labels()
    return experiment.network, labels["network_args"], labels["recipe"], json.dumps(learnt, sort_keys=True)


@lru_cache(maxsize=32)
def _speed(
    network: str, arguments: str, classes: int, shape: Shape, recipe: str, objective: str, device: str, beside: int
) -> float:
    about: dict[str, Any] = {"network": network, "arguments": json.loads(arguments), "classes": classes, "shape": shape}
    about |= {"recipe": json.loads(recipe), "objective": json.loads(objective), "device": device}
    if beside == 1:  # several share a GPU as they share a CPU: what they reach together is measured
        return calibrate(**about)
    with lend(beside) as workers, ThreadPoolExecutor(beside) as pool:
        calls = [worker.call("colt_core.studies.speed:calibrate", **about) for worker in workers]
        return sum(pool.map(_answer, calls)) / beside


def _answer(call: Any) -> float:
    try:
        next(call)
    except StopIteration as end:
        return float(end.value)
    raise RuntimeError("a calibration yields nothing")


def calibrate(
    network: str,
    arguments: dict[str, Any],
    classes: int,
    shape: Shape,
    recipe: dict[str, Any],
    objective: dict[str, Any] | None = None,
    device: str = "cpu",
) -> float:
    """Train on noise for a second, in the recipe's own batches; return images a second.

    A first step, which also loads what it needs, does not count.
    """
    chosen, how = models.build(network, classes, **arguments), Recipe(**recipe)
    how = how.changed(epochs=1, warmup=0, learning_rate=1e-6)
    noise = torch.randint(0, 256, (how.batch_size, *shape), dtype=torch.uint8)
    images = Images(noise, torch.arange(how.batch_size) % classes, tuple(map(str, range(classes))))

    def untrained(called: str) -> nn.Module:  # a teacher costs the same forward pass, whatever it knows
        own = called in ("dense", "self")
        return models.build(network, classes, **arguments) if own else by_name(called, classes, shape)

    learnt = objective_of(objective).taught(untrained, images)

    def seconds(steps: int) -> float:
        some = images.take(torch.arange(steps * how.batch_size) % how.batch_size)
        begun = time.perf_counter()
        train(chosen, some, how, device=device, progress=False, objective=learnt)
        return time.perf_counter() - begun

    seconds(1)
    steps, passed = 1, seconds(1)
    while passed < LONG:
        steps = math.ceil(steps * min(16.0, max(2.0, 1.2 * LONG / passed)))
        passed = seconds(steps)
    return steps * how.batch_size / passed


def finished(experiments: Iterable[Experiment], store: Store, device: str) -> dict[Kind, tuple[int, float]]:
    """Return, by kind of training, how many the store's records tell of, and their images a second all together.

    Of each experiment its scores, and the trainings between two rounds.
    """
    spent: dict[Kind, list[tuple[int, float]]] = {}
    for experiment in experiments:
        before = {"image_epochs": 0, "seconds": 0.0}
        for record in read_records(experiment, store):
            if record.get("device") != device:
                continue
            if record["kind"] == "score":
                images, seconds = record.get("score_image_epochs") or 0, record.get("score_seconds") or 0.0
            else:
                images = record["image_epochs"] - before["image_epochs"]
                seconds, before = record["seconds"] - before["seconds"], record
            learnt = scored_with(experiment) if record["kind"] == "score" else experiment.objective
            if images and seconds:
                spent.setdefault(_kind(experiment, learnt), []).append((images, seconds))
    totals = {kind: (len(rows), sum(i for i, _ in rows), sum(s for _, s in rows)) for kind, rows in spent.items()}
    return {kind: (count, images / seconds) for kind, (count, images, seconds) in totals.items()}


def check_line(experiment: Experiment, learnt: Learnt, calibrated: float, known: dict[Kind, tuple[int, float]]) -> str:
    """Say how fast the finished trainings of this kind were; nothing where there are none."""
    if (kind := _kind(experiment, learnt)) not in known:
        return ""
    count, rate = known[kind]
    name = models.in_words(experiment.network, experiment.network_args)
    off = f", {calibrated / rate:.2f} times that by calibration" if rate else ""
    return f"{name}: {count} trainings in the store ran at {rate:,.0f} images/s{off}"
