"""The cycle cockpit: describe a run, start it, watch it, pause, continue and stop it, without blocking the kernel."""

import asyncio
import math
import threading
import time
from collections import Counter
from contextlib import suppress
from typing import Any

import ipywidgets

from .. import data as datasets
from .. import plots, report
from ..compute.store import open_store
from ..methods import METHODS, method_of
from ..models import NETWORKS, check_arguments
from ..report.words import ACCURACY, unit
from ..studies.experiment import Experiment
from ..studies.foresight import doubts
from ..studies.live import BUSY, Live, attach
from ..studies.plan import between, duration, plan
from ..studies.records import Place
from ..studies.saved import DAMAGED, runs_in
from ..tickets import Round
from ..training import RECIPES
from .arguments import Arguments, Named
from .parts import View, choose, collecting_young, form, panels, row, warned

EVERY = 0.5  # seconds between two drawings
TINY = 1e-9
SCORES = ("no ticket", "the last ticket", "every ticket")
GIVEN = "as given"
STATES = {
    "ready": "Ready: nothing of this run is in the store.",
    "running": "Running.",
    "paused": "Paused between two steps: nothing is lost, Continue goes on at once.",
    "stopped": "Not finished: Continue goes on from what is in the store.",
    "done": "Done: every round is in the store.",
    "failed": "Failed",
    "elsewhere": "Running in another process",
}
HINTS = {  # why buttons are grey
    "running": "Its settings are fixed while it runs: Stop lets you change them, and keeps what was found.",
    "done": "Nothing is left to start: change a setting, or choose another run above.",
    "elsewhere": "What it finds is shown here as it comes. Pause and Stop are where it was started; when it ends "
    "unfinished, Continue goes on here.",
}
OPEN = ("ready", "stopped", "failed", "elsewhere")  # here nothing goes on; another process may begin, or be at it
LOOK = 2.0  # seconds between two looks into the store


