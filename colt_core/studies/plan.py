"""What a run will cost, before it starts: `plan()`; how far it is: `status()`."""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import torch
from torch import nn

from .. import masks, models
from ..compute.pool import check_workers, cores
from ..compute.store import Store, open_store
from ..data import Images
from ..methods import method_of
from ..methods.cycles import share_counted
from ..seeding import choose_device
from ..training import objective_of
from .arithmetic import kept_by_round
from .experiment import Experiment, listed, really_left
from .foresight import doubts
from .inputs import as_seen, dataset_of
from .records import Place, is_complete, is_over, is_scored, read_records, rounds_scored
from .scoring import scored_with
from .speed import check_line, finished, speed
from .teachers import by_name, lesson

if TYPE_CHECKING:
    import pandas as pd

    from .study import Study


Range = tuple[float, float]


@dataclass(frozen=True)
class Plan:
    """What is still to be done. Pairs are the least and the most: how fast COLT's masks shrink is only known after.

    Attributes
    ----------
    experiments, rounds, scores
        How many are not in the store yet.
    image_epochs
        Training images to be seen, an image counted once an epoch.
    flops
        Of the dense network's training, and of a teacher's answers; masks save none.
    seconds
        On this device, at the speed that a calibration of a second has measured.
    disk
        Bytes that the tickets will take, at most.
    speed
        What was measured: training images a second of each worker, by network.
    device, workers
        Where, and how many trainings side by side.
    checks
        What the store's finished trainings say of that speed, a sentence each.
    warnings
        What makes the numbers mean nothing, a sentence each, see `foresight.doubts`; of what is done already, too.
    """

    experiments: int
    rounds: Range
    scores: Range
    image_epochs: Range
    flops: Range
    seconds: Range
    disk: int
    speed: dict[str, float]
    device: str
    workers: int
    checks: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def __str__(self) -> str:
        if not self.experiments:
            return "\n".join(["nothing left to do: every round and score is in the store", *self._warned()])
        speeds = ", ".join(f"{name} {value:,.0f} images/s" for name, value in self.speed.items())
        beside = f"{self.workers} trainings side by side, each " if self.workers > 1 else ""
        lines = {
            "to do": f"{self.experiments} experiments: {between(self.rounds)} rounds, {between(self.scores)} scores",
            "image-epochs": between(self.image_epochs),
            "training FLOPs": between(self.flops, lambda value: f"{value:.2g}"),
            "time": f"about {between(self.seconds, duration)} on {self.device} ({beside}{speeds})",
            "disk": f"at most {self.disk / 1e6:,.1f} MB",
        }
        lines |= {"check": "; ".join(self.checks)} if self.checks else {}
        return "\n".join([*(f"{name + ':':16}{text}" for name, text in lines.items()), *self._warned()])

    def _warned(self) -> list[str]:
        return [f"{'warning:':16}{text}" for text in self.warnings]

    def against(self, seconds: float) -> str:
        """Say in a line what was planned and how long it took."""
        return f"planned {between(self.seconds, duration)}, took {duration(seconds)}" if self.experiments else ""

    __repr__ = __str__


