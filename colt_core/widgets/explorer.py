"""The mask explorer: two masks of a run, or of two, layer by layer and weight by weight, from saved files alone."""

from collections.abc import Iterable
from typing import Any

import ipywidgets
import numpy as np
import pandas as pd

from .. import masks, plots
from ..masks import Mask
from ..studies.experiment import Experiment
from ..studies.records import Place
from ..studies.saved import DAMAGED, Saved, runs_in
from .parts import Picture, Table, View, choose, form, row, warned

WINDOW = 64  # filters, and input channels, shown at a time
ROWS = 24  # of the table at a time
Side = tuple[Saved, int, int | None]
Sides = tuple[Side, Side, int | None]
COLUMNS = ("layer", "alive", "A", "B", "both", "by chance", "Jaccard", "chance", "z", "kappa")


class Explorer(View):
    """Look into masks; see `explorer`."""

    def __init__(self, runs: Iterable[Experiment | str] | None, store: Place) -> None:
        super().__init__("Mask explorer")
        self.wanted = None if runs is None else [r if isinstance(r, str) else r.hash for r in runs]
        self.store, self.runs = store, dict[str, Saved]()
        wide = {"layout": {"width": "auto"}}
        self.run = ipywidgets.Dropdown(description="A", **wide)
        self.other = ipywidgets.Dropdown(description="B", **wide)
        self.round = ipywidgets.IntSlider(1, min=0, max=1, description="Round")
        self.layer = ipywidgets.SelectionSlider(options=[""], description="Layer")
        self.filter = ipywidgets.IntSlider(0, min=0, max=0, step=WINDOW, description="Filters from")
        self.input = ipywidgets.IntSlider(0, min=0, max=0, step=WINDOW, description="Inputs from")
        self.reload = ipywidgets.Button(description="Reload", icon="refresh", tooltip="read the store again")
        self.table, self.history = Table(columns=list(COLUMNS), alt="layers"), Picture()
        self._tables: dict[Any, list[dict[str, Any]]] = {}
        right = ipywidgets.VBox([self.table, self.history])
        self.lay_out(self._controls(), self.words, row(self.picture, right))
        self.listen(self.run, to=self._run_chosen)
        self.listen(self.round, to=self._draw)
        self.listen(self.other, to=self._other_chosen)
        self.listen(self.layer, to=self._layer_chosen)
        self.listen(self.filter, self.input, to=self._window_moved)
        self.listen(self.table, to=self._row_chosen, trait="chosen")
        self.listen(self.picture, to=self._weight_chosen, trait="cell")
        self.reload.on_click(lambda _: self.read())
        self.read()

    def _controls(self) -> ipywidgets.Widget:
        for menu in (self.run, self.other):
            menu.add_class("colt-wide")
        return form(self.run, self.round, self.other, self.layer, self.filter, self.input, self.reload)

    def read(self) -> None:
        """Read again which runs the store has, and draw."""
        found, self.problems = runs_in(self.store)
        self.runs = {run.hash: run for run in found if self.wanted is None or run.hash in self.wanted}
        self._tables.clear()
        labels = [run.label for run in self.runs.values()]
        options = [
            (label if labels.count(label) == 1 else f"{label} ({name[:6]})", name)
            for (name, label) in zip(self.runs, labels, strict=True)
        ]
        lacking = [name for name in self.wanted or () if name not in self.runs]
        if lacking and self.runs:
            self.problems.append(
                f"{len(lacking)} of the {len(self.wanted or ())} runs asked for are not in the store yet."
            )
        order = {name: i for i, name in enumerate(self.wanted or sorted(self.runs, key=lambda n: self.runs[n].label))}
        with self.quiet():
            choose(self.run, sorted(options, key=lambda option: order[option[1]]))
        self._run_chosen()

    def _run_chosen(self) -> None:
        """Set what the other controls can be for this run."""
        run = self.runs.get(self.run.value)
        try:
            if run is None:
                raise ValueError(self._nothing())
            records = run.rounds()
            if not records:
                raise ValueError("this run has no finished round yet: press Reload when it has")
            last = records[-1]["round"]
            copies, layers = run.copies(last), run.layers(last)
        except ValueError as problem:
            self._show_nothing(str(problem))
            return
        pairs = [(f"A's copies {i} and {j}", f"copies {i} {j}") for i in range(copies) for j in range(i + 1, copies)]
        own = [*pairs, ("A's own mask a round before", "before")]
        others = [(name, value) for name, value in self.run.options if value != run.hash]
        with self.quiet():
            choose(self.other, own + others if copies else others + own)
            self.round.max = last
            if not 0 < self.round.value <= last:
                self.round.value = min(1, last)
            choose(self.layer, [(name.removesuffix(".weight"), name) for name in layers])
        self._layer_chosen()

    def _nothing(self) -> str:
        where = getattr(self.store, "url", self.store) or "the store"
        if self.wanted is None:
            return f"there are no runs in {where} yet: start one in the cockpit, or with cc.run(experiment)"
        return f"none of the {len(self.wanted)} runs asked for is in {where} yet: start them with cc.study(experiments)"

    def _layer_chosen(self) -> None:
        """Begin at the layer's first weights."""
        with self.quiet():
            self.filter.value = self.input.value = 0
            self.picture.cell = []
        self.history.show(None)
        self._draw()

    def _other_chosen(self) -> None:
        self._draw()
        self._weight_chosen()

    def _window_moved(self) -> None:
        with self.quiet():
            self.picture.cell = []
        self._draw()

    def _row_chosen(self) -> None:
        names = [value for _, value in self.layer.options]
        self.layer.value = names[min(len(names) - 1, self._first_row(names) + self.table.chosen)]

    def _first_row(self, names: list[str]) -> int:
        """Return the first layer that the table shows: a window around the chosen one."""
        return max(0, min(names.index(self.layer.value) - ROWS // 2, len(names) - ROWS))

    # --- what is compared ---

    def sides(self) -> Sides:
        """Return both masks' (run, round, copy or None for the ticket), and A's round that both were pruned from."""
        if self.run.value not in self.runs:
            raise ValueError(self._nothing())
        run, number, other = self.runs[self.run.value], self.round.value, str(self.other.value)
        if other.startswith("copies"):
            if not number:
                raise ValueError("round 0 is dense: no copy has been pruned yet; move the slider to a later round")
            first, second = map(int, other.split()[1:])
            return (run, number, first), (run, number, second), number - 1
        if other == "before":
            return (run, number, None), (run, max(0, number - 1), None), None  # masks of controls need not nest
        try:
            found = self.runs[other].rounds()
        except ValueError as problem:
            raise ValueError(f"B: {problem}") from None
        if not found:
            raise ValueError(f"B ({self.runs[other].label}) has no finished round yet")
        density = self._record(run, number)["density"]
        nearest = min(found, key=lambda record: abs(record["density"] - density))
        return (run, number, None), (self.runs[other], nearest["round"], None), None

    @staticmethod
    def _record(run: Saved, number: int) -> dict[str, Any]:
        return next((r for r in run.rounds() if r["round"] == number), {"density": float("nan")})

    def masks(self, layers: Iterable[str] | None = None, sides: Sides | None = None) -> tuple[Mask, Mask, Mask | None]:
        """Return A, B and what both were pruned from (None: all weights), of some layers or of all, outputs first.

        Raises
        ------
        ValueError
            In one line, where a file is damaged or the two are masks of different networks.
        """
        (run, number, copy), (other, at, second), before = sides or self.sides()
        if other is not run and run.layers(number) != other.layers(at):
            raise ValueError(
                f"A is a mask of {run.network}, B of {other.network}: masks of different networks cannot be compared"
            )
        layers = list(layers) if layers is not None else None
        a, b = run.mask(number, copy, layers), other.mask(at, second, layers)
        within = run.mask(before, None, layers) if before is not None else None
        turn = lambda mask: masks.outputs_first(mask, run.transposed)  # noqa: E731
        return turn(a), turn(b), turn(within) if within is not None else None

    # --- what is shown ---

    def _draw(self) -> None:
        try:
            layer = self.layer.value
            sides = self.sides()
            a, b, within = self.masks([layer], sides)
            rows = self._fill_table(sides)
            with self.quiet():
                kernel = a[layer].shape
                self.filter.max = (kernel[0] - 1) // WINDOW * WINDOW
                self.input.max = (kernel[1] - 1) // WINDOW * WINDOW
                for slider in (self.filter, self.input):
                    slider.disabled = not slider.max
            first = self.filter.value, self.input.value
            figure = plots.filters(a, b, layer, within, first, (WINDOW, WINDOW), self._names())
            words = self._words(sides, rows, a, b, layer)
        except DAMAGED as problem:
            self._show_nothing(str(problem))
            return
        self.picture.show(
            figure, f"{layer}, {plots.against_chance(a, b, layer, within)}", grid=_grid(figure, a[layer], first)
        )
        self.say("\n".join([*words, *self.problems]))

    def _show_nothing(self, why: str) -> None:
        self.say("\n".join([why, *self.problems]), bad=True)
        with self.quiet():
            self.picture.cell = []
            self.table.rows = []
        self.picture.show(None)
        self.history.show(None)

    def _names(self) -> tuple[str, str]:
        other = str(self.other.value)
        if other.startswith("copies"):
            first, second = other.split()[1:]
            return f"copy {first}", f"copy {second}"
        return ("this round", "round before") if other == "before" else ("A", "B")

    def _fill_table(self, sides: Sides) -> list[dict[str, Any]]:
        """Show every layer's counts, and return them; they are counted once for each choice of masks."""
        (run, number, _), (other, at, _), _ = sides
        key = (self.other.value, run.hash, number, other.hash, at)
        if key not in self._tables:
            a, b, within = self.masks(None, sides)
            _check(run, number)
            if len(self._tables) > 200:
                self._tables.clear()
            self._tables[key] = masks.layer_statistics(a, b, within)
        statistics, names = self._tables[key], [value for _, value in self.layer.options]
        start = self._first_row(names)
        with self.quiet(), self.table.hold_sync():
            self.table.rows = [_cells(r) for r in statistics[start : start + ROWS]]
            self.table.chosen = names.index(self.layer.value) - start
        return statistics

    def _words(self, sides: Sides, rows: list[dict[str, Any]], a: Mask, b: Mask, layer: str) -> list[str]:
        """Say what is compared, the Venn numbers of the whole network, and whether the layer has collapsed."""
        (run, number, _), (other, at, _), before = sides
        total = {name: sum(r[name] for r in rows) for name in ("alive", "a", "b", "both", "expected")}
        either, by_chance = total["a"] + total["b"] - total["both"], total["a"] + total["b"] - total["expected"]
        names = self._names()
        lines = [f"Round {number}: {self._record(run, number)['density']:.2%} dense."]
        if other is not run:
            lines[0] += (
                f" B is round {at} of {other.label}, the nearest in density ({self._record(other, at)['density']:.2%})."
            )
        lines.append(
            f"Whole network: {total['both']:,} in both, {total['a'] - total['both']:,} in {names[0]} only, "
            f"{total['b'] - total['both']:,} in {names[1]} only, {total['alive'] - either:,} in neither"
            + (" (of those alive before this round). " if before is not None else ". ")
            + f"Jaccard {_ratio(total['both'], either):.3f}, "
            + f"by chance within layers {_ratio(total['expected'], by_chance):.3f}."
        )
        lines += warned([self._record(run, number)] + ([self._record(other, at)] if other is not run else []))
        if not (a[layer].any() or b[layer].any()):
            lines.append(f"{layer.removesuffix('.weight')} has collapsed: neither mask keeps a weight of it.")
        return lines

    def _weight_chosen(self) -> None:
        """Show the history of the weight that was clicked."""
        if not self.picture.cell or not self.picture.grid:
            return
        grid, layer = self.picture.grid, self.layer.value
        place = grid["column"] * grid["span"] + self.picture.cell[1]
        try:
            (run, number, _), (other, _, _), _ = self.sides()
            turned, shape = layer in run.transposed, run.layers(number)[layer]
            shown = (shape[0] if turned else shape[1], *shape[2:])  # input channel, kernel row and column
            into, *within = map(int, np.unravel_index(place, shown))
            out = grid["row"] + self.picture.cell[0]
            index = (into, out, *within) if turned else (out, into, *within)
            table = weight_table(run, layer, index, other if other is not run else None)
            value = run.weight(number, layer, index)
        except DAMAGED as problem:
            self.say(str(problem), bad=True)
            return
        gone = table["round"][[kept is False for kept in table["ticket"]]]
        when = f"first gone in round {gone.iloc[0]}" if len(gone) else "never pruned"
        title = f"{layer.removesuffix('.weight')}[{', '.join(map(str, index))}], theta0 = {value:+.4f}: {when}"
        self.history.show(plots.weight_history(table, title), title)


def weight_table(run: Saved, layer: str, index: tuple[int, ...], other: Saved | None = None) -> pd.DataFrame:
    """Return which masks kept one weight, a row a round: the ticket, each copy, and another run's ticket."""
    rows = []
    for record in run.rounds():
        kept = run.kept(record["round"], layer, index)
        copies = {f"copy {name}": value for name, value in kept.items() if name != "ticket"}
        rows.append({"round": record["round"], "ticket": kept["ticket"]} | copies)
    table = pd.DataFrame(rows)
    if other is not None:
        there = {r["round"]: other.kept(r["round"], layer, index)["ticket"] for r in other.rounds()}
        table = pd.DataFrame({"round": sorted({*table["round"], *there})}).merge(table, how="left", on="round")
        table[f"B: {other.about['method']}"] = [there.get(number) for number in table["round"]]
    return table.astype(object).where(table.notna(), None)


def _grid(figure: Any, layer: Any, first: tuple[int, int]) -> dict[str, Any]:
    """Return where the weights lie in the drawn picture."""
    box, span = figure.axes[0].get_position(), layer[0, 0].numel()
    return {
        "box": [round(v, 5) for v in (box.x0, 1 - box.y1, box.x1, 1 - box.y0)],
        "rows": min(WINDOW, layer.shape[0] - first[0]), "columns": min(WINDOW, layer.shape[1] - first[1]) * span,
        "row": first[0], "column": first[1], "span": span, "kernel": layer.shape[-1] if layer.ndim > 2 else 1,
    }  # fmt: skip


def _check(run: Saved, number: int) -> None:
    """Refuse a round whose file does not hold the mask that its record speaks of."""
    record = Explorer._record(run, number)
    density = masks.density(run.mask(number))
    if abs(density - record["density"]) > 1e-9:
        raise ValueError(
            f"round {number} of {run.hash} is altered: its file keeps {density:.4%} of the weights, "
            f"its record says {record['density']:.4%}"
        )


def _cells(r: dict[str, Any]) -> list[str]:
    """Write a row of `masks.layer_statistics`."""
    plain = lambda value, form: "-" if value != value else format(value, form)  # noqa: E731 (NaN: no variance)
    return [
        r["layer"], *(f"{r[name]:,}" for name in ("alive", "a", "b", "both")), f"{r['expected']:,.0f}",
        plain(r["jaccard"], ".3f"), plain(r["chance"], ".3f"), plain(r["z"], "+.1f"), plain(r["kappa"], "+.3f"),
    ]  # fmt: skip


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 1.0
