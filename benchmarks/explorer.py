"""How long a move of the mask explorer takes in Chromium, from the event to the painted frame, for conv3 and ResNet-18.

    python benchmarks/explorer.py        writes results/views.md

Runs are written by hand: rounds of two copies, masks that shrink as COLT's do (random: how long it takes does not
depend on which weights are kept). The page that `save` writes is opened at 1280 x 900. Two times are taken of a move:
event to paint (from the event's own time stamp to the first task after its frame: waiting for the screen's next frame
is in it), and the processor time of the page's main thread, which a busy machine lengthens less. The kernel's side: how
long it takes to answer for a round that the browser does not have.
"""

import datetime
import json
import os
import platform
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy
import torch

import colt_core as cc
from colt_core.seeding import generator
from colt_core.studies.records import ticket_name

ROUNDS = 6
KEEP = 0.85
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
TIMED = """() => {
    window.moves = [];
    const after = new MessageChannel();
    let move = null;
    after.port1.onmessage = () => { move.paint = performance.now() - move.at; moves.push(move); move = null; };
    for (const kind of ['keydown', 'pointermove']) {
        addEventListener(kind, (event) => { move ??= {at: event.timeStamp, from: performance.now()}; }, true);
        addEventListener(kind, () => {
            if (!move || move.asked) return;
            move.asked = true;
            requestAnimationFrame(() => { move.frame = performance.now(); after.port2.postMessage(0); });
        }, true);
    }
}"""


def make_run(store: Path, network: str) -> cc.Experiment:
    """Write the run."""
    e = cc.Experiment(dataset="cifar10", network=network, recipe="official", scores=None)
    ticket = cc.Ticket.of(cc.build(network, 10, seed=0))
    about = e.model_dump(mode="json", exclude={"scores", "score_on"})
    (store / e.hash).mkdir(parents=True)
    (store / e.hash / "experiment.json").write_text(json.dumps(about))
    alive = ticket.mask
    with open(store / e.hash / "records.jsonl", "w") as file:
        for number in range(ROUNDS + 1):
            rng = generator(0, number)
            copies = [{n: m & (torch.rand(m.shape, generator=rng) < KEEP) for n, m in alive.items()} for _ in "ab"]
            alive = cc.masks.overlap(*copies) if number else alive
            found = cc.Round(number, cc.Ticket(ticket.architecture, ticket.theta0, alive), copies if number else [])
            found.save(store / ticket_name(e, number))
            file.write(json.dumps({"kind": "round", **e.labels(), **found.record()}) + "\n")
    return e


class Moves:
    """The moves of one page, and what they took."""

    def __init__(self, page: Any) -> None:
        self.page, self.rows = page, dict[str, list[tuple[float, float]]]()
        self.devtools = page.context.new_cdp_session(page)
        self.devtools.send("Performance.enable", {"timeDomain": "threadTicks"})
        page.evaluate(TIMED)

    def processor(self) -> float:
        """Return the seconds that the main thread has worked."""
        found = self.devtools.send("Performance.getMetrics")["metrics"]
        return next(metric["value"] for metric in found if metric["name"] == "TaskDuration")

    def key(self, name: str, focus: str, keys: list[str], times: int) -> None:
        """Press keys in turn, a quarter of a second apart; the first round of them only warms up."""
        self.page.locator(focus).focus()
        for number in range(times + len(keys)):
            self.page.evaluate("moves.length = 0")
            before = self.processor()
            self.page.keyboard.press(keys[number % len(keys)])
            self.page.wait_for_timeout(300)
            took = 1000 * (self.processor() - before)
            if number >= len(keys):
                self.rows.setdefault(name, []).append((self.page.evaluate("moves[0].paint"), took))


def measure(network: str, engine: Any, folder: Path) -> list[str]:
    """Return a table's rows for one network, and a line on its page."""
    e = make_run(folder / "store", network)
    view = cc.widgets.explorer([e], folder / "store")
    begun = time.perf_counter()
    view._asked(view, {"want": "sheet", "of": [view.run, 3, "copies 0 1"], "have": []}, None)
    answered = time.perf_counter() - begun
    begun = time.perf_counter()
    path = view.save(folder / "explorer.html", theta0=False)
    saved = time.perf_counter() - begun
    page = engine.new_page(viewport={"width": 1280, "height": 900})
    page.goto(path.as_uri())
    page.wait_for_selector(".colt-legend li")
    first = page.evaluate("performance.now()")
    layers = view.about()["layers"]
    moves = Moves(page)
    label = lambda name: f'[aria-label="{name}"]'  # noqa: E731
    step = ["ArrowRight"] * (len(layers) - 1) + ["ArrowLeft"] * (len(layers) - 1)
    moves.key("layer", label("Layer"), step, len(step))
    page.locator(label("Layer")).focus()
    largest = max(range(len(layers)), key=lambda i: int(numpy.prod(layers[i][1])))
    page.keyboard.press("Home")
    for _ in range(largest):
        page.keyboard.press("ArrowRight")
    step = ["ArrowRight"] * (ROUNDS - 1) + ["ArrowLeft"] * (ROUNDS - 1)
    moves.key("round, the largest layer", label("Round"), step, 2 * len(step))
    page.locator(label("B")).select_option("all")
    moves.key("round, all copies at once", label("Round"), step, 2 * len(step))
    moves.key("zoom", ".colt-mask", ["+", "+", "+", "-", "-", "-"], 12)
    moves.key("weight", ".colt-mask", ["ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp"], 16)
    page.close()
    weights = sum(int(numpy.prod(shape)) for _, shape in layers)
    lines = []
    for name, took in moves.rows.items():
        paint, work = ([pair[i] for pair in took] for i in (0, 1))
        whole = [statistics.median(paint), numpy.quantile(paint, 0.95), max(paint)]
        part = [statistics.median(work), numpy.quantile(work, 0.95)]
        lines.append(f"| {' | '.join([network, name, str(len(took)), *(f'{v:.0f}' for v in [*whole, *part])])} |")
    told = (
        f"{network}: {weights:,} weights, {len(layers)} layers, {weights / 8e6:.2f} MB a mask; the page of {ROUNDS} "
        f"rounds is {path.stat().st_size / 1e6:.1f} MB, was written in {saved:.1f} s and shows its first mask after "
        f"{first:.0f} ms. The kernel answers for a round that it has not read in {1000 * answered:.0f} ms."
    )
    return [*lines, told]


def main() -> None:
    """Time the moves and write the table."""
    from playwright.sync_api import sync_playwright

    torch.set_num_threads(1)
    before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        engine = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        version = engine.version
        found = [measure(network, engine, Path(folder) / network) for network in ("conv3", "resnet18")]
        engine.close()
    model = next((x.split(": ")[1] for x in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in x), "")
    load = f"load {before:.1f} before and {os.getloadavg()[0]:.1f} after"
    machine = f"{os.cpu_count()} cores ({model or platform.machine()}), {load}"
    head = "| network | move | times | event to paint, median | 95 % below | worst | main thread, median | 95 % below |"
    text = "\n".join(
        [
            f"The explorer in Chromium {version} (headless, no GPU, 1280 x 900), {datetime.date.today()}; {machine}.",
            "Milliseconds; of the main thread: processor time in all, what it paints ahead of the next move with it.",
            "",
            head,
            "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
            *(line for rows in found for line in rows[:-1]),
            *(f"\n{rows[-1]}" for rows in found),
        ]
    )
    print(text)
    (Path(__file__).parent.parent / "results" / "views.md").write_text(text + "\n")


if __name__ == "__main__":
    main()
