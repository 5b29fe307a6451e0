"""How long a slider of the mask explorer takes to answer for ResNet-18, from saved files alone.

    python benchmarks/explorer.py        writes results/explorer.md

A run of ResNet-18 is written by hand: rounds of two copies, masks that shrink as COLT's do (random: how long it takes
does not depend on which weights are kept). Each move is timed from the slider's new value to the last byte of the new
picture, in one process and one thread; the way through `Round.load` (read, verify, count and draw the whole round) in
turn beside it, in the same loop.
"""

import json
import platform
import statistics
import tempfile
import time
from pathlib import Path

import numpy
import torch

import colt_core as cc
from colt_core.seeding import generator
from colt_core.studies.records import read_records, ticket_name

ROUNDS = 15
KEEP = 0.85


def make_run(store: Path) -> cc.Experiment:
    """Write the run."""
    e = cc.Experiment(dataset="cifar10", network="resnet18", recipe="official", scores=None)
    ticket = cc.Ticket.of(cc.build("resnet18", 10, seed=0))
    about = e.model_dump(mode="json", exclude={"scores", "score_on"})
    (store / e.hash).mkdir()
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


def the_whole_round(store: Path, e: cc.Experiment, number: int, layer: str) -> None:
    """Show a layer by way of what the library had before: the whole round."""
    records = [r for r in read_records(e, store) if r["kind"] == "round"]
    before = cc.Round.load(store / ticket_name(e, number - 1), records[number - 1])
    found = cc.Round.load(store / ticket_name(e, number), records[number])
    cc.masks.by_layer(*found.partition_masks, within=before.ticket.mask)
    cc.plots.png(cc.plots.filters(*found.partition_masks, layer, before.ticket.mask))


def main() -> None:
    """Time the moves and write the table."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder)
        e = make_run(store)
        begun = time.perf_counter()
        view = cc.widgets.explorer([e], store)
        opened = time.perf_counter() - begun
        layers = [name for _, name in view.layer.options]
        times: dict[str, list[float]] = {"round": [], "layer": [], "weight": [], "the whole round": []}

        def timed(what: str, action) -> None:
            begun = time.perf_counter()
            action()
            times[what].append(1000 * (time.perf_counter() - begun))

        for number in range(2, ROUNDS + 1):
            layer = layers[(3 * number) % len(layers)]
            timed("round", lambda number=number: setattr(view.round, "value", number))
            timed("layer", lambda layer=layer: setattr(view.layer, "value", layer))
            timed("weight", lambda number=number: setattr(view.picture, "cell", [1, number]))
            timed("the whole round", lambda number=number, layer=layer: the_whole_round(store, e, number, layer))
            for other in layers[:: len(layers) // 4]:
                timed("layer", lambda other=other: setattr(view.layer, "value", other))
        size = (store / ticket_name(e, 1)).stat().st_size / 1e6
    whole = statistics.median(times["the whole round"])
    lines = [
        f"ResNet-18, {len(layers)} layers, {ROUNDS} rounds of {size:.0f} MB; one thread, torch {torch.__version__}, "
        f"Python {platform.python_version()}. Opened in {opened:.1f} s. Milliseconds from the slider's value to the "
        "picture:",
        "",
        "| move | times | median | 95 % below | worst | of the whole round's |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, values in times.items():
        median, high = statistics.median(values), numpy.quantile(values, 0.95)
        lines.append(
            f"| {name} | {len(values)} | {median:.0f} | {high:.0f} | {max(values):.0f} | {median / whole:.2f} |"
        )
    text = "\n".join(lines) + "\n"
    print(text)
    (Path(__file__).parent.parent / "results" / "explorer.md").write_text(text)


if __name__ == "__main__":
    main()
