"""The figure of super tickets of a language model: what cutting heads and blocks does to accuracy."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .frame import COLOURS, canvas, check_rows

LOOKS = {"winning": (COLOURS["super"], "o"), "random": (COLOURS["random"], "s"), "losing": ("#8C510A", "v")}
CORPORA = {"r8": "Reuters R8", "20newsgroups": "20 Newsgroups"}
ASIDE = {"winning": -0.8, "random": 0.0, "losing": 0.8}  # percent: intervals at one place would hide each other


def super_tickets(table: pd.DataFrame, margin: float = 0.01) -> Figure:
    """Draw the difference in test accuracy to the whole network, paired by seed, against what is cut; a panel a corpus.

    `table` is `text.by_percent`. The band is the margin within which two networks count as equivalent; bars are 95 % t
    intervals, hollow points have too few seeds for one.
    """
    check_rows(table)
    corpora = list(dict.fromkeys(table["corpus"]))
    with canvas(len(corpora), squeeze=False) as (figure, axes):
        for corpus, axis in zip(corpora, axes[0], strict=True):
            _panel(axis, table[table["corpus"] == corpus], margin)
            dense = table.loc[table["corpus"].eq(corpus) & table["order"].eq("dense"), "test"]
            title = f"{CORPORA.get(corpus, corpus)}: dense {dense.mean():.1%}"
            axis.set(title=title, xlabel="heads and blocks cut, %", xticks=sorted({0, *table["percent"]}))
        axes[0][0].set(ylabel="test accuracy minus dense, points")
        title = f"paired by seed; bars: 95 % intervals; band: ± {100 * margin:g} point{'s' * (margin != 0.01)}"
        handles, labels = axes[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, title=title, fontsize=8, title_fontsize=8, ncols=3, loc="outside lower left")
    return figure


def _panel(axis: Axes, table: pd.DataFrame, margin: float) -> None:
    axis.axhspan(-100 * margin, 100 * margin, color="#444444", alpha=0.12)
    axis.axhline(0, color="#444444", linestyle="--", linewidth=1)
    for order, (colour, marker) in LOOKS.items():
        rows = table[table["order"] == order].sort_values("percent")
        few = rows["half_width"].isna()
        places = rows["percent"] + ASIDE[order]
        bars = np.where(few, 0.0, 100 * rows["half_width"])
        look: dict[str, Any] = {"color": colour, "marker": marker, "markersize": 5, "capsize": 3}
        look |= {"markerfacecolor": "none"} if few.any() else {}
        if len(rows):
            axis.errorbar(places, 100 * rows["difference"], yerr=bars, label=order, **look)
