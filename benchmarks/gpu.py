"""All that waits for a CUDA GPU, in one command: tests, `make bench` and the reference studies, in pieces that resume.

python benchmarks/gpu.py [--dry-run] [--minutes 9] [--only NAME ...] [--store runs] [--device cuda]

A call works until its minutes are over, says what is finished and what is left, and exits 0: the same command goes on
from there. A study loses no more than the epoch under way. What failed makes the exit code 1 and is told with every
call; it is tried again when `--only` names its piece. Mistakes are one line, and 2. What is over stands in `gpu.json`
in the store's folder.

Studies of small networks run eight or sixteen trainings side by side: a GPU is far from full with one. They share it
well only under NVIDIA's multi-process service (`nvidia-cuda-mps-control -d` beforehand).

`--dry-run` tells on any machine what would be done, and how long it might take. On an H100 (torch 2.11, 2026-11-26) the
tests passed, most of `cause_resnet20` and `variants` ran and a part of `confirmed`; `bench` and the other studies have
not been run on a GPU yet.
"""

import argparse
import json
import math
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NoReturn
from unittest.mock import patch

import torch

import colt_core as cc
from colt_core.data.prepare import data_folder
from colt_core.files import write_text
from colt_core.methods import method_of
from colt_core.seeding import choose_device
from colt_core.settings import one_line
from colt_core.studies import plan as planning
from colt_core.studies.plan import between, duration

ROOT = Path(__file__).resolve().parent.parent
UNTRIED = "Only the tests and parts of three studies have run on a GPU so far: times are assumptions, and most rates."
LEAST = 20.0  # seconds; with fewer left nothing is begun
GRACE = 30.0  # seconds that a process has to end by itself before it is killed

# Network, pixels: training images a second of one H100, all trainings together, in the recipes' float32. Measured on
# batches of 128 under that service: ResNet-20, eight side by side (16,800 alone, sixteen are no faster); conv3 of width
# 16, sixteen. The others are assumptions: ResNet-32 by its FLOPs; conv3 at full width (the paper's) and ResNet-18 one
# at a time, as 7, 10 and 20 % of the 67 TFLOP/s of the card's data sheet.
RATES = {
    ("resnet20", 32): 35_300.0,
    ("resnet32", 32): 21_900.0,
    ("conv3 of width 16", 32): 216_000.0,
    ("conv3", 32): 20_000.0,
    ("conv3", 64): 7_000.0,
    ("resnet18", 32): 4_000.0,
}
TESTS, ITEM, TABLES = 2.0, 3.0, 0.5  # minutes of the tests, an item of the benchmark, a study's tables; assumed

# Classes, training and validation images, pixels, as `load` gives them: a dry run needs no data set at hand.
SIZES = {"cifar10": (10, 45_000, 5_000, 32), "cifar100": (100, 45_000, 5_000, 32),
         "tinyimagenet": (200, 90_000, 10_000, 64)}  # fmt: skip

STUDIES = {  # by priority; the entry of results/PLAN.md, the file in results, trainings side by side
    "split_resnet20": ("entry 2: is COLT's deficit in ResNet-20 the split by class?", "split/split_resnet20", 8),
    "elastic": ("entry 16: does a ticket of one depth work at another?", "elastic/elastic", 8),
    "dual": ("entry 15: can any random mask be made a good ticket?", "dual/dual", 16),
    "floor": ("entry 6: is as good as IMP a floor effect?", "floor/floor", 16),
    "moved": ("entry 7: are COLT's tickets better movers?", "moved/moved", 16),
    "length_full": ("entry 8: the authors' length at full width", "length/length_full", 1),
    "length_resnet18": ("entry 8: the authors' length with ResNet-18", "length/length_resnet18", 1),
    "length_tiny": ("entry 8: the authors' length, from TinyImageNet to CIFAR-10", "length/length_tiny", 1),
}


@dataclass(frozen=True)
class Step:
    """A process: its name, what `python` is given, and the minutes that it is assumed to take."""

    name: str
    command: tuple[str, ...]
    minutes: float = 0.0
    resumes: bool = False  # goes on where it was stopped