class Cockpit(View):
    """A run and its instruments; see `cockpit`."""

    def __init__(self, experiment: Experiment, store: Place, device: str) -> None:
        super().__init__("Cycle cockpit")
        self.base, self.store, self.device = experiment, open_store(store), device
        self._loop = _running_loop()
        self.live: Live | None = None
        self._drawn, self._due, self._ticking, self._was_busy = 0.0, False, False, False
        self._looking, self._shown = False, 0
        self._build(experiment)
        self._find_runs()
        self._described()

    def _build(self, e: Experiment) -> None:
        wide = {"layout": {"width": "auto"}}
        pick = lambda options, text: ipywidgets.Dropdown(options=options, description=text, **wide)  # noqa: E731
        self.known = ipywidgets.Dropdown(description="Runs here", **wide)
        self.known.add_class("colt-all")
        share = lambda text, hint: ipywidgets.FloatText(step=0.005, description=text, tooltip=hint, **wide)  # noqa: E731
        self.fields: dict[str, Any] = {
            "dataset": Named(list(datasets.BUILT_IN), "Data set", "./pictures@64, torchvision:Flowers102@64"),
            "network": Named(list(NETWORKS), "Network", "torchvision:resnet18, timm:resnet26, mynets:tiny"),
            "network_args": Arguments(),
            "method": pick(list(METHODS), "Method"),
            "parts": ipywidgets.IntText(description="Partitions", **wide),
            "by": pick(list(datasets.PARTITIONINGS), "Split by"),
            "rate": share("Rate", "the share of its weights that a copy loses in a round"),
            "target": share("Target", "the sparsity at which it ends, below 1"),
            "recipe": pick(list(RECIPES), "Recipe"),
            "seed": ipywidgets.IntText(description="Seed", **wide),
            "scores": pick(SCORES, "Score"),
        }
        button = lambda text, icon, hint: ipywidgets.Button(description=text, icon=icon, tooltip=hint)  # noqa: E731
        self._fill(e)
        self.start = button("Start", "play", "train; finished rounds are kept in the store")
        self.pause = button("Pause", "pause", "hold every training before its next step")
        self.resume = button("Continue", "forward", "go on, from the pause or from what is in the store")
        self.stop = button("Stop", "stop", "end the processes; finished rounds are kept")
        self.cost = button("What will it cost?", "clock-o", "measure this machine for half a second, and tell")
        self.cost.layout.width = "170px"
        self.bar = ipywidgets.FloatProgress(min=0, max=1, description="To target", layout={"width": "420px"})
        buttons = row(self.start, self.pause, self.resume, self.stop, self.cost, self.bar)
        self.lay_out(self.known, panels([form(*self.fields.values()), buttons, self.words], self.picture))
        others = [control for name, control in self.fields.items() if name != "network"]
        self.listen(*others, to=self._described)
        self.listen(self.fields["network"], to=self._network_chosen)
        self.listen(self.known, to=self._known_chosen)
        self.start.on_click(lambda _: self._do("start"))
        self.resume.on_click(lambda _: self._do("resume"))
        self.pause.on_click(lambda _: self._do("pause"))
        self.stop.on_click(lambda _: self._do("stop"))
        self.cost.on_click(lambda _: self._ask_cost())

    # --- the run ---

    def _fill(self, e: Experiment) -> None:
        """Set the form to an experiment."""
        self.base = e
        recipe = next((name for name, ready in RECIPES.items() if ready == e.recipe), GIVEN)
        given = {"recipe": recipe, "scores": _scoring(e)}
        self.fields["network_args"].fill(e.network, e.network_args)
        for name, control in self.fields.items():
            value = given.get(name, getattr(e, name))
            if name == "network_args":
                continue
            if name in ("recipe", "scores", "method"):
                choose(control, list(dict.fromkeys([*control.options, value])), value)
                continue
            control.value = value

    @property
    def rounds(self) -> list[Round]:
        """The rounds found so far, at any moment; a `ValueError` in one line where the store is damaged."""
        return self.live.rounds if self.live else []

    @property
    def experiment(self) -> Experiment:
        """What the form describes.

        Raises
        ------
        ValueError
            In one line, for settings that no run can have.
        """
        values = {name: control.value for name, control in self.fields.items()}
        values["network_args"] = self.fields["network_args"].read()
        for name in ("rate", "target"):  # a field in a browser steps to 0.30000000000000004
            given = getattr(self.base, name)
            values[name] = given if abs(values[name] - given) < TINY else round(values[name], 6)
        check_arguments(values["network"], values["network_args"])
        datasets.check_name(values["dataset"])
        classes = datasets.count_classes(values["dataset"])
        if values["by"] == "class" and classes and values["parts"] > classes and method_of(values["method"]).split:
            raise ValueError(f"parts must be at most {classes}, the number of classes, not {values['parts']}")
        values["recipe"] = self.base.recipe if values["recipe"] == GIVEN else values["recipe"]
        scores = {SCORES[0]: None, SCORES[1]: (values["target"],), SCORES[2]: (), GIVEN: self.base.scores}
        values["scores"] = scores[values["scores"]]
        own = self.base.options if values["method"] == self.base.method else {}  # the form has none of them
        return self.base.changed(**values, options=own)

    def _described(self) -> None:
        """Find what the store has of the run that the form describes; a run that goes on is not let go."""
        if self.live is not None and self.live.state in BUSY:
            return
        try:
            live = attach(self.experiment, self.store, self.device)
        except DAMAGED as problem:
            self._refuse(str(problem))
            return
        if self.live is not None and self._heard in self.live.listeners:
            self.live.listeners.remove(self._heard)
        self.live = live
        live.listeners.append(self._heard)
        self._keep_looking()
        with self.quiet():
            values = [value for _, value in self.known.options]
            self.known.value = live.experiment.hash if live.experiment.hash in values else ""
        self.draw()

    def _network_chosen(self) -> None:
        """Show the chosen network's own settings."""
        with self.quiet():
            self.fields["network_args"].follow(self.fields["network"].value)
        self._described()

    def _find_runs(self) -> None:
        """List the runs of the store: unfinished ones first, the latest first."""
        found, self.problems = runs_in(self.store)
        now, alike = time.time(), Counter(run.details for run in found)
        options = []
        for run in found:
            over, age = run.store.exists(f"{run.hash}/complete"), now - (run.changed or now)
            words = [run.details] + ([run.hash[:6]] if alike[run.details] > 1 else [])
            state = f"{'done' if over else 'unfinished'}, {_ago(age)}"
            options.append((over, age, f"{', '.join(words)} ({state})", run))
        options.sort(key=lambda option: option[:3])
        self.saved = {run.hash: run for run in found}
        with self.quiet():
            choose(self.known, [("as described below", ""), *((text, run.hash) for _, _, text, run in options)])

    def _known_chosen(self) -> None:
        """Fill the form with a run of the store."""
        if not self.known.value:
            return
        try:
            with self.quiet():
                self._fill(self.saved[self.known.value].experiment())
        except DAMAGED as problem:
            self._refuse(str(problem))
            return
        self._described()

    def _do(self, name: str) -> None:
        """Carry out a button; a mistake is told in words."""
        try:
            if self.live is not None:
                getattr(self.live, name)()
        except (ValueError, OSError, RuntimeError) as problem:
            self._refuse(str(problem))
            return
        self.draw()

    def _ask_cost(self) -> None:
        """Tell what is left to do and what it will cost."""
        try:
            self.say(str(plan(self.experiment, self.store, self.device)))
        except (ValueError, OSError, RuntimeError) as problem:
            self.say(str(problem), bad=True)

    def _refuse(self, why: str) -> None:
        """Say why there is nothing to start; what goes on can still be paused and stopped."""
        self.say(f"{why}\nStart is off until this is mended.", bad=True)
        self._set_buttons()
        self.start.disabled = True

    def _set_buttons(self) -> None:
        state = self.live.state if self.live else ""
        for control in (self.known, *self.fields.values()):
            control.disabled = state in BUSY
        self.start.disabled = state != "ready"
        self.pause.disabled = state != "running"
        self.resume.disabled = state not in ("paused", "stopped", "failed")
        self.known.disabled = state in BUSY
        self.stop.disabled = state not in BUSY
        self.cost.disabled = state in BUSY

    # --- the instruments ---

    def _heard(self) -> None:
        """There is news, told from the run's thread: draw soon, where the widgets live."""
        if self._loop is None or self._loop.is_closed():
            if time.monotonic() - self._drawn > EVERY or (self.live and self.live.state not in BUSY):
                self.draw()
        elif not self._due:
            self._due = True
            wait = max(0.0, EVERY - (time.monotonic() - self._drawn))
            self._loop.call_soon_threadsafe(self._loop.call_later, wait, self.draw)

    def _tick(self) -> None:
        """Keep the clock going while an epoch takes long."""
        self._ticking = False
        if self.live and self.live.state == "running":
            if (records := self._records()) is not None:
                self._tell(records)
            self._keep_ticking()

    def _keep_ticking(self) -> None:
        if self._loop is not None and not self._loop.is_closed() and not self._ticking:
            self._ticking = True
            self._loop.call_soon_threadsafe(self._loop.call_later, 1.0, self._tick)

    def _look(self) -> None:
        """See whether another process has begun this run, goes on with it, or has ended."""
        self._looking = False
        live = self.live
        if live is None or self.comm is None or live.state not in OPEN:
            return
        before = live.state, self._shown
        live.look()
        if (live.state, self._count()) != before:
            if live.state != before[0]:
                self._find_runs()
            self.draw()
        self._keep_looking()

    def _count(self) -> int:
        """Return how many records the run has; of damaged ones none."""
        try:
            return len(self.live.records) if self.live and self.live.state == "elsewhere" else self._shown
        except DAMAGED:
            return self._shown

    def _keep_looking(self) -> None:
        if self._loop is not None and not self._loop.is_closed() and not self._looking:
            self._looking = True
            wait = LOOK if self.store.local else 5 * LOOK
            self._loop.call_soon_threadsafe(self._loop.call_later, wait, self._look)

    def draw(self) -> None:
        """Show the run as it stands."""
        self._due = False
        live = self.live
        if live is None:
            return
        e, busy = live.experiment, live.state in BUSY
        if self._was_busy and not busy:
            self._find_runs()
        self._was_busy = busy
        self._set_buttons()
        if (records := self._records()) is None:
            return
        self._shown = len(records)
        found = [record for record in records if record["kind"] == "round"]
        epochs = plots.epochs_table(found, live.running)
        rounds = plots.rounds_table({e.method: found or [_EMPTY]}).head(len(found))
        parts = method_of(e.method).copies_of(e)
        self._tell(records)
        with collecting_young():
            figure = plots.progress(epochs, rounds, e.rate, parts)
            self.picture.show(figure, f"{len(rounds)} rounds of {e.method}: loss, accuracy, density, overlap")
        self._drawn = time.monotonic()
        if live.state == "running":
            self._keep_ticking()
        self._keep_looking()

    def _records(self) -> list[dict[str, Any]] | None:
        """Return the run's records; None, and in words why, where they are damaged."""
        try:
            return self.live.records if self.live else None
        except DAMAGED as problem:
            self._refuse(str(problem))
            return None

    def _tell(self, records: list[dict[str, Any]]) -> None:
        """Say where the run is: state, density, cost so far, time left."""
        assert self.live is not None
        live, e = self.live, self.live.experiment
        rounds = [record for record in records if record["kind"] == "round"]
        told = live.elsewhere if live.state == "elsewhere" else live.problem
        lines = [STATES[live.state] + (f": {told}" if told else "")]
        self.bar.value = 0
        if live.state != "done" and not any(record.get("warnings") for record in rounds):
            lines += [f"Warning: {text}." for text in doubts(e, load=False)]
        if rounds:
            last, scored = rounds[-1], [r for r in records if r["kind"] == "score"]
            lines.append(
                f"Round {last['round']}: {last['density']:.2%} dense (target {1 - e.target:.2%}); cost so far "
                f"{last['image_epochs']:,} training images, {last['flops']:.2g} FLOPs, "
                f"{duration(last['seconds'])} of training."
            )
            if scored:
                metric = scored[-1].get("metric") or ACCURACY
                told = report.written(scored[-1][metric], math.nan, metric)
                told += "%" if metric == ACCURACY else f" {unit(metric)}" if unit(metric) != metric else ""
                lines.append(f"Last score: round {scored[-1]['round']}, test {metric} {told}.")
            lines += warned(records)
            self.bar.value = min(1.0, math.log(max(last["density"], 1e-12)) / math.log(1 - e.target))
        if live.state in BUSY:
            under_way = max(live.running, default=None)
            at = f"round {under_way[0]}" if under_way else "the next round"
            if live.reference is not None:
                at = f"round {live.reference} of the COLT run that this one follows"
            left = live.seconds_left()
            ends = f"; about {between(left, duration)} left" if left else ""
            lines.append(f"Training {at}, {duration(live.seconds)} so far{ends}.")
        lines += [HINTS[live.state]] if live.state in HINTS else []
        self.say("\n".join([*lines, *self.problems]), bad=live.state == "failed")


def _ago(seconds: float) -> str:
    """Say how long ago something was."""
    return "just now" if seconds < 60 else f"{duration(seconds)} ago"


_EMPTY = {"round": 0, "density": 1.0, "image_epochs": 0, "accuracies": [], "overlap": None}


def _scoring(e: Experiment) -> str:
    """Return the option that says which of an experiment's tickets are scored."""
    known: dict[Any, str] = {None: SCORES[0], (e.target,): SCORES[1], (): SCORES[2]}
    return known.get(e.scores, GIVEN)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    """Return the kernel's event loop, on which widgets are drawn; None outside one."""
    if threading.current_thread() is threading.main_thread():
        with suppress(RuntimeError):
            return asyncio.get_running_loop()
    return None
