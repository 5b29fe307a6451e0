"""Figures of a store at a glance: tickets with seeds collapsed, and runs over their settings."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from pandas.api.types import is_numeric_dtype

from .. import report
from .frame import arm_name, canvas, check_rows, guessing, looks_of, method_of, percent_axis, sparsity_axis, spelled

MOST_PANELS = 6
BAND: dict[str, Any] = {"alpha": 0.15, "linewidth": 0}


def panels_of(table: pd.DataFrame) -> list[tuple[str, str]]:
    """Return the data sets and networks of some scores, in the order of their panels: no two share an axis."""
    found = table[["scored_on", "net"]].drop_duplicates().itertuples(index=False, name=None)
    return sorted((str(data), str(net)) for data, net in found)


def curves(table: pd.DataFrame, singles: pd.DataFrame | None = None) -> Figure:
    """Draw test accuracy against sparsity, a line an arm with the interval over its seeds as a band.

    Parameters
    ----------
    table
        `report.collapsed`: each data set and network gets a panel of its own, see `panels_of`. The dense network is a
        level.
    singles
        The scores behind it (`report.overview`), drawn as thin lines, a run each; None: none.
    """
    check_rows(table)
    places = panels_of(table)[:MOST_PANELS]
    looks, (metric, _) = looks_of(table["arm"]), report.metric_of(table)
    size = (7.2, 4.9) if len(places) == 1 else (4.6, 3.8)
    columns = min(2, len(places))
    with canvas(columns, -(-len(places) // columns), size=size, dpi=100, squeeze=False) as (figure, axes):
        for axis in axes.flat[len(places) :]:
            axis.set_axis_off()
        for axis, (data, net) in zip(axes.flat, places, strict=False):
            here = table[(table["scored_on"] == data) & (table["net"] == net)]
            if singles is not None:
                own = singles[(singles["scored_on"] == data) & (singles["net"] == net)]
                _singles(axis, own, metric, looks)
            for arm, rows in here.groupby("arm", sort=False):
                _line(axis, str(arm), rows.sort_values("density"), metric, looks[str(arm)])
            axis.set(xscale="log", title=spelled(f"{data}, {net}"), ylabel=f"test {metric}")
            sparsity_axis(axis)
            if metric == "accuracy":
                _chance(axis, here)
        _legend(figure, table, looks)
    return figure


def _line(axis: Axes, arm: str, rows: pd.DataFrame, metric: str, look: dict[str, Any]) -> None:
    half, colour = rows["half_width"], look["color"]
    if method_of(arm) == "dense":
        level, spread = float(rows[metric].iloc[0]), half.iloc[0]
        axis.axhline(level, color=colour, linestyle="--", linewidth=1)
        if not np.isnan(spread):
            axis.axhspan(level - spread, level + spread, color=colour, **BAND)
        axis.plot(rows["density"], rows[metric], **look | {"linestyle": ""})
        return
    whole: dict[str, Any] = {"linestyle": "-", "linewidth": 1.6} | look
    axis.plot(rows["density"], rows[metric], **whole)
    sure = half.notna()
    axis.fill_between(
        rows["density"][sure], (rows[metric] - half)[sure], (rows[metric] + half)[sure], color=colour, **BAND
    )


def _singles(axis: Axes, rows: pd.DataFrame, metric: str, looks: dict[str, dict[str, Any]]) -> None:
    for (arm, _), run in rows.groupby(["arm", "experiment"], sort=False):
        run = run.sort_values("density")
        look = {"color": looks[str(arm)]["color"], "marker": ".", "markersize": 4, "linewidth": 0.6, "alpha": 0.6}
        axis.plot(run["density"], run[metric], **look)


def _chance(axis: Axes, rows: pd.DataFrame) -> None:
    """Write accuracies in percent, and say where guessing is."""
    percent_axis(axis)
    chance, lowest = float(rows["chance"].iloc[0]), float(rows["accuracy"].min())
    if np.isnan(chance):
        return
    if lowest < 2 * chance:
        guessing(axis, chance, f"guessing ({chance:.3g})")
    else:
        axis.set_ylabel(f"test accuracy (guessing: {100 * chance:.3g} %)")


def _legend(figure: Figure, table: pd.DataFrame, looks: dict[str, dict[str, Any]]) -> None:
    """Name the arms with their numbers of seeds, beside the panels."""
    from matplotlib.lines import Line2D

    seeds = table.groupby("arm", sort=False)["seeds"].agg(["min", "max"])
    handles = []
    for arm, look in looks.items():
        low, high = seeds.loc[arm]
        count = f"n = {low}" if low == high else f"n = {low} to {high}"
        handles.append(Line2D([], [], **{"linestyle": "-"} | look, label=f"{arm_name(arm)} ({count})"))
    enough = table["half_width"].notna().any()
    title = "band: 95 % interval over seeds" if enough else "too few seeds for a band"
    columns = 2 if max(len(str(handle.get_label())) for handle in handles) > 30 else 3
    figure.legend(handles=handles, fontsize=9, title=title, title_fontsize=8, loc="outside lower center", ncols=columns)


def parallel(table: pd.DataFrame, columns: list[str], colour: str) -> Figure:
    """Draw runs over their settings as parallel coordinates: an axis a setting, a line a run, coloured by one column.

    Parameters
    ----------
    table
        A row a run.
    columns
        Of the table, from left to right; numbers stand at their place, anything else at even distances.
    colour
        A column of numbers.
    """
    check_rows(table)
    values, low, high = table[colour].to_numpy(dtype=float), table[colour].min(), table[colour].max()
    with canvas(size=(min(7.4, 1.5 * len(columns) + 2), 4.4), dpi=100) as (figure, axis):
        colours = Normalize(low, high if high > low else low + 1)
        heights = np.column_stack([_heights(axis, i, table[name], name) for i, name in enumerate(columns)])
        import matplotlib.pyplot as plt

        for row, value in zip(heights, values, strict=True):
            axis.plot(range(len(columns)), row, color=plt.get_cmap("viridis")(colours(value)), linewidth=1.2, alpha=0.8)
        axis.set(xlim=(-0.3, len(columns) - 0.4), ylim=(-0.06, 1.1), yticks=[], title="Runs over their settings")
        axis.set_xticks(range(len(columns)), columns)
        axis.grid(False)
        axis.spines["left"].set_visible(False)
        figure.colorbar(plt.cm.ScalarMappable(colours, "viridis"), ax=axis, label=colour, pad=0.02)
    return figure


def _heights(axis: Axes, place: int, column: pd.Series, name: str) -> np.ndarray:
    """Draw one axis with its ticks; return where each run crosses it, in [0, 1]."""
    axis.axvline(place, color="#888888", linewidth=1)
    numbers = is_numeric_dtype(column) and not column.isna().any()
    options = sorted(set(column)) if numbers else sorted(set(column.astype(str)))
    low, high = (options[0], options[-1]) if numbers else (0, len(options) - 1)
    span = (high - low) or 1
    at = {one: (one - low) / span if numbers else i / span for i, one in enumerate(options)}
    last = -1.0
    for one in options:
        if at[one] - last < 0.05 and one != options[0]:  # two texts would lie on each other
            continue
        last = at[one]
        text = f"{one:.4g}" if numbers else (one if len(one) <= 22 else f"{one[:21]}…")
        axis.annotate(text, (place, at[one]), xytext=(4, 0), textcoords="offset points", fontsize=8, va="center")
    return np.array([at[one] for one in (column if numbers else column.astype(str))])