def plan(
    experiments: "Experiment | Study | Iterable[Experiment]",
    store: Place = None,
    device: str = "auto",
    workers: int | None = None,
    anew: bool = False,
) -> Plan:
    """Tell what a run, or a study of many, will cost: image-epochs, FLOPs, time on this device, disk.

    Parameters
    ----------
    experiments
        One (`run`), many, or a `Study`. What the store holds already is not counted.
    store, device
        As for `run`.
    workers
        Trainings side by side; by default one a core on a CPU, else one.
    anew
        Count what the store holds, too, as if it were empty: what it would cost again, or elsewhere.

    Raises
    ------
    ValueError
        As `run`, for settings and data.
    """
    check_workers(workers)
    single = isinstance(experiments, Experiment)
    given = listed(experiments)
    where, place = choose_device(device), open_store(store)
    usual = cores() if where.type == "cpu" else 1
    beside = 1 if single and where.type != "cpu" else workers or usual  # copies train one after the other on a GPU
    works = _open_works(given, open_store(f"memory://{uuid4().hex}") if anew else place, str(where))
    known = finished(given, place, str(where))
    speeds: dict[str, float] = {}
    checks: dict[str, None] = {}
    seconds = [0.0, 0.0]
    for work in works:
        e = work.experiment
        apart = together(e, beside) if single else beside
        for name, learnt, images in (
            (e.dataset, e.objective, work.find),
            (e.score_on or e.dataset, scored_with(e), work.judge),
        ):
            if images[1]:
                data = dataset_of(name)
                rate = speed(e, learnt, len(data.classes), data.train.shape, str(where), beside)
                speeds[f"{models.in_words(e.network, e.network_args)}, {data.train.size} pixels,"] = rate
                checks[check_line(e, learnt, rate, known)] = None
                seconds = [total + count / rate / apart for total, count in zip(seconds, images, strict=True)]

    def add(name: str) -> Range:
        low, high = (sum(getattr(work, name)[i] for work in works) for i in (0, 1))
        return low, high

    return Plan(
        len(works), add("rounds"), add("scores"), add("image_epochs"), add("flops"), (seconds[0], seconds[1]),
        sum(work.disk for work in works), speeds, str(where), beside, tuple(filter(None, checks)),
        tuple(dict.fromkeys(text for e in given for text in doubts(e))),
    )  # fmt: skip


def _open_works(given: list[Experiment], store: Store, device: str) -> list["_Work"]:
    """Return what is missing of some experiments and of those they follow, each found once."""
    wanted: dict[tuple[str, str | None, str], Experiment] = {}
    for e in sorted(given, key=_scores_asked, reverse=True):
        wanted.setdefault((e.hash, e.score_on, str(e.scoring)), e)
    found_once = {e.hash: key for key, e in reversed(wanted.items())}  # scored elsewhere, it is not found again
    for reference in [r for e in wanted.values() if not is_over(e, store) for r in e.references()]:
        if reference.hash not in found_once:
            key = (reference.hash, None, str(None))
            wanted[key], found_once[reference.hash] = reference, key
    networks: dict[str, nn.Module] = {}  # a study has few
    works = [_work(e, store, found_once[e.hash] == key, networks) for key, e in wanted.items()]
    works = [work for work in works if work.find[1] or work.judge[1]]
    lessons: set[str] = set()  # of teachers, each trained once
    return [_with_lessons(work, store, device, lessons) for work in works]


def _with_lessons(work: "_Work", store: Store, device: str, known: set[str]) -> "_Work":
    """Return a work with the trainings of the teachers that nobody has trained yet; `known` are added to."""
    e, extra, each = work.experiment, 0.0, 0.0
    for called in work.lessons:
        data = as_seen(e.score_on or e.dataset, e.official, scoring=True)
        network, training = lesson(called, e, data, 1, None)
        name = f"trainings/{training.key(network, torch.device(device))}"
        if name not in known and not store.exists(f"{name}.safetensors"):
            extra += len(data.train) * e.recipe.epochs
        known.add(name)
        each = 3.0 * models.forward_flops(network, data.train.shape)
    if not extra:
        return work
    images, judge = ((low + extra, high + extra) for low, high in (work.image_epochs, work.judge))
    flops = (work.flops[0] + extra * each, work.flops[1] + extra * each)
    return replace(work, image_epochs=images, judge=judge, flops=flops)


def _beside(about: dict[str, Any] | None, images: Images, network: nn.Module) -> tuple[float, list[str]]:
    """Return the FLOPs an image of whoever teaches or judges, and what these are called."""
    asked: list[str] = []

    def untrained(called: str) -> nn.Module:
        asked.append(called)
        return network if called in ("dense", "self") else by_name(called, len(images.classes), images.shape)

    return objective_of(about).taught(untrained, images).forwards(images), asked


def remaining(experiment: Experiment, store: Place = None, beside: int = 1) -> Range:
    """Return the least and the most training images that are still to be seen: rounds, and scores asked for.

    Those of a COLT run that this one follows count too, while it is not complete. Images that copies see at the same
    time, `beside` of them, count as long as they take: two copies side by side as one.
    """
    place = open_store(store)
    followed = [reference for reference in experiment.references() if not is_complete(reference, place)]
    networks: dict[str, nn.Module] = {}
    works = [_work(one, place, True, networks) for one in (experiment, *followed)]
    low, high = (sum(_one_by_one(work, end, beside) for work in works) for end in (0, 1))
    return low, high


