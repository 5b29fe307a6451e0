"""Tickets compared: accuracy against sparsity, how alike their masks are, which layers keep their weights."""

from base64 import b64encode
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

import ipywidgets
import pandas as pd

from .. import masks, plots, report
from ..studies.records import Place, ticket_name
from ..studies.saved import DAMAGED, Saved, runs_in
from ..tickets import Ticket
from .page import write_chart
from .parts import View, choose, form, panels, row, told_by
from .query import queried
from .verdicts import verdict_table

MOST = 40  # tickets in a similarity matrix; 16 in a profile
FILTERS = {"scored_on": "Data set", "net": "Network", "arm": "Method", "seed": "Seed"}  # each narrows those after it
OPENS_WITH = ("colt", "imp", "matched", "random", "dense")
VIEWS = [("accuracy", "accuracy"), ("settings", "settings"), ("similarity", "similarity"), ("layers", "layers")]
MEASURES = [("Jaccard index", False), ("Jaccard index minus chance", True)]
ASKED = ["method", "arm", "dataset", "scored_on", "network", "net", "seed", "round", "density", "sparsity", "accuracy"]
ASKED += ["rate", "target", "parts", "by", "scope", "rewind", "train_images", "image_epochs", "experiment"]


class Compare(View):
    """Compare the tickets of a store; see `compare`."""

    def __init__(self, records: pd.DataFrame | None, store: Place) -> None:
        super().__init__("Ticket comparison")
        self.store, self.given = store, records
        self.runs = dict[str, Saved]()
        self.scores = self.tickets = pd.DataFrame()
        self.wanted: dict[str, tuple[Any, ...]] = {}  # what the reader has chosen, by filter
        wide = {"layout": {"width": "auto"}}
        self.filters = {name: ipywidgets.SelectMultiple(**wide) for name in FILTERS}
        self.view = ipywidgets.ToggleButtons(options=VIEWS, style={"button_width": "92px"})
        self.query = ipywidgets.Text(
            description="Query", continuous_update=False, placeholder='rate < 0.2 and method == "colt"', **wide
        )
        self.singles = ipywidgets.Checkbox(description="Single runs", indent=False, **wide)
        self.against = ipywidgets.Dropdown(description="Verdicts on", **wide)
        self.which = ipywidgets.Dropdown(description="Tickets", **wide)
        self.measure = ipywidgets.Dropdown(options=MEASURES, description="Measure", **wide)
        self.reload = ipywidgets.Button(description="Reload", icon="refresh", tooltip="read the store again")
        self.csv, self.verdicts, self.details = ipywidgets.HTML(), ipywidgets.HTML(), ipywidgets.HTML()
        self.details.add_class("colt-details")
        self.verdicts.add_class("colt-verdicts")
        boxes = [ipywidgets.VBox([ipywidgets.Label(title), self.filters[name]]) for name, title in FILTERS.items()]
        tools = row(self.view, self.singles, self.reload, self.csv)
        choices = form(self.query, self.against, self.which, self.measure)
        left = [row(*boxes), tools, choices, self.words, self.verdicts, self.details]
        self.lay_out(panels(left, self.picture))
        for name, box in self.filters.items():
            self.listen(box, to=partial(self._chosen_in, name))
        self.listen(self.view, self.which, self.measure, self.singles, self.query, self.against, to=self._draw)
        self.listen(self.picture, to=self._spot_chosen, trait="spot")
        self.reload.on_click(lambda _: self.read())
        self.read()

    def read(self) -> None:
        """Read the store again, or take the records given, and draw."""
        found, self.problems = runs_in(self.store)
        self.runs = {run.hash: run for run in found}
        records = self.given if self.given is not None else pd.DataFrame(self._records())
        self.scores, self.tickets = report.overview(records)
        doubtful = {row["experiment"] for row in records.to_dict("records") if told_by(row)}
        if doubtful:
            every = records["experiment"].nunique()
            self.problems.append(f"{len(doubtful)} of {every} runs carry warnings: see cc.report.warnings(records).")
        with self.quiet():
            self._narrow()
            levels = sorted({round(1 - d, 2) for d in self.scores["density"] if d < 1}) if len(self.scores) else []
            named = [(f"one a run, nearest to {report.level(s)}", s) for s in levels]
            first = None if self.which.options else levels[-1] if levels else -1.0
            choose(self.which, [*named, ("every round", -1.0)], first)
        self._draw()

    def _narrow(self) -> None:
        """Give each filter the options that those before it leave, and what was chosen of them; else the usual ones."""
        table = pd.concat([t[list(FILTERS)] for t in (self.scores, self.tickets) if len(t)] or [pd.DataFrame()])
        table = table.drop_duplicates()
        for name, box in self.filters.items():
            options = sorted(set(table[name].dropna()), key=_usual_first) if len(table) else []
            wanted = self.wanted.get(name)
            kept = [one for one in options if one in wanted] if wanted is not None else self._usual(name, options)
            value = tuple(kept if kept or wanted == () else options)
            box.options = [(plots.arm_name(one) if name == "arm" else str(one), one) for one in options]
            box.value, box.rows = value, max(2, len(options))  # a single row would be drawn as a menu
            if len(table):
                table = table[table[name].isin(value)]

    def _usual(self, name: str, options: list[Any]) -> list[Any]:
        """Return what a filter opens with: one data set, one network, COLT and its controls, every seed; or nothing."""
        if name == "arm":  # a run that others follow may be unscored: a view of it alone would be empty
            scored = set(self.scores["arm"]) if len(self.scores) else set(options)
            return [arm for arm in options if arm in OPENS_WITH and arm in scored]
        if name == "seed" or not len(self.scores):
            return options
        known = self.scores[self.scores["arm"].isin(OPENS_WITH)]
        if name == "net":
            known = known[known["scored_on"].isin(self.filters["scored_on"].value)]
        counts = known.groupby(name)["arm"].nunique()
        return [max(counts.index, key=lambda one: (counts[one], (known[name] == one).sum()))] if len(counts) else []

    def _chosen_in(self, name: str) -> None:
        """The reader has chosen in a filter: those after it follow."""
        self.wanted[name] = tuple(self.filters[name].value)
        with self.quiet():
            self._narrow()
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
        """Return the rows that the filters and the query let through.

        Raises
        ------
        ValueError
            In one line, for a query that is none.
        """
        for name, box in self.filters.items():
            keep = table[name].isin(box.value)
            table = table[keep | table[name].isna()] if name == "scored_on" else table[keep]
        table = table.sort_values("arm", key=lambda arms: arms.map(_usual_first), kind="stable")
        asked = queried(table[[name for name in ASKED if name in table]].reset_index(drop=True), self.query.value)
        return table.iloc[asked.index]

    def table(self) -> pd.DataFrame:
        """Return the numbers of the picture of accuracies: `report.collapsed` of what is chosen.

        Raises
        ------
        ValueError
            In one line, where nothing is chosen, or the query is none.
        """
        shown = self._scored()
        if not len(shown):
            raise ValueError("no scored ticket fits these filters: choose more, or score tickets (scores=...)")
        return report.collapsed(shown)

    @property
    def ticket(self) -> Ticket | None:
        """The ticket that was clicked last, or None."""
        if not self._clicked or self._clicked[0] not in self.runs:
            return None
        name, number = self._clicked
        with self.runs[name].store.fetched(ticket_name(name, number)) as path:
            return Ticket.load(path)

    def _scored(self) -> pd.DataFrame:
        """Return the chosen scores of one metric, accuracy where there is any: another would need another axis."""
        shown = self.chosen(self.scores) if len(self.scores) else self.scores
        if not len(shown):
            return shown
        named = report.metrics(shown)
        metric, *self._left_out = sorted(set(named), key=lambda name: (name != "accuracy", name))
        return shown[named == metric]

    _left_out: list[str] = []  # metrics
    _clicked: tuple[str, int] | None = None
    _spots: list[tuple[str, int]] = []

    # --- what is shown ---

    def _draw(self) -> None:
        self.details.value = self.verdicts.value = self.csv.value = ""
        plain = self.view.value in ("accuracy", "settings")
        for control, off in ((self.which, plain), (self.singles, self.view.value != "accuracy")):
            control.disabled = off
        self.against.disabled = self.view.value != "accuracy"
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
        table = self.table()
        shown = self._scored()
        singles = self.singles.value
        figure = plots.curves(table, shown if singles else None)
        points = shown if singles else table
        metric, _ = report.metric_of(table)
        panels, texts, self._spots = [], [], []
        for axis, (data, net) in zip(figure.axes, plots.panels_of(table), strict=False):
            here = points[(points["scored_on"] == data) & (points["net"] == net)]
            panels.append((axis, here["density"], here[metric]))
            texts += [_point(r, metric, singles) for r in here.to_dict("records")]
            self._spots += list(zip(here["experiment"], here["round"], strict=True))
        runs, seeds = shown["experiment"].nunique(), shown["seed"].nunique()
        alt = f"test {metric} against density of {len(shown)} tickets, {table['arm'].nunique()} arms"
        self.picture.show_panels(figure, panels, texts, alt)
        each = "each point a ticket" if singles else f"each point a mean over up to {report.count_seeds(seeds)}"
        left = f" Scores by {', '.join(self._left_out)} are left out: choose their network." if self._left_out else ""
        self._tell(f"{len(shown)} scored tickets of {runs} runs, {each}. Hover over one; click it for its file.{left}")
        self._offer(table)
        self._judge(shown)

    def _judge(self, shown: pd.DataFrame) -> None:
        """Say beside the curves what the paired tests say of one arm against each other; for one panel."""
        arms = sorted(set(shown["arm"]), key=_usual_first)
        with self.quiet():
            choose(self.against, [(plots.arm_name(arm), arm) for arm in arms])
        if len(plots.panels_of(shown)) > 1 or len(arms) < 2:
            self.verdicts.value = "" if len(arms) < 2 else "Verdicts are of one data set and network: choose one."
            return
        found = report.beside(shown, self.chosen_rounds(shown), self.against.value)
        self.verdicts.value = verdict_table(found, self.against.value)

    def chosen_rounds(self, shown: pd.DataFrame) -> pd.DataFrame:
        """Return the rounds of the runs of some scores."""
        return self.tickets[self.tickets["experiment"].isin(set(shown["experiment"]))]

    def _offer(self, table: pd.DataFrame) -> None:
        """Offer a table as a CSV file, which the browser keeps: it needs no kernel to be saved."""
        data = b64encode(table.to_csv(index=False).encode()).decode()
        self.csv.value = f'<a class="colt-link" download="comparison.csv" href="data:text/csv;base64,{data}">CSV</a>'

    def _draw_settings(self) -> None:
        """Draw the runs over the settings in which they differ, coloured by the score of their sparsest ticket."""
        shown = self._scored()
        if not len(shown):
            raise ValueError("no scored ticket fits these filters: choose more, or score tickets (scores=...)")
        metric, _ = report.metric_of(shown)
        last = shown.sort_values("density").drop_duplicates("experiment").reset_index(drop=True)
        several = [name for name in SETTINGS_SHOWN if name in last and last[name].astype(str).nunique() > 1]
        table = last[several].copy()
        if "method" in table:
            table["method"] = [plots.arm_name(one) for one in table["method"]]
        for name in table:
            if not pd.api.types.is_numeric_dtype(table[name]):
                table[name] = [str(value) for value in table[name]]
        sign = {metric: 100.0} if metric == "accuracy" else {}
        table["sparsity, %"] = 100 * (1 - last["density"])
        ending = f"test {metric}, %" if sign else f"test {metric}"
        table[ending] = last[metric] * sign.get(metric, 1.0)
        table = table[table[ending].notna()]
        self._spots = []
        self.picture.show(
            plots.parallel(table, list(table), ending), f"{len(table)} runs over {', '.join(several) or 'no setting'}"
        )
        self._offer(table.assign(experiment=last["experiment"]))
        self._tell(f"{len(table)} runs, each by its sparsest scored ticket; only settings that differ have an axis.")

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

        Under it stand the verdicts, a table for each data set and network.

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
        return write_chart(
            path, escape(self.title), chart, self.still(), self.picture.alt, shown, self._verdicts(shown)
        )

    def _verdicts(self, shown: pd.DataFrame) -> str:
        """Write the verdicts of each data set and network, of the arm that is chosen or of the first, as HTML."""
        tables = []
        for (data, net), rows in shown.groupby(["scored_on", "net"], sort=False):
            arms = sorted(set(rows["arm"]), key=_usual_first)
            arm = self.against.value if self.against.value in arms else arms[0]
            if len(arms) > 1:
                found = report.beside(rows, self.chosen_rounds(rows), arm)
                tables.append(f"<h2>{escape(f'{data}, {net}')}</h2>{verdict_table(found, arm)}")
        return f'<section class="colt-verdicts">{"".join(tables)}</section>'


