"""What the interactive views are made of: a picture that can be pointed at, scripts, and the frame around a view."""

import gc
import re
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import Any

import anywidget
import ipywidgets
import traitlets
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .. import plots

ASSETS = Path(__file__).parent.parent / "assets"
_STYLE = (ASSETS / "style.css").read_text(encoding="utf-8")


def asset(*names: str) -> str:
    """Return files of `assets/`, one after the other."""
    return "\n".join((ASSETS / name).read_text(encoding="utf-8") for name in names)


def module(view: str, *names: str) -> str:
    """Return scripts of `assets/` as the module of a widget whose view the function `view` draws."""
    return f"{asset(*names)}\nexport default {{ render: {view} }};\n"


class Picture(anywidget.AnyWidget):
    """A figure of `plots` as a picture; its spots, or the cells of its grid, can be hovered, clicked, reached by keys.

    Attributes
    ----------
    png, alt
        The picture and what it shows, in words.
    spots
        [x, y, text] each, x and y in shares of the picture from its upper left corner.
    grid
        Empty, or {"box": [left, top, right, bottom], "rows", "columns", "row", "column", "span", "kernel"}: a layer's
        weights, a filter a row; the first filter and input channel shown, weights an input channel, kernel width.
    spot, cell
        What was chosen: a spot's number (-1: none); [row, column] of the grid.
    """

    _esm = (ASSETS / "picture.js").read_text(encoding="utf-8")
    _css = _STYLE
    png = traitlets.Bytes(b"").tag(sync=True)
    alt = traitlets.Unicode("").tag(sync=True)
    spots: Any = traitlets.List([]).tag(sync=True)
    grid = traitlets.Dict({}).tag(sync=True)
    spot = traitlets.Int(-1).tag(sync=True)
    cell: Any = traitlets.List([]).tag(sync=True)

    def show(self, figure: Figure | None, alt: str = "", **pointing: Any) -> None:
        """Show a figure, or none, with the given spots or grid; one message to the browser."""
        png = plots.png(figure) if figure is not None else b""
        with self.hold_sync():
            self.png, self.alt = png, alt
            self.spots, self.grid = pointing.get("spots", []), pointing.get("grid", {})

    def show_points(
        self, figure: Figure, axis: Axes, x: Iterable[float], y: Iterable[float], texts: Iterable[str], alt: str
    ) -> None:
        """Show a figure whose points say what they are."""
        self.show_panels(figure, [(axis, x, y)], texts, alt)

    def show_panels(
        self,
        figure: Figure,
        panels: Iterable[tuple[Axes, Iterable[float], Iterable[float]]],
        texts: Iterable[str],
        alt: str,
    ) -> None:
        """Show a figure of several axes whose points, one panel's after the other's, say what they are."""
        png = plots.png(figure)  # first: drawing settles where things are
        where = [place for axis, x, y in panels for place in plots.places(figure, axis, x, y).round(4).tolist()]
        with self.hold_sync():
            self.png, self.alt, self.grid, self.spot = png, alt, {}, -1
            self.spots = [[*place, text] for place, text in zip(where, texts, strict=True)]


class Still:
    """A widget that stays a picture where no kernel runs: `picture` as it is when a cell shows the widget."""

    picture: Picture
    title: str

    def still(self) -> bytes:
        """Return the picture, a PNG file's bytes; empty where there is nothing to show."""
        return self.picture.png

    def __repr__(self) -> str:
        return f"{self.title} (interactive where a kernel runs)"

    def _repr_mimebundle_(self, **options: Any) -> Any:
        shown = super()._repr_mimebundle_(**options)  # type: ignore[misc]
        data, *about = shown if isinstance(shown, tuple) else (shown,)  # anywidget's has metadata too, for Colab
        png = self.still()
        data = dict(data) | ({"image/png": b64encode(png).decode()} if png else {})
        return (data, *about) if about else data


