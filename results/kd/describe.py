"""What entry 14 of ../PLAN.md tells of masks: `python results/kd/describe.py STORE [STUDY.yaml]`.

Do copies under one teacher agree on more, beyond what theta0 gives them? Reads the tickets of a whole study; writes
agreement.csv, .md and .tex beside it.
"""

import sys
from pathlib import Path

import pandas as pd

import colt_core as cc

HERE = Path(__file__).parent
ARMS = {"colt": "no teacher", "found_by_kd": "one teacher"}


def agreements(study: cc.Study, store: Path) -> pd.DataFrame:
    """Return the Jaccard index of the copies' masks beyond chance given theta0, a row a seed, an arm and a round."""
    tables = []
    for arm, name in ARMS.items():
        for seed in study.seeds:
            table = cc.report.by_side(list(cc.rounds(study.experiment(arm, seed), store)), {"network": "*"})
            tables.append(table.assign(arm=name, seed=seed))
    table = pd.concat(tables, ignore_index=True)
    return table.assign(learnt=table["jaccard"] - table["chance_theta0"])


def told(table: pd.DataFrame) -> pd.DataFrame:
    """Return means over seeds with 95 % intervals: each arm's, and the difference, paired by seed, a row a round."""
    rows = []
    for number, group in table.groupby("round"):
        learnt = group.pivot(index="seed", columns="arm", values="learnt")
        learnt["difference"] = learnt["one teacher"] - learnt["no teacher"]
        for name in [*ARMS.values(), "difference"]:
            mean, half = cc.report.interval(learnt[name])
            raw = group.loc[group["arm"] == name, "jaccard"].mean()
            rows.append((number, name, raw, mean, half, len(learnt)))
    return pd.DataFrame(rows, columns=["round", "arm", "jaccard", "beyond theta0", "half_width", "seeds"])


def main(store: Path, study: cc.Study, out: Path) -> None:
    """Write the table."""
    table = told(agreements(study, store))
    cc.report.save(table, out, "agreement")
    print(table.to_string(index=False))


if __name__ == "__main__":
    file = Path(sys.argv[2]) if len(sys.argv) > 2 else HERE / "kd.yaml"
    main(Path(sys.argv[1]), cc.Study.named(str(file)), file.parent)