SETTINGS_SHOWN = ("method", "parts", "by", "rate", "target", "scope", "rewind", "options", "recipe", "seed")


def _usual_first(one: Any) -> tuple[int, str]:
    """Sort COLT and its controls first, the others by name; numbers by value."""
    if isinstance(one, int | float):
        return 0, f"{one:012.3f}"
    plain = str(one).split(" ")[0]
    return (OPENS_WITH.index(plain) if plain in OPENS_WITH else len(OPENS_WITH)), str(one)


def _point(r: dict[str, Any], metric: str, single: bool) -> str:
    """Say what a point is."""
    value = f"{r[metric]:.1%} accuracy" if metric == "accuracy" else f"{metric} {r[metric]:.4g}"
    if single:
        who = f"{plots.arm_name(r['arm'])}, seed {r['seed']}, round {r['round']}"
    else:
        who = f"{plots.arm_name(r['arm'])}, mean of {report.count_seeds(r['seeds'])}"
        if r["half_width"] == r["half_width"]:
            half = 100 * r["half_width"] if metric == "accuracy" else r["half_width"]
            value += f" ± {half:.2g}{' points' if metric == 'accuracy' else ''}"
    images = r.get("train_images")
    told = f", {images:,.0f} training images" if images == images and images is not None else ""
    return f"{who}\n{value} at {1 - r['density']:.2%} sparsity\n{r['scored_on']}, {r['net']}{told}"


def _labels(rows: pd.DataFrame) -> list[str]:
    """Name tickets by what tells them apart; numbered where that is not enough."""
    several = [name for name in ("dataset", "arm", "seed", "round") if rows[name].nunique() > 1 or name == "arm"]
    form = {"seed": "seed {}", "round": "round {}"}
    told = rows.assign(arm=[plots.arm_name(arm) for arm in rows["arm"]])
    names = [", ".join(form.get(n, "{}").format(r[n]) for n in several) for r in told.to_dict("records")]
    names = [f"{name} ({1 - d:.0%} sparse)" for name, d in zip(names, rows["density"], strict=True)]
    return [f"{name} #{i}" if names.count(name) > 1 else name for i, name in enumerate(names)]