class View(Still, ipywidgets.VBox):
    """The frame of a view: its title, what it has to say, and its picture."""

    def __init__(self, title: str) -> None:
        self.picture, self.title = Picture(), title
        self.words = ipywidgets.HTML()
        self.words.add_class("colt-says")
        self._quiet = False
        super().__init__()
        self.add_class("colt-view")

    def lay_out(self, *children: ipywidgets.Widget) -> None:
        """Put the view together: title, words, then the rest."""
        heading = ipywidgets.HTML(escape(self.title))
        heading.add_class("colt-title")
        self.children = (heading, *children)

    def say(self, text: str, bad: bool = False) -> None:
        """Say something in plain words, each line its own; `bad`: what was asked for cannot be shown."""
        self.words.value = escape(text)
        (self.words.add_class if bad else self.words.remove_class)("colt-bad")

    def listen(self, *controls: ipywidgets.Widget, to: Any, trait: str = "value") -> None:
        """Call `to()` when one of the controls is moved by the user, not while the view itself sets them."""

        def heard(_: Any) -> None:
            if not self._quiet:
                with collecting_young():
                    to()

        for control in controls:
            control.observe(heard, trait)

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """Set controls without hearing of it."""
        before, self._quiet = self._quiet, True
        try:
            yield
        finally:
            self._quiet = before


@contextmanager
def collecting_young() -> Iterator[None]:
    """Let the objects of figures go while they are young.

    A figure is a cycle of tens of thousands of objects. Grown old, they would have the garbage collector look through
    the whole process every few pictures: a third of a second in the middle of a slider's way.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.collect(1)


def warned(records: Iterable[Mapping[str, Any]], most: int = 3) -> list[str]:
    """Return what records warn of, a sentence each, and how many more there are."""
    found: dict[str, dict[int, int]] = {}  # the same of several copies, and of several rounds, is said once
    for number, text in dict.fromkeys((r["round"], text) for r in records for text in told_by(r)):
        counts = found.setdefault(re.sub(r"^copy \d+ ", "a copy ", text), {})
        counts[number] = counts.get(number, 0) + 1
    told = [f"Warning, {_rounds_named(counts)}: {_of_copies(text, counts)}." for text, counts in found.items()]
    return told[:most] + ([f"... and {len(told) - most} more warnings."] if len(told) > most else [])


def _rounds_named(counts: Mapping[int, int]) -> str:
    first, last = min(counts), max(counts)
    return f"round {first}" if first == last else f"{len(counts)} rounds from {first} to {last}"


def _of_copies(text: str, counts: Mapping[int, int]) -> str:
    several = max(counts.values())
    return text.replace("a copy ", f"each of {several} copies ", 1) if several > 1 else text


def told_by(record: Mapping[str, Any]) -> list[str]:
    """Return a record's warnings; in a table's row their place may hold NaN."""
    found = record.get("warnings")
    return list(found) if isinstance(found, list | tuple) else []


def row(*children: ipywidgets.Widget) -> ipywidgets.Box:
    """Lay widgets side by side, in as many lines as the page needs."""
    return _box("colt-row", children)


def form(*children: ipywidgets.Widget) -> ipywidgets.Box:
    """Lay controls out in aligned columns, as many as the page has room for."""
    return _box("colt-form", children)


def panels(left: list[ipywidgets.Widget], right: ipywidgets.Widget) -> ipywidgets.Box:
    """Lay controls beside a picture, or above it where the page is narrow."""
    controls = ipywidgets.VBox(left)
    controls.add_class("colt-panel")
    return row(controls, right)


def _box(kind: str, children: Iterable[ipywidgets.Widget]) -> ipywidgets.Box:
    box = ipywidgets.Box(list(children))
    box.add_class(kind)
    return box


def choose(control: Any, options: list[Any], value: Any = None) -> None:
    """Give a selection its options; it takes `value`, else keeps its own, where that is one of them, else the first."""
    values = [option[1] if isinstance(option, tuple) else option for option in options]
    wanted = next((v for v in (value, control.value) if v in values), values[0] if values else None)
    control.options = options
    if values:
        control.value = wanted
