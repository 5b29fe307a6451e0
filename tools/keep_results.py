"""Bring what a study has finished into results/<study>/: records, last tickets, tables and figure.

    python tools/keep_results.py small STORE     then commit results/small and figures/small_*.png

Of COLT's experiments, of those under way and of those that one under way follows every ticket is kept, of other
finished ones none but the last: copied back into a store (cp -r results/small/store/* runs/), `colt study small` goes
on from there and computes nothing again. What was kept before of the study's experiments and is not in the store, or
came further then, stays. `--records` keeps the records alone. A study of its own goes by its file:
`python tools/keep_results.py results/split/split.yaml STORE`. Where questions were asked of it beforehand
(`questions.yaml` beside it), nothing is counted before all of it is there: then `decided` has the answers, `described`
what is told beside them. Where a choice is to be made on it (`screening.md` beside it), validation accuracies alone are
told until `choice.md` is there.
"""

import os
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

import colt_core as cc
from colt_core.compute.store import open_store
from colt_core.studies.records import is_over, read_records


def main(name: str, store: Path, records_alone: bool) -> None:
    """Copy, and write the tables and the figures."""
    study = cc.Study.named(name)
    out = Path("results") / study.name
    grid = [experiment for piece in study.each() for experiment in piece.experiments()]
    moved = [experiment for piece in study.each() if piece.transfer for experiment in piece.transfers()]
    begun = list({e.hash: e for e in grid + moved if (store / e.hash / "records.jsonl").exists()}.values())
    if not begun:
        raise SystemExit(f"error: {store} has no records of {study.name}; nothing was changed")
    copy_runs(grid + moved, store, out, records_alone)
    store = out / "store"  # what was kept before is told too
    begun = list({e.hash: e for e in grid + moved if (store / e.hash / "records.jsonl").exists()}.values())
    asked, screened = (Path(name).parent / one for one in ("questions.yaml", "screening.md"))
    blind = asked.exists() or screened.exists()
    lacking = [e for e in grid if not is_over(e, open_store(store))] if blind else []
    if lacking:
        print(f"{study.name}: {len(grid) - len(lacking)} of {len(grid)} experiments are over; no table before all are")
        return
    records = pd.DataFrame([r for e in begun for r in read_records(e, store)])
    if screened.exists():
        cc.report.save(cc.report.screening(records, study.levels), out, "screening")
        if not (out / "choice.md").exists():
            return
    if asked.exists():
        answer(study, records, cc.report.Questions.read(asked), out)
    own = records[records["experiment"].isin([e.hash for e in grid])]
    own = own[own["scored_on"].isna() | (own["scored_on"] == own["dataset"])]
    tables = []
    for piece in study.each():
        jobs = [*piece.experiments(), *(piece.transfers() if piece.transfer else ())]
        hashes = [e.hash for e in jobs]
        tables.append(cc.report.tables(records=records[records["experiment"].isin(hashes)], sparsities=piece.levels))
        if not records_alone:
            draw(study.name, piece, own[own["experiment"].isin(hashes)], asked)
    cc.report.joined(tables, out)
    carry(study, records, out)
    print(cc.status(begun, store).groupby(["dataset", "method", "state"]).size().to_string())


def answer(study: cc.Study, records: pd.DataFrame, asked: cc.report.Questions, out: Path) -> None:
    """Write what was asked beforehand: decided, and what is described beside; a study in pieces piece by piece."""
    if asked.questions:
        cc.report.save(cc.report.decided(study, records, asked), out, "decided")
    if asked.described:
        told = {piece.name: cc.report.described(piece, records, asked) for piece in study.each()}
        for name, table in told.items():
            table.insert(0, "study", name)
        cc.report.save(pd.concat(told.values(), ignore_index=True), out, "described")


