"""What all figures share: colours, style, the canvas, how a figure is saved or becomes a picture."""

import io
import math
import os
import re
from collections.abc import Iterable, Iterator
from colorsys import hls_to_rgb, rgb_to_hls
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator, PercentFormatter, StrMethodFormatter

from .. import methods
from ..files import write_text, write_whole
from ..methods import METHODS, Look

# Methods say how they look; theirs are Okabe and Ito's colours, told apart with every kind of colour vision, and beyond
# their eight by markers too.
COLOURS = {name: method.look.colour for name, method in METHODS.items()}
MARKERS = {name: method.look.marker for name, method in METHODS.items()}
STROKES = ("-", "--", ":", "-.")  # of several arms of one method
COPIES = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # a copy each
MARKS = "osD^vPX"
FURTHER = "sDPXo^v"  # of the fourth and later arms of one method
TRIANGLES = ("^", "v", "<", ">", *((3, style, angle) for style in (0, 1) for angle in (0, 90, 180, 270)))
SHORT = {"psnr": "PSNR", "nats": "nats a pixel value"}  # how a metric is written, where not as its column is called
UNITS = {"psnr": "PSNR in dB", "mse": "mse (lower is better)", "nats": "nats a pixel value (lower is better)"}
# How data sets and networks are written in figures, where not as the code calls them.
WRITTEN = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "tinyimagenet": "TinyImageNet", "svhn": "SVHN"}
WRITTEN |= {f"resnet{depth}": f"ResNet-{depth}" for depth in (14, 18, 20, 32, 44, 56)}
WRITTEN |= {"fashion-mnist": "Fashion-MNIST", "vae": "VAE", "dcgan": "DCGAN"}
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


def check_rows(table: pd.DataFrame) -> None:
    """Raise one clear `ValueError` where a table has no rows: an empty figure would look like a finding."""
    if not len(table):
        raise ValueError("no records: the table has no rows, so there is nothing to draw")


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


def arm_name(arm: str) -> str:
    """Return a method's name as figures write it, or an arm's (`report.arms`): what is in its brackets stays."""
    plain = method_of(arm)
    return look_of(plain).name + arm[len(plain) :]


def spelled(text: str) -> str:
    """Return a text with the data sets and networks in it as people write them: "ResNet-20 on CIFAR-10"."""
    return re.sub(rf"\b({'|'.join(WRITTEN)})\b", lambda found: WRITTEN[found[0]], text)


def method_of(arm: str) -> str:
    """Return an arm's plain method."""
    return arm.split(" ")[0]


def look_of(name: str) -> Look:
    """Return how a method looks; records may name one that this process does not know."""
    if name == "own":
        return Look("target's own")
    return methods.recorded(name).look


def line_look(arm: str) -> dict[str, Any]:
    """Return an arm's colour and marker, as options of `Axes.plot`."""
    look = look_of(method_of(arm))
    drawn = {"color": look.colour, "marker": look.marker, "markersize": 5}
    # What lies on another line by design (matched IMP on COLT) is dashed and hollow, so that both are seen.
    return drawn | ({"linestyle": "--", "markerfacecolor": "none", "markersize": 9} if look.hollow else {})


def looks_of(methods: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return a look for each arm: its method's, further arms of one method in other shades, strokes, hollow markers.

    The third's markers are larger; those after it, which shades alone would not tell apart, have markers of their own,
    and all further arms of a method whose marker is a triangle: small ones look alike however they are turned.
    """
    looks: dict[str, dict[str, Any]] = {}
    for arm in dict.fromkeys(methods):
        before, look = sum(method_of(other) == method_of(arm) for other in looks), line_look(arm)
        if before:
            stroke, colour = STROKES[before % len(STROKES)], _shade(look["color"], before)
            look |= {
                "linestyle": stroke,
                "color": colour,
                "markerfacecolor": "none",
                "markersize": min(5 + 2 * before, 9),
            }
        first = 1 if look["marker"] in TRIANGLES else 3
        if before >= first:
            others = [mark for mark in FURTHER if mark != look["marker"]]
            look |= {"marker": others[(before - first) % len(others)], "markersize": 7}
        looks[arm] = look
    return looks


def _shade(colour: str, number: int) -> str:
    """Return a colour's shade: its hue at another lightness for each number, none so light that white swallows it."""
    hue, light, strength = rgb_to_hls(*to_rgb(colour))
    return to_hex(hls_to_rgb(hue, 0.2 + (light - 0.2 + 0.18 * number) % 0.45, strength))


def whole_numbers(axis: Axes) -> None:
    """Put the ticks of the horizontal axis at whole numbers."""
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))


SPARSITIES = (0, 0.2, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9999)
FINER = (*(n / 20 for n in range(20)), *(n / 100 for n in range(100)))


def sparsity_axis(axis: Axes, which: str = "x", at: Iterable[float] | None = None) -> None:
    """Put densities on a logarithmic scale, as far apart as rounds are, and write them as sparsities in percent.

    Every figure speaks of sparsity, as the tables do. `at` are the sparsities of the ticks, with round ones where a
    large part of the axis has none; by default round ones alone. The limits must be set before. On the horizontal axis
    sparser is further right.
    """
    one = axis.xaxis if which == "x" else axis.yaxis
    axis.set(**{f"{which}scale": "log", f"{which}label": "sparsity, %"})
    low, high = sorted(axis.get_xlim() if which == "x" else axis.get_ylim())
    asked = [1 - sparsity for sparsity in at or ()]
    ticks = [tick for tick in asked or (1 - sparsity for sparsity in SPARSITIES) if low <= tick <= high]
    for round_ones, share in ((SPARSITIES, 0.25), (FINER, 0.42)):
        far = share * math.log(high / low)
        for tick in (1 - sparsity for sparsity in round_ones):
            if low <= tick <= high and all(abs(math.log(tick / other)) > far for other in ticks):
                ticks.append(tick)
    ticks = ticks or asked or [math.sqrt(low * high)]  # a scale without any tick would say nothing
    one.set_ticks(ticks, [f"{100 * (1 - tick):.4g}" for tick in ticks])
    one.set_minor_locator(NullLocator())
    if which == "x" and not axis.xaxis_inverted():
        axis.invert_xaxis()


class _Percent(PercentFormatter):
    """Percent, with no more digits than the ticks have."""

    def set_locs(self, locs: list[float]) -> None:
        super().set_locs(locs)
        shown = [100 * value for value in locs]
        exact = (n for n in range(4) if all(abs(value - round(value, n)) < 1e-6 for value in shown))
        self.decimals = next(exact, 4)


def percent_axis(axis: Axes, which: str = "y") -> None:
    """Write the ticks of the vertical axis, or of "both", as percent."""
    for one in [axis.yaxis] if which == "y" else [axis.xaxis, axis.yaxis]:
        one.set_major_formatter(_Percent(1))


def counts_axis(axis: Axes, which: str = "x") -> None:
    """Write the ticks of an axis with their thousands apart: 60,000."""
    (axis.xaxis if which == "x" else axis.yaxis).set_major_formatter(StrMethodFormatter("{x:,.10g}"))


def guessing(axis: Axes, chance: float, label: str = "guessing") -> None:
    """Draw the accuracy of guessing."""
    axis.axhline(chance, color="#999999", linestyle=":", linewidth=1)
    axis.annotate(label, (1, chance), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=8)
