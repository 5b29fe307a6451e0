"""What entry 16 of ../PLAN.md tells of masks: `python results/elastic/describe.py STORE [STUDY.yaml] [--device cpu]`.

Does a stretched COLT mask agree with the one that COLT finds on the target, beyond chance and beyond what theta0 gives?
With another initialisation it cannot: so the target starts from the stretched theta0, in trainings with seeds of their
own, for one search would share with the other its order of images otherwise. Needs the tickets of a whole study; the
searches, one a seed, are kept in the store. Writes agreement.csv, .md and .tex beside the study.
"""

import argparse
from pathlib import Path

import pandas as pd

import colt_core as cc
from colt_core.compute.store import open_store
from colt_core.seeding import derive

HERE = Path(__file__).parent


def agreements(study: cc.Study, store: Path, device: str) -> pd.DataFrame:
    """Return the Jaccard index of stretched and own masks and what chance would give, a row a seed and round."""
    rows = []
    for seed in study.seeds:
        job = study.experiment("elastic", seed)
        stretched = list(cc.rounds(job, store, device))
        start, data = stretched[0].ticket, cc.load(job.dataset)
        parts = cc.partition(data.train, job.parts, job.by, seed)
        how = {"densities": list(job.densities), "seed": derive(seed, "target"), "device": device}
        own = cc.colt(start.model(), parts, job.recipe, **how, store=open_store(store))
        for ours, theirs in zip(stretched, own, strict=True):
            if ours.number:
                pair = (ours.ticket.mask, theirs.ticket.mask)
                rows.append(
                    {
                        "seed": seed,
                        "round": ours.number,
                        "density": ours.density,
                        "jaccard": cc.masks.jaccard(*pair),
                        "chance": cc.masks.chance(*pair),
                        "chance_theta0": cc.masks.chance(*pair, given=start.theta0),
                    }
                )
    return pd.DataFrame(rows)


def told(table: pd.DataFrame) -> pd.DataFrame:
    """Return means over seeds, and what is beyond either chance with 95 % intervals, a row a round."""
    rows = []
    for number, group in table.groupby("round"):
        about = {"round": number, "density": group["density"].mean(), "jaccard": group["jaccard"].mean()}
        for name in ("chance", "chance_theta0"):
            beyond, half = cc.report.interval(group["jaccard"] - group[name])
            about |= {f"beyond {name}": beyond, f"{name} half_width": half}
        rows.append(about | {"seeds": len(group)})
    return pd.DataFrame(rows)


def main(store: Path, study: cc.Study, out: Path, device: str) -> None:
    """Write the table."""
    table = told(agreements(study, store, device))
    cc.report.save(table, out, "agreement")
    print(table.to_string(index=False))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path)
    parser.add_argument("study", nargs="?", type=Path, default=HERE / "elastic.yaml")
    parser.add_argument("--device", default="auto")
    chosen = parser.parse_args()
    main(chosen.store, cc.Study.named(str(chosen.study)), chosen.study.parent, chosen.device)