def copy_runs(wanted: Iterable[cc.Experiment], store: Path, out: Path, records_alone: bool) -> None:
    """Copy what is there of each experiment, and when all is copied put it in place of what was there before."""
    fresh = out / "store.part"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    there, study = open_store(store), {e.hash: e for e in wanted}
    open_ones = [e for e in study.values() if not is_over(e, there)]
    followed = {one.hash: one for e in open_ones for one in e.references()}
    for experiment in (followed | study).values():
        source, before = store / experiment.hash, out / "store" / experiment.hash
        target = fresh / experiment.hash
        if _told(before) > _told(source) and experiment.hash in study:
            shutil.copytree(before, target)
            continue
        if not _told(source):
            continue
        target.mkdir()
        tickets = sorted(source.glob("round-*.safetensors"))
        finished = (source / "complete").exists() and experiment.hash not in followed
        kept = tickets[-1:] if finished and experiment.method != "colt" else tickets
        kept = [] if records_alone else kept
        for path in [*kept, *(source / n for n in ("experiment.json", "records.jsonl", "complete"))]:
            if path.exists():
                shutil.copy(path, target)
    shutil.rmtree(out / "store", ignore_errors=True)
    fresh.replace(out / "store")


def _told(folder: Path) -> int:
    """Return how many records a run has."""
    path = folder / "records.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


def draw(name: str, piece: cc.Study, own: pd.DataFrame, asked: Path) -> None:
    """Draw a piece's scores, a figure a data set and network; where questions were asked, shares and costs too."""
    several = len(own[["dataset", "network"]].drop_duplicates()) > 1
    stem = piece.name.replace("/", "-")  # two pieces may share a network: a recipe each
    for (dataset, network), rows in own.groupby(["dataset", "network"], sort=False):
        rows = told(rows, piece, asked)
        table = cc.report.accuracy_table(rows, piece.levels)
        if not len(table) or table["seeds"].max() < 3:  # a line through single points looks like a finding
            continue
        figure = f"{stem}_accuracy" + (f"_{network}_{dataset}" if several else "")
        named, epochs = setting(next(e for e in piece.experiments() if e.network == network))
        title = f"{name}: {named} on {dataset},\n{table['train_images'].max():,.0f} training images, {epochs}"
        cc.plots.save(cc.plots.accuracy_sparsity(table, title), figure, table)
        if not asked.exists():
            continue
        gains, spent = (make(rows, piece.levels) for make in (cc.report.gains, cc.report.spent))
        if len(gains):
            run = title.replace("\n", " ") + f", {cc.report.count_seeds(gains['seed'].nunique())}"
            cc.plots.save(cc.plots.recovered(gains.assign(run=run)), figure.replace("accuracy", "recovered"), gains)
        if len(spent) > 1:  # one point alone is beside nothing
            cc.plots.save(cc.plots.accuracy_cost(spent, title), figure.replace("accuracy", "cost"), spent)


def carry(study: cc.Study, records: pd.DataFrame, out: Path) -> None:
    """Write tables and figure of the tickets that were carried from one data set to another."""
    for piece in (piece for piece in study.each() if piece.transfer):
        mine = records[records["experiment"].isin([e.hash for e in piece.transfers()])]
        table, gains = (f(mine, piece.carried_scores) for f in (cc.report.transfers, cc.report.transfer_gains))
        if len(gains):
            stem = piece.name.replace("/", "-")
            cc.report.save(table, out, f"{stem}-transfers")
            cc.report.save(gains, out, f"{stem}-gains")
            named, epochs = setting(piece.experiments()[0])
            seeds = cc.report.count_seeds(mine["seed"].nunique())
            title = f"{study.name}: COLT tickets of each source, trained on each target\n({named}, {epochs}, {seeds})"
            cc.plots.save(cc.plots.transfer(table, gains, title), f"{stem}_transfer", gains)


def setting(experiment: cc.Experiment) -> tuple[str, str]:
    """Return network and length of a training in words."""
    width = experiment.network_args.get("width")
    return experiment.network + (f" of width {width}" if width else ""), f"{experiment.recipe.epochs} epochs a training"


def told(rows: pd.DataFrame, piece: cc.Study, asked: Path) -> pd.DataFrame:
    """Return records by the names of a study's arms and the measure that was asked of them, where questions were."""
    if not asked.exists():
        return rows
    metric = cc.report.Questions.read(asked).metric_for(piece, rows["experiment"].unique())
    named = cc.report.called_by(rows, piece)
    return cc.report.measured_by(named, metric) if metric not in (None, cc.report.metric_of(named)[0]) else named


if __name__ == "__main__":
    os.environ["COLT_OUT"] = "figures"
    main(sys.argv[1], Path(sys.argv[2]), "--records" in sys.argv)
