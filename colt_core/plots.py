"""Every figure of the notebooks. Functions return a matplotlib `Figure`; `save` writes it beside its numbers."""

import io
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch, StepPatch
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator, PercentFormatter
from scipy.cluster import hierarchy
from scipy.spatial import distance

from . import planning, report
from .data import Images
from .files import write_text, write_whole
from .masks import Mask, layer_statistics
from .tickets import Round

# Okabe and Ito's colours, told apart with every kind of colour vision.
COLOURS = {
    "dense": "#000000",
    "colt": "#D55E00",
    "imp": "#0072B2",
    "matched": "#56B4E9",
    "random": "#999999",
    "reinit": "#CC79A7",
    "union": "#009E73",
    "vote": "#E69F00",
    "oneshot": "#F0E442",
    # Beyond their eight, told apart by markers too.
    "consensus": "#882255",
    "snip": "#8C6D31",
    "grasp": "#44AA99",
    "synflow": "#332288",
}
NAMES = {"colt": "COLT", "imp": "IMP", "matched": "IMP at COLT's rate", "random": "random, same layers"}
MARKERS = dict(zip(COLOURS, "hosDvPX^*p<>d", strict=True))
STROKES = ("-", "--", ":", "-.")  # of several arms of one method
COPIES = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # a copy each
MARKS = "osD^vPX"
KEPT = {"kept by both": "#222222", "A only": "#D55E00", "B only": "#0072B2", "pruned": "#F2F2F2"}
STYLE = {
    "figure.dpi": 110,
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}


@contextmanager
def canvas(columns: int = 1, rows: int = 1, size: tuple[float, float] = (4.6, 3.4), **options: Any) -> Iterator[Any]:
    """Give a figure and its axes in the workbook's style, closed for pyplot so that a notebook shows it once."""
    with plt.style.context(["default", STYLE]):
        figure, axes = plt.subplots(rows, columns, figsize=(size[0] * columns, size[1] * rows), **options)
        yield figure, axes
        plt.close(figure)


def png(figure: Figure) -> bytes:
    """Return a figure as a PNG file's bytes, at the figure's own resolution: what interactive views show."""
    place = io.BytesIO()
    figure.savefig(place, format="png", metadata={"Software": None}, pil_kwargs={"compress_level": 1})
    return place.getvalue()


def places(figure: Figure, axis: Axes, x: Iterable[float], y: Iterable[float]) -> np.ndarray:
    """Return where points of an axis lie in a drawn figure's picture, [N, 2]: shares of its width and of its height."""
    pixels = axis.transData.transform(np.column_stack([list(x), list(y)]).reshape(-1, 2))
    return pixels / figure.bbox.size * [1, -1] + [0, 1]


def save(figure: Figure, name: str, numbers: pd.DataFrame, folder: str | Path | None = None) -> Figure:
    """Write `<name>.png` and the numbers behind it as `<name>.csv`; return the figure, so that a cell shows it.

    The folder is the one given, else `$COLT_OUT`, else `runs/out`.
    """
    place = Path(folder or os.environ.get("COLT_OUT") or "runs/out")
    # No software version in the file: the same numbers give the same bytes.
    keep: dict[str, Any] = {"format": "png", "dpi": 150, "metadata": {"Software": None}}
    write_whole(place / f"{name}.png", lambda part: figure.savefig(part, **keep))
    write_text(place / f"{name}.csv", numbers.to_csv(index=False))
    return figure


def arm_name(method: str) -> str:
    """Return a method's name as figures write it, or an arm's (`report.arms`): what is in its brackets stays."""
    plain = _plain(method)
    return NAMES.get(plain, plain) + method[len(plain) :]


def _plain(arm: str) -> str:
    return arm.split(" ")[0]


def _line(method: str) -> dict[str, Any]:
    plain = _plain(method)
    look = {"color": COLOURS.get(plain, "#666666"), "marker": MARKERS.get(plain, "."), "markersize": 5}
    # Matched IMP lies on COLT wherever the two are equal by design: dashed and hollow, so that both are seen.
    return look | ({"linestyle": "--", "markerfacecolor": "none", "markersize": 9} if plain == "matched" else {})