def _one_by_one(work: "_Work", end: int, beside: int) -> float:
    """Return the images of a work as `remaining` counts them."""
    find, judge, images = work.find[end], work.judge[end], work.image_epochs[end]
    return images * (find / together(work.experiment, beside) + judge) / (find + judge) if images else 0.0


def _copies(experiment: Experiment) -> int:
    """Return how many copies train in each round."""
    return method_of(experiment.method).copies_of(experiment)


def together(experiment: Experiment, beside: int) -> float:
    """Return how many copies of one experiment train at a time, on average."""
    copies = _copies(experiment)
    return copies / math.ceil(copies / beside)


def status(experiments: "Experiment | Study | Iterable[Experiment]", store: Place = None) -> "pd.DataFrame":
    """Return how far each experiment is, a row each; computes nothing.

    Returns
    -------
    pandas.DataFrame
        Columns dataset, network, method, parts, by, rate, seed, state ("done", "failed", "running", "begun" or
        "waiting"), rounds and scores in the store, sparsity (of the last round), scored_on (the data sets that scores
        are asked for or there on), by_whom (host and process that are at it), experiment (the hash).
    """
    import pandas as pd

    place, rows = open_store(store), []
    for e in listed(experiments):
        records, holder = read_records(e, place), place.holder(f"{e.hash}/experiment")
        found = [r for r in records if r["kind"] == "round"]
        over = is_over(e, place)
        state = "running" if holder and not over else "begun" if records else "waiting"
        if over:
            state = "done" if is_complete(e, place) and is_scored(e, place) else "failed"
        row = {name: getattr(e, name) for name in ("dataset", "network", "method", "parts", "by", "rate", "seed")}
        row |= {"state": state, "rounds": len(found), "scores": sum(r["kind"] == "score" for r in records)}
        row |= {"sparsity": 1 - really_left(found[-1]) if found else None}
        on = [r.get("scored_on") or e.dataset for r in records if r["kind"] == "score"]
        on += [e.score_on or e.dataset] if e.scores is not None else []
        row |= {"scored_on": ", ".join(dict.fromkeys(on))}
        row |= {
            "by_whom": f"{str(holder.get('host', '?')).split()[0]} {holder.get('pid', '?')}"
            if holder and not over
            else ""
        }
        rows.append(row | {"experiment": e.hash})
    return pd.DataFrame(rows)


@dataclass(frozen=True)
class _Work:
    experiment: Experiment
    rounds: Range
    scores: Range
    image_epochs: Range
    find: Range  # image-epochs, and what looking at validation images takes beside them
    judge: Range
    flops: Range
    disk: int
    lessons: tuple[str, ...] = ()  # of whom it is taught or judged, by name, but for tickets that teach themselves


def _scores_asked(e: Experiment) -> float:
    return 0 if e.scores is None else len(e.scores) or math.inf


