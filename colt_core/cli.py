"""The command `colt`: run experiments and studies, see how far they are, make the tables, bring tickets out."""

import _thread
import argparse
import os
import signal
import sys
import textwrap
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

from .compute.store import open_store
from .foreign import find_beside, is_trusted
from .models import code_of
from .seeding import choose_device
from .settings import one_line
from .studies.experiment import Experiment, counts_as
from .studies.plan import plan, status
from .studies.reading import STUDIES
from .studies.run import run
from .studies.saved import runs_in
from .studies.study import Study, study
from .studies.typed import ABOUT, flag, number, typed, whole
from .tickets import Ticket
from .version import __version__
from .workbook import numbers, write_out

EXAMPLES = """examples:
  colt notebooks workbook                         the notebooks, their figures and studies, into a new folder
  colt plan mini                                  what the study will cost, before anything is trained
  colt study mini                                 run it, a process a core; start it again and it goes on
  colt study grid.yaml --store s3://bucket/colt   many machines may work on one store
  colt study small --cluster tcp://head:8786      on a dask cluster (--cluster local: on this machine)
  colt study paper --minutes 9                    what nine minutes allow; the same command goes on from there
  colt status small                               done, running, waiting; without a study: what the store holds
  colt table small --out results                  tables as Markdown, LaTeX and CSV
  colt run --method imp --network-args '{width: 16}' --target 0.9
  colt run --network torchvision:mobilenet_v3_small --dataset ./pictures@64 --target 0.9
  colt card runs/HASH/round-08.safetensors        describe a ticket; colt push copies or uploads it
  colt speed runs/HASH/round-08.safetensors       dense, masked, compact; colt export writes ONNX
"""


KEPT = "what was finished is kept: the same command goes on from there"


@contextmanager
def _warnings_in_a_line() -> Iterator[None]:
    """Print warnings as what they are to who gave the command: a line, without the place in our code."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = lambda message, *_, **__: print(f"warning: {one_line(message)}", file=sys.stderr)
        yield


class _Terminated(KeyboardInterrupt):
    """SIGTERM: whatever ends well when it is interrupted ends well when it is terminated."""


def main(arguments: list[str] | None = None) -> int:
    """Read the command line and carry it out; a mistake is one line on standard error and status 2."""
    try:
        with _terminable(), _warnings_in_a_line():
            status = _carry_out(arguments)
            sys.stdout.flush()  # a closed pipe shows here at the latest
        return status
    except BrokenPipeError:  # whoever read this has seen enough: `colt status small | head -1`
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + 13
    except (ValueError, OSError, ImportError) as problem:
        print(f"error: {one_line(problem)}", file=sys.stderr)
        return 2
    except (RuntimeError, FloatingPointError) as problem:
        print(f"error: {problem}{_kept(arguments)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as problem:
        ended = isinstance(problem, _Terminated)
        print(f"{'terminated' if ended else 'stopped'}{_kept(arguments)}", file=sys.stderr)
        return 128 + (signal.SIGTERM if ended else signal.SIGINT)


def _kept(arguments: list[str] | None) -> str:
    """Return what there is to say of a command that did not end: only those that train keep anything."""
    given = sys.argv[1:] if arguments is None else arguments
    return f"; {KEPT}" if given[:1] in (["run"], ["study"]) else ""


def _carry_out(arguments: list[str] | None) -> int:
    parser = _parser()
    chosen = parser.parse_args(arguments)
    if not hasattr(chosen, "do"):
        parser.print_help()
        return 2
    find_beside(Path(), vars(chosen))  # code that options name may lie in this folder
    chosen.do(chosen)
    return 0


@contextmanager
def _terminable() -> Iterator[None]:
    """Make an exception of the first SIGTERM, and take no notice of others while that one is being followed."""

    def end(*_: Any) -> NoReturn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise _Terminated

    if threading.current_thread() is not threading.main_thread():  # there no handler can be set
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


class _Parser(argparse.ArgumentParser):
    """Mistakes are one line, as all others are."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{one_line(message)}; see {self.prog} --help")