def _looks(methods: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return a look for each arm: its method's, further arms of one method with other strokes and hollow markers."""
    looks: dict[str, dict[str, Any]] = {}
    for arm in dict.fromkeys(methods):
        before = sum(_plain(other) == _plain(arm) for other in looks)
        again = {"linestyle": STROKES[before % len(STROKES)], "markerfacecolor": "none", "markersize": 5 + 2 * before}
        looks[arm] = _line(arm) | (again if before else {})
    return looks


def _whole_numbers(axis: Axes) -> None:
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))


def _percent(axis: Axes, which: str = "y") -> None:
    for one in [axis.yaxis] if which == "y" else [axis.xaxis, axis.yaxis]:
        one.set_major_formatter(PercentFormatter(1, decimals=0))


def _guessing(axis: Axes, chance: float, label: str = "guessing") -> None:
    axis.axhline(chance, color="#999999", linestyle=":", linewidth=1)
    axis.annotate(label, (1, chance), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=8)


# --- 01 data splitting -------------------------------------------------------------------------------------------


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
            shown = range(min(columns, len(part.classes)))
            firsts = [(part.labels == c).nonzero().flatten()[:rows] for c in shown]
            column = [part.images[index].permute(0, 2, 3, 1).reshape(-1, part.size, 3) for index in firsts]
            height = max(picture.shape[0] for picture in column)
            padded = [torch.nn.functional.pad(p, (0, 0, 0, 0, 0, height - p.shape[0]), value=255) for p in column]
            axis.imshow(torch.cat(padded, 1).numpy())
            names = [part.classes[c] for c in shown]
            axis.set_xticks([part.size * (i + 0.5) for i in range(len(names))], names, fontsize=8)
            axis.set(title=f"partition {number}: {len(part)} images, {len(part.classes)} classes", yticks=[])
            axis.grid(False)
    return figure


# --- 02 cycles ---------------------------------------------------------------------------------------------------


def magnitudes(weights: Sequence[torch.Tensor], thresholds: Sequence[float], rate: float) -> Figure:
    """Draw the distribution of |w| of each trained copy, and where global magnitude pruning cuts."""
    with canvas(len(weights), sharey=True) as (figure, axes):
        for number, (axis, values) in enumerate(zip(np.atleast_1d(axes), weights, strict=True)):
            edges = np.linspace(0, float(values.quantile(0.999)), 60)
            below = values[values <= thresholds[number]]
            axis.hist(values.numpy(), edges, color=KEPT["kept by both"], label="kept")
            axis.hist(below.numpy(), edges, color="#BBBBBB", label=f"the lowest {rate:.0%}: pruned")
            axis.axvline(thresholds[number], color=COLOURS["colt"])
            axis.set(title=f"copy {number}: cut at |w| = {thresholds[number]:.3f}", xlabel="|w| after training")
            axis.legend()
        np.atleast_1d(axes)[0].set_ylabel("weights")
    return figure


def rounds_table(runs: Mapping[str, Sequence[Round | Mapping[str, Any]]]) -> pd.DataFrame:
    """Return one row a round of each run: density, cost, mean partition accuracy, keep factor, overlap.

    Rounds, or their records as a store has them.
    """
    told = {method: [r.record() if isinstance(r, Round) else r for r in rounds] for method, rounds in runs.items()}
    measures = ("jaccard", "chance", "chance_global", "inherited", "kappa")
    return pd.DataFrame(
        {
            "method": method,
            "round": found["round"],
            "density": found["density"],
            "image_epochs": found["image_epochs"],
            "keep": found["density"] / before["density"] if found["round"] else 1.0,
            "partition_accuracy": float(np.mean(found["accuracies"])) if found["accuracies"] else np.nan,
            **{name: (found["overlap"] or {}).get(name, np.nan) for name in measures},
        }
        for method, rounds in told.items()
        for before, found in zip([rounds[0], *rounds], rounds, strict=False)
    )


