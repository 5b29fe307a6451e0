"""Tickets compared: accuracy against sparsity, how alike their masks are, which layers keep their weights."""

import json
from html import escape
from pathlib import Path
from typing import Any

import ipywidgets
import pandas as pd

from .. import masks, plots, report
from ..models import in_words
from ..studies.records import Place, ticket_name
from ..studies.saved import DAMAGED, Saved, runs_in
from ..tickets import Ticket
from .page import write_chart
from .parts import View, choose, panels, row, told_by

MOST = 40  # tickets in a similarity matrix; 16 in a profile
FILTERS = {"scored_on": "Data set", "net": "Network", "arm": "Method", "seed": "Seed"}
VIEWS = [("accuracy", "accuracy"), ("similarity", "similarity"), ("layers", "layers")]
MEASURES = [("Jaccard index", False), ("Jaccard index minus chance", True)]


class Compare(View):
    """Compare the tickets of a store; see `compare`."""

    def __init__(self, records: pd.DataFrame | None, store: Place) -> None:
        super().__init__("Ticket comparison")
        self.store, self.given = store, records
        self.runs = dict[str, Saved]()
        self.scores = self.tickets = pd.DataFrame()
        self.filters = {name: ipywidgets.SelectMultiple(layout={"width": "auto"}) for name in FILTERS}
        self.view = ipywidgets.ToggleButtons(options=VIEWS, style={"button_width": "100px"})
        self.which = ipywidgets.Dropdown(description="Tickets", layout={"width": "auto"})
        self.measure = ipywidgets.Dropdown(options=MEASURES, description="Measure", layout={"width": "auto"})
        self.reload = ipywidgets.Button(description="Reload", icon="refresh", tooltip="read the store again")
        self.details = ipywidgets.HTML()
        self.details.add_class("colt-details")
        boxes = [ipywidgets.VBox([ipywidgets.Label(title), self.filters[name]]) for name, title in FILTERS.items()]
        tools = row(self.view, self.which, self.measure, self.reload)
        self.lay_out(panels([row(*boxes), tools, self.words, self.details], self.picture))
        self.listen(*self.filters.values(), self.view, self.which, self.measure, to=self._draw)
        self.listen(self.picture, to=self._spot_chosen, trait="spot")
        self.reload.on_click(lambda _: self.read())
        self.read()

    def read(self) -> None:
        """Read the store again, or take the records given, and draw."""
        found, self.problems = runs_in(self.store)
        self.runs = {run.hash: run for run in found}
        records = self.given if self.given is not None else pd.DataFrame(self._records())
        self.scores, self.tickets = _shape(records)
        doubtful = {row["experiment"] for row in records.to_dict("records") if told_by(row)}
        if doubtful:
            every = records["experiment"].nunique()
            self.problems.append(f"{len(doubtful)} of {every} runs carry warnings: see cc.report.warnings(records).")
        with self.quiet():
            for name, box in self.filters.items():
                tables = [table[name].dropna() for table in (self.scores, self.tickets) if len(table)]
                options = sorted(set(pd.concat(tables)), key=str) if tables else []
                everything = set(box.value) == set(box.options)
                chosen = () if everything else tuple(v for v in box.value if v in options)
                box.options = options
                box.value = chosen or tuple(options)
                box.rows = max(2, len(options))  # a single row would be drawn as a menu
            levels = sorted({round(1 - d, 2) for d in self.scores["density"] if d < 1}) if len(self.scores) else []
            named = [(f"one a run, nearest to {report.level(s)}", s) for s in levels]
            first = None if self.which.options else levels[-1] if levels else -1.0
            choose(self.which, [*named, ("every round", -1.0)], first)
        self._draw()

    def _records(self) -> list[dict[str, Any]]:
        """Return all records; a run whose are damaged meanwhile is named."""
        records = []
        for run in self.runs.values():
            try:
                records += run.records()
            except ValueError as problem:
                self.problems.append(str(problem))
        return records

    def chosen(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return the rows that the four filters let through."""
        for name, box in self.filters.items():
            keep = table[name].isin(box.value)
            table = table[keep | table[name].isna()] if name == "scored_on" else table[keep]
        return table

    @property
    def ticket(self) -> Ticket | None:
        """The ticket that was clicked last, or None."""
        if not self._clicked or self._clicked[0] not in self.runs:
            return None
        name, number = self._clicked
        with self.runs[name].store.fetched(ticket_name(name, number)) as path:
            return Ticket.load(path)

    _clicked: tuple[str, int] | None = None
    _spots: list[tuple[str, int]] = []

    # --- what is shown ---

    def _draw(self) -> None:
        self.details.value = ""
        self.which.disabled = self.view.value == "accuracy"
        self.measure.disabled = self.view.value != "similarity"
        try:
            if not len(self.tickets):
                where = getattr(self.store, "url", self.store) or "the store"
                raise ValueError(
                    f"there are no rounds in {where} yet: start a run in the cockpit, or with cc.study(...)"
                )
            getattr(self, f"_draw_{self.view.value}")()
        except DAMAGED as problem:
            self.say("\n".join([str(problem), *self.problems]), bad=True)
            self.picture.show(None)

    def _tell(self, text: str) -> None:
        self.say("\n".join([text, *self.problems]))

    def _draw_accuracy(self) -> None:
        shown = self.chosen(self.scores) if len(self.scores) else self.scores
        if not len(shown):
            raise ValueError("no scored ticket fits these filters: choose more, or score tickets (scores=...)")
        figure = plots.tickets(shown)
        texts = [
            f"{plots.arm_name(r.arm)}, seed {r.seed}, round {r.round}\n"
            f"{r.accuracy:.1%} accuracy at {1 - r.density:.2%} sparsity\n"
            f"{r.scored_on}, {r.net}, {r.train_images:,} training images"
            for r in shown.itertuples()
        ]
        self._spots = list(zip(shown["experiment"], shown["round"], strict=True))
        alt = f"test accuracy against density of {len(shown)} tickets"
        self.picture.show_points(figure, figure.axes[0], shown["density"], shown["accuracy"], texts, alt)
        runs = shown["experiment"].nunique()
        self._tell(
            f"{len(shown)} scored tickets of {runs} runs. Hover over a point for its numbers; click it for its file."
        )

    def _some(self, most: int) -> tuple[pd.DataFrame, str]:
        """Return the tickets to look into, all of one network and whose files are there, and what was left out."""
        rows = self.chosen(self.tickets)
        rows = rows[rows["experiment"].isin(list(self.runs)) & (rows["density"] < 1)]
        if self.which.value >= 0 and len(rows):
            far = (rows["density"] - (1 - self.which.value)).abs()
            rows = rows.loc[far.groupby(rows["experiment"], sort=False).idxmin()]
        there = [
            self.runs[e].store.exists(ticket_name(e, n)) for e, n in zip(rows["experiment"], rows["round"], strict=True)
        ]
        lost, rows = len(there) - sum(there), rows[there]
        if not len(rows):
            raise ValueError("no pruned ticket with its file here fits these filters: choose more")
        first = rows["net"].value_counts().index[0]
        foreign = int((rows["net"] != first).sum())
        rows = rows[rows["net"] == first].sort_values(["arm", "seed", "round"])
        told = [f"{lost} rounds whose files are not kept here are left out." if lost else ""]
        told += [
            f"{foreign} tickets of other networks than {first} are left out: masks compare within one network."
            if foreign
            else ""
        ]
        told += [f"The first {most} of {len(rows)} tickets are shown: filter more." if len(rows) > most else ""]
        return rows.head(most), " ".join(text for text in told if text)

    def _masks(self, rows: pd.DataFrame) -> list[masks.Mask]:
        return [self.runs[e].mask(int(n)) for e, n in zip(rows["experiment"], rows["round"], strict=True)]

    def _draw_similarity(self) -> None:
        rows, left_out = self._some(MOST)
        if len(rows) < 2:
            raise ValueError(f"two tickets are needed to compare masks; these filters leave {len(rows)}")
        matrix = masks.similarities(self._masks(rows), self.measure.value).numpy()
        names = _labels(rows)
        table = pd.DataFrame(matrix, names, names)
        measure = self.measure.label
        figure = plots.similarity(table, measure, centre=self.measure.value)
        order, count = plots.order_of(table), len(rows)
        texts = [f"{names[i]}\n{names[j]}\n{measure} {matrix[i, j]:.3f}" for i in order for j in order]
        self._spots = [list(zip(rows["experiment"], rows["round"], strict=True))[i] for i in order for _ in order]
        axis = next(a for a in figure.axes if a.get_ylabel() == "" and len(a.get_yticklabels()) == count)
        at = [(x + 0.5, y + 0.5) for y in range(count) for x in range(count)]
        self.picture.show_points(
            figure, axis, [x for x, _ in at], [y for _, y in at], texts, f"{measure} of {count} tickets"
        )
        self._tell(f"{count} tickets, the most alike side by side. {left_out}".strip())

    def _draw_layers(self) -> None:
        rows, left_out = self._some(16)
        tables = [masks.by_layer(mask)["density"] for mask in self._masks(rows)]
        table = pd.DataFrame(dict(zip(_labels(rows), tables, strict=True))).rename_axis("layer").reset_index()
        figure = plots.layer_densities(table)
        names = [name for name in table if name != "layer"]
        places = [
            (i, table[name][i], f"{name}\n{table['layer'][i]}: {table[name][i]:.2%} dense")
            for name in names
            for i in table.index
        ]
        self._spots = [(e, n) for e, n in zip(rows["experiment"], rows["round"], strict=True) for _ in table.index]
        x, y, texts = zip(*places, strict=True)
        self.picture.show_points(figure, figure.axes[0], x, y, texts, f"layer densities of {len(rows)} tickets")
        self._tell(f"{len(rows)} tickets, layer by layer. {left_out}".strip())

    def _spot_chosen(self) -> None:
        """Say which ticket was clicked, and how to load it."""
        if not 0 <= self.picture.spot < len(self._spots):
            return
        name, number = self._spots[self.picture.spot]
        self._clicked = name, int(number)
        text = self.picture.spots[self.picture.spot][2].replace("\n", "; ")
        if name not in self.runs:
            self.details.value = escape(f"{text}. Its store is not this one ({name}).")
            return
        store = self.runs[name].store
        file = f"{store.url}/{ticket_name(name, int(number))}"
        how = f"cc.Ticket.load({file!r})" if store.local else f"{file}, as the view's .ticket"
        self.details.value = f"{escape(text)}<br><code>{escape(how)}</code>"

    def save(self, path: str | Path) -> Path:
        """Write the scores that the filters let through, as a chart in a page that needs no Python and no network.

        Raises
        ------
        ValueError
            Where there is none.
        ImportError
            In one line, where the extra `charts` is not installed.
        """
        shown = self.chosen(self.scores) if len(self.scores) else self.scores
        if not len(shown):
            raise ValueError("there is nothing to save: no scored ticket fits these filters")
        chart = plots.tickets_chart(shown)
        return write_chart(path, escape(self.title), chart, self.still(), self.picture.alt, shown)


def _shape(records: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the scores, and the rounds, a row each, with the columns that the filters and pictures need."""
    if not len(records):
        return pd.DataFrame(), pd.DataFrame()
    nets = [
        in_words(n, json.loads(a or "{}")) for n, a in zip(records["network"], records["network_args"], strict=True)
    ]
    named = pd.concat([report.arms(group) for _, group in records.assign(net=nets).groupby("net", sort=False)])
    scores = named[named["kind"] == "score"].reset_index(drop=True)
    rounds = named[named["kind"] == "round"]
    where = scores.drop_duplicates("experiment").set_index("experiment")["scored_on"].astype(object)
    rounds = rounds.assign(scored_on=rounds["experiment"].map(where).astype(object).fillna(rounds["dataset"]))
    return scores, rounds.reset_index(drop=True)


def _labels(rows: pd.DataFrame) -> list[str]:
    """Name tickets by what tells them apart; numbered where that is not enough."""
    several = [name for name in ("dataset", "arm", "seed", "round") if rows[name].nunique() > 1 or name == "arm"]
    form = {"seed": "seed {}", "round": "round {}"}
    told = rows.assign(arm=[plots.arm_name(arm) for arm in rows["arm"]])
    names = [", ".join(form.get(n, "{}").format(r[n]) for n in several) for r in told.to_dict("records")]
    names = [f"{name} ({1 - d:.0%} sparse)" for name, d in zip(names, rows["density"], strict=True)]
    return [f"{name} #{i}" if names.count(name) > 1 else name for i, name in enumerate(names)]
