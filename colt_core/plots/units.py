"""The figure of super tickets of a language model: what cutting heads and blocks does to accuracy."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .frame import COLOURS, canvas, check_rows

LOOKS = {"winning": (COLOURS["super"], "o"), "random": (COLOURS["random"], "s"), "losing": ("#D55E00", "v")}
ASIDE = {"winning": -0.6, "random": 0.0, "losing": 0.6}  # percent: intervals at one place would hide each other


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
            axis.set(title=f"{corpus}: dense {dense.mean():.1%}", xlabel="heads and blocks cut, %")
        axes[0][0].set(ylabel="test accuracy minus dense, points")
        axes[0][0].legend(fontsize=8)
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
