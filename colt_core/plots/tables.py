"""Figures of notebooks 04 to 06: accuracy, transfer, cost, differences."""

from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .. import report
from .frame import (
    COLOURS,
    COPIES,
    MARKS,
    arm_name,
    canvas,
    guessing,
    line_look,
    looks_of,
    method_of,
    percent_axis,
    whole_numbers,
)


def accuracy_sparsity(table: pd.DataFrame, title: str = "") -> Figure:
    """Draw test accuracy against density reached (logarithmic), a line a method; intervals from three seeds on.

    `table` is `report.accuracy_table`, of accuracy or another metric. Methods of equal density are drawn side by side,
    1.5 % of it apart, so that no bar hides another.
    """
    looks, most, (metric, _) = looks_of(table["method"]), table["seeds"].max(), report.metric_of(table)
    title = title or f"{'Accuracy' if metric == 'accuracy' else metric} of tickets, trained on everything"
    with canvas(size=(8.4, 4.8)) as (figure, axis):
        for method, rows in table.groupby("method", sort=False):
            name, count = str(method), rows["seeds"].max()
            fewer = "" if count == most else f", {report.count_seeds(count)}"
            half = rows["half_width"].fillna(0)
            if method_of(name) == "dense":
                level, spread = float(rows[metric].iloc[0]), float(half.iloc[0])
                axis.axhline(level, color=COLOURS["dense"], linestyle="--", label=name + fewer)
                axis.axhspan(level - spread, level + spread, color=COLOURS["dense"], alpha=0.08)
            else:
                look = looks[name] | {"label": arm_name(name) + fewer}
                aside = 1.015 ** ((len(looks) - 1) / 2 - list(looks).index(name))
                axis.errorbar(aside * (1 - rows["sparsity"]), rows[metric], half, capsize=3, **look)
        axis.set(xscale="log", xlabel="density (kept / prunable weights)", ylabel=f"test {metric}", title=title)
        axis.invert_xaxis()
        ticks = sorted({round(d, 3) for d in 1 - table[table["at"] > 0]["at"]})
        axis.set_xticks(ticks, [f"{t:.3g}" for t in ticks])
        axis.minorticks_off()
        enough = table["half_width"].notna().any()
        drawn = "bars: 95 % interval over seeds" if enough else "points: too few seeds for bars"
        if metric == "accuracy":
            drawn += _mark_chance(axis, table)
        figure.legend(title=drawn, fontsize=9, title_fontsize=8, loc="outside right upper")
    return figure


def _mark_chance(axis: Axes, table: pd.DataFrame) -> str:
    """Write accuracies in percent; draw guessing where it is near, else return a line that says where it is."""
    percent_axis(axis)
    chance, lowest = float(table["chance"].iloc[0]), (table["accuracy"] - table["half_width"].fillna(0)).min()
    if lowest < 2 * chance:
        guessing(axis, chance)
        axis.set_ylim(0.7 * chance)
        return ""
    axis.yaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10]))  # whole percents
    return "" if np.isnan(chance) else f"\n(guessing: {100 * chance:.3g} %)"


def transfer(table: pd.DataFrame, gains: pd.DataFrame, title: str = "Tickets carried over") -> Figure:
    """Draw source by target as heatmaps, a row of them a sparsity: accuracy, then what a ticket gains on each control.

    `table` is `report.transfers`, `gains` `report.transfer_gains`. Every column of panels shares its colours; what is
    written in a cell is mean and half-width of the 95 % interval (from three seeds on), in percent or points; of
    another metric than accuracy as it is.
    """
    tickets, (metric, _) = table[table["method"].map(method_of) == "colt"], report.metric_of(table)
    if len(arms := tickets[["network", "method"]].drop_duplicates()) != 1:
        told = ", ".join(f"{m} with {n}" for n, m in arms.itertuples(index=False)) or "none"
        raise ValueError(f"the figure shows the tickets of one arm; here are {told}")
    named = _data_sets(tickets)
    names, levels = list(named), sorted(set(tickets["at"]))
    against = [kind for kind in report.AGAINST if kind in set(gains["against"])]
    bound, top, points = float(gains["difference"].abs().max()), float(tickets[metric].max()), "difference"
    if metric == "accuracy":
        bound, top, points = max(0.01, bound), 1.0, "points"
    size = (0.6 + 0.72 * len(names), 0.75 + 0.5 * len(names) + 1.6 / len(levels))  # names below the last row alone
    with canvas(1 + len(against), len(levels), size, squeeze=False, sharey=True) as (figure, axes):
        figure.suptitle(title, fontsize=11, x=0.01, ha="left")
        for row, at in zip(axes, levels, strict=True):
            _cells(row[0], names, tickets[tickets["at"] == at], metric, cmap="Greys", vmin=0, vmax=top)
            unit = "accuracy in %" if metric == "accuracy" else metric
            row[0].set_title(f"{unit},\n{report.level(at)}", fontsize=9)
            row[0].set_ylabel("source")
            for axis, kind in zip(row[1:], against, strict=True):
                found = gains[(gains["at"] == at) & (gains["against"] == kind) & (gains["source"] != "all")]
                _cells(axis, names, found, "difference", cmap="vlag", vmin=-bound, vmax=bound)
                axis.set_title(f"{points} against\n{WORDS[kind]}", fontsize=9)
            row[0].set_yticks(row[0].get_yticks(), list(named.values()))
            for axis in row[1:]:
                axis.tick_params(axis="y", length=0)
            for axis in row if at < levels[-1] else []:
                axis.tick_params(axis="x", labelbottom=False)
        for axis in axes[-1]:
            axis.set_xticks(axis.get_xticks(), list(named.values()))
            axis.set_xlabel("target")
    return figure