@dataclass(frozen=True)
class Piece:
    """Something that can be asked for by name: its steps, and the study that they carry out, if any."""

    name: str
    about: str
    steps: tuple[Step, ...]
    study: Path | None = None


Execute = Callable[[Step, float], int | None]  # a step, at most so many seconds; the exit code, None where they ended


def all_pieces(store: Path, device: str) -> list[Piece]:
    """Return everything there is to do, in order."""
    # The tests' own fixtures are enough: what the notebooks' tests need may not be there.
    tests = ("-m", "pytest", "-q", "--confcutdir=tests", "tests/test_cuda.py", "tests/test_training.py", "-k", "cuda")
    bench = ("benchmarks/bench.py", "--device", device, "--only")
    items = tuple(Step(f"bench {item}", (*bench, str(item)), ITEM) for item in range(1, 10))
    found = [
        Piece("tests", "the tests that need a CUDA device", (Step("tests", tests, TESTS),)),
        Piece("bench", "the nine items of `make bench`, into results/bench-cuda.md", items),
    ]
    for name, (about, file, workers) in STUDIES.items():
        path, place = ROOT / "results" / f"{file}.yaml", ("--store", str(store))
        colt = ("-m", "colt_core.cli")
        run = (*colt, "study", str(path.relative_to(ROOT)), *place, "--device", device, "--workers", str(workers))
        table = (*colt, "table", str(path.relative_to(ROOT)), *place, "--out", str(store / "out" / name))
        steps = (Step(name, run, resumes=True), Step(f"{name} tables", table, TABLES))
        found.append(Piece(name, about, steps, path))
    return found


# --- what is over ------------------------------------------------------------------------------------------------


class State:
    """How far each step is, kept in `gpu.json`: "done", "failed" or "stopped", and the seconds it has had.

    Raises
    ------
    ValueError
        In one line, where the file is damaged.
    NotWritten
        As `write_text`.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "gpu.json"
        self.steps: dict[str, dict[str, Any]] = {}
        if not self.path.exists():
            return
        try:
            self.steps = json.loads(self.path.read_text(encoding="utf-8"))
            for told in self.steps.values():
                if told["state"] not in ("done", "failed", "stopped") or not math.isfinite(told["seconds"]):
                    raise ValueError("unknown content")
        except (ValueError, KeyError, TypeError, AttributeError):
            about = "delete it: finished trainings are in the store all the same"
            raise ValueError(f"{self.path} is damaged; {about}") from None

    def of(self, step: Step) -> str:
        """Return a step's state; "" where it has not begun."""
        return str(self.steps.get(step.name, {}).get("state", ""))

    def seconds(self, *steps: Step) -> float:
        """Return how long steps have been at work, over all calls."""
        return sum(self.steps.get(step.name, {}).get("seconds", 0.0) for step in steps)

    def note(self, step: Step, how: str, seconds: float) -> None:
        """Keep what became of a step, and the seconds it has just had."""
        self.steps[step.name] = {"state": how, "seconds": round(self.seconds(step) + seconds, 1)}
        write_text(self.path, json.dumps(self.steps, indent=1) + "\n")


