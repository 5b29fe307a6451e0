"""How fast a ticket is: dense, under its mask and compact, measured side by side; `speed()`."""

import io
import os
import time
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from .. import models
from ..compute.pool import cores
from ..seeding import choose_device
from ..settings import check_whole, shown
from ..tickets import Ticket, compact
from ..training import keeping_memory

if TYPE_CHECKING:
    import pandas as pd

BATCHES = (1, 256)
ROUNDS, LEAST = 7, 0.2  # interleaved rounds, and the seconds that each form runs in one
FORMS = ("dense", "masked", "compact")
Form = tuple[str, nn.Module]


@dataclass(frozen=True)
class _Clock:
    """Where and how passes are timed."""

    device: torch.device
    batch: int
    threads: int
    seconds: float


def speed(
    ticket: Ticket | nn.Module,
    *,
    shape: Sequence[int] = (3, 32, 32),
    batches: Sequence[int] = BATCHES,
    threads: Sequence[int] | None = None,
    device: str | torch.device = "auto",
    runtime: str = "pytorch",
    multiple: int = 1,
    rounds: int = ROUNDS,
    seconds: float = LEAST,
) -> "pd.DataFrame":
    """Measure how fast a ticket's network answers: dense, under the mask, and compact.

    All forms run in turn, round after round, so that what else the machine does falls on all of them alike. Images lie
    in memory with their channels last, and what a pass frees is kept for the next, as in training: with glibc's usual
    settings large results are zeroed pages each time, which a smaller network escapes without being faster.

    Parameters
    ----------
    ticket
        A ticket, or a network as it stands, which is measured alone and not changed.
    shape
        Channels, height and width of an image.
    batches
        Images at once.
    threads
        CPU threads; by default one, and all that this process may use.
    device
        Where; "auto" or "cpu" for ONNX Runtime.
    runtime
        "pytorch" (eager), or "onnx": ONNX Runtime on the CPU, which needs the extra `export`.
    multiple
        As for `compact`.
    rounds, seconds
        How many times each form is timed, and how long each time.

    Returns
    -------
    pandas.DataFrame
        A row a form, batch and number of threads: `parameters`, `flops` (of one image), `megabytes` (of its state
        dict), `latency` (ms a batch, the median of the rounds), `low` and `high` (their quartiles), `throughput`
        (images/s), `faster` (dense latency / this one's).

    Raises
    ------
    ValueError
        In one line, for unknown runtimes, counts below 1, no time to measure in, images of a
        shape that the network cannot take, weights that are not float32.
    """
    import pandas as pd

    if not isinstance(ticket, Ticket | nn.Module):
        raise ValueError(f"a ticket or a network is measured, not {shown(ticket)}")
    for name, values in (("batches", batches), ("threads", [1] if threads is None else threads), ("rounds", [rounds])):
        whole = isinstance(values, Sequence) and all(type(one) is int and one >= 1 for one in values)
        if not whole or not len(values):
            raise ValueError(f"{name} must be whole numbers from 1, not {shown(values)}")
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < float("inf"):
        raise ValueError(f"seconds must be a number above 0, not {shown(seconds)}")
    if runtime not in ("pytorch", "onnx"):
        raise ValueError(f"unknown runtime {runtime!r}; allowed: pytorch, onnx")
    if runtime == "onnx" and str(device) not in ("auto", "cpu"):
        raise ValueError(f"ONNX Runtime is measured on the CPU: device must be auto or cpu, not {device}")
    where = choose_device("cpu" if runtime == "onnx" else device)
    check_whole("multiple", multiple, 1)
    try:
        forms = forms_of(ticket, multiple)
    except ValueError as problem:
        forms = forms_of(ticket, multiple, FORMS[:2])  # what is no ticket is refused here again
        warnings.warn(f"the compact form is left out: {problem}", stacklevel=2)
    check_takes(forms[0][1], shape)
    counts = sorted({1, cores()}) if threads is None else list(threads)
    rows = []
    for count in counts if where.type == "cpu" else counts[:1]:
        for batch in batches:
            found = _measured(forms, shape, _Clock(where, batch, count, seconds), runtime, rounds)
            rows += [_row(form, shape, batch, count, times) for form, times in zip(forms, found, strict=True)]
    table = pd.DataFrame(rows)
    dense = table[table["form"] == forms[0][0]].set_index(["batch", "threads"])["latency"]
    measured = table[["batch", "threads", "latency"]].to_numpy()
    table["faster"] = [dense[batch, count] / latency for batch, count, latency in measured]
    return table.assign(runtime=runtime, device=str(where))


