"""The command `colt`: run experiments and studies, see how far they are, make the tables, bring tickets out."""

import argparse
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

from . import commands
from .foreign import find_beside
from .settings import one_line
from .studies.experiment import Experiment
from .studies.reading import STUDIES
from .studies.typed import ABOUT, flag, number, whole
from .version import __version__

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
    except FloatingPointError as problem:  # it would diverge again
        print(f"error: {problem}", file=sys.stderr)
        return 1
    except RuntimeError as problem:
        print(f"error: {problem}{_kept(arguments)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as problem:
        ended = isinstance(problem, _Terminated)
        print(f"{'terminated' if ended else 'stopped'}{_kept(arguments)}", file=sys.stderr)
        return 128 + (signal.SIGTERM if ended else signal.SIGINT)


def _kept(arguments: list[str] | None) -> str:
    """Return what there is to say of a command that did not end: only those that train keep anything."""
    given = sys.argv[1:] if arguments is None else arguments
    return f"; {commands.KEPT}" if given[:1] in (["run"], ["study"]) else ""


def _carry_out(arguments: list[str] | None) -> int:
    parser, given = _parser(), sys.argv[1:] if arguments is None else arguments
    parser.named = [word for word in given[:1] if word in parser.commands]
    chosen = parser.parse_args(given)
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

    commands: Collection[str] = ()
    named: Sequence[str] = ()  # the command, where it is not this parser's own: options that no one knows come up here

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{one_line(message)}; see {' '.join([self.prog, *self.named])} --help")


def _of_kind(read: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return what reads an option's text for argparse, which shows its own words for any plain `ValueError`."""

    def kind(text: str) -> Any:
        try:
            return read(text)
        except ValueError as problem:
            raise argparse.ArgumentTypeError(str(problem).strip()) from None

    return kind


def _parser() -> _Parser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = _Parser(prog="colt", description=__doc__, epilog=EXAMPLES, formatter_class=raw)
    parser.add_argument("--version", action="version", version=f"colt {__version__}")
    count, amount = _of_kind(whole), _of_kind(number)
    known = parser.add_subparsers(title="commands", metavar="COMMAND")

    def command(name: str, text: str) -> argparse.ArgumentParser:
        made = known.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        made.set_defaults(do=getattr(commands, name))
        return made

    one = command("run", "carry one experiment out, or what is missing of it, and print its scores")
    for name, field in Experiment.model_fields.items():
        if name == "code":  # filled in, never given
            continue
        usual = {"rate": "the method's own", "recipe": "mini", "scores": "every round"}.get(name, field.default)
        given = "" if usual is None or usual in ({}, ()) else f" (default: {usual})"
        one.add_argument(flag(name), dest=f"field_{name}", metavar="VALUE", help=_percents(ABOUT[name] + given))
    one.add_argument("--threads", type=count, default=1, help="CPU threads of each training (1)")
    one.add_argument("--track", metavar="HOW", help="tensorboard:FOLDER, wandb:PROJECT or trackio:PROJECT")
    many = command("study", "run a study: every experiment of a grid, on this machine or on a cluster")
    how_far = command("status", "tell how far the experiments of a study, or of the store, are; computes nothing")
    cost = command("plan", "tell what is left of a study and what it will cost")
    table = command("table", "print and save the tables of a study, or of everything in the store")
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
    book = command("notebooks", "write the notebooks, their figures and the studies into a new folder")
    book.add_argument("folder", type=Path, help="a folder that is not there yet, or empty")
    card = command("card", "write a ticket's card (Markdown) beside it")
    push = command("push", "copy a ticket with its card to a folder, or to a Hugging Face repository")
    for made in (card, push):
        made.add_argument("ticket", type=Path, help="a round-NN.safetensors")
    push.add_argument("destination", help="a folder, or hf://user/name")
    push.add_argument("--private", action="store_true", help="make a new repository private")
    fast = command("speed", "measure a ticket's speed: dense, under its mask, and without its dead channels")
    file = command("export", "write a ticket's network as ONNX, checked against PyTorch")
    for made in (fast, file):
        made.add_argument("ticket", type=Path, help="a round-NN.safetensors")
        made.add_argument("--trust", action="store_true", help="import the module that the ticket names")
        made.add_argument("--shape", help="channels, height and width of an image (3,32,32)")
        made.add_argument("--multiple", type=count, default=1, help="leave each layer a multiple of so many rows (1)")
    fast.add_argument("--runtime", default="pytorch", help="pytorch or onnx")
    fast.add_argument("--device", default="auto", help="auto, cpu, cuda, mps")
    file.add_argument("path", type=Path, help="the file, which ends with .onnx")
    file.add_argument("--form", default="compact", help="compact, masked or dense")
    parser.commands = known.choices
    return parser


def _percents(text: str) -> str:
    """Return a help text for argparse, which would read its percent signs."""
    return text.replace("%", "%%")


if __name__ == "__main__":
    sys.exit(main())