def _of_kind(read: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return what reads an option's text for argparse, which shows its own words for any plain `ValueError`."""

    def kind(text: str) -> Any:
        try:
            return read(text)
        except ValueError as problem:
            raise argparse.ArgumentTypeError(str(problem).strip()) from None

    return kind


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = _Parser(prog="colt", description=__doc__, epilog=EXAMPLES, formatter_class=raw)
    parser.add_argument("--version", action="version", version=f"colt {__version__}")
    count, amount = _of_kind(whole), _of_kind(number)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")

    def command(name: str, text: str, do: Any) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        made.set_defaults(do=do)
        return made

    one = command("run", "carry one experiment out, or what is missing of it, and print its scores", _run)
    for name, field in Experiment.model_fields.items():
        if name == "code":  # filled in, never given
            continue
        usual = {"rate": "the method's own", "recipe": "mini", "scores": "every round"}.get(name, field.default)
        given = "" if usual is None or usual in ({}, ()) else f" (default: {usual})"
        one.add_argument(flag(name), dest=f"field_{name}", metavar="VALUE", help=_percents(ABOUT[name] + given))
    one.add_argument("--threads", type=count, default=1, help="CPU threads of each training (1)")
    one.add_argument("--track", metavar="HOW", help="tensorboard:FOLDER, wandb:PROJECT or trackio:PROJECT")
    many = command("study", "run a study: every experiment of a grid, on this machine or on a cluster", _study)
    how_far = command(
        "status", "tell how far the experiments of a study, or of the store, are; computes nothing", _status
    )
    cost = command("plan", "tell what is left of a study and what it will cost", _plan)
    table = command("table", "print and save the tables of a study, or of everything in the store", _table)
    how_far.add_argument("study", nargs="?", help="a study; without one, everything in the store")
    for made in (many, cost):
        made.add_argument("study", help=f"{', '.join(sorted(p.stem for p in STUDIES.glob('*.yaml')))}, or a YAML file")
    table.add_argument("study", nargs="?", help="a study; without one, everything in the store")
    table.add_argument("--out", type=Path, help="also save them here, as Markdown, LaTeX and CSV")
    table.add_argument("--format", choices=("markdown", "latex", "csv"), default="markdown", help="of what is printed")
    table.add_argument("--full", action="store_true", help="every column, all digits, and the experiments' hashes")
    for made in (many, how_far, cost, table):
        made.add_argument("--data", default="", help="another data set than the study's")
        made.add_argument("--seeds", default="", help="for example 0,1,2; default: the study's own")
        made.add_argument("--methods", default="", help="only these, for example colt,matched, and no transfers")
        made.add_argument("--piece", default="", help="only this piece of a study that has several")
        made.add_argument("--transfer", action="store_true", help="only the transfers")
    many.add_argument("--minutes", type=amount, help="stop after so many; what is finished, and each epoch, is kept")
    many.add_argument("--cluster", help="local, or a dask scheduler's address: tcp://host:8786")
    for made in (many, cost):
        made.add_argument("--workers", type=count, help="trainings side by side; default: one a core, or one on a GPU")
    for made in (one, many, cost):
        made.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    for made in (one, many, how_far, cost, table):
        made.add_argument("--store", help="a folder or an fsspec URL; default: $COLT_STORE, else runs")
    book = command("notebooks", "write the notebooks, their figures and the studies into a new folder", _notebooks)
    book.add_argument("folder", type=Path, help="a folder that is not there yet, or empty")
    card = command("card", "write a ticket's card (Markdown) beside it", _card)
    push = command("push", "copy a ticket with its card to a folder, or to a Hugging Face repository", _push)
    for made in (card, push):
        made.add_argument("ticket", type=Path, help="a round-NN.safetensors")
    push.add_argument("destination", help="a folder, or hf://user/name")
    push.add_argument("--private", action="store_true", help="make a new repository private")
    fast = command("speed", "measure a ticket's speed: dense, under its mask, and without its dead channels", _speed)
    file = command("export", "write a ticket's network as ONNX, checked against PyTorch", _export)
    for made in (fast, file):
        made.add_argument("ticket", type=Path, help="a round-NN.safetensors")
        made.add_argument("--trust", action="store_true", help="import the module that the ticket names")
        made.add_argument("--shape", help="channels, height and width of an image (3,32,32)")
        made.add_argument("--multiple", type=count, default=1, help="leave each layer a multiple of so many rows (1)")
    fast.add_argument("--runtime", default="pytorch", help="pytorch or onnx")
    fast.add_argument("--device", default="auto", help="auto, cpu, cuda, mps")
    file.add_argument("path", type=Path, help="the file, which ends with .onnx")
    file.add_argument("--form", default="compact", help="compact, masked or dense")
    return parser


def _run(chosen: argparse.Namespace) -> None:
    given = {k.removeprefix("field_"): v for k, v in vars(chosen).items() if k.startswith("field_") and v is not None}
    experiment = Experiment(**{name: typed(name, text) for name, text in given.items()})
    records = run(experiment, chosen.store, chosen.device, chosen.threads, _tracker(chosen.track))
    print(f"experiment {experiment.hash} in {open_store(chosen.store).url}")
    shown = records[records["kind"] == "score"] if experiment.scores is not None else records
    metric = str(shown["metric"].dropna().iloc[0]) if shown.get("metric") is not None and len(shown) else "accuracy"
    if len(shown):
        print(shown[[c for c in ("round", "density", metric, "image_epochs") if c in shown]].to_string(index=False))
    found = records[records["kind"] == "round"]
    reached = max(counts_as(r.round, r.density, experiment.densities) for r in found.itertuples())
    if beyond := [f"{level:g}" for level in experiment.scores or () if level > reached + 1e-12]:
        print(f"not scored at {', '.join(beyond)}: the last round has a sparsity of {reached:.4g}; see target")


def _tracker(how: str | None) -> Any:
    if how is None:
        return None
    from .publish import trackers

    kind, _, name = how.partition(":")
    makers: dict[str, Any] = {"tensorboard": trackers.tensorboard, "wandb": trackers.wandb, "trackio": trackers.trackio}
    if kind not in makers or not name:
        raise ValueError(f"track must be tensorboard:FOLDER, wandb:PROJECT or trackio:PROJECT, not {how!r}")
    return makers[kind](name)


def _pieces(chosen: argparse.Namespace) -> list[tuple[str, list[Experiment]]]:
    """Return the experiments that the command line names, by pieces of the study."""
    whole = Study.named(chosen.study, chosen.data)
    pieces = {piece.name.rpartition("/")[2]: piece for piece in whole.each()}
    if chosen.piece and chosen.piece not in pieces:
        raise ValueError(f"{whole.name} has no piece {chosen.piece!r}; allowed: {', '.join(pieces)}")
    pieces = {chosen.piece: pieces[chosen.piece]} if chosen.piece else pieces
    wanted, seeds = chosen.methods.replace(",", " ").split(), numbers(chosen.seeds) or None
    allowed = dict.fromkeys(method for piece in pieces.values() for method in piece.methods)
    if unknown := [method for method in wanted if method not in allowed]:
        raise ValueError(f"{whole.name} has no method {unknown[0]!r}; allowed: {', '.join(allowed)}")
    if wanted and chosen.transfer:
        raise ValueError("--methods chooses among a study's own experiments, --transfer leaves them out: give one")
    found = []
    for name, piece in pieces.items():
        methods = {m: own for m, own in piece.methods.items() if m in wanted or not wanted}
        own = piece.changed(methods=methods).experiments(seeds) if methods and not chosen.transfer else []
        asked = piece.transfer or (chosen.transfer and not whole.pieces)  # of no others: the halves of its classes
        found.append((name, own + (piece.transfers(seeds) if asked and not wanted else [])))
    if not any(experiments for _, experiments in found):
        raise ValueError(f"{whole.name} has no transfers")
    return found


def _experiments(chosen: argparse.Namespace) -> list[Experiment]:
    return [experiment for _, several in _pieces(chosen) for experiment in several]


def _study(chosen: argparse.Namespace) -> None:
    pieces = _pieces(chosen)
    choose_device(chosen.device)
    with _at_most(chosen.minutes):
        for name, experiments in pieces:
            planned, begun = plan(experiments, chosen.store, _here(chosen), chosen.workers), time.perf_counter()
            records = study(experiments, chosen.store, chosen.device, chosen.workers, cluster=chosen.cluster)
            for line in _outcome(records, len(experiments), open_store(chosen.store).url):
                print(f"{name}: {line}", flush=True)
            if told := planned.against(time.perf_counter() - begun):
                print(f"{name}: {told}", flush=True)


def _outcome(records: Any, experiments: int, store: str) -> list[str]:
    """Say what a study has come to: what is done, which trainings diverged, how many records carry warnings."""
    kinds = records["kind"].value_counts() if len(records) else {}
    failed = records[records["kind"] == "failed"] if len(records) else records
    found = f"{kinds.get('round', 0)} rounds, {kinds.get('score', 0)} scores in {store}"
    lines = [f"{experiments - len(failed)} experiments done: {found}"]
    lines += [f"failed: {r.method} on {r.dataset}, seed {r.seed}: {r.problem}" for r in failed.itertuples()]
    if "warnings" in records and (count := int(records["warnings"].notna().sum())):
        lines.append(f"{count} of {len(records)} records carry warnings: see cc.report.warnings(records)")
    return lines


def _here(chosen: argparse.Namespace) -> str:
    """Return the device that a plan is made for: a cluster's workers have their own, which this machine may lack."""
    return "cpu" if chosen.cluster else str(chosen.device)


@contextmanager
def _at_most(minutes: float | None) -> Iterator[None]:
    """Interrupt what is inside after so many minutes, as Ctrl-C does: that loses no more than the epoch under way."""
    if minutes is None:
        yield
        return
    if minutes <= 0:
        raise ValueError(f"minutes must be positive, not {minutes:g}")
    over = threading.Event()

    def end() -> None:
        over.set()
        if hasattr(signal, "pthread_kill"):
            signal.pthread_kill(main_thread, signal.SIGINT)
        else:
            _thread.interrupt_main()

    # Started in the background of a script, a process ignores interrupts.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    main_thread = threading.main_thread().ident or 0
    clock = threading.Timer(min(60 * minutes, threading.TIMEOUT_MAX), end)
    clock.daemon = True
    clock.start()
    try:
        yield
    except KeyboardInterrupt:
        if not over.is_set():
            raise
        print(f"stopped after {minutes:g} minutes; {KEPT}")
    finally:
        clock.cancel()
        signal.signal(signal.SIGINT, before)


STATES = ("done", "failed", "running", "begun", "waiting")


ABOVE = ("dataset", "network", "parts", "by", "rate", "scored on", "at it")  # said once where all rows share it
WIDE = 99  # columns of a terminal that a table may take


def _status(chosen: argparse.Namespace) -> None:
    import pandas as pd

    problems: list[str] = []
    if chosen.study:
        experiments = _experiments(chosen)
    else:
        _check_unfiltered(chosen)
        found, problems = runs_in(chosen.store)
        experiments = []
        for one in found:
            try:
                experiments.append(one.experiment())
            except ValueError as untrusted:  # the code of this run; the others are told
                problems.append(f"{one.hash}: {one_line(untrusted)}")
    if not experiments:
        raise ValueError("\n".join(problems) or f"there are no experiments in {open_store(chosen.store).url}")
    store, rows = open_store(chosen.store), []
    for experiment in experiments:
        try:
            rows.append(status([experiment], store))
        except ValueError as damaged:  # the others are told
            problems.append(one_line(damaged))
    if not rows:
        raise ValueError("\n".join(problems))
    table = pd.concat(rows, ignore_index=True)
    if not chosen.study:
        table = table.sort_values(["dataset", "network", "method", "seed", "experiment"])
    for line in _narrow(table):
        print(line)
    for problem in problems:
        print(f"warning: {problem}", file=sys.stderr)
    counts = table["state"].value_counts()
    print(", ".join(f"{counts.get(name, 0)} {name}" for name in STATES if name in counts or name != "failed"))


def _check_unfiltered(chosen: argparse.Namespace) -> None:
    """Refuse options that choose among a study's experiments where no study is named."""
    given = {name: getattr(chosen, name) for name in ("data", "seeds", "methods", "piece", "transfer")}
    if named := [f"--{name}" for name, value in given.items() if value]:
        raise ValueError(f"{named[0]} chooses among a study's experiments: name the study")


def _narrow(table: Any) -> Iterator[str]:
    """Yield a status as lines of a terminal's width: what all rows share stands above, long names are cut."""
    if table["sparsity"].notna().any():
        table = table.assign(
            sparse=[f"{100 * one:.1f} %" if one == one else "-" for one in table["sparsity"].astype(float)]
        )
    shown = table.drop(columns="sparsity").rename(columns={"by_whom": "at it", "scored_on": "scored on"})
    shown = shown.astype(str).replace("", "-")
    same = [name for name in ABOVE if shown[name].nunique() == 1]
    if told := [f"{name} {shown[name].iloc[0]}" for name in same if shown[name].iloc[0] != "-"]:
        yield from textwrap.wrap(f"All: {', '.join(told)}.", WIDE)
    shown = shown.drop(columns=same)
    widths = {name: max(len(name), int(shown[name].str.len().max())) for name in shown}
    while sum(widths.values()) + len(widths) > WIDE:
        longest = max(widths, key=lambda name: widths[name])
        widths[longest] -= 1
    cut = lambda text, most: text if len(text) <= most else f"{text[: most - 1]}…"  # noqa: E731
    yield " ".join(cut(name, most).ljust(most) for name, most in widths.items()).rstrip()
    for row in shown.to_dict("records"):
        yield " ".join(cut(row[name], most).ljust(most) for name, most in widths.items()).rstrip()


def _percents(text: str) -> str:
    """Return a help text for argparse, which would read its percent signs."""
    return text.replace("%", "%%")


def _plan(chosen: argparse.Namespace) -> None:
    print(plan(_experiments(chosen), chosen.store, chosen.device, chosen.workers))


def _table(chosen: argparse.Namespace) -> None:

    from . import report

    if chosen.study:
        pieces = Study.named(chosen.study, chosen.data).each()
        levels = {piece.name.rpartition("/")[2]: piece.levels for piece in pieces}  # one family of tests a pair
        found = []
        for name, experiments in _pieces(chosen):
            records = report.load(chosen.store, (e.hash for e in experiments))
            found.append(report.tables(records=records, sparsities=levels[name]))
        tables = report.joined(found, chosen.out)
    else:
        _check_unfiltered(chosen)
        tables = report.tables(chosen.store, out=chosen.out)
    if not tables:
        raise ValueError(f"there are no scores in {open_store(chosen.store).url}")
    writers: dict[str, Any] = {
        "markdown": lambda t: t.to_markdown(index=False),
        "latex": lambda t: t.to_latex(index=False, escape=True),
        "csv": lambda t: t.to_csv(index=False),
    }
    for name, table in tables.items():
        print(f"## {name}\n\n{writers[chosen.format](table if chosen.full else report.readable(table))}\n")


def _notebooks(chosen: argparse.Namespace) -> None:
    folder = write_out(chosen.folder)
    print(f"{folder}: open them with jupyter lab {folder / 'notebooks'}")


def _card(chosen: argparse.Namespace) -> None:
    from .publish import card

    print(card.write_card(chosen.ticket))


def _push(chosen: argparse.Namespace) -> None:
    from .publish import card

    print(card.push(chosen.ticket, chosen.destination, chosen.private))


def _speed(chosen: argparse.Namespace) -> None:
    from .publish.speed import in_words, speed

    ticket = _ticket(chosen)
    how = {"runtime": chosen.runtime, "device": chosen.device, "multiple": chosen.multiple}
    table = speed(ticket, **_shape(chosen), **how)
    print(table.round(3).to_string(index=False))
    print(in_words(table))


def _export(chosen: argparse.Namespace) -> None:
    from .publish.onnx import export

    ticket = _ticket(chosen)
    print(export(ticket, chosen.path, form=chosen.form, multiple=chosen.multiple, **_shape(chosen)))


def _ticket(chosen: argparse.Namespace) -> Ticket:
    """Read the ticket that the command line names; code that it names may lie in this folder, where it is trusted."""
    ticket = Ticket.load(chosen.ticket, trust=chosen.trust)
    if own := code_of(ticket.architecture["name"]):
        if not is_trusted(own):
            raise ValueError(f"the ticket's network {own!r} is named by a file: --trust imports it")
        find_beside(Path(), [own])
    return ticket


def _shape(chosen: argparse.Namespace) -> dict[str, Any]:
    """Return the shape of images that the command line names, if it does."""
    if chosen.shape is None:
        return {}
    shape = [whole(piece) for piece in chosen.shape.split(",")]
    if len(shape) != 3 or min(shape) < 1:
        raise ValueError(f"--shape must be channels, height and width, for example 3,32,32, not {chosen.shape}")
    return {"shape": shape}


if __name__ == "__main__":
    sys.exit(main())
