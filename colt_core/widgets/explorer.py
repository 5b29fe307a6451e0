"""The mask explorer: masks of a run, or of two, layer by layer and weight by weight, drawn by the browser.

Masks travel bit-packed, once each; a move of a slider asks the kernel nothing that the browser has. `save` writes all
of it into one file, which needs no Python.
"""

from collections.abc import Iterable
from contextlib import suppress
from html import escape
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
import pandas as pd
import traitlets

from .. import plots
from ..masks import Mask, outputs_first
from ..studies.experiment import Experiment
from ..studies.records import Place
from ..studies.saved import DAMAGED, Saved, runs_in
from .page import binary, write_page
from .parts import _STYLE, Still, module
from .sheets import Sheets, turned

WINDOW = 64  # filters, and input channels, in the picture that stays where no kernel runs
SMALL = 8_000_000  # bytes: theta0 goes into a page by itself where it takes no more
SCRIPTS = ("state.js", "table.js", "mask.js", "explorer.js")


class Explorer(Still, anywidget.AnyWidget):
    """Look into masks; see `explorer`.

    Attributes
    ----------
    run, round, layer
        The run's hash, the round and the parameter that are shown: A.
    other
        What it is compared with: "copies 0 1" of A, "all" its copies, "before" (its own round before), or a run's hash.
    weight
        The chosen weight as the picture has it: [filter, place in the filter]; empty: none.
    """

    _esm = module("explorer", *SCRIPTS)
    _css = _STYLE
    title = traitlets.Unicode("Mask explorer").tag(sync=True)
    runs: Any = traitlets.List([]).tag(sync=True)
    run = traitlets.Unicode("").tag(sync=True)
    other = traitlets.Unicode("").tag(sync=True)
    round = traitlets.Int(1).tag(sync=True)
    layer = traitlets.Unicode("").tag(sync=True)
    weight: Any = traitlets.List([]).tag(sync=True)
    problems: Any = traitlets.List([]).tag(sync=True)
    edition = traitlets.Int(0).tag(sync=True)

    def __init__(self, runs: Iterable[Experiment | str] | None, store: Place) -> None:
        super().__init__()
        self.wanted = None if runs is None else [r if isinstance(r, str) else r.hash for r in runs]
        self.store, self.sheets = store, Sheets({})
        self.on_msg(self._asked)
        self.read()

    def read(self) -> None:
        """Read again which runs the store has."""
        found, problems = runs_in(self.store)
        runs = {run.hash: run for run in found if self.wanted is None or run.hash in self.wanted}
        labels = [run.label for run in runs.values()]
        lacking = [name for name in self.wanted or () if name not in runs]
        if lacking and runs:
            problems.append(f"{len(lacking)} of the {len(self.wanted or ())} runs asked for are not in the store yet.")
        order = self.wanted or sorted(runs, key=lambda name: runs[name].label)
        self.sheets = Sheets({name: runs[name] for name in order if name in runs})
        with self.hold_sync():
            self.runs = [
                [run.label if labels.count(run.label) == 1 else f"{run.label} ({name[:6]})", name]
                for name, run in self.sheets.runs.items()
            ]
            self.problems = problems if runs else [self._nothing(), *problems]
            self.edition += 1
            if self.run in self.sheets.runs:
                self._follow()
            else:
                self.run = next(iter(self.sheets.runs), "")

    def _nothing(self) -> str:
        where = getattr(self.store, "url", self.store) or "the store"
        if self.wanted is None:
            return f"there are no runs in {where} yet: start one in the cockpit, or with cc.run(experiment)"
        return f"none of the {len(self.wanted)} runs asked for is in {where} yet: start them with cc.study(experiments)"

    @traitlets.observe("run")
    def _follow(self, _: Any = None) -> None:
        """Choose what this run has."""
        about = self.about()
        if about.get("problem"):
            return
        last, layers = about["rounds"][-1][0], [name for name, _ in about["layers"]]
        self.round = self.round if 0 < self.round <= last else min(1, last)
        self.layer = self.layer if self.layer in layers else layers[0]
        values = [value for _, value in about["others"]]
        self.other = self.other if self.other in values else next(iter(values), "")

    # --- what is shown ---

    def about(self, name: str | None = None) -> dict[str, Any]:
        """Return what can be chosen of a run (by default the one shown), or {"problem": why nothing can}."""
        try:
            name = self.run if name is None else name
            if name not in self.sheets.runs:
                raise ValueError(self._nothing())
            return self.sheets.about(name)
        except DAMAGED as problem:
            return {"problem": str(problem)}

    @property
    def sheet(self) -> dict[str, Any]:
        """What is shown: the numbers of every layer, legend and words; see `Sheets.sheet`."""
        about = self.about()
        return about if about.get("problem") else self.sheets.sheet(self.run, self.round, self.other)

    @property
    def words(self) -> str:
        """What the view has to say."""
        sheet = self.sheet
        told = [sheet["problem"]] if sheet.get("problem") else sheet["words"]
        return "\n".join(dict.fromkeys([*told, *self.problems]))

    def masks(self, layers: Iterable[str] | None = None) -> tuple[Mask, Mask, Mask | None]:
        """Return A, B and what both were pruned from (None: all weights), of some layers or of all.

        Of all copies at once: the first two.

        Raises
        ------
        ValueError
            In one line, where a file is damaged or the two are masks of different networks.
        """
        choice = self.sheets.choice(self.run, self.round, self.other)
        layers = list(layers) if layers is not None else None
        within = choice.before.mask(layers) if choice.before is not None else None
        return choice.sides[0].mask(layers), choice.sides[1].mask(layers), within

    def history(self) -> pd.DataFrame:
        """Return which masks kept the chosen weight, round by round; see `weight_table`.

        Raises
        ------
        ValueError
            Where none is chosen.
        """
        if not self.weight:
            raise ValueError("no weight is chosen: click one in the picture, or set .weight = [filter, place]")
        run = self.sheets.runs[self.run]
        swapped = self.layer in run.transposed
        shape = turned(run.layers(self.round)[self.layer], swapped)
        index = turned((self.weight[0], *map(int, np.unravel_index(self.weight[1], shape[1:]))), swapped)
        other = self.sheets.runs.get(self.other)
        return weight_table(run, self.layer, index, other)

    def still(self) -> bytes:
        """Draw the first weights of the layer shown, as a PNG file's bytes."""
        try:
            a, b, within = self.masks([self.layer])
            names = self.sheets.choice(self.run, self.round, self.other).names
            figure = plots.filters(a, b, self.layer, within, limit=(WINDOW, WINDOW), names=(names[0], names[1]))
        except DAMAGED:
            return b""
        return plots.png(figure)

    # --- what the browser asks for ---

    def _asked(self, _: Any, content: dict[str, Any], __: Any) -> None:
        """Answer the browser, which keeps what it is sent."""
        what, of = content.get("want"), content.get("of") or ""
        answer: dict[str, Any] = {"want": what, "of": of, "edition": self.edition}
        buffers: list[np.ndarray] = []
        if what == "reload":
            self.read()
            return
        if what == "about":
            answer["is"] = self.about(of)
        elif what == "sheet":
            answer["is"] = sheet = self.sheets.sheet(*of)
            answer["keys"] = [key for key in sheet.get("masks", ()) if key not in set(content["have"])]
            buffers = [self.sheets.packed(key) for key in answer["keys"]]
        elif what == "theta0" and of[0] in self.sheets.runs:
            buffers = [_theta0(self.sheets.runs[of[0]], of[1])]
        self.send(answer, [buffer.data for buffer in buffers])

    # --- without a kernel ---

    def save(
        self,
        path: str | Path,
        rounds: Iterable[int] | None = None,
        theta0: bool | None = None,
        beside: bool = False,
    ) -> Path:
        """Write the explorer as a page that needs no Python and no network: it opens from a disk.

        Parameters
        ----------
        path
            Where: `explorer.html`.
        rounds
            Which rounds of each run go with it; by default all. A mask takes an eighth of a byte a weight.
        theta0
            Whether the initial weights go with it, 4 bytes each; by default where they take 8 MB at most.
        beside
            Put masks and numbers into a file of the same name that ends in `.bin`, which a server must hand out, not
            into the page.

        Raises
        ------
        ValueError
            Where there is nothing to show.
        """
        if self.sheet.get("problem"):
            raise ValueError(f"there is nothing to save: {self.sheet['problem']}")
        book, arrays = self._book(None if rounds is None else set(rounds), theta0)
        layers = [name for name, _ in self.about()["layers"]]
        alt = f"{self.layer}: {'; '.join(self.sheet['legend'][layers.index(self.layer)])}"
        data = binary(book, arrays)
        return write_page(path, escape(self.title), SCRIPTS, "explorer", data, self.still(), alt, beside)

    def _book(self, rounds: set[int] | None, theta0: bool | None) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Return all that the browser may ask for: state, sheets, and by their names the masks and theta0.

        A ticket that is what its copies have in common is left to the browser: `common` says of which masks.
        """
        known: dict[str, Any] = {"about": {}, "sheets": {}}
        arrays: dict[str, np.ndarray] = {}
        needed: dict[str, None] = {}
        for name, run in self.sheets.runs.items():
            about = self.about(name)
            known["about"][name] = about
            if about.get("problem"):
                continue
            about["rounds"] = [r for r in about["rounds"] if rounds is None or r[0] in rounds]
            if not about["rounds"]:
                about["problem"] = "this file has none of this run's rounds"
            for number, _, _ in about["rounds"]:
                for _, other in about["others"]:
                    sheet = self.sheets.sheet(name, number, other)
                    known["sheets"][f"{name}/{number}/{other}"] = sheet
                    needed |= dict.fromkeys(sheet.get("masks", ()))
            size = 4 * sum(int(np.prod(shape)) for _, shape in about["layers"])
            if theta0 or (theta0 is None and size <= SMALL):
                with suppress(*DAMAGED):  # a store may keep the last ticket alone, and then says so when it is asked
                    arrays |= {f"theta0 {name}/{layer}": _theta0(run, layer) for layer, _ in about["layers"]}
        common = self._common(list(needed))
        arrays |= {f"bits {key}": self.sheets.packed(key) for key in needed if key not in common}
        state = {n: getattr(self, n) for n in ("title", "runs", "run", "other", "round", "layer", "weight", "edition")}
        here = known["about"][self.run]["rounds"]
        if here and self.round not in [number for number, _, _ in here]:
            state["round"] = here[-1][0]
        return {"state": state | {"problems": self.problems}, "known": known, "common": common}, arrays

    def _common(self, keys: list[str]) -> dict[str, list[str]]:
        """Return, of each ticket that is the overlap of its round's copies, their keys."""
        found = {}
        for key in (key for key in keys if key.endswith("/ticket")):
            copies = [k for k in keys if k.startswith(key.removesuffix("ticket")) and k != key]
            if copies and np.array_equal(
                np.bitwise_and.reduce([self.sheets.packed(k) for k in copies]), self.sheets.packed(key)
            ):
                found[key] = copies
        return found


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


def _theta0(run: Saved, layer: str) -> np.ndarray:
    """Return a layer's initial weights, float32 [weights], those of its first output channel first."""
    [weight] = outputs_first({layer: run.initial(layer)}, run.transposed).values()
    return weight.flatten().float().cpu().numpy()