def forms_of(ticket: Ticket | nn.Module, multiple: int = 1, wanted: Collection[str] = FORMS) -> list[Form]:
    """Return the wanted forms in which a ticket's network can answer, dense first, in evaluation mode."""
    if isinstance(ticket, nn.Module):
        return [("network", deepcopy(ticket).cpu().eval())]
    made: dict[str, Callable[[], nn.Module]] = {
        "dense": lambda: ticket.derived(mask={n: torch.ones_like(kept) for n, kept in ticket.mask.items()}).model(),
        "masked": ticket.model,
        "compact": lambda: compact(ticket.model(), ticket.mask, multiple),
    }
    return [(form, make().eval()) for form, make in made.items() if form in wanted]


def check_takes(network: nn.Module, shape: Sequence[int]) -> None:
    """Raise a `ValueError`, in one line, where a network takes no float32 images [N, *shape]."""
    sizes = list(shape) if isinstance(shape, list | tuple) else []  # a torch.Size is a tuple
    if len(sizes) != 3 or any(isinstance(one, bool) or not isinstance(one, int) or one < 1 for one in sizes):
        raise ValueError(f"shape must be channels, height and width, for example (3, 32, 32), not {shape!r}")
    kinds = {str(weight.dtype).removeprefix("torch.") for weight in network.parameters()}
    if other := sorted(kinds - {"float32"}):
        raise ValueError(f"the network's weights are {other[0]}, and images are float32: give network.float()")
    try:
        models.check_output(network, sizes, "any")
    except ValueError as problem:
        raise ValueError(f"{problem}; the images' shape is {tuple(sizes)}: give the network's own (`shape`)") from None


def in_words(table: "pd.DataFrame") -> str:
    """Say in a sentence what is faster; what multiplies as often as dense is not, whatever was measured."""
    told = []
    dense = table.loc[table["form"] == "dense", "flops"]
    for form in ("masked", "compact"):
        rows = table[table["form"] == form]
        if len(rows):
            low, high = rows["faster"].min(), rows["faster"].max()
            spread = f"{low:.2f} to {high:.2f} times" if high - low >= 0.01 else f"{low:.2f} times"
            about = ", hardly faster" if rows["faster"].median() < 1.1 else ""
            if (rows["flops"] >= dense.min()).all():
                about = ", as many multiplications: no faster"
            told.append(f"{form}: {spread} dense's speed{about}")
    return "; ".join(told) + "." if told else "one form: nothing to compare."


# --- measuring ---------------------------------------------------------------------------------------------------


def _measured(forms: list[Form], shape: Sequence[int], clock: _Clock, runtime: str, rounds: int) -> list[list[float]]:
    """Return the seconds a pass of each form, a number a round."""
    images = torch.randn(clock.batch, *shape, generator=torch.Generator().manual_seed(0))
    with _threads(clock.threads), keeping_memory(clock.device):  # else large results are zeroed pages each time
        passes = [_pass_of(network, images, clock, runtime) for _, network in forms]
        counts = [_count(one, clock) for one in passes]
        times: list[list[float]] = [[] for _ in passes]
        for _ in range(rounds):
            for one, count, found in zip(passes, counts, times, strict=True):
                found.append(_time(one, count, clock.device))
    return times


def _pass_of(network: nn.Module, images: torch.Tensor, clock: _Clock, runtime: str) -> Callable[[], object]:
    if runtime == "onnx":
        from .runtime import session_of

        return session_of(network, images, clock.threads)
    network = network.to(clock.device).to(memory_format=torch.channels_last)
    there = images.to(clock.device).contiguous(memory_format=torch.channels_last)

    def one() -> object:
        with torch.inference_mode():
            return network(there)

    return one


def _count(one: Callable[[], object], clock: _Clock) -> int:
    """Return how many passes last about as long as a round should."""
    one()
    return max(1, round(clock.seconds / max(1e-6, _time(one, 1, clock.device))))


def _time(one: Callable[[], object], count: int, device: torch.device) -> float:
    _wait(device)
    begun = time.perf_counter()
    for _ in range(count):
        one()
    _wait(device)
    return (time.perf_counter() - begun) / count


def _wait(device: torch.device) -> None:
    """Let a device end what it was given: only then has it taken its time."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _row(form: Form, shape: Sequence[int], batch: int, threads: int, times: list[float]) -> dict[str, object]:
    name, network = form
    low, middle, high = np.quantile(times, (0.25, 0.5, 0.75)).tolist()
    return {
        "form": name,
        "batch": batch,
        "threads": threads,
        "parameters": sum(p.numel() for p in network.parameters()),
        "flops": models.forward_flops(network, shape),
        "megabytes": _bytes(network) / 1e6,
        "latency": 1e3 * middle,
        "low": 1e3 * low,
        "high": 1e3 * high,
        "throughput": batch / middle,
    }


def _bytes(network: nn.Module) -> int:
    file = io.BytesIO()
    torch.save(network.state_dict(), file)
    return file.seek(0, os.SEEK_END)