def _data_sets(tickets: pd.DataFrame) -> dict[str, str]:
    """Return the data sets from few classes to many (as their guessing tells), each with the text beside its cells."""
    classes = dict(zip(tickets["target"], 1 / tickets["chance"].astype(float).fillna(1), strict=True))
    names = sorted(dict.fromkeys([*tickets["target"], *tickets["source"]]), key=lambda name: classes.get(name, 0))
    images = dict(zip(tickets["target"], tickets["train_images"], strict=True))
    images |= dict(zip(tickets["source"], tickets["source_images"], strict=True))
    return {name: f"{name}\n{images[name]:,.0f} images" for name in names}


WORDS = {"own": "the target's own", "random": "random, same layers", "reinit": "re-drawn weights", "dense": "dense"}


def _cells(axis: Axes, names: list[str], rows: pd.DataFrame, column: str, **colours: Any) -> None:
    """Draw one heatmap of source by target; cells without a value stay empty."""
    mean = rows.pivot_table(index="source", columns="target", values=column).reindex(index=names, columns=names)
    metric, _ = report.metric_of(rows)
    write = report.spread if column == "difference" else report.written
    text = {(r.source, r.target): write(getattr(r, column), r.half_width, metric) for r in rows.itertuples()}
    written = [[text.get((source, target), "").replace(" ± ", "\n± ") for target in names] for source in names]
    sns.heatmap(
        mean.astype(float), ax=axis, annot=np.array(written), fmt="", cbar=False, square=False,
        linewidths=1, annot_kws={"fontsize": 8}, **colours,
    )  # fmt: skip
    axis.set(xlabel="", ylabel="")
    axis.grid(False)
    axis.tick_params(axis="x", labelsize=8, labelrotation=25)
    axis.tick_params(axis="y", labelsize=8, labelrotation=0)


def countings(table: pd.DataFrame) -> Figure:
    """Draw sparsity over the rounds as two ways of counting give it; `table` has round, density and density_all."""
    looks = {"density": line_look("colt"), "density_all": line_look("imp")}
    words = {"density": "of prunable weights", "density_all": "of all weights, head and normalisation too"}
    with canvas(size=(7.2, 3.6)) as (figure, axis):
        for name, look in looks.items():
            axis.plot(table["round"], 1 - table[name], label=words[name], **look)
        axis.set(xlabel="round", ylabel="sparsity", title="The same tickets, two ways of counting")
        axis.set_ylim(0, 1)
        whole_numbers(axis)
        percent_axis(axis)
        axis.legend(fontsize=9, loc="lower right")
    return figure


def costs(table: pd.DataFrame) -> Figure:
    """Draw rounds and training-image passes needed to reach each sparsity; `table` is `report.rounds_table`."""
    looks = looks_of(table["method"])
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


