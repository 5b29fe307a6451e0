"""Copies trained side by side: `train_copies()`. On a CPU each has a process and a fixed thread count."""

import time
import warnings
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from queue import SimpleQueue
from typing import Any
from uuid import uuid4

import torch
from torch import nn

from .. import models
from ..data import Images
from ..files import open_tensors, read_tensors, save_tensors, scratch, under
from ..masks import Mask
from ..progress import Bar, bar, left
from ..seeding import choose_device
from ..training import History, Objective, Recipe, Training, described, objective_for, objective_of
from .checkpoints import Checkpoint, kept
from .pool import Worker, cores, lend
from .store import Store


@dataclass(eq=False)
class Copy:
    """One of the networks that train side by side.

    Attributes
    ----------
    network, training
        What is trained, in place, and by what.
    checkpoint
        Where its training is looked up and kept; None: nowhere.
    history
        What its training has done so far.
    """

    network: nn.Module
    training: Training
    checkpoint: Checkpoint | None = None
    history: History = field(default_factory=History)


Run = Generator[History, bool | None, None]
Settled = Callable[[list[nn.Module]], Sequence[bool]]
Watch = Callable[[int, History], None]
Tell = Callable[[History], None]


def train_copies(
    networks: Sequence[nn.Module],
    parts: Sequence[Images],
    recipe: Recipe,
    *,
    masks: Sequence[Mask] | None = None,
    seeds: Sequence[int] | None = None,
    validation: Sequence[Images] | None = None,
    first_steps: Sequence[int] | None = None,
    threads: int = 1,
    objective: Objective | None = None,
    **where: Any,
) -> list[nn.Module]:
    """Train each network in place on its own images, independently; return them, in order.

    The result does not depend on how many train at the same time, bit for bit.

    Parameters
    ----------
    networks, parts, recipe
        One network a partition.
    masks, seeds, validation, first_steps
        One of each a network; see `Training`. Without seeds, 0, 1, 2, ...
    threads
        CPU threads of each.
    objective
        What they learn; by default what each network declares, cross-entropy where it declares nothing.
    **where
        As for `train_side_by_side`: device, workers, store, progress, watch, ...

    Raises
    ------
    ValueError
        If the sequences differ in length, and as `training.train`.
    FloatingPointError, RuntimeError
        As `train_side_by_side`.
    """
    count = len(networks)
    given = {"parts": parts, "masks": masks, "seeds": seeds, "validation": validation, "first_steps": first_steps}
    for name, values in given.items():
        if values is not None and len(values) != count:
            raise ValueError(f"{count} networks need {count} {name}, not {len(values)}")
    trainings = [
        Training(
            parts[i],
            recipe,
            mask=masks[i] if masks else None,
            validation=validation[i] if validation else None,
            seed=seeds[i] if seeds else i,
            threads=threads,
            first_step=first_steps[i] if first_steps else 0,
            objective=objective or objective_for(networks[i]),
        )
        for i in range(count)
    ]
    train_side_by_side(networks, trainings, **where)
    return list(networks)