def execute(step: Step, seconds: float) -> int | None:
    """Run a step in the repository's folder, for so many seconds at most; return its exit code, None if it was ended.

    It is terminated: the command `colt` then keeps what is finished. Interrupted ourselves, we leave no process behind.
    """
    child = subprocess.Popen((sys.executable, *step.command), cwd=ROOT)
    try:
        return child.wait(seconds)
    except subprocess.TimeoutExpired:
        return None
    finally:
        if child.poll() is None:
            child.terminate()
            try:
                child.wait(GRACE)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def work(
    pieces: Sequence[Piece],
    state: State,
    minutes: float,
    again: bool = False,
    run: Execute = execute,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Carry out step after step until the minutes are over; `again`: those that failed, too."""
    end, over = clock() + 60 * minutes, ("done",) if again else ("done", "failed")
    for step in (step for piece in pieces for step in piece.steps):
        left = end - clock()
        if state.of(step) in over:
            continue
        if left < LEAST:
            return
        print(f"--- {step.name}: {shown(step)}", flush=True)
        begun = clock()
        code = run(step, left)
        how = {None: "stopped", 0: "done"}.get(code, "failed")
        state.note(step, how, clock() - begun)
        print(f"--- {step.name}: {how}{f' (exit code {code})' if code else ''}", flush=True)
        if how == "stopped":
            if not step.resumes:
                print(f"--- {step.name} starts anew with the next call; it may need more than --minutes {minutes:g}")
            return


def so_far(pieces: Sequence[Piece], state: State, store: Path) -> Iterator[str]:
    """Yield for every piece a line that says what is finished and what is left."""
    for piece in pieces:
        states = [state.of(step) for step in piece.steps]
        told = f"{states.count('done')} of {len(states)} steps done, {duration(state.seconds(*piece.steps))} so far"
        if piece.study:
            told = f"{finished(piece.study, store)}; {told}"
        word = "finished" if set(states) == {"done"} else "failed" if "failed" in states else "left"
        hint = f"; to try again: --only {piece.name}" if word == "failed" else ""
        yield f"{piece.name:16}{word:10}{told}{hint}"


# --- the dry run -------------------------------------------------------------------------------------------------


@cache
def experiments_of(path: Path) -> list[cc.Experiment]:
    """Return a study's experiments."""
    return [experiment for piece in cc.Study.named(str(path)).each() for experiment in piece.experiments()]


def finished(path: Path, store: Path) -> str:
    """Say how many of a study's experiments the store has finished."""
    states = list(cc.status(experiments_of(path), store)["state"])
    failed = f", {states.count('failed')} diverged" if "failed" in states else ""
    return f"{states.count('done')} of {len(states)} experiments done{failed}"


@cache
def black(name: str) -> cc.Dataset:
    """Return a data set of a known size whose images are all one black one: it takes no memory."""
    classes, *counts, size = SIZES[name]
    one, names = torch.zeros(1, 3, size, size, dtype=torch.uint8), tuple(map(str, range(classes)))
    parts = [cc.Images(one, torch.arange(n) % classes, names, rows=torch.zeros(n, dtype=torch.int64)) for n in counts]
    return cc.Dataset(name, *parts, parts[-1])


def named(experiment: cc.Experiment) -> str:
    """Return the network by which `RATES` has it."""
    small = experiment.network == "conv3" and experiment.network_args.get("width") == 16
    return "conv3 of width 16" if small else experiment.network


@contextmanager
def assumed() -> Iterator[None]:
    """Let `cc.plan` count with `SIZES` and `RATES`: its arithmetic alone, without images and without a calibration."""
    rate = lambda e, learnt, classes, size, *_: RATES[named(e), size[1]]  # noqa: E731
    seen = lambda name, *_, **__: black(name)  # noqa: E731
    stand_ins = {"dataset_of": black, "as_seen": seen, "speed": rate}
    with patch.multiple(planning, **stand_ins):
        yield


def cost(path: Path, store: Path) -> cc.Plan:
    """Return what is left of a study, by `cc.plan`, one training at a time; its seconds are assumptions."""
    with assumed():
        return cc.plan(experiments_of(path), store, "cpu", workers=1)


def trainings(path: Path) -> int:
    """Return the trainings that find all tickets of a study, from the start; scores are not among them."""
    found = {e.hash: e for e in experiments_of(path)}.values()
    each = {"copies": lambda e: e.parts * len(e.densities), "rounds": lambda e: len(e.densities), "once": lambda e: 1}
    return sum(each.get(method_of(e.method).trains, lambda e: 0)(e) for e in found if e.densities)


def planned(number: int, piece: Piece, store: Path) -> tuple[list[str], float]:
    """Return the lines that say what a piece would do, and the seconds assumed for it."""
    lines = [f"{number}. {piece.name}: {piece.about}", *(f"   {shown(step)}" for step in piece.steps)]
    seconds = 60 * sum(step.minutes for step in piece.steps)
    if piece.study is None:
        return [*lines, f"   about {duration(seconds)}, assumed"], seconds
    left, experiments = cost(piece.study, store), experiments_of(piece.study)
    lines.append(
        f"   {trainings(piece.study)} trainings find its tickets, one more each score; {finished(piece.study, store)}"
    )
    counts = f"{between(left.rounds)} tickets, {between(left.scores)} scores, {between(left.image_epochs)} image passes"
    lines.append(f"   left: {counts}")
    rates = "; ".join(f"{name} {rate:,.0f} images/s" for name, rate in left.speed.items())
    lines.append(f"   about {between(left.seconds, duration)} on one H100, assumed: {rates or 'nothing left'}")
    names = dict.fromkeys(name for e in experiments for name in (e.dataset, e.score_on) if name)
    lines += [f"   {absent(name)}" for name in names if not (data_folder() / f"{name}.safetensors").exists()]
    return lines, seconds + left.seconds[1]


def absent(name: str) -> str:
    """Say how a data set that is missing comes here."""
    load = f"python -c \"import colt_core as cc; cc.load('{name}')\""
    return f"{name} is not here: {load} downloads it; without a network put {name}.safetensors into $COLT_DATA"


def shown(step: Step) -> str:
    """Return a step's command as a shell takes it."""
    return shlex.join(("python", *step.command))


def dry_run(pieces: Sequence[Piece], store: Path, minutes: float) -> None:
    """Print what would be done."""
    print(UNTRIED)
    whole = 0.0
    for number, piece in enumerate(pieces, 1):
        lines, seconds = planned(number, piece, store)
        print("\n".join(lines))
        whole += seconds
    print(f"In all about {duration(whole)}: {math.ceil(whole / 60 / minutes)} calls of {minutes:g} minutes. {UNTRIED}")


# --- the command -------------------------------------------------------------------------------------------------


class Parser(argparse.ArgumentParser):
    """Mistakes are one line."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


def chosen_by(arguments: list[str] | None) -> tuple[argparse.Namespace, list[Piece]]:
    """Read the command line. Raises a `ValueError` in one line for a mistake."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dry-run", action="store_true", help="tell what would be done; needs no GPU")
    parser.add_argument("--minutes", type=float, default=9.0, help="of this call (9)")
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", help="some pieces, which are tried again where they failed"
    )
    parser.add_argument("--store", help="a folder; default: $COLT_STORE, else runs")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1")
    chosen = parser.parse_args(arguments)
    if not 0 < chosen.minutes < math.inf:
        raise ValueError(f"--minutes must be positive, not {chosen.minutes:g}")
    if chosen.device.partition(":")[0] != "cuda":
        raise ValueError(f"--device must be cuda, cuda:0, ..., not {chosen.device!r}")
    place = cc.open_store(chosen.store)
    if place.local is None:
        raise ValueError(f"the store must be a folder, not {place.url}")
    chosen.store = Path(place.url)
    found = {piece.name: piece for piece in all_pieces(chosen.store, chosen.device)}
    if unknown := [name for name in chosen.only or () if name not in found]:
        raise ValueError(f"there is no piece {unknown[0]!r}; allowed: {', '.join(found)}")
    return chosen, [piece for name, piece in found.items() if name in (chosen.only or found)]


def main(arguments: list[str] | None = None) -> int:
    """Carry the command line out; return the exit code."""
    try:
        chosen, pieces = chosen_by(arguments)
        state = State(chosen.store)
        if chosen.dry_run:
            dry_run(pieces, chosen.store, chosen.minutes)
            return 0
        if not torch.cuda.is_available():
            raise ValueError(f"torch {torch.__version__} finds no CUDA GPU here; --dry-run tells what would be done")
        choose_device(chosen.device)
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # end as Ctrl-C does: with the child
        print(f"{torch.cuda.get_device_name(chosen.device)}, torch {torch.__version__}", flush=True)
        work(pieces, state, chosen.minutes, again=bool(chosen.only))
        print("\n".join(so_far(pieces, state, chosen.store)))
    except (ValueError, OSError) as problem:
        print(f"error: {one_line(problem)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on from there", file=sys.stderr)
        return 130
    return int(any(state.of(step) == "failed" for piece in pieces for step in piece.steps))


if __name__ == "__main__":
    sys.exit(main())