def _work(e: Experiment, store: Store, finding: bool, networks: dict[str, nn.Module]) -> _Work:
    """Return what is missing of one experiment; without `finding` the scores alone. `networks` are those known."""
    records, over = read_records(e, store), is_over(e, store)
    done = over or is_complete(e, store)
    data, target = dataset_of(e.dataset), dataset_of(e.score_on or e.dataset)
    name = json.dumps([e.network, len(data.classes), e.network_args], sort_keys=True)
    if name not in networks:
        networks[name] = models.build(e.network, len(data.classes), **e.network_args)
    network = networks[name]
    rounds_ = [r for r in records if r["kind"] == "round"]
    found, density = len(rounds_), rounds_[-1]["density"] if rounds_ else 1.0
    every = (found, found) if done else tuple(n + max(1, found) for n in _rounds(e, network, store, density, found))
    scored = len(rounds_scored(e, records))
    asked = 0 if e.scores is None else len(e.scores)
    scores = [max(0, (n if e.scores == () else min(asked, n)) - scored) for n in every]
    if over:  # fewer where no round reaches a sparsity that was asked for
        scores = [0, 0]
    rounds = [max(0, n - found) if finding else 0 for n in every]
    method = method_of(e.method)
    whole = len(data.train) * e.found_with.epochs
    training = method.images(e) if method.images else whole * method.passes_of(e)
    rewound = e.rewind / e.found_with.total(len(data.train)) if e.rewind else 0.0  # trained once, and never again
    early = min(1.0, (e.early_bird.window + 1) / e.found_with.epochs) if e.early_bird else 1.0  # at the earliest
    trainings = [max(0, n - max(1, found)) if finding else 0 for n in every]  # the dense round needs none
    most = {"never": 0, "once": 1}.get(method.trains, math.inf)
    begun = rewound * whole if finding and not found else 0.0
    rest = 1.0 if method.images else 1 - rewound  # what is no training of the recipe has nothing of it behind it
    first, at_most = (begun if most else 0.0, begun), [min(n, most) * training * rest for n in trainings]
    find = [at_most[0] * early + first[0], at_most[1] + first[1]]
    judge = [n * len(target.train) * e.recipe.epochs for n in scores]
    find_teacher, taught_by = _beside(e.objective, data.train, network) if find[1] else (0.0, [])
    judge_teacher, judged_by = _beside(scored_with(e), target.train, network) if judge[1] else (0.0, [])
    itself = "self" in judged_by  # then each ticket is trained twice
    looking = 1 + len(data.validation) / len(data.train) / 3  # a forward pass is a third of a training step
    flops = [f * (3.0 * models.forward_flops(network, data.train.shape) + find_teacher) for f in find]
    each = 3.0 * models.forward_flops(network, target.train.shape)
    flops = [f + j * (each + judge_teacher + itself * each) for f, j in zip(flops, judge, strict=True)]
    judge = [j * (1 + itself) for j in judge]
    kept = sum(masks.size({name: network.get_parameter(name)}) for name in models.prunable(network))
    ticket = 4 * sum(value.numel() for value in network.state_dict().values()) + kept * (1 + e.parts)
    return _Work(
        e, (rounds[0], rounds[1]), (scores[0], scores[1]), (find[0] + judge[0], find[1] + judge[1]),
        (find[0] * looking, find[1] * looking), (judge[0] * looking, judge[1] * looking),
        (flops[0], flops[1]), rounds[1] * ticket, tuple(one for one in {*taught_by, *judged_by} if one != "self"),
    )  # fmt: skip


def _rounds(e: Experiment, network: nn.Module, store: Store, density: float, found: int) -> tuple[int, int]:
    """Return the least and the most rounds still to come: exact for IMP, and where COLT's run is known."""
    if e.method == "dense":
        return 0, 0
    reference = e.reference()
    if reference is not None and is_complete(reference, store):
        known = sum(r["kind"] == "round" for r in read_records(reference, store)) - max(1, found)
        return known, known
    if e.densities is not None:
        return (left := len(e.densities) + 1 - max(1, found)), left
    slow = _rounds_at(1 - e.rate, e, network, density)
    copies = e.parts if method_of(e.method).follows is not None else _copies(e)
    return _rounds_at((1 - e.rate) ** copies, e, network, density), slow


def _rounds_at(keep: float, e: Experiment, network: nn.Module, density: float) -> int:
    prunable: dict[str, torch.Tensor] = {name: network.get_parameter(name) for name in models.prunable(network)}
    size, share = masks.size(prunable), 1.0
    if e.official and "all-counted" in e.official:
        classes, copies = models.architecture(network)["classes"], _copies(e)
        share = share_counted(prunable, network, math.ceil(classes / copies) if e.by == "class" else classes)
    return len(kept_by_round(size, 1 - keep, e.target, round(density * size), share)) - 1


def between(values: Range, text: Any = lambda value: f"{value:,.0f}") -> str:
    """Write a range, or one value where both ends read alike."""
    low, high = map(text, values)
    return low if low == high else f"{low} to {high}"


def duration(seconds: float) -> str:
    """Write seconds as people say them."""
    for size, name in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.1f} {name}" if seconds < 10 * size else f"{seconds / size:.0f} {name}"
    return f"{seconds:.0f} s"
