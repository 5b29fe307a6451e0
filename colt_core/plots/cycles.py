"""Figures of notebooks 01 and 02: partitions, one cycle, rounds, a run under way, arithmetic."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .. import report
from ..data import Images
from ..report.records import warned
from ..report.trouble import copy_at_chance
from ..studies import arithmetic
from ..tickets import Round
from .frame import (
    COLOURS,
    COPIES,
    KEPT,
    MARKS,
    arm_name,
    canvas,
    check_rows,
    line_look,
    percent_axis,
    sparsity_axis,
    whole_numbers,
)

VALIDATION = "validation_"  # what the validation metric's name begins with


def counts_table(parts: Sequence[Images], classes: Sequence[str]) -> pd.DataFrame:
    """Return how many images of each class (rows, by name) each partition (columns) holds."""
    held = [dict(zip(part.classes, part.counts(), strict=True)) for part in parts]
    rows = {name: [counts.get(name, 0) for counts in held] for name in classes}
    return pd.DataFrame.from_dict(rows, orient="index", columns=[f"partition {i}" for i in range(len(parts))])


def class_counts(splits: Mapping[str, pd.DataFrame]) -> Figure:
    """Draw `counts_table` for several ways of splitting, side by side; the number is written in each cell."""
    top = max(int(table.to_numpy().max()) for table in splits.values())
    rows = max(len(table) for table in splits.values())
    with canvas(len(splits), size=(2.9, max(3.2, 0.28 * min(rows, 40))), sharey=True) as (figure, axes):
        for axis, (title, table) in zip(np.atleast_1d(axes), splits.items(), strict=True):
            look = {"cmap": "Blues", "vmin": 0, "vmax": 1.4 * top, "cbar": False, "linewidths": 0.5}
            sns.heatmap(table, ax=axis, annot=rows <= 20, fmt="d", annot_kws={"fontsize": 8}, **look)
            axis.set(title=title, xlabel="partition", ylabel="")
            axis.set_xticklabels(range(table.shape[1]), rotation=0)
            axis.grid(False)
    return figure


def pictures(parts: Sequence[Images], columns: int = 10, rows: int = 2) -> Figure:
    """Show the first images of each class of each partition, one partition a panel, a class a column."""
    with canvas(1, len(parts), size=(7.5, 0.5 + 0.75 * rows)) as (figure, axes):
        for number, (axis, part) in enumerate(zip(np.atleast_1d(axes), parts, strict=True)):
            shown, (channels, _, width) = range(min(columns, len(part.classes))), part.shape
            firsts = [(part.labels == c).nonzero().flatten()[:rows] for c in shown]
            column = [part.images[index].permute(0, 2, 3, 1).reshape(-1, width, channels) for index in firsts]
            height = max(picture.shape[0] for picture in column)
            padded = [torch.nn.functional.pad(p, (0, 0, 0, 0, 0, height - p.shape[0]), value=255) for p in column]
            axis.imshow(torch.cat(padded, 1).expand(-1, -1, 3).numpy())
            names = [part.classes[c] for c in shown]
            axis.set_xticks([width * (i + 0.5) for i in range(len(names))], names, fontsize=8)
            axis.set(title=f"partition {number}: {len(part)} images, {len(part.classes)} classes", yticks=[])
            axis.grid(False)
    return figure


def magnitudes(weights: Sequence[torch.Tensor], thresholds: Sequence[float], rate: float) -> Figure:
    """Draw the distribution of |w| of each trained copy, and where global magnitude pruning cuts."""
    with canvas(len(weights), sharey=True) as (figure, axes):
        for number, (axis, values) in enumerate(zip(np.atleast_1d(axes), weights, strict=True)):
            title = f"copy {number}: cut at |w| = {thresholds[number]:.3f}"
            draw_cut(axis, values, thresholds[number], title, "kept", f"the lowest {rate:.0%}: pruned")
        np.atleast_1d(axes)[0].set_ylabel("weights")
    return figure


def draw_cut(axis: Axes, values: torch.Tensor, threshold: float, title: str, kept: str, pruned: str) -> None:
    """Draw the distribution of magnitudes on an axis, and the threshold up to which they are pruned."""
    values = values.detach().cpu()
    top = float(values.quantile(0.999))
    below = round(59 * threshold / top)  # the threshold is the edge of a bin, so that no bin is kept and pruned
    step = threshold / below if below else top / 59
    edges = (step * np.arange(np.ceil(top / step) + 1)).tolist()
    axis.hist(values.numpy(), edges, color=KEPT["kept by both"], label=kept)
    axis.hist(values[values <= threshold].numpy(), edges, color="#BBBBBB", label=pruned)
    axis.axvline(threshold, color=COLOURS["colt"])
    axis.set(title=title, xlabel="|w| after training")
    axis.legend()


def rounds_table(runs: Mapping[str, Sequence[Round | Mapping[str, Any]]]) -> pd.DataFrame:
    """Return one row a round of each run: density, cost, mean partition accuracy, keep factor, overlap.

    Rounds, or their records as a store has them; each counts once. Where a copy ended at chance the overlap is NaN, and
    where records carry warnings a column `warned` says of which rounds (see `report.warnings`).

    Raises
    ------
    ValueError
        If there are no rounds, or a run has two of one number that differ.
    """
    told = {method: one_run(rounds, str(method)) for method, rounds in runs.items()}
    if not all([told, *told.values()]):
        empty = next((f" of {method}" for method, rounds in told.items() if not rounds), "")
        raise ValueError(f"no records: there are no rounds{empty} to tell of")
    table = pd.DataFrame(
        {"method": method} | _told(found, before)
        for method, rounds in told.items()
        for before, found in zip([rounds[0], *rounds], rounds, strict=False)
    )
    return table if table["warned"].any() else table.drop(columns="warned")


def one_run(rounds: Iterable[Round | Mapping[str, Any]], name: str = "a run") -> list[Mapping[str, Any]]:
    """Return the records of a run's rounds, each once, in order; scores and failures are passed over."""
    found: dict[int, Mapping[str, Any]] = {}
    for record in (r.record() if isinstance(r, Round) else r for r in rounds):
        if record.get("kind", "round") != "round":
            continue
        known = found.setdefault(record["round"], record)
        if any(known.get(key) != record.get(key) for key in ("experiment", "density")):
            number = record["round"]
            raise ValueError(f"{name} has two rounds {number} that differ: hand in those of one experiment")
    return [found[number] for number in sorted(found)]