def epochs_table(
    rounds: Iterable[Mapping[str, Any]], running: Mapping[tuple[int, int], Any] | None = None
) -> pd.DataFrame:
    """Return one row an epoch of each copy: round, copy, epoch, at (rounds so far, as a number), loss, accuracies.

    Parameters
    ----------
    rounds
        Records of rounds; each holds the curves of the copies that decided it.
    running
        The curves so far of trainings under way, by round and copy; `planned` epochs each: (planned, curve).
    """
    curves = {(r["round"], i): (len(c), c) for r in rounds for i, c in enumerate(r["curves"])}
    columns = ["round", "copy", "epoch", "at", "loss", "accuracy", "validation_accuracy"]
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
        panels = {
            "loss": (losses, "Loss of each copy"),
            "validation_accuracy": (accuracies, "Validation accuracy of each copy"),
        }
        for column, (axis, name) in panels.items():
            for copy, rows in epochs.groupby("copy"):
                look = {
                    "color": COPIES[int(copy) % len(COPIES)],
                    "marker": MARKS[int(copy) % len(MARKS)],
                    "markersize": 3,
                }
                axis.plot(rows["at"], rows[column], linewidth=1, label=f"copy {copy}", **look)
            axis.set(title=name, xlabel="rounds")
        _percent(accuracies)
        if len(epochs):
            losses.margins(y=0.25)
            losses.legend(fontsize=8, ncols=4, loc="upper left")
        steps = np.arange(int(rounds["round"].max()) + 1 if len(rounds) else 1)
        if parts > 1:
            limits = planning.keep_factor(rate, parts, None) ** steps, (1 - rate) ** steps
            density.fill_between(steps, *limits, color=COLOURS["colt"], alpha=0.12, label="limits: disjoint, identical")
        density.plot(rounds["round"], rounds["density"], label="found", **_line("colt"))
        density.set(title="Density after each round", xlabel="rounds", yscale="log", ylabel="kept / prunable")
        density.set_ylim(min([0.5, *rounds["density"] / 2]), 1.3)
        density.legend(fontsize=8, loc="lower left")
        found = rounds[rounds["jaccard"].notna()]
        overlap.plot(found["round"], found["jaccard"], label="Jaccard index", **_line("colt"))
        overlap.plot(found["round"], found["chance"], "--", color="#444444", label="chance within each layer")
        overlap.set(title="Do the copies agree?", xlabel="rounds", ylim=(0, 1))
        overlap.legend(fontsize=8, loc="lower left")
        for axis in (losses, accuracies, density, overlap):
            axis.set_xlim(0, max(1, steps[-1] + (len(epochs) > 0 and epochs["round"].max() > steps[-1])))
            _whole_numbers(axis)
        figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    return figure


