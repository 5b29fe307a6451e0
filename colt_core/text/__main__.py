"""`python -m colt_core.text`: run the text study, or go on with it; start it twice, with seeds of their own."""

import argparse
import sys
import time

from ..settings import one_line
from .fine_tuning import FineTuning
from .runs import ORDERS, PERCENTS, grid, run_text
from .texts import CORPORA, Sample
from .wheels import lacking


def main(arguments: list[str] | None = None) -> int:
    """Read the command line and carry it out, a line a run; a mistake is one line and status 2."""
    options = _parser().parse_args(arguments)
    if problem := lacking():
        print(f"error: {problem}", file=sys.stderr)
        return 2
    began = time.monotonic()
    try:
        sample = Sample(per_class=options.per_class, test=options.test, length=options.length)
        recipe = FineTuning(epochs=options.epochs, learning_rate=options.learning_rate)
        for run in grid(options.corpus, options.percents, options.orders, options.seeds, sample, recipe):
            if time.monotonic() - began > 60 * options.minutes:
                print("the minutes are over; the same command goes on from here")
                return 0
            record = run_text(run, options.store, options.device)
            print(_told(record), flush=True)
    except (ValueError, OSError) as problem:
        print(f"error: {one_line(problem)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


def _told(record: dict[str, object]) -> str:
    """Say which run ended; no accuracy: who watches a study should not see its outcome before its end."""
    what = f"{record['corpus']} seed {record['seed']}, {record['order']} {record['percent']} %"
    return f"{what}: {record['seconds']:.0f} s"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m colt_core.text", description=__doc__)
    add = parser.add_argument
    add("--corpus", choices=sorted(CORPORA), default="20newsgroups")
    add("--percents", type=_numbers, default=list(PERCENTS), help="cut, in percent, e.g. 10,30,50")
    add("--orders", type=lambda text: text.split(","), default=list(ORDERS), help=f"of {','.join(ORDERS)}")
    add("--seeds", type=_numbers, default=[0], help="e.g. 0,1,2")
    add("--per-class", type=int, default=Sample().per_class, help="training texts of each class")
    add("--test", type=int, default=Sample().test, help="test texts; 0: all")
    add("--length", type=int, default=Sample().length, help="pieces of each text")
    add("--epochs", type=int, default=FineTuning().epochs)
    add("--learning-rate", type=float, default=FineTuning().learning_rate)
    add("--store", help="default: $COLT_STORE, else runs")
    add("--device", default="auto")
    add("--minutes", type=float, default=float("inf"), help="begin no run after so many")
    return parser


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


if __name__ == "__main__":
    sys.exit(main())
