"""Partition copies trained side by side: `train_copies()`. On a CPU each has a process and a fixed thread count."""

import json
import sys
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import torch
from torch import nn
from tqdm import tqdm

from . import models
from .data import Images
from .files import scratch
from .masks import Mask
from .seeding import choose_device, cores
from .store import Store
from .training import History, Recipe
from .trainings import Checkpoint, described, kept, key_of, told

if TYPE_CHECKING:
    from .worker import Worker

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
    settled: Settled | None = None,
    device: str | torch.device = "auto",
    threads: int = 1,
    workers: int | None = None,
    store: Store | None = None,
    progress: bool | None = None,
    watch: Watch | None = None,
    keep_best: bool = False,
) -> list[nn.Module]:
    """Train each network in place on its own images, independently; return them, in order.

    The result does not depend on how many train at the same time, bit for bit.

    Parameters
    ----------
    networks, parts, recipe
        One network a partition. Each gets an attribute `history` (see `History`).
    masks, seeds, validation, first_steps
        One of each a network; see `training.epochs`. Without seeds, 0, 1, 2, ...
    settled
        Called after every epoch with the networks as they stand; tells for each whether its training may end.
    device, threads
        Where; threads of each copy.
    workers
        Processes side by side; by default as many as the machine's cores allow with so many threads each. 1: one
        copy after the other in this process, as always on a GPU and for networks that `build` did not make.
    store
        Where trainings are looked up, and kept between epochs (see `trainings`); None: nowhere.
    progress
        A bar over the epochs of all copies; by default only on a terminal.
    watch
        Called after every epoch with the number of the copy and its history, from whichever thread drives it.
    keep_best
        Every history is to hold its best weights: a training that the store holds, without them, is not looked up.

    Raises
    ------
    ValueError
        If the sequences differ in length, and as `training.train`.
    FloatingPointError
        As `training.train`.
    RuntimeError
        If a worker process dies.
    """
    count = len(networks)
    given = {"parts": parts, "masks": masks, "seeds": seeds, "validation": validation, "first_steps": first_steps}
    for name, values in given.items():
        if values is not None and len(values) != count:
            raise ValueError(f"{count} networks need {count} {name}, not {len(values)}")
    hows: list[dict[str, Any]] = [
        {
            "mask": masks[i] if masks else None,
            "seed": seeds[i] if seeds else i,
            "validation": validation[i] if validation else None,
            "first_step": first_steps[i] if first_steps else 0,
            "threads": threads,
        }
        for i in range(count)
    ]
    where = choose_device(device)
    for i, how in enumerate(hows if store else []):
        key = key_of(networks[i], parts[i], recipe, device=where, **how)
        how["checkpoint"] = Checkpoint(store.url, key, every=settled is not None or keep_best) if store else None
    if store and store.private:
        workers = 1
    beside = min(count, workers or max(1, cores() // threads))
    with tqdm(disable=not sys.stderr.isatty() if progress is None else not progress, leave=False) as bar:
        told_of = [_teller(i, bar, watch) for i in range(count)]
        if beside > 1 and where.type == "cpu" and all(map(_can_be_rebuilt, networks)):
            _beside(networks, parts, recipe, hows, settled, count if settled else beside, told_of)
        else:
            runs = [_here(networks[i], parts[i], recipe, hows[i], where, told_of[i]) for i in range(count)]
            if settled:
                _drive(runs, networks, settled, map)
            else:
                for run in runs:
                    _exhaust(run)
    for how in hows if settled or keep_best else []:
        if how.get("checkpoint"):
            how["checkpoint"].clear()
    return list(networks)


def history_of(network: nn.Module) -> History:
    """Return what `train_copies` did to a network."""
    return vars(network)["history"]


def _teller(copy: int, bar: Any, watch: Watch | None) -> Tell:
    """Return what is called after each epoch of one copy."""

    def tell(history: History) -> None:
        bar.update()
        if watch:
            watch(copy, history)

    return tell


def _here(
    network: nn.Module, part: Images, recipe: Recipe, how: dict[str, Any], device: torch.device, tell: Tell
) -> Run:
    """A training in this process, an epoch at a time; it ends when it is sent False."""
    for history in kept(network, part, recipe, device=device, **how):
        vars(network)["history"] = history
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


def _beside(
    networks: Sequence[nn.Module],
    parts: Sequence[Images],
    recipe: Recipe,
    hows: list[dict[str, Any]],
    settled: Settled | None,
    count: int,
    tell: Sequence[Tell],
) -> None:
    """Train the copies in `count` worker processes."""
    from .worker import Worker, lend  # not at the top: the worker's process imports this package before it runs it

    with lend(count) as workers, ThreadPoolExecutor(count) as pool:
        free = SimpleQueue[Worker]()
        for worker in workers:
            free.put(worker)

        def train_one(i: int) -> None:
            worker = free.get()
            try:
                _exhaust(_there(worker, networks[i], parts[i], recipe, hows[i], False, tell[i]))
            finally:
                free.put(worker)

        try:
            if settled:
                jobs = enumerate(workers)
                runs = [_there(one, networks[i], parts[i], recipe, hows[i], True, tell[i]) for i, one in jobs]
                _drive(runs, networks, settled, pool.map)
            else:
                list(pool.map(train_one, range(len(networks))))
        except BaseException:  # an error or an interrupt: what still runs must not hold it up
            for worker in workers:
                worker.process.kill()
            raise


def _there(
    worker: "Worker", network: nn.Module, part: Images, recipe: Recipe, how: dict[str, Any], watch: bool, tell: Tell
) -> Run:
    """A training in a worker process, an epoch at a time; `watch`: the network follows it at every epoch."""
    from safetensors.torch import save_file

    job, result = (scratch() / f"{uuid4().hex}.safetensors" for _ in range(2))
    weights = {f"weight/{name}": value.detach().contiguous() for name, value in network.state_dict().items()}
    mask = {f"mask/{name}": kept.contiguous() for name, kept in (how["mask"] or {}).items()}
    validation = how["validation"]
    sets = {"part": part} | ({"validation": validation} if validation is not None else {})
    labels = {f"labels/{name}": images.labels for name, images in sets.items()}
    rows = {f"rows/{name}": images.rows for name, images in sets.items() if images.rows is not None}
    save_file(_apart(weights | mask | labels | rows), job)
    call = worker.call(
        "colt_core.copies:_serve_training",
        job=str(job), result=str(result), architecture=models.architecture(network), recipe=recipe.model_dump(),
        sets={name: _described(images) for name, images in sets.items()}, watch=watch,
        how={name: value for name, value in how.items() if name not in ("mask", "validation", "checkpoint")},
        checkpoint=described(how.get("checkpoint")),
    )  # fmt: skip
    try:
        told = next(call)
        while True:
            history = _read_history(network, told, result if watch else None)
            tell(history)
            told = call.send((yield history) is not False)
    except StopIteration as end:
        _read_history(network, end.value, result)
    finally:
        job.unlink(missing_ok=True)
        result.unlink(missing_ok=True)


def _serve_training(
    job: str,
    result: str,
    architecture: dict[str, Any],
    recipe: dict[str, Any],
    sets: dict[str, Any],
    how: dict[str, Any],
    checkpoint: dict[str, Any] | None,
    watch: bool,
) -> Generator[dict[str, Any], bool, dict[str, Any]]:
    """What a worker process does for `train_copies`: yield the history after each epoch, write the state at the end."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(job)

    def group(kind: str) -> dict[str, torch.Tensor]:
        return {name.removeprefix(kind): value for name, value in tensors.items() if name.startswith(kind)}

    network = models.build(architecture["name"], architecture["classes"], **architecture["arguments"])
    network.load_state_dict(group("weight/"))
    rows, labels = group("rows/"), group("labels/")
    images = {
        name: Images(
            _mapped(*about["lies_in"]), labels[name], tuple(about["classes"]), rows=rows.get(name),
            mean=tuple(about["mean"]), std=tuple(about["std"]),
        )
        for name, about in sets.items()
    }  # fmt: skip
    history = History()
    run = kept(
        network, images["part"], Recipe(**recipe), Checkpoint(**checkpoint) if checkpoint else None,
        mask=group("mask/") or None, validation=images.get("validation"), device="cpu", **how,
    )  # fmt: skip
    for history in run:
        if watch:
            save_file(_apart(network.state_dict()), result)
        if not (yield told(history)):
            break
    best = {f"best/{name}": value for name, value in (history.best_state or {}).items()}
    save_file(_apart(network.state_dict() | best), result)
    return told(history)


def _read_history(network: nn.Module, told: dict[str, Any], result: Path | None) -> History:
    """Take over what a worker reports, and its weights where it has written them."""
    from safetensors.torch import load_file

    history = History(**told)
    vars(network)["history"] = history
    if result is not None:
        tensors = load_file(result)
        best = {name.removeprefix("best/"): v.clone() for name, v in tensors.items() if name.startswith("best/")}
        history.best_state = best or None
        network.load_state_dict({name: v for name, v in tensors.items() if not name.startswith("best/")})
        network.to(memory_format=torch.channels_last)
    return history


def _apart(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return tensors that safetensors can write: contiguous, none sharing memory with another."""
    return {name: value.detach().clone(memory_format=torch.contiguous_format) for name, value in tensors.items()}


def _described(images: Images) -> dict[str, Any]:
    """Say where other processes find these images; pixels that lie in no file are written to one, once."""
    from safetensors.torch import save_file

    known = vars(images.pixels)
    if "lies_in" not in known:
        path = scratch() / f"{uuid4().hex}.safetensors"
        save_file({"pixels": images.pixels.contiguous()}, path)
        known["lies_in"] = str(path), "pixels", path.stat().st_mtime_ns
    return {"lies_in": known["lies_in"], "classes": images.classes, "mean": images.mean, "std": images.std}


@lru_cache(maxsize=4)
def _mapped(path: str, key: str, written: int) -> torch.Tensor:
    """Map the pixels of a file into memory."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        if Path(path).stat().st_mtime_ns != written:
            raise ValueError(f"{path} was replaced while it was in use; start again")
        return file.get_tensor(key)


def _can_be_rebuilt(network: nn.Module) -> bool:
    """Tell whether a worker process can make this network from its name: nothing was added to it or frozen."""
    about = models.architecture(network)
    hooked = any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in network.modules())
    frozen = not all(parameter.requires_grad for parameter in network.parameters())
    return not (hooked or frozen) and str(network) == _printed(json.dumps(about, sort_keys=True))


@lru_cache(maxsize=16)
def _printed(architecture: str) -> str:
    about = json.loads(architecture)
    if about["name"] not in models.NETWORKS:
        return ""
    with torch.device("meta"):
        return str(models.build(about["name"], about["classes"], **about["arguments"]))
