"""Bring what a study has finished into results/<study>/: records, last tickets, tables and figure.

    python tools/keep_results.py small STORE     then commit results/small and figures/small_accuracy.png

Of a finished experiment the last ticket is kept, of COLT, which others follow, and of one still under way every ticket:
copied back into a store
(cp -r results/small/store/* runs/), `colt study small` goes on from there and computes nothing again.
"""

import os
import shutil
import sys
from pathlib import Path

import pandas as pd

import colt_core as cc
from colt_core.runs import read_records


def main(name: str, store: Path) -> None:
    """Copy, and write the tables and the figure."""
    study, out = cc.Study.named(name), Path("results") / name
    begun = [e for e in study.experiments() if (store / e.hash / "records.jsonl").exists()]
    shutil.rmtree(out / "store", ignore_errors=True)
    for experiment in begun:
        source, target = store / experiment.hash, out / "store" / experiment.hash
        target.mkdir(parents=True)
        tickets = sorted(source.glob("round-*.safetensors"))
        finished = (source / "complete").exists()
        kept = tickets[-1:] if finished and experiment.method != "colt" else tickets
        for path in [*kept, *(source / n for n in ("experiment.json", "records.jsonl", "complete"))]:
            if path.exists():
                shutil.copy(path, target)
    records = pd.DataFrame([r for e in begun for r in read_records(e, store)])
    cc.report.tables(records=records, out=out, sparsities=study.levels)
    table = cc.report.accuracy_table(records, study.levels)
    cc.plots.save(cc.plots.accuracy_sparsity(table), f"{name}_accuracy", table)
    print(cc.status(study.experiments(), store).groupby(["method", "state"]).size().to_string())


if __name__ == "__main__":
    os.environ["COLT_OUT"] = "figures"
    main(sys.argv[1], Path(sys.argv[2]))
