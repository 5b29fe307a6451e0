"""What a study costs beside its trainings: 500 tiny experiments, their overhead each, and the time of their tables.

    COLT_WORKERS=1 python benchmarks/load.py     prints the figures and writes results/load.md

Overhead is the wall time of `cc.study` in one process less the seconds that its records name for training and testing:
validation of descriptions, data fingerprints, building networks, tickets, records, claims, checkpoints, scores.
"""

import argparse
import platform
import tempfile
import time
from pathlib import Path

import torch
from PIL import Image

import colt_core as cc
from colt_core.files import write_text


def pictures(root: Path) -> Path:
    """Write a folder of three classes of twelve real images."""
    mini = cc.load("cifar10-mini")
    for label, name in enumerate(("ant", "bee", "cat")):
        (root / name).mkdir(parents=True)
        for i, index in enumerate((mini.train.labels == label).nonzero().flatten()[:12].tolist()):
            pixels = mini.train.take(torch.tensor([index])).images[0].permute(1, 2, 0).numpy()
            Image.fromarray(pixels).save(root / name / f"{i:02d}.png")
    return root


def measure(count: int) -> dict[str, float]:
    """Return the figures of one study of dense, COLT and random experiments, a third each, every one scored once."""
    with tempfile.TemporaryDirectory() as place:
        recipe = cc.Recipe.named("mini").changed(epochs=1, batch_size=12)
        base = {"dataset": str(pictures(Path(place) / "pictures")), "network_args": {"width": 4}, "recipe": recipe}
        base |= {"rate": 0.3, "target": 0.3, "scores": (0.3,)}
        methods = ("colt", "dense", "random")
        jobs = [cc.Experiment(**base, method=methods[i % 3], seed=i // 3) for i in range(count)]
        cc.study([j.changed(seed=10_000) for j in jobs[:3]], Path(place) / "warm", "cpu", workers=1)
        begun = time.perf_counter()
        records = cc.study(jobs, Path(place) / "store", "cpu", workers=1, progress=False)
        wall = time.perf_counter() - begun
        rounds = records[records["kind"] == "round"].groupby("experiment")["seconds"].max()
        own = records[records["kind"] == "round"].drop_duplicates("experiment").set_index("experiment")["method"]
        trained = rounds[own[rounds.index] == "colt"].sum() + records["score_seconds"].sum()
        begun = time.perf_counter()
        cc.study(jobs, Path(place) / "store", "cpu", workers=1, progress=False)
        again = time.perf_counter() - begun
        cc.report.interval([0.0, 1.0, 2.0])  # imports SciPy
        begun = time.perf_counter()
        cc.report.tables(Path(place) / "store")
        tables = time.perf_counter() - begun
    return {
        "experiments": count, "wall seconds": wall, "training seconds": float(trained),
        "overhead per experiment, ms": 1000 * (wall - float(trained)) / count,
        "overhead per experiment when all is there, ms": 1000 * again / count, "all tables, seconds": tables,
    }  # fmt: skip


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--out", type=Path, default=Path("results/load.md"))
    chosen = parser.parse_args()
    figures = measure(chosen.count)
    lines = [f"| {name} | {value:,.1f} |" for name, value in figures.items()]
    versions = f"torch {torch.__version__}, Python {platform.python_version()}"
    about = f"`COLT_WORKERS=1 python benchmarks/load.py`, {versions}, one process"
    text = "\n".join(["# Load", "", about, "", "| figure | measured |", "| --- | --- |", *lines]) + "\n"
    print(text)
    write_text(chosen.out, text)


if __name__ == "__main__":
    main()