def _told(found: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row of `rounds_table`."""
    overlap = {} if copy_at_chance(found) else found["overlap"] or {}
    measures = ("jaccard", "chance", "chance_theta0", "chance_global", "inherited", "kappa")
    return {
        "round": found["round"],
        "density": found["density"],
        "image_epochs": found["image_epochs"],
        "keep": found["density"] / before["density"] if found["round"] else 1.0,
        "partition_accuracy": float(np.mean(found["accuracies"])) if found["accuracies"] else np.nan,
        **{name: overlap.get(name, np.nan) for name in measures},
        "warned": bool(warned(found.get("warnings"))),
    }


def epochs_table(
    rounds: Iterable[Mapping[str, Any]], running: Mapping[tuple[int, int], Any] | None = None
) -> pd.DataFrame:
    """Return one row an epoch of each copy: round, copy, epoch, at (rounds so far, as a number), loss, accuracies.

    Of another metric than accuracy the columns have its name.

    Parameters
    ----------
    rounds
        Records of rounds; each holds the curves of the copies that decided it.
    running
        The curves so far of trainings under way, by round and copy; `planned` epochs each: (planned, curve).
    """
    curves = {(r["round"], i): (len(c), c) for r in one_run(rounds) for i, c in enumerate(r["curves"])}
    named = (name for _, curve in curves.values() for epoch in curve for name in epoch if name.startswith(VALIDATION))
    metric = next(named, f"{VALIDATION}accuracy").removeprefix(VALIDATION)
    columns = ["round", "copy", "epoch", "at", "loss", metric, f"{VALIDATION}{metric}"]
    rows = [
        {"round": number, "copy": copy, "epoch": i + 1, "at": number - 1 + (i + 1) / max(1, planned), **epoch}
        for (number, copy), (planned, curve) in sorted((dict(running or {}) | curves).items())
        for i, epoch in enumerate(curve)
    ]
    return pd.DataFrame(rows, columns=columns)


def progress(epochs: pd.DataFrame, rounds: pd.DataFrame, rate: float, parts: int, title: str = "") -> Figure:
    """Draw a run as far as it is: the copies' loss and validation accuracy, the density, the overlap against chance.

    Parameters
    ----------
    epochs, rounds
        `epochs_table` and `rounds_table` of one run; both may be empty.
    rate, parts
        The run's; with several partitions the density's limits are drawn (disjoint and identical masks).
    title
        Of the whole figure.
    """
    with canvas(2, 2, size=(4.3, 2.6), dpi=100) as (figure, axes):
        (losses, accuracies), (density, overlap) = axes
        column = next((name for name in epochs if str(name).startswith(VALIDATION)), f"{VALIDATION}accuracy")
        metric = str(column).removeprefix(VALIDATION)
        panels = {"loss": (losses, "Loss of each copy"), column: (accuracies, f"Validation {metric} of each copy")}
        for column, (axis, name) in panels.items():
            for copy, rows in epochs.groupby("copy"):
                look = {
                    "color": COPIES[int(copy) % len(COPIES)],
                    "marker": MARKS[int(copy) % len(MARKS)],
                    "markersize": 3,
                }
                axis.plot(rows["at"], rows[column], linewidth=1, label=f"copy {copy}", **look)
            axis.set(title=name, xlabel="rounds")
        if metric == "accuracy":
            percent_axis(accuracies)
        if len(epochs):
            losses.margins(y=0.25)
            losses.legend(fontsize=8, ncols=4, loc="upper left")
        steps = np.arange(int(rounds["round"].max()) + 1 if len(rounds) else 1)
        if parts > 1:
            limits = arithmetic.keep_factor(rate, parts, None) ** steps, (1 - rate) ** steps
            density.fill_between(steps, *limits, color=COLOURS["colt"], alpha=0.12, label="limits: disjoint, identical")
        density.plot(rounds["round"], rounds["density"], label="found", **line_look("colt"))
        density.set(title="Sparsity after each round", xlabel="rounds", yscale="log")
        density.set_ylim(min([0.5, *rounds["density"] / 2]), 1.3)
        sparsity_axis(density, "y")
        density.legend(fontsize=8, loc="lower left")
        found = rounds[rounds["jaccard"].notna()]
        overlap.plot(found["round"], found["jaccard"], label="Jaccard index", **line_look("colt"))
        overlap.plot(found["round"], found["chance"], "--", color="#444444", label="chance within each layer")
        overlap.set(title="Do the copies agree?", xlabel="rounds", ylim=(-0.04, 1.06))  # no marker is cut
        overlap.legend(fontsize=8, loc="lower left")
        for axis in (losses, accuracies, density, overlap):
            end = max(1, steps[-1] + (len(epochs) > 0 and epochs["round"].max() > steps[-1]))
            axis.set_xlim(-0.03 * end, 1.03 * end)
            whole_numbers(axis)
        figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    return figure


def what_if(table: pd.DataFrame, target: float) -> Figure:
    """Draw the density over rounds that arithmetic gives each method; `table` is of `arithmetic.what_if`."""
    check_rows(table)
    names = {"colt": "COLT", "imp": "IMP at its own rate", "matched": "IMP at COLT's rate"}
    with canvas(size=(8.4, 3.6), dpi=100) as (figure, axis):
        for method, rows in table.groupby("method", sort=False):
            label = f"{names[str(method)]}: {int(rows['round'].max())} rounds"
            axis.plot(
                rows["round"],
                rows["density"],
                label=label,
                **line_look(str(method)) | {"markersize": 4 + 4 * (method == "matched")},
            )
        axis.axhline(1 - target, color="#444444", linestyle=":", linewidth=1)
        axis.annotate(
            f"target: {report.level(target)}",
            (0.01, 1 - target),
            xycoords=("axes fraction", "data"),
            ha="left",
            va="bottom",
            fontsize=9,
        )
        axis.set(yscale="log", xlabel="rounds", title="Rounds to the target")
        axis.set_ylim(min(table["density"].min(), 1 - target) / 1.5, 1.3)
        sparsity_axis(axis, "y")
        whole_numbers(axis)
        figure.legend(fontsize=9, loc="outside right upper")
    return figure


def trajectories(table: pd.DataFrame, rate: float, parts: int) -> Figure:
    """Draw density over rounds, COLT between its two arithmetic limits, and what each round leaves of its weights.

    `table` is `rounds_table`; `rate` and `parts` are COLT's.
    """
    check_rows(table)
    limits = {"disjoint": max(0.0, 1 - parts * rate), "independent": (1 - rate) ** parts, "identical": 1 - rate}
    with canvas(2) as (figure, (left, right)):
        for method, rows in table.groupby("method", sort=False):
            look = {"label": arm_name(str(method))} | line_look(str(method))
            left.plot(rows["round"], rows["density"], **look)
            right.plot(rows["round"], rows["density"] / rows["density"].shift(1), **look)
        last = int(table[table["method"] == "colt"]["round"].max())
        steps = np.arange(last + 1)
        ends = limits["disjoint"] ** steps, limits["identical"] ** steps
        left.fill_between(steps, *ends, color=COLOURS["colt"], alpha=0.12, label="COLT's limits: disjoint, identical")
        left.plot(steps, limits["independent"] ** steps, ":", color=COLOURS["colt"], label="COLT, masks independent")
        left.set(yscale="log", xlabel="round", title="How fast the mask thins out")
        left.set_ylim(table["density"].min() / 2, 1.2)
        sparsity_axis(left, "y")
        right.set(xlabel="round", ylabel="kept / kept before", title="What a round leaves")
        for name, value in limits.items():
            right.axhline(value, color=COLOURS["colt"], linestyle=":", linewidth=1)
            right.annotate(f"{name} masks", (1, value), xycoords=("axes fraction", "data"), ha="right", va="bottom",
                           fontsize=8, color=COLOURS["colt"])  # fmt: skip
        right.set_ylim(max(0, limits["disjoint"] - 0.08), 1)
        for axis in (left, right):
            whole_numbers(axis)
        left.legend(fontsize=8)
    return figure