def what_if(table: pd.DataFrame, target: float) -> Figure:
    """Draw the density over rounds that arithmetic gives each method; `table` is `planning.what_if`'s trajectories."""
    names = {"colt": "COLT", "imp": "IMP at its own rate", "matched": "IMP at COLT's rate"}
    with canvas(size=(8.4, 3.6), dpi=100) as (figure, axis):
        for method, rows in table.groupby("method", sort=False):
            label = f"{names[str(method)]}: {int(rows['round'].max())} rounds"
            axis.plot(
                rows["round"],
                rows["density"],
                label=label,
                **_line(str(method)) | {"markersize": 4 + 4 * (method == "matched")},
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
        axis.set(yscale="log", xlabel="rounds", ylabel="density (kept / prunable)", title="Rounds to the target")
        axis.set_ylim(min(table["density"].min(), 1 - target) / 1.5, 1.3)
        _whole_numbers(axis)
        figure.legend(fontsize=9, loc="outside right upper")
    return figure


def trajectories(table: pd.DataFrame, rate: float, parts: int, classes: int) -> Figure:
    """Draw density over rounds (COLT between its two arithmetic limits) and the copies' validation accuracy.

    `table` is `rounds_table`; `rate` and `parts` are COLT's, `classes` those of the whole data set.
    """
    with canvas(2) as (figure, (left, right)):
        for method, rows in table.groupby("method", sort=False):
            left.plot(rows["round"], rows["density"], label=arm_name(str(method)), **_line(str(method)))
            trained_at = rows["density"].shift(1)
            right.plot(1 - trained_at, rows["partition_accuracy"], label=arm_name(str(method)), **_line(str(method)))
        last = int(table[table["method"] == "colt"]["round"].max())
        steps = np.arange(last + 1)
        limits = max(0.0, 1 - parts * rate) ** steps, (1 - rate) ** steps
        left.fill_between(steps, *limits, color=COLOURS["colt"], alpha=0.12, label="COLT's limits: disjoint, identical")
        left.plot(
            steps, (1 - rate) ** (parts * steps), ":", color=COLOURS["colt"], label="COLT if masks were independent"
        )
        left.set(yscale="log", xlabel="rounds", ylabel="density (kept / prunable)", title="How fast the mask thins out")
        left.set_ylim(table["density"].min() / 2, 1.2)
        right.set(title="How well the copies do, each on its own classes", xlabel="sparsity they were trained at")
        right.set_ylabel("validation accuracy")
        right.set_ylim(0, 1.3 * table["partition_accuracy"].max())
        _guessing(right, 1 / classes, f"guessing, {classes} classes (IMP)")
        _guessing(right, parts / classes, f"guessing, {classes // parts} classes (COLT's copies)")
        _percent(right, "both")
        _whole_numbers(left)
        left.legend(fontsize=8)
        right.legend(fontsize=8, loc="upper left")
    return figure


# --- 03 mask overlap ---------------------------------------------------------------------------------------------


def overlap_over_cycles(table: pd.DataFrame) -> Figure:
    """Draw the partitions' Jaccard index over cycles beside its two chance levels and the inherited one."""
    with canvas(size=(7.2, 3.8)) as (figure, axis):
        rows = table[table["round"] > 0]
        axis.plot(rows["round"], rows["inherited"], ":^", color="#009E73", label="with pruning theta0 itself")
        axis.plot(rows["round"], rows["jaccard"], label="between the partitions' masks", **_line("colt"))
        axis.plot(rows["round"], rows["chance"], "--", color="#444444", label="chance within each layer")
        axis.plot(
            rows["round"], rows["chance_global"], ":", color="#999999", label="chance over all layers, k / (2 - k)"
        )
        axis.set(xlabel="cycle", ylabel="Jaccard index", title="Do the partitions agree on what to keep?")
        _whole_numbers(axis)
        axis.set_ylim(0, 1)
        axis.legend(fontsize=9, loc="lower left")
    return figure


def overlap_by_layer(table: pd.DataFrame) -> Figure:
    """Draw, for each layer over the cycles, Cohen's kappa, and z against the hypergeometric null of that layer.

    `table` has columns round, layer, kappa, z.
    """
    layers = list(dict.fromkeys(table["layer"]))
    shades = plt.get_cmap("viridis")(np.linspace(0.05, 0.85, len(layers)))
    with canvas(2) as (figure, (left, right)):
        for shade, marker, layer in zip(shades, "osD^vP*X" * len(layers), layers, strict=False):
            rows = table[table["layer"] == layer]
            left.plot(rows["round"], rows["kappa"], marker=marker, color=shade, label=layer)
            right.plot(rows["round"], rows["z"], marker=marker, color=shade, label=layer)
        for axis in (left, right):
            axis.axhline(0, color="#444444", linestyle="--", linewidth=1)
            axis.set(xlabel="cycle")
            _whole_numbers(axis)
        right.axhspan(-1.96, 1.96, color="#444444", alpha=0.12, label="95 % of chance")
        left.set(ylabel="Cohen's kappa (0: chance, 1: equal)", title="Agreement in each layer")
        right.set(ylabel="z of the overlap's size", title="Is it more than chance?")
        right.set_yscale("symlog", linthresh=5)
        if len(layers) <= 8:
            right.legend(fontsize=8, title="layer")
    return figure


def filters(
    a: Mask,
    b: Mask,
    layer: str,
    within: Mask | None = None,
    first: tuple[int, int] = (0, 0),
    limit: tuple[int, int] = (64, 64),
    names: tuple[str, str] = ("A", "B"),
) -> Figure:
    """Picture a layer's weights, a filter a row and (input channel, position) a column, by which mask kept them.

    Beside it the channels' own counts, over the whole layer: what each filter (right) and each input channel (above)
    keeps. Below, the whole layer's counts, and what chance would give (the hypergeometric null within the layer).

    Parameters
    ----------
    a, b
        Two masks of one network.
    layer
        The parameter's name.
    within
        The mask that both were pruned from; without it, all weights.
    first, limit
        The first filter and input channel to be shown, and at most how many of each.
    names
        What the two masks are.
    """
    one, two = (mask[layer].flatten(2) if mask[layer].ndim > 2 else mask[layer][:, :, None] for mask in (a, b))
    code = 3 - 2 * one.to(torch.uint8) - two.to(torch.uint8)  # 0 both, 1 the first only, 2 the second only, 3 neither
    rows, columns = (
        range(start, min(size, start + most)) for start, size, most in zip(first, code.shape, limit, strict=False)
    )
    shown = code[rows.start : rows.stop, columns.start : columns.stop].flatten(1).numpy()
    by_filter, by_input = _channel_counts(code)
    with plt.style.context(["default", STYLE | {"figure.constrained_layout.use": False}]):
        figure = Figure(figsize=(8.6, 1.8 + 0.05 * max(24, len(rows))), dpi=100)
        high = figure.get_figheight()
        low, tall = 0.75 / high, 1 - 1.55 / high
        axis = figure.add_axes((0.075, low, 0.8, tall))
        left = columns.start * code.shape[2] - 0.5
        box = (left, left + shown.shape[1], rows.stop - 0.5, rows.start - 0.5)
        colours = ListedColormap(list(KEPT.values()))
        axis.imshow(shown, cmap=colours, vmin=0, vmax=3, aspect="auto", interpolation="none", extent=box)
        axis.set(xlabel="input channel x position", ylabel="filter")
        axis.set_title(f"{layer.removesuffix('.weight')}: which weights were kept", y=1 + 0.5 / (tall * high))
        axis.grid(False)
        for one_axis in (axis.xaxis, axis.yaxis):
            one_axis.set_major_locator(MaxNLocator(6, integer=True))
        _bars(figure.add_axes((0.882, low, 0.1, tall)), by_filter, rows, "horizontal")
        _bars(figure.add_axes((0.075, low + tall + 0.06 / high, 0.8, 0.36 / high)), by_input, columns, "vertical")
        sizes = [*by_filter.sum(1), code.numel() - by_filter.sum()]
        told = ("kept by both", f"{names[0]} only", f"{names[1]} only", "pruned")
        handles = [
            Patch(fc=colour, ec="#888888", label=f"{name}: {size:,} ({size / code.numel():.0%})")
            for colour, name, size in zip(KEPT.values(), told, sizes, strict=True)
        ]
        spacing = {"columnspacing": 1.2, "handlelength": 1.4, "bbox_to_anchor": (0.06, 0.0)}
        figure.legend(handles=handles, loc="lower left", ncols=4, fontsize=9, **spacing)
        figure.text(0.98, 1 - 0.22 / high, against_chance(a, b, layer, within), fontsize=9, va="center", ha="right")
    return figure


def _channel_counts(code: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return how many weights of each filter, [3, filters], and input channel, [3, inputs], have the codes 0, 1, 2."""
    counts = [(code == i).sum(2) for i in range(3)]  # filter by input channel
    return torch.stack([c.sum(1) for c in counts]).numpy(), torch.stack([c.sum(0) for c in counts]).numpy()


def _bars(axis: Axes, counts: np.ndarray, shown: range, orientation: Literal["horizontal", "vertical"]) -> None:
    """Stack the counts of the channels shown, in the colours of the picture that lies beside."""
    base: Any = np.zeros(len(shown))
    edges = np.arange(shown.start, shown.stop + 1) - 0.5
    for row, colour in zip(counts[:, shown.start : shown.stop], KEPT.values(), strict=False):
        bars = StepPatch(base + row, edges, baseline=base, orientation=orientation, fc=colour, ec="none")
        axis.add_artist(bars)  # not as a patch: looking for its limits would take longer than all else
        base = base + row
    top = 1.05 * max(1, base.max())
    if orientation == "horizontal":
        axis.set(xlim=(0, top), ylim=(edges[-1], edges[0]), yticks=[])
        axis.xaxis.set_major_locator(MaxNLocator(2, integer=True))
    else:
        axis.set(xlim=(edges[0], edges[-1]), ylim=(0, top), xticks=[])
        axis.yaxis.set_major_locator(MaxNLocator(2, integer=True))
    axis.tick_params(labelsize=8)
    axis.grid(False)


def against_chance(a: Mask, b: Mask, layer: str, within: Mask | None = None) -> str:
    """Say what two masks keep in common in a layer beside what chance would give."""
    (row,) = layer_statistics({layer: a[layer]}, {layer: b[layer]}, {layer: within[layer]} if within else None)
    if not row["alive"]:
        return "no weight of this layer was left to prune"
    spread = "" if math.isnan(row["z"]) else f" (z = {row['z']:+.1f})"
    return f"in common {row['both']:,}; by chance {row['expected']:,.0f}{spread}"


def weight_history(table: pd.DataFrame, title: str) -> Figure:
    """Draw, round by round, which masks kept one weight; `table` has a column `round`, and one of booleans a mask.

    A missing value (None): that mask did not exist in that round.
    """
    masks_ = [name for name in table if name != "round"]
    kept = table[masks_].astype(float).to_numpy().T  # NaN where there is no such mask
    with plt.style.context(["default", STYLE | {"figure.constrained_layout.use": False}]):
        figure = Figure(figsize=(5.6, 0.95 + 0.26 * len(masks_)), dpi=100)
        high = figure.get_figheight()
        axis = figure.add_axes((0.3, 0.5 / high, 0.68, 1 - 0.85 / high))
        axis.pcolormesh(
            kept,
            cmap=ListedColormap([KEPT["pruned"], KEPT["kept by both"]]),
            vmin=0,
            vmax=1,
            edgecolors="#BBBBBB",
            linewidth=0.5,
        )
        axis.set_yticks(np.arange(len(masks_)) + 0.5, masks_, fontsize=9)
        shown = np.arange(0, len(table), max(1, len(table) // 12))
        axis.set_xticks(shown + 0.5, table["round"].iloc[shown])
        axis.invert_yaxis()
        axis.set(xlabel="round (dark: kept)")
        axis.grid(False)
        axis.set_title(title, fontsize=10, x=-0.4)
    return figure


# --- 04 transfer and 05 tables -----------------------------------------------------------------------------------


def accuracy_sparsity(table: pd.DataFrame, title: str = "Accuracy of tickets, trained on everything") -> Figure:
    """Draw test accuracy against density reached (logarithmic), a line a method; intervals from three seeds on.

    `table` is `report.accuracy_table`.
    """
    looks = _looks(table["method"])
    with canvas(size=(8.4, 4.8)) as (figure, axis):
        for method, rows in table.groupby("method", sort=False):
            name = str(method)
            half = rows["half_width"].fillna(0)
            if _plain(name) == "dense":
                level, spread = float(rows["accuracy"].iloc[0]), float(half.iloc[0])
                axis.axhline(level, color=COLOURS["dense"], linestyle="--", label=name)
                axis.axhspan(level - spread, level + spread, color=COLOURS["dense"], alpha=0.08)
            else:
                axis.errorbar(
                    1 - rows["sparsity"], rows["accuracy"], half, capsize=3, label=arm_name(name), **looks[name]
                )
        axis.set(xscale="log", xlabel="density (kept / prunable weights)", ylabel="test accuracy", title=title)
        axis.invert_xaxis()
        ticks = sorted({round(d, 3) for d in 1 - table[table["at"] > 0]["at"]})
        axis.set_xticks(ticks, [f"{t:.3g}" for t in ticks])
        axis.minorticks_off()
        _percent(axis)
        _guessing(axis, float(table["chance"].iloc[0]))
        axis.set_ylim(0.7 * float(table["chance"].iloc[0]))
        enough = table["half_width"].notna().any()
        drawn = "bars: 95 % interval over seeds" if enough else "points: too few seeds for bars"
        figure.legend(title=drawn, fontsize=9, title_fontsize=8, loc="outside right upper")
    return figure


def tickets(table: pd.DataFrame, title: str = "Every scored ticket") -> Figure:
    """Draw test accuracy against density for any scores: a point a ticket, a line a run, a colour an arm.

    `table` has columns arm, experiment, density, accuracy, chance.
    """
    looks = _looks(table["arm"])
    with canvas(size=(8.6, 4.4), dpi=100) as (figure, axis):
        named: set[str] = set()
        for (arm, _), rows in table.groupby(["arm", "experiment"], sort=False):
            rows, name = rows.sort_values("density"), str(arm)
            label = arm_name(name) if name not in named else None
            named.add(name)
            axis.plot(
                rows["density"],
                rows["accuracy"],
                label=label,
                alpha=0.8,
                linewidth=1,
                **{"linestyle": "-"} | looks[name],
            )
        axis.set(xscale="log", xlabel="density (kept / prunable weights)", ylabel="test accuracy", title=title)
        axis.invert_xaxis()
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g}%"))
        axis.xaxis.set_minor_locator(NullLocator())
        _percent(axis)
        for chance in sorted(set(table["chance"])):
            _guessing(axis, float(chance), f"guessing ({chance:.1%})")
        if max(map(len, named)) <= 24:
            figure.legend(fontsize=9, loc="outside right upper")
        else:  # long names would leave no room beside them
            figure.set_figheight(4.4 + 0.2 * math.ceil(len(named) / 2))
            figure.legend(fontsize=8, loc="outside lower left", ncols=2)
    return figure


def similarity(matrix: pd.DataFrame, measure: str = "Jaccard index", centre: bool = False) -> Figure:
    """Draw how alike tickets are, [N, N], clustered by average linkage of 1 - similarity, as a heatmap with its tree.

    Parameters
    ----------
    matrix
        Symmetric; the labels are its index. `order_of` gives the order that is drawn.
    measure
        What the numbers are.
    centre
        Whether 0 is the middle of the colours: for what lies above or below chance.
    """
    count = len(matrix)
    colours = {"cmap": "vlag", "vmin": -1, "vmax": 1} if centre else {"cmap": "viridis", "vmin": 0, "vmax": 1}
    tree = _tree(matrix)
    side = min(9.5, 3.4 + 0.3 * count)
    with plt.style.context(["default", STYLE | {"figure.constrained_layout.use": False}]):
        grid = sns.clustermap(
            matrix, row_linkage=tree, col_linkage=tree, figsize=(side + 2, side), annot=count <= 12, fmt=".2f",
            annot_kws={"fontsize": 8}, cbar_kws={"orientation": "horizontal"}, dendrogram_ratio=0.12,
            xticklabels=False, yticklabels=True, **colours,
        )  # fmt: skip
        grid.ax_heatmap.tick_params(axis="y", labelsize=9)
        grid.ax_heatmap.set(xlabel="", ylabel="")
        grid.ax_heatmap.grid(False)
        grid.ax_cbar.tick_params(labelsize=8)
        grid.figure.subplots_adjust(top=0.9)
        grid.ax_cbar.set_position((0.72, 0.955, 0.24, 0.02))
        grid.figure.text(0.02, 0.98, f"How alike are the tickets? {measure}", fontsize=11, va="top")
        grid.figure.set_dpi(100)
        plt.close(grid.figure)
    return grid.figure


def order_of(matrix: pd.DataFrame) -> list[int]:
    """Return the order in which `similarity` draws the tickets."""
    return [int(i) for i in hierarchy.leaves_list(_tree(matrix))]


def _tree(matrix: pd.DataFrame) -> np.ndarray:
    """Return SciPy's average linkage of 1 - similarity."""
    apart = 1 - matrix.to_numpy(dtype=float)
    np.fill_diagonal(apart, 0)
    return hierarchy.linkage(distance.squareform(np.clip(apart, 0, None), checks=False), "average")


def layer_densities(table: pd.DataFrame) -> Figure:
    """Draw the density of each layer of some tickets; `table` has a column layer, and one a ticket."""
    names = [name for name in table if name != "layer"]
    with canvas(size=(8.6, 4.0), dpi=100) as (figure, axis):
        for i, name in enumerate(names):
            look = {"color": plt.get_cmap("viridis")(0.9 * i / max(1, len(names) - 1)), "marker": "osD^vP*X<>"[i % 10]}
            axis.plot(range(len(table)), table[name], label=name, markersize=5, linewidth=1, **look)
        step = max(1, len(table) // 24)
        axis.set_xticks(range(0, len(table), step), table["layer"][::step], rotation=60, ha="right", fontsize=8)
        axis.set(ylabel="density (kept / weights)", title="Where in the network are the weights that were kept?")
        axis.set_ylim(0)
        _percent(axis)
        if len(names) <= 16:
            figure.legend(fontsize=8, loc="outside right upper")
    return figure


def transfer(table: pd.DataFrame, title: str) -> Figure:
    """Draw accuracy on the target by arm and sparsity; `table` has arm, at, accuracy, half_width, and a dense row."""
    arms = [arm for arm in dict.fromkeys(table["arm"]) if arm != "dense"]
    shades = dict(zip(arms, ("#D55E00", "#0072B2", "#CC79A7", "#999999", "#009E73"), strict=False))
    levels = sorted(set(table[table["arm"] != "dense"]["at"]))
    with canvas(size=(8.4, 4.0)) as (figure, axis):
        for i, arm in enumerate(arms):
            rows = table[table["arm"] == arm].set_index("at").reindex(levels)
            places = np.arange(len(levels)) + (i - (len(arms) - 1) / 2) * 0.16
            half = None if rows["half_width"].isna().all() else rows["half_width"]
            axis.errorbar(places, rows["accuracy"], half, fmt="sDov^"[i], color=shades[arm], capsize=3, label=arm)
        dense = table[table["arm"] == "dense"]["accuracy"]
        if len(dense):
            axis.axhline(float(dense.iloc[0]), color="#000000", linestyle="--", label="dense")
        axis.set_xticks(range(len(levels)), [report.level(at) for at in levels])
        axis.set(ylabel="test accuracy on the target", title=title, xlim=(-0.6, len(levels) - 0.4))
        _percent(axis)
        _guessing(axis, float(table["chance"].iloc[0]))
        axis.set_ylim(0.7 * float(table["chance"].iloc[0]))
        figure.legend(fontsize=9, loc="outside right upper")
    return figure


def costs(table: pd.DataFrame) -> Figure:
    """Draw rounds and training-image passes needed to reach each sparsity; `table` is `report.rounds_table`."""
    looks = _looks(table["method"])
    with canvas(2) as (figure, axes):
        for axis, column, title in zip(
            axes, ("rounds", "image_epochs"), ("Rounds", "Training images seen"), strict=True
        ):
            for method, rows in table.groupby("method", sort=False):
                axis.plot(rows["at"], rows[column], label=arm_name(str(method)), **looks[str(method)])
            axis.set(title=f"{title} to reach a sparsity", xlabel="sparsity", ylabel=title.lower())
            axis.set_ylim(0)
            axis.set_xticks(sorted(set(table["at"])), [f"{100 * at:.4g}%" for at in sorted(set(table["at"]))])
        axes[0].legend(fontsize=9)
    return figure


# --- 06 controls -------------------------------------------------------------------------------------------------


def comparisons(table: pd.DataFrame, margin: float = 0.01) -> Figure:
    """Draw differences in accuracy as a forest: a row a comparison and sparsity, bars the 95 % t intervals.

    `table` is `report.compare`, or several one below the other with columns `method` and `other` beside. The band is
    the margin within which two arms count as equivalent.
    """
    table = table.reset_index(drop=True)
    others = table["other"].tolist() if "other" in table else [""] * len(table)
    sides = (
        [f"{arm_name(m)} − {arm_name(o)}, " for m, o in zip(table["method"], others, strict=True)]
        if any(others)
        else others
    )
    names = [side + report.level(at) for side, at in zip(sides, table["at"], strict=True)]
    with canvas(size=(8.4, 1.3 + 0.26 * len(table))) as (figure, axis):
        axis.axvspan(-100 * margin, 100 * margin, color="#444444", alpha=0.12, label=f"± {100 * margin:g} points")
        axis.axvline(0, color="#444444", linestyle="--", linewidth=1)
        for place, (other, row) in enumerate(zip(others, table.itertuples(), strict=True)):
            half = None if np.isnan(row.half_width) else 100 * row.half_width
            look = _line(other) | {"markerfacecolor": "none" if half is None else _line(other)["color"]}
            axis.errorbar(100 * row.difference, place, xerr=half, capsize=3, **look)
        axis.set_yticks(range(len(names)), names, fontsize=8)
        axis.set_ylim(len(names) - 0.5, -0.5)
        axis.set(xlabel="difference in test accuracy, points", title="Difference in accuracy, paired by seed")
        figure.legend(fontsize=8, title="filled: 95 % interval", title_fontsize=8, loc="outside right upper")
    return figure


def overlaps(records: pd.DataFrame) -> Figure:
    """Draw, for each arm over the rounds, how far the partitions' Jaccard index lies above chance within each layer.

    The numbers are `report.overlaps` of the same records; bars from three seeds on.
    """
    table = report.overlaps(records)
    looks = _looks(table["method"])
    with canvas(size=(8.4, 4.0)) as (figure, axis):
        axis.axhline(0, color="#444444", linestyle="--", linewidth=1, label="chance within each layer")
        for method, rows in table.groupby("method", sort=False):
            name, half = str(method), rows["half_width"].fillna(0)
            axis.errorbar(rows["round"], rows["gap"], half, capsize=3, label=arm_name(name), **looks[name])
        axis.set(xlabel="round", ylabel="Jaccard index less chance", title="Do the partitions agree beyond chance?")
        _whole_numbers(axis)
        drawn = "bars: 95 % interval over seeds" if table["half_width"].notna().any() else "too few seeds for bars"
        figure.legend(title=drawn, fontsize=9, title_fontsize=8, loc="outside right upper")
    return figure
