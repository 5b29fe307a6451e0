"""What the commands of `colt` do with the options that the command line has read."""

import _thread
import argparse
import signal
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .compute.store import Store, open_store
from .foreign import find_beside, is_trusted
from .models import code_of
from .seeding import choose_device
from .settings import one_line
from .studies.experiment import Experiment, reached
from .studies.plan import plan as plan_of
from .studies.plan import status as status_of
from .studies.records import has_failed
from .studies.run import run as run_experiment
from .studies.saved import runs_in
from .studies.study import Study
from .studies.study import study as run_study
from .studies.typed import typed
from .tickets import Ticket
from .workbook import numbers, write_out

KEPT = "what was finished is kept: the same command goes on from there"
STATES = ("done", "failed", "running", "begun", "waiting")
ABOVE = ("dataset", "network", "parts", "by", "rate", "scored on", "at it")  # said once where all rows share it
WIDE = 99  # columns of a terminal that a table may take


def run(chosen: argparse.Namespace) -> None:
    """Carry one experiment out, or what is missing of it, and print its scores."""
    given = {k.removeprefix("field_"): v for k, v in vars(chosen).items() if k.startswith("field_") and v is not None}
    experiment = Experiment(**{name: typed(name, text) for name, text in given.items()})
    records = run_experiment(experiment, chosen.store, chosen.device, chosen.threads, _tracker(chosen.track))
    print(f"experiment {experiment.hash} in {open_store(chosen.store).url}")
    shown = records[records["kind"] == "score"] if experiment.scores is not None else records
    metric = str(shown["metric"].dropna().iloc[0]) if shown.get("metric") is not None and len(shown) else "accuracy"
    if len(shown):
        print(shown[[c for c in ("round", "density", metric, "image_epochs") if c in shown]].to_string(index=False))
    found = records[records["kind"] == "round"].astype(object).where(lambda r: r.notna(), None)
    most = max(reached(record, experiment.densities) for record in found.to_dict("records"))
    if beyond := [f"{level:g}" for level in experiment.scores or () if level > most + 1e-12]:
        print(f"not scored at {', '.join(beyond)}: the last round has a sparsity of {most:.4g}; see target")


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


def study(chosen: argparse.Namespace) -> None:
    """Run a study, piece by piece, and say what has come of it."""
    pieces = _pieces(chosen)
    choose_device(chosen.device)
    with _at_most(chosen.minutes):
        for name, experiments in pieces:
            planned, begun = plan_of(experiments, chosen.store, _here(chosen), chosen.workers), time.perf_counter()
            records = run_study(experiments, chosen.store, chosen.device, chosen.workers, cluster=chosen.cluster)
            for line in _outcome(records, experiments, open_store(chosen.store)):
                print(f"{name}: {line}", flush=True)
            if told := planned.against(time.perf_counter() - begun):
                print(f"{name}: {told}", flush=True)


def _outcome(records: Any, experiments: list[Experiment], store: Store) -> list[str]:
    """Say what a study has come to: what is done, which trainings diverged, how many records carry warnings."""
    kinds = records["kind"].value_counts() if len(records) else {}
    failed = records[records["kind"] == "failed"] if len(records) else records
    found = f"{kinds.get('round', 0)} rounds, {kinds.get('score', 0)} scores in {store.url}"
    done = sum(not has_failed(experiment, store) for experiment in experiments)
    lines = [f"{done} experiments done: {found}"]
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


def status(chosen: argparse.Namespace) -> None:
    """Tell how far the experiments of a study, or of the store, are."""
    import pandas as pd

    problems: list[str] = []
    names: dict[str, str] = {}
    if chosen.study:
        experiments = _experiments(chosen)
        names = _arms_where_methods_repeat(chosen, experiments)
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
            row = status_of([experiment], store)
            rows.append(row.rename(columns={"method": "arm"}).assign(arm=names[_key(experiment)]) if names else row)
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


def _arms_where_methods_repeat(chosen: argparse.Namespace, experiments: list[Experiment]) -> dict[str, str]:
    """Return by what names the study knows these experiments; nothing, where its arms are methods."""
    names = {_key(experiment): experiment.method for experiment in experiments}
    plain, seeds = dict(names), numbers(chosen.seeds) or None
    for piece in Study.named(chosen.study, chosen.data).each():
        for name, own in reversed(piece.methods.items()):  # of arms that are the same experiment, the first
            names |= {_key(one): name for one in piece.changed(methods={name: own}).experiments(seeds)}
    return names if any(names[key] != method for key, method in plain.items()) else {}


def _key(experiment: Experiment) -> str:
    return experiment.model_dump_json()


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


def plan(chosen: argparse.Namespace) -> None:
    """Tell what is left of a study and what it will cost."""
    print(plan_of(_experiments(chosen), chosen.store, chosen.device, chosen.workers))


def table(chosen: argparse.Namespace) -> None:
    """Print the tables of a study, or of everything in the store, and save them where --out says."""
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


def notebooks(chosen: argparse.Namespace) -> None:
    """Write the notebooks, their figures and the studies into a new folder."""
    folder = write_out(chosen.folder)
    print(f"{folder}: open them with jupyter lab {folder / 'notebooks'}")


def card(chosen: argparse.Namespace) -> None:
    """Write a ticket's card beside it."""
    from .publish import card

    print(card.write_card(chosen.ticket))


def push(chosen: argparse.Namespace) -> None:
    """Copy a ticket with its card to a folder or a repository."""
    from .publish import card

    print(card.push(chosen.ticket, chosen.destination, chosen.private))


def speed(chosen: argparse.Namespace) -> None:
    """Measure a ticket's speed: dense, under its mask, and without its dead channels."""
    from .publish.speed import in_words
    from .publish.speed import speed as measured

    ticket = _ticket(chosen)
    how = {"runtime": chosen.runtime, "device": chosen.device, "multiple": chosen.multiple}
    table = measured(ticket, **_shape(chosen), **how)
    print(table.round(3).to_string(index=False))
    print(in_words(table))


def export(chosen: argparse.Namespace) -> None:
    """Write a ticket's network as ONNX, checked against PyTorch."""
    from .publish.onnx import export as written

    ticket = _ticket(chosen)
    print(written(ticket, chosen.path, form=chosen.form, multiple=chosen.multiple, **_shape(chosen)))


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
    pieces = [piece.strip() for piece in chosen.shape.split(",")]
    if len(pieces) != 3 or not all(piece.isdecimal() and int(piece) for piece in pieces):
        raise ValueError(f"--shape must be channels, height and width, for example 3,32,32, not {chosen.shape}")
    return {"shape": [int(piece) for piece in pieces]}
