"""Accuracy against measured speed, entry 11 of ../PLAN.md: `python results/structured/describe.py STORE [STUDY.yaml]`.

Needs the tickets of a whole study, of one seed at least, on a machine that does nothing else. For each piece, at one
thread and at two: a table beside the study, pareto-<piece>-<threads>.csv, .md and .tex, and a figure,
figures/<piece>_pareto_<threads>. And equal-<piece>: refill beside other arms at equal effective density, by
interpolation; where one's last round has more weights left than the other's, both sparsities are told.
"""

import math
import os
import sys
from pathlib import Path

import pandas as pd

import colt_core as cc

HERE = Path(__file__).parent
THREADS = (1, 2)
BESIDE = ("narrow", "channels", "refill (random refilled)", "refill (refilled copies)", "effective")
BESIDE += ("regroup", "colt", "matched")


def levels(records: pd.DataFrame) -> list[float]:
    """Return a sparsity for each of refill's rounds, in tenths, that all seeds' rounds reach."""
    mine = cc.report.arms(records)
    mine = mine[(mine["arm"] == "refill") & (mine["kind"] == "score") & (mine["round"] > 0)]
    reached = (1 - mine["density_effective"]).groupby(mine["round"]).min()
    return [math.floor(10 * least + 1e-9) / 10 for least in reached]


def equal(records: pd.DataFrame) -> pd.DataFrame:
    """Return refill minus other arms, paired by seed, each at the density of whichever has fewer weights left there."""
    there = set(cc.report.arms(records)["arm"])
    others = [other for other in BESIDE if other in there]
    pairs = [cc.report.compare(records, "refill", other, levels(records)).assign(other=other) for other in others]
    columns = ["method", "other", "at", "sparsity", "other_sparsity", "difference", "half_width", "seeds"]
    return pd.concat([pd.DataFrame(columns=columns), *pairs], ignore_index=True).assign(method="refill")[columns]


def main(store: Path, study: cc.Study, out: Path) -> None:
    """Time and write, piece by piece."""
    for piece in study.each():
        jobs = piece.experiments()
        records = cc.report.called_by(cc.report.load(store, [job.hash for job in jobs]), piece)
        seeds = cc.report.count_seeds(records["seed"].nunique())
        cc.report.save(equal(records), out, f"equal-{piece.name.replace('/', '-')}")
        for threads in THREADS:
            table = cc.pareto(jobs, records, store, threads=threads)
            stem = f"pareto-{piece.name.replace('/', '-')}-{threads}"
            cc.report.save(table, out, stem)
            title = f"{piece.name}, {seeds}; {threads} thread{'s' * (threads > 1)}, 256 images"
            cc.plots.save(cc.plots.pareto(table, title), f"{piece.name.replace('/', '-')}_pareto_{threads}", table)
            print(table.round(3).to_string(index=False))


if __name__ == "__main__":
    os.environ["COLT_OUT"] = "figures"
    file = Path(sys.argv[2]) if len(sys.argv) > 2 else HERE / "structured.yaml"
    main(Path(sys.argv[1]), cc.Study.named(str(file)), file.parent)
