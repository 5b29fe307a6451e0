"""What entry 13 of ../PLAN.md asks: `python results/text/describe.py STORE`, when all of its runs are over.

Brings the records to store/ beside it, and writes answer (what the chosen tickets say, with the power) and accuracy
(against what is cut) as .csv, .md and .tex, and the figure text_accuracy. Before all runs of 20 Newsgroups are there it
tells nothing but how many are; R8, on the same seeds, is described only.
"""

import shutil
import sys
from pathlib import Path

import pandas as pd

import colt_core as cc

HERE = Path(__file__).parent
SEEDS = (120, 121, 122, 123, 124, 125)


def main(store: Path, out: Path, seeds: tuple[int, ...] = SEEDS) -> bool:
    """Write all of it; tell whether the runs are all there."""
    records = cc.text.records(str(store))
    wanted = {run.hash for corpus in ("20newsgroups", "r8") for run in cc.text.grid(corpus, seeds=seeds)}
    decisive = {run.hash for run in cc.text.grid("20newsgroups", seeds=seeds)}
    if lacking := decisive - set(records["experiment"]):
        print(f"{len(decisive) - len(lacking)} of {len(decisive)} runs are over; no table before all are")
        return False
    records = records[records["experiment"].isin(wanted)]
    kept = out / "store" / "text"
    if store.resolve() != kept.parent.resolve():
        shutil.rmtree(kept, ignore_errors=True)
        kept.mkdir(parents=True)
        for name in records["experiment"]:
            shutil.copyfile(store / "text" / f"{name}.json", kept / f"{name}.json")
    found = cc.text.answer(records)
    asked = found["corpus"] == "20newsgroups"
    found["verdict"], found["p_holm"] = found["verdict"].where(asked, "described"), found["p_holm"].where(asked)
    curve = cc.text.by_percent(records)
    for table, name in ((found, "answer"), (curve, "accuracy")):
        cc.report.save(told(table), out, name)
    cc.plots.save(cc.plots.super_tickets(curve), "text_accuracy", told(curve))
    print(told(found).round(4).to_string(index=False))
    return True


def told(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table without the column that says how all of its runs were made."""
    return table.drop(columns="setting")


if __name__ == "__main__":
    sys.exit(0 if main(Path(sys.argv[1]), HERE) else 1)
