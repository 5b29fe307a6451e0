"""The cycle cockpit: describe a run, start it, watch it, pause, continue and stop it, without blocking the kernel."""

import asyncio
import json
import threading
import time
from contextlib import suppress
from typing import Any

import ipywidgets

from .. import data as datasets
from .. import plots
from ..experiments import Experiment
from ..live import Live, attach
from ..methods import METHODS
from ..models import NETWORKS
from ..planning import _duration, plan
from ..runs import Place
from ..saved import DAMAGED, runs_in
from ..store import open_store
from ..tickets import Round
from ..training import RECIPES
from .parts import View, choose, form, panels, row

EVERY = 0.5  # seconds between two drawings
TINY = 1e-9
SCORES = ("no ticket", "the last ticket", "every ticket")
STATES = {
    "ready": "Ready: nothing of this run is in the store.",
    "running": "Running.",
    "paused": "Paused between two steps: nothing is lost, Continue goes on at once.",
    "stopped": "Not finished: Continue goes on from what is in the store.",
    "done": "Done: every round is in the store.",
    "failed": "Failed",
}


class Cockpit(View):
    """A run and its instruments; see `cockpit`."""

    def __init__(self, experiment: Experiment, store: Place, device: str) -> None:
        super().__init__("Cycle cockpit")
        self.base, self.store, self.device = experiment, open_store(store), device
        self._loop = _running_loop()
        self._drawn, self._due, self._told = 0.0, False, ("", 0)
        self._build(experiment)
        self._find_runs()
        self._described()

    def _build(self, e: Experiment) -> None:
        wide = {"layout": {"width": "auto"}}
        recipe = next((name for name, ready in RECIPES.items() if ready == e.recipe), "as given")
        recipes = [*RECIPES, *([recipe] if recipe not in RECIPES else [])]
        ready = list(dict.fromkeys([*datasets.BUILT_IN, e.dataset]))
        pick = lambda options, value, text: ipywidgets.Dropdown(options=options, value=value, description=text, **wide)  # noqa: E731
        self.known = ipywidgets.Dropdown(description="Runs here", **wide)
        self.fields: dict[str, Any] = {
            "dataset": pick(ready, e.dataset, "Data set"),
            "network": pick(list(NETWORKS), e.network, "Network"),
            "network_args": ipywidgets.Text(json.dumps(e.network_args), description="Its settings", **wide),
            "method": pick(list(METHODS), e.method, "Method"),
            "parts": ipywidgets.IntSlider(e.parts, min=1, max=10, description="Partitions"),
            "by": pick(list(datasets.PARTITIONINGS), e.by, "Split by"),
            "rate": ipywidgets.FloatSlider(
                e.rate, min=0.01, max=0.6, step=0.005, readout_format=".3f", description="Rate"
            ),
            "target": ipywidgets.FloatSlider(
                e.target, min=0.5, max=0.999, step=0.001, readout_format=".1%", description="Target"
            ),
            "recipe": pick(recipes, recipe, "Recipe"),
            "seed": ipywidgets.BoundedIntText(e.seed, min=0, max=2**31, description="Seed", **wide),
            "scores": pick(SCORES, SCORES[0], "Score"),
        }
        button = lambda text, icon, hint: ipywidgets.Button(description=text, icon=icon, tooltip=hint)  # noqa: E731
        self.start = button("Start", "play", "train; finished rounds are kept in the store")
        self.pause = button("Pause", "pause", "hold every training before its next step")
        self.resume = button("Continue", "forward", "go on, from the pause or from what is in the store")
        self.stop = button("Stop", "stop", "end the processes; finished rounds are kept")
        self.cost = button("What will it cost?", "clock-o", "measure this machine for half a second, and tell")
        self.cost.layout.width = "170px"
        self.bar = ipywidgets.FloatProgress(min=0, max=1, description="To target", layout={"width": "420px"})
        buttons = row(self.start, self.pause, self.resume, self.stop, self.cost, self.bar)
        self.lay_out(panels([form(self.known, *self.fields.values()), buttons, self.words], self.picture))
        self.listen(*self.fields.values(), to=self._described)
        self.listen(self.known, to=self._known_chosen)
        self.start.on_click(lambda _: self._do(self.live.start))
        self.resume.on_click(lambda _: self._do(self.live.resume))
        self.pause.on_click(lambda _: self._do(self.live.pause))
        self.stop.on_click(lambda _: self._do(self.live.stop))
        self.cost.on_click(lambda _: self._ask_cost())

    # --- the run ---

    @property
    def rounds(self) -> list[Round]:
        """The rounds found so far, at any moment."""
        return self.live.rounds

    @property
    def experiment(self) -> Experiment:
        """What the form describes.

        Raises
        ------
        ValueError
            In one line, for settings that no run can have.
        """
        values = {name: control.value for name, control in self.fields.items()}
        for name in ("rate", "target"):  # a slider in a browser gives 0.30000000000000004
            given = getattr(self.base, name)
            values[name] = given if abs(values[name] - given) < TINY else round(values[name], 6)
        try:
            values["network_args"] = dict(json.loads(values["network_args"] or "{}"))
        except (ValueError, TypeError):
            raise ValueError('the network\'s settings must be JSON, for example {"width": 16} or {}') from None
        values["recipe"] = self.base.recipe if values["recipe"] == "as given" else values["recipe"]
        values["scores"] = {SCORES[0]: None, SCORES[1]: (values["target"],), SCORES[2]: ()}[values["scores"]]
        return self.base.changed(
            **values, score_on=None, pooling=None if values["method"] != "consensus" else self.base.pooling
        )

    def _described(self) -> None:
        """Find what the store has of the run that the form describes."""
        try:
            self.live: Live = attach(self.experiment, self.store, self.device)
        except DAMAGED as problem:
            self._refuse(str(problem))
            return
        self.live.tell = self._heard
        with self.quiet():
            values = [value for _, value in self.known.options]
            self.known.value = self.experiment.hash if self.experiment.hash in values else ""
        self.draw()

    def _find_runs(self) -> None:
        """List the runs of the store; unfinished ones first."""
        found, self.problems = runs_in(self.store)
        options = []
        for run in found:
            over = run.store.exists(f"{run.hash}/complete")
            options.append((over, f"{run.label} ({'done' if over else 'unfinished'})", run.hash))
        self.saved = {run.hash: run for run in found}
        with self.quiet():
            choose(self.known, [("as described below", ""), *((text, name) for _, text, name in sorted(options))], "")

    def _known_chosen(self) -> None:
        """Fill the form with a run of the store."""
        if not self.known.value:
            return
        try:
            e = self.saved[self.known.value].experiment()
        except ValueError as problem:
            self._refuse(str(problem))
            return
        self.base = e
        with self.quiet():
            for name, control in self.fields.items():
                if name == "network_args":
                    control.value = json.dumps(e.network_args)
                elif name == "recipe":
                    ready = next((n for n, recipe in RECIPES.items() if recipe == e.recipe), "as given")
                    choose(control, list(dict.fromkeys([*control.options, ready])), ready)
                elif name == "dataset":
                    choose(control, list(dict.fromkeys([*control.options, e.dataset])), e.dataset)
                elif name != "scores":
                    control.value = getattr(e, name)
        self._described()

    def _do(self, action: Any) -> None:
        """Carry out a button; a mistake is told in words."""
        try:
            action()
        except (ValueError, OSError, RuntimeError) as problem:
            self._refuse(str(problem))
            return
        self.draw()
        if self.live.state == "running":
            self._tick()

    def _ask_cost(self) -> None:
        """Tell what is left to do and what it will cost."""
        try:
            self.say(str(plan(self.experiment, self.store, self.device)))
        except (ValueError, OSError) as problem:
            self._refuse(str(problem))

    def _refuse(self, why: str) -> None:
        self.say(why, bad=True)
        for button in (self.start, self.pause, self.resume, self.stop):
            button.disabled = True

    # --- the instruments ---

    def _heard(self) -> None:
        """There is news, told from the run's thread: draw soon, where the widgets live."""
        if self._loop is None or self._loop.is_closed():
            if time.monotonic() - self._drawn > EVERY or self.live.state not in ("running", "paused"):
                self.draw()
        elif not self._due:
            self._due = True
            wait = max(0.0, EVERY - (time.monotonic() - self._drawn))
            self._loop.call_soon_threadsafe(self._loop.call_later, wait, self.draw)

    def _tick(self) -> None:
        """Keep the clock going while an epoch takes long."""
        if self._loop is not None and self.live.state == "running" and not self._loop.is_closed():
            self._tell()
            self._loop.call_later(1.0, self._tick)

    def draw(self) -> None:
        """Show the run as it stands."""
        self._due = False
        try:
            records = [record for record in self.live.records if record["kind"] == "round"]
            epochs = plots.epochs_table(records, dict(self.live.running))
            rounds = plots.rounds_table({self.live.experiment.method: records} if records else {})
        except DAMAGED as problem:
            self._refuse(f"the records of this run are damaged ({problem})")
            return
        e, state = self.live.experiment, self.live.state
        busy = state in ("running", "paused")
        for control in (self.known, *self.fields.values()):
            control.disabled = busy
        self.start.disabled = state != "ready"
        self.pause.disabled = state != "running"
        self.resume.disabled = state not in ("paused", "stopped", "failed")
        self.stop.disabled = not busy
        self._tell()
        if not len(rounds):
            rounds = plots.rounds_table({"": [_EMPTY]}).head(0)
        parts = e.parts if e.method in ("colt", "union", "vote", "consensus") else 1
        figure = plots.progress(epochs, rounds, e.rate, parts)
        self.picture.show(figure, f"{len(rounds)} rounds of {e.method}: loss, accuracy, density, overlap")
        self._drawn = time.monotonic()

    def _tell(self) -> None:
        """Say where the run is: state, density, cost so far, time left."""
        live, e = self.live, self.live.experiment
        records = live.records
        rounds = [record for record in records if record["kind"] == "round"]
        lines = [STATES[live.state] + (f": {live.problem}" if live.problem else "")]
        if rounds:
            last, scored = rounds[-1], [r for r in records if r["kind"] == "score"]
            lines.append(
                f"Round {last['round']}: {last['density']:.2%} dense (target {1 - e.target:.2%}); cost so far "
                f"{last['image_epochs']:,} training images, {last['flops']:.2g} FLOPs, "
                f"{_duration(last['seconds'])} of training."
            )
            if scored:
                lines.append(f"Last score: round {scored[-1]['round']}, test accuracy {scored[-1]['accuracy']:.1%}.")
            self.bar.value = min(1.0, _log_share(last["density"], 1 - e.target))
        else:
            self.bar.value = 0
        if live.state in ("running", "paused"):
            under_way = max(live.running, default=None)
            at = f"round {under_way[0]}" if under_way else "the next round"
            left = live.seconds_left()
            ends = f"; about {_between(left)} left" if left else ""
            lines.append(f"Training {at}, {_duration(live.seconds)} so far{ends}.")
        self.say("\n".join([*lines, *self.problems]), bad=live.state == "failed")


_EMPTY = {"round": 0, "density": 1.0, "image_epochs": 0, "accuracies": [], "overlap": None}


def _log_share(density: float, target: float) -> float:
    """Return how far a density is on the way from 1 to the target, in rounds."""
    from math import log

    return log(max(density, 1e-12)) / log(target)


def _between(seconds: tuple[float, float]) -> str:
    low, high = map(_duration, seconds)
    return low if low == high else f"{low} to {high}"


def _running_loop() -> asyncio.AbstractEventLoop | None:
    """Return the kernel's event loop, on which widgets are drawn; None outside one."""
    if threading.current_thread() is threading.main_thread():
        with suppress(RuntimeError):
            return asyncio.get_running_loop()
    return None