def comparisons(table: pd.DataFrame, margin: float = 0.01) -> Figure:
    """Draw differences in accuracy as a forest: a row a comparison, within it a bar a sparsity, the 95 % t interval.

    `table` is `report.compare`, or several of one data set and network, one below the other with columns `method` and
    `other` beside. The band is the margin within which two arms count as equivalent. Said are the sparsity asked for
    and what the first arm reached; of one bar a row, what both reached where that is two points or more apart.
    """
    table = table.reset_index(drop=True)
    if "other" not in table:
        pairs = [""] * len(table)
    else:
        sides = zip(table["method"], table["other"], strict=True)
        pairs = [f"{arm_name(method)} − {arm_name(other)}" for method, other in sides]
    levels, rows = sorted(set(table["at"])), list(dict.fromkeys(pairs))
    grouped = len(rows) > 1 and len(levels) > 1
    shades = dict(zip(levels, sns.color_palette("flare", len(levels)), strict=True))
    places = (
        [
            rows.index(p) + 0.7 * ((levels.index(at) + 0.5) / len(levels) - 0.5)
            for p, at in zip(pairs, table["at"], strict=True)
        ]
        if grouped
        else list(range(len(table)))
    )
    with canvas(size=(8.4, 1.3 + (0.15 if grouped else 0.26) * len(table))) as (figure, axis):
        axis.axvspan(-100 * margin, 100 * margin, color="#444444", alpha=0.12, label=f"± {report.points(margin)}")
        axis.axvline(0, color="#444444", linestyle="--", linewidth=1)
        for place, row in zip(places, table.itertuples(), strict=True):
            half = None if np.isnan(row.half_width) else 100 * row.half_width
            look = {"color": shades[row.at], "marker": "o"} if grouped else line_look(getattr(row, "other", ""))
            look = look | {"markersize": 4.5, "markerfacecolor": "none" if half is None else look["color"]}
            axis.errorbar(100 * row.difference, place, xerr=half, capsize=0 if grouped else 3, **look)
        if grouped:
            axis.set_yticks(range(len(rows)), rows, fontsize=9)
            axis.set_ylim(len(rows) - 0.5, -0.5)
            for at in levels:
                reached = table.loc[table["at"] == at, "sparsity"].mean()
                label = f"{report.level(at)} ({reached:.0%} reached)"
                axis.plot([], [], color=shades[at], marker="o", markersize=4.5, label=label)
        else:
            both = [_both(row) for row in table.itertuples()]
            named = [f"{pair}, {told}" if pair else told for pair, told in zip(pairs, both, strict=True)]
            axis.set_yticks(places, named, fontsize=8)
            axis.set_ylim(len(places) - 0.5, -0.5)
        axis.set(xlabel="difference in test accuracy, points", title="Difference in accuracy, paired by seed")
        few = "; hollow: too few seeds" if table["half_width"].isna().any() else ""
        figure.legend(fontsize=8, title=f"95 % intervals{few}", title_fontsize=8, loc="outside right upper")
    return figure


def _both(row: Any) -> str:
    """Say the sparsity that was asked for, and both that were compared where they lie apart."""
    apart = abs(row.sparsity - row.other_sparsity) >= 0.02 and row.other_sparsity > 0
    return f"{row.sparsity:.0%} and {row.other_sparsity:.0%} sparse" if apart else report.level(row.at)


def overlaps(records: pd.DataFrame) -> Figure:
    """Draw, for each arm over the rounds, how far the partitions' Jaccard index lies above chance within each layer.

    The numbers are `report.overlaps` of the same records; bars from three seeds on. Several data sets or networks have
    a colour each, and the line says which.
    """
    table = report.overlaps(records)
    looks, setting = looks_of(table["method"]), ["dataset", "network", "method"]
    several = len(table[setting[:2]].drop_duplicates()) > 1
    with canvas(size=(8.4, 4.0)) as (figure, axis):
        axis.axhline(0, color="#444444", linestyle="--", linewidth=1, label="chance within each layer")
        for place, ((dataset, network, method), rows) in enumerate(table.groupby(setting, sort=False)):
            name, half = arm_name(str(method)), rows["half_width"].fillna(0)
            look = looks[str(method)]
            if several:
                name = f"{name}: {network}, {dataset}" if len(looks) > 1 else f"{dataset}, {network}"
                look = {"color": COPIES[place % len(COPIES)], "marker": MARKS[place % len(MARKS)], "markersize": 5}
            axis.errorbar(rows["round"], rows["gap"], half, capsize=3, label=name, **look)
        axis.set(xlabel="round", ylabel="Jaccard index less chance", title="Do the partitions agree beyond chance?")
        whole_numbers(axis)
        drawn = "bars: 95 % interval over seeds" if table["half_width"].notna().any() else "too few seeds for bars"
        figure.legend(title=drawn, fontsize=9, title_fontsize=8, loc="outside right upper")
    return figure