def train_side_by_side(
    networks: Sequence[nn.Module],
    trainings: Sequence[Training],
    *,
    settled: Settled | None = None,
    device: str | torch.device = "auto",
    workers: int | None = None,
    store: Store | None = None,
    progress: bool | None = None,
    watch: Watch | None = None,
    keep_best: bool = False,
) -> list[Copy]:
    """Train each network in place by its own training; return them with their histories.

    Parameters
    ----------
    networks, trainings
        One of each.
    settled
        Called after every epoch with the networks as they stand; tells for each whether its training may end.
    device
        Where.
    workers
        Processes side by side; by default as many as the machine's cores allow with so many threads each. 1: one
        copy after the other in this process, as always on a GPU and for networks that `build` cannot make again.
    store
        Where trainings are looked up, and kept between epochs (see `checkpoints`); None: nowhere.
    progress
        A bar over the epochs of all copies; see `progress.bar`.
    watch
        Called after every epoch with the number of the copy and its history, from whichever thread drives it.
    keep_best
        Every history is to hold its best weights: a training that the store holds, without them, is not looked up.

    Raises
    ------
    ValueError, FloatingPointError
        As `training.train`.
    RuntimeError
        If a worker process dies.
    """
    where, watched = choose_device(device), settled is not None or keep_best
    copies = [Copy(network, training) for network, training in zip(networks, trainings, strict=True)]
    for copy in copies if store else []:
        assert store is not None
        copy.checkpoint = Checkpoint(store.url, copy.training.key(copy.network, where), every=watched)
    threads = max((training.threads for training in trainings), default=1)
    beside = min(len(copies), workers or max(1, cores() // threads))
    if store is not None and store.private:  # memory://: no other process can see it
        beside = 1
    with bar(progress) as shown:
        tell = [_teller(i, copies, shown, watch) for i in range(len(copies))]
        here = where.type != "cpu" or beside == 1 or not all(map(_can_be_rebuilt, copies))
        if not here:
            _in_workers(copies, settled, len(copies) if settled else beside, tell)
        else:
            if beside > 1 and where.type == "cpu":
                _say_once(type(networks[0]).__name__)
            runs = [_here(copy, where, told) for copy, told in zip(copies, tell, strict=True)]
            if settled:
                _drive(runs, networks, settled, map)
            else:
                for run in runs:
                    _exhaust(run)
    for copy in copies if watched else []:
        if copy.checkpoint:
            copy.checkpoint.clear()
    return copies


@cache
def _say_once(name: str) -> None:
    about = "it has no name that build() knows, or hooks or frozen weights"
    warnings.warn(f"copies of this {name} train one after the other in this process: {about}", stacklevel=4)


def _teller(number: int, copies: list[Copy], shown: Bar, watch: Watch | None) -> Tell:
    """Return what is called after each epoch of one copy."""
    begun = time.monotonic()

    def tell(history: History) -> None:
        if shown.shows:
            done, most = (sum(counts) for counts in zip(*map(_epochs, copies), strict=True))
            rest = left(time.monotonic() - begun, done / most)
            what = "1 network" if len(copies) == 1 else f"{len(copies)} networks"
            shown.say(f"training {what}: {done} of {most} epochs{'; ' if rest else ''}{rest}", done / most)
        if watch:
            watch(number, history)

    return tell


def _epochs(copy: Copy) -> tuple[int, float]:
    """Return a copy's epochs so far, and those that are planned."""
    return len(copy.history.epochs), copy.history.planned or copy.training.recipe.epochs


def _here(copy: Copy, device: torch.device, tell: Tell) -> Run:
    """A training in this process, an epoch at a time; it ends when it is sent False."""
    for history in kept(copy.network, copy.training, device, copy.checkpoint):
        copy.history = history
        tell(history)
        if (yield history) is False:
            return


def _exhaust(run: Run) -> None:
    for _ in run:
        pass


def _drive(
    runs: list[Run], networks: Sequence[nn.Module], settled: Settled, each: Callable[..., Iterable[Any]]
) -> None:
    """Take all trainings through an epoch, ask which have settled, go on with the others."""
    going = dict(enumerate(runs))
    answers = dict.fromkeys(going)  # what each is sent next: None to begin, True to go on, False to end
    while going:
        ended = list(each(_next, going.values(), answers.values()))
        going = {i: run for (i, run), over in zip(going.items(), ended, strict=True) if not over}
        if going:
            stop = settled(list(networks))
            answers = {i: not stop[i] for i in going}


def _next(run: Run, answer: bool | None) -> bool:
    """Let a training do an epoch; tell whether it is over."""
    try:
        run.send(answer)
    except StopIteration:
        return True
    return False


# --- in other processes ------------------------------------------------------------------------------------------


def _in_workers(copies: list[Copy], settled: Settled | None, count: int, tell: Sequence[Tell]) -> None:
    """Train the copies in `count` worker processes."""
    with lend(count) as workers, ThreadPoolExecutor(count) as pool:
        # More copies than workers: each takes whichever is free, and gives it back.
        free = SimpleQueue[Worker]()
        for worker in workers:
            free.put(worker)

        def train_one(copy: Copy, told: Tell) -> None:
            worker = free.get()
            try:
                _exhaust(_there(worker, copy, False, told))
            finally:
                free.put(worker)

        try:
            if settled:
                jobs = zip(workers, copies, tell, strict=True)
                runs = [_there(worker, copy, True, told) for worker, copy, told in jobs]
                _drive(runs, [copy.network for copy in copies], settled, pool.map)
            else:
                list(pool.map(train_one, copies, tell))
        except BaseException:  # an error or an interrupt: what still runs must not hold it up
            for worker in workers:
                worker.process.kill()
            raise


def _there(worker: Worker, copy: Copy, follow: bool, tell: Tell) -> Run:
    """A training in a worker process, an epoch at a time; `follow`: the network has its weights after every epoch."""
    # Tensors go through files that both sides map; only JSON goes through the pipe.
    job, result = (scratch() / f"{uuid4().hex}.safetensors" for _ in range(2))
    training = copy.training
    sets = {"images": training.images}
    if training.validation is not None:
        sets["validation"] = training.validation
    tensors = {f"weight/{name}": value for name, value in copy.network.state_dict().items()}
    tensors |= {f"mask/{name}": kept for name, kept in (training.mask or {}).items()}
    tensors |= {f"labels/{name}": images.labels for name, images in sets.items()}
    tensors |= {f"rows/{name}": images.rows for name, images in sets.items() if images.rows is not None}
    tensors |= {f"objective/{name}": value for name, value in training.objective.tensors().items()}
    save_tensors(job, tensors)
    call = worker.call(
        "colt_core.compute.copies:serve_training",
        job=str(job), result=str(result), architecture=models.architecture(copy.network),
        recipe=training.recipe.model_dump(), sets={name: _described(images) for name, images in sets.items()},
        how={name: getattr(training, name) for name in ("seed", "threads", "first_step", "steps")},
        objective=described(training.objective),
        checkpoint=asdict(copy.checkpoint) if copy.checkpoint else None, follow=follow,
    )  # fmt: skip
    try:
        told = next(call)
        while True:
            _take_over(copy, told, result if follow else None)
            tell(copy.history)
            told = call.send((yield copy.history) is not False)
    except StopIteration as end:
        _take_over(copy, end.value, result)
    finally:
        job.unlink(missing_ok=True)
        result.unlink(missing_ok=True)


def serve_training(
    job: str,
    result: str,
    architecture: dict[str, Any],
    recipe: dict[str, Any],
    sets: dict[str, Any],
    how: dict[str, Any],
    objective: dict[str, Any] | None,
    checkpoint: dict[str, Any] | None,
    follow: bool,
) -> Generator[dict[str, Any], bool, dict[str, Any]]:
    """What a worker process does for `_there`: yield the history after each epoch, write the state at the end."""
    tensors, _ = read_tensors(job)
    network = models.build(architecture["name"], architecture["classes"], **architecture["arguments"])
    if (code := models.architecture(network).get("code")) != (meant := architecture.get("code")):
        raise ValueError(
            f"a worker finds {code} under {architecture['name']}, where {meant} is meant: name it uniquely"
        )
    models.fill(network, under(tensors, "weight/"))
    rows, labels = under(tensors, "rows/"), under(tensors, "labels/")
    images = {
        name: Images(
            _mapped(**about["source"]), labels[name], tuple(about["classes"]), rows=rows.get(name),
            mean=tuple(about["mean"]), std=tuple(about["std"]),
        )
        for name, about in sets.items()
    }  # fmt: skip
    training = Training(
        images["images"], Recipe(**recipe), under(tensors, "mask/") or None, images.get("validation"),
        objective=objective_of(objective, under(tensors, "objective/")), **how,
    )  # fmt: skip
    history = History()
    for history in kept(network, training, "cpu", Checkpoint(**checkpoint) if checkpoint else None):
        if follow:
            save_tensors(result, network.state_dict())
        if not (yield history.told()):
            break
    best = {f"best/{name}": value for name, value in (history.best_state or {}).items()}
    save_tensors(result, network.state_dict() | best)
    return history.told()


def _take_over(copy: Copy, told: dict[str, Any], result: Path | None) -> None:
    """Take over what a worker reports, and its weights where it has written them."""
    copy.history = History(**told)
    if result is not None:
        tensors, _ = read_tensors(result)
        copy.history.best_state = {name: v.clone() for name, v in under(tensors, "best/").items()} or None
        models.fill(copy.network, {name: v for name, v in tensors.items() if not name.startswith("best/")})
        copy.network.to(memory_format=torch.channels_last)


def _described(images: Images) -> dict[str, Any]:
    """Say where other processes find these images; pixels that lie in no file are written to one, once."""
    source = images.source
    assert source is not None
    if source.path is None:
        path = scratch() / f"{uuid4().hex}.safetensors"
        save_tensors(path, {source.key: images.pixels})
        source.path, source.written = str(path), path.stat().st_mtime_ns
    place = {"path": source.path, "key": source.key, "written": source.written}
    return {"source": place, "classes": images.classes, "mean": images.mean, "std": images.std}


@lru_cache(maxsize=4)
def _mapped(path: str, key: str, written: int) -> torch.Tensor:
    """Map the pixels of a file into memory."""
    with open_tensors(path) as file:
        if Path(path).stat().st_mtime_ns != written:
            raise ValueError(f"{path} was replaced while it was in use; start again")
        return file.get_tensor(key)  # type: ignore[no-any-return]


def _can_be_rebuilt(copy: Copy) -> bool:
    """Tell whether a worker process can make a network, and its teachers, by name: nothing was added or frozen."""
    # A hook or a frozen weight is in no name: such a network trains here, where it is.
    networks = [copy.network, *copy.training.objective.networks()]
    modules = [module for network in networks for module in network.modules()]
    hooked = any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in modules)
    frozen = not all(parameter.requires_grad for parameter in copy.network.parameters())
    return not (hooked or frozen) and all(map(models.is_as_built, networks))
