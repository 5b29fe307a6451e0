"""Accuracy against measured speed, entry 11 of ../PLAN.md: `python results/structured/describe.py STORE [STUDY.yaml]`.

Needs the tickets of a whole study, on a machine that does nothing else. For each piece, at one thread and at two: a
table beside the study, pareto-<piece>-<threads>.csv, .md and .tex, and a figure.
"""

import sys
from pathlib import Path

import colt_core as cc

HERE = Path(__file__).parent
THREADS = (1, 2)


def main(store: Path, study: cc.Study, out: Path) -> None:
    """Time and write, piece by piece."""
    for piece in study.each():
        jobs = piece.experiments()
        records = cc.report.called_by(cc.report.load(store, [job.hash for job in jobs]), piece)
        seeds = cc.report.count_seeds(records["seed"].nunique())
        for threads in THREADS:
            table = cc.pareto(jobs, records, store, threads=threads)
            stem = f"pareto-{piece.name.replace('/', '-')}-{threads}"
            cc.report.save(table, out, stem)
            title = f"{piece.name}: {piece.title}, {seeds}; {threads} threads, 256 images"
            cc.plots.save(cc.plots.pareto(table, title), stem, table)
            print(table.round(3).to_string(index=False))


if __name__ == "__main__":
    file = Path(sys.argv[2]) if len(sys.argv) > 2 else HERE / "structured.yaml"
    main(Path(sys.argv[1]), cc.Study.named(str(file)), file.parent)
