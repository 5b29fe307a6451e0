"""What entry 15 of ../PLAN.md tells of transformations: `python results/dual/describe.py STORE [STUDY.yaml]`.

How much of the pulled weights is left before the cut, and what the cut costs on the validation images: the authors'
90,000 steps leave a hundredth of the largest weight at most. Of `iterative`, which cuts five times, it is the last cut
alone, of the weights that were still there. Writes transformed.csv, .md and .tex beside the study.
"""

import sys
from pathlib import Path

import pandas as pd

import colt_core as cc

HERE = Path(__file__).parent


def measures(study: cc.Study, store: Path) -> pd.DataFrame:
    """Return what each round of a dual arm tells: arm, seed, round, density, left, before, after."""
    named = cc.report.called_by(cc.report.load(store, [job.hash for job in study.experiments()]), study)
    rounds = named[(named["kind"] == "round") & named["measures"].notna()].rename(columns={"called": "arm"})
    told = pd.DataFrame(list(rounds["measures"]), index=rounds.index)
    return rounds[["arm", "seed", "round", "density"]].join(told)


def means(table: pd.DataFrame) -> pd.DataFrame:
    """Return means over seeds with 95 % intervals, a row an arm and round; the cut's cost in accuracy, paired."""
    rows = []
    for (arm, number), group in table.groupby(["arm", "round"], sort=False):
        lost, half = cc.report.interval(group["after"] - group["before"])
        about = {"arm": arm, "round": number, "density": group["density"].mean(), "left": group["left"].mean()}
        about |= {name: group[name].mean() for name in ("before", "after")}
        rows.append(about | {"cut": lost, "half_width": half, "seeds": len(group)})
    return pd.DataFrame(rows)


def main(store: Path, study: cc.Study, out: Path) -> None:
    """Write the table."""
    table = means(measures(study, store))
    cc.report.save(table, out, "transformed")
    print(table.to_string(index=False))


if __name__ == "__main__":
    file = Path(sys.argv[2]) if len(sys.argv) > 2 else HERE / "dual.yaml"
    main(Path(sys.argv[1]), cc.Study.named(str(file)), file.parent)
