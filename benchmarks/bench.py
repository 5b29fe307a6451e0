"""`make bench`: speed as ratios, both sides measured in turn in one run. Prints one table and writes it to results/.

python benchmarks/bench.py [--only 1 3] [--networks conv3 resnet18] [--repeats 5] [--out results] [--device cpu]

On another device than the CPU the table is bench-cuda.md; nobody has run that yet.
"""

import argparse
import gc
import os
import platform
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from datetime import date
from functools import partial
from importlib.util import find_spec
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import usual

import colt_core as cc
from colt_core import masks
from colt_core.compute.pool import cores, stop_idle
from colt_core.data.augmentation import normalise
from colt_core.models import declared_objective, forward_flops
from colt_core.seeding import choose_device, reproducible
from colt_core.training import Trainer, Training, keeping_memory

DEVICE = torch.device("cpu")  # where both sides compute; `--device` sets it
# name: arguments of build, images of a short run (several seconds the usual way)
NETWORKS: dict[str, tuple[str, dict[str, int], int]] = {
    "conv3": ("conv3", {}, 6144),
    "conv3 width 16": ("conv3", {"width": 16}, 36864),
    "resnet18": ("resnet18", {}, 1024),
    "mobilenetv2": ("mobilenetv2", {}, 1024),
    "autoencoder": ("autoencoder", {}, 36864),
}
SHARES = 4  # the item that times what does not classify too
RECIPE = cc.Recipe.named("official").changed(epochs=1)
Row = dict[str, Any]


def seconds(job: Callable[[], object]) -> float:
    """Time one call, with all that it has left for a GPU to do."""
    gc.collect()
    finish()
    begun = time.perf_counter()
    job()
    finish()
    return time.perf_counter() - begun


def finish() -> None:
    """Wait until a GPU has done what it was given: calls return before."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize(DEVICE)


def longer(steps: int) -> int:
    """Return so many steps of a CPU in a GPU's number: one step is too short to be timed there."""
    return steps if DEVICE.type == "cpu" else 20 * steps


def paired(ours: Callable[[], object], theirs: Callable[[], object], repeats: int) -> dict[str, list[float]]:
    """Time both sides in turn, A B A B ..., after one run of each that does not count."""
    ours(), theirs()
    pairs = [(seconds(ours), seconds(theirs)) for _ in range(repeats)]
    a, b = map(list, zip(*pairs, strict=True))
    return {"ours": a, "theirs": b, "ratio": [theirs / ours for ours, theirs in pairs]}


def spread(values: list[float], digits: int = 2) -> str:
    """Write the median and, in brackets, the lowest and the highest."""
    middle = f"{statistics.median(values):.{digits}f}"
    return middle + (f" ({min(values):.{digits}f}-{max(values):.{digits}f})" if len(values) > 1 else "")


def row(number: int, what: str, network: str, ours: str, theirs: str, ratio: str, reach: str = "") -> Row:
    """Make a line of the table, and print it at once."""
    line = {"item": number, "what": what, "network": network, "ours": ours, "other": theirs}
    line |= {"ratio": ratio, "reach": reach}
    print("  ".join(f"{value}" for value in line.values()), flush=True)
    return line


def some(data: cc.Dataset, count: int) -> cc.Images:
    """Take so many training images, of all classes alike, some several times where there are fewer."""
    return data.train.take(torch.arange(count) * 7 % len(data.train))


def network_of(name: str, classes: int = 10) -> torch.nn.Module:
    """Build a network of the table."""
    kind, arguments, _ = NETWORKS[name]
    return cc.build(kind, classes, 0, **arguments)


# --- the items ---------------------------------------------------------------------------------------------------


def masked_step(data: cc.Dataset, names: list[str], repeats: int) -> Iterator[Row]:
    """1. Our masked step against the bare dense step of the same network on the same batch, one thread."""
    torch.set_num_threads(1)
    # One batch again and again at the usual rate is soon learnt, and denormal gradients are another benchmark.
    slow = RECIPE.changed(learning_rate=1e-5)
    for name in names:
        batch = some(data, 256)
        pixels, labels = normalise(batch.images, data.mean, data.std).to(DEVICE), batch.labels.to(DEVICE)
        steps = longer({"conv3 width 16": 8, "conv3": 3}.get(name, 1))
        sides = []
        for share in (0.5, 0.0):
            network = network_of(name).to(memory_format=torch.channels_last).train()
            dense = masks.dense(dict(network.named_parameters()), cc.prunable(network))
            mask = masks.random_like(masks.magnitude(dict(network.named_parameters()), dense, share), torch.Generator())
            sides.append(Trainer(network, Training(batch, slow, mask if share else None), DEVICE))

        def ours(side: Trainer = sides[0], steps: int = steps, batch: Any = (pixels, labels)) -> None:
            for step in range(steps):
                side._step(step, *batch)

        def bare(side: Trainer = sides[1], steps: int = steps, batch: Any = (pixels, labels)) -> None:
            for _ in range(steps):
                torch.nn.functional.cross_entropy(side.network(batch[0]), batch[1]).backward()
                side.optimizer.step()
                side.optimizer.zero_grad()

        with keeping_memory(DEVICE):
            times = paired(ours, bare, repeats * (3 if name.startswith("conv3") else 1))
        ratios = [1 / r for r in times["ratio"]]
        each = [[t / steps * 1e3 for t in times[side]] for side in ("ours", "theirs")]
        about = (spread(each[0], 1) + " ms", spread(each[1], 1) + " ms", spread(ratios, 3))
        yield row(1, "masked step / bare dense step, batch 256", name, *about, "at most 1.03")


def training_loop(data: cc.Dataset, names: list[str], repeats: int) -> Iterator[Row]:
    """2. Our loop against the usual way; both may use every core, and the usual way its better number of loaders."""
    for name in names:
        images = some(data, NETWORKS[name][2])

        def ours(images: cc.Images = images, name: str = name) -> None:
            cc.train(network_of(name), images, RECIPE, threads=cores(), device=DEVICE)

        def theirs(loaders: int, images: cc.Images = images, name: str = name) -> None:
            torch.set_num_threads(cores())
            network = network_of(name).to(DEVICE)
            usual.masked(network)
            for _ in usual.epoch(network, images, RECIPE, loaders):
                pass

        loaders = best_loaders(name, images)
        times = paired(ours, lambda n=loaders: theirs(n), repeats)
        speeds = [spread([len(images) / t for t in times[side]], 0) + " img/s" for side in ("ours", "theirs")]
        yield row(2, f"training loop ({loaders} loaders)", name, *speeds, spread(times["ratio"]))


def best_loaders(name: str, images: cc.Images) -> int:
    """Return the number of loader processes with which the usual way is fastest: none, or one a core."""
    torch.set_num_threads(cores())
    few = images.take(torch.arange(len(images) // 2))
    network = network_of(name, len(images.classes)).to(DEVICE)
    return min((0, cores()), key=lambda n: seconds(lambda: list(usual.epoch(network, few, RECIPE, n))))


def colt_round(data: cc.Dataset, names: list[str], repeats: int) -> Iterator[Row]:
    """3. One COLT round, from the rewound copies to the overlap, against the usual way's."""
    reach = {"conv3": "at least 1.7", "resnet18": "at least 1.35", "conv3 width 16": "at least 2.8"}
    for name in (name for name in names if name in reach):
        parts = cc.partition(some(data, NETWORKS[name][2]), 2)
        dense = cc.Ticket.of(network_of(name))
        wanted: list[int] = []

        def theirs(loaders: int, name: str = name, parts: list[cc.Images] = parts) -> None:
            torch.set_num_threads(cores())
            usual.colt_round([network_of(name, 5).to(DEVICE) for _ in parts], parts, RECIPE, loaders)

        def ours(name: str = name, parts: list[cc.Images] = parts, dense: Any = dense, into: Any = wanted) -> None:
            into.append(one_round(dense, parts))

        loaders = best_loaders(name, parts[0])
        times = paired(ours, lambda n=loaders: theirs(n), repeats)
        about = [spread(times[side]) + " s" for side in ("ours", "theirs")]
        yield row(3, "COLT round, 2 partitions", name, *about, spread(times["ratio"]), reach[name])


def one_round(dense: cc.Ticket, parts: list[cc.Images], **options: Any) -> int:
    """Carry out a COLT round as `cc.colt` does; return how many weights are left."""
    copies = [dense.model(len(part.classes)) for part in parts]
    kept = [dense.mask_for(c, True) for c in copies]
    cc.train_copies(copies, parts, RECIPE, masks=kept, device=DEVICE, **options)
    return masks.count(masks.overlap(*(masks.magnitude(dict(c.named_parameters()), dense.mask, 0.15) for c in copies)))


def share_of_matmul(data: cc.Dataset, names: list[str], repeats: int) -> Iterator[Row]:
    """4. Images/s and FLOP/s in the steady state, as a share of this machine's own matrix product in the same run."""
    targets = {("cpu", "conv3", "float32"): "at least 60 %", ("cuda", "resnet18", "bfloat16"): "at least 35 %"}
    precisions = ("float32", "tf32", "bfloat16")
    if DEVICE.type == "cpu":  # without AVX-512 bfloat16 is emulated, a hundred times as slow
        precisions = ("float32", "bfloat16") if "AVX512" in torch.backends.cpu.get_cpu_capability() else ("float32",)
    for threads in threads_to_try():
        for name in names:
            for precision in precisions:
                recipe = RECIPE.changed(precision=precision)
                few = {"conv3 width 16": 12, "autoencoder": 12, "conv3": 6}.get(name, 3)
                network, steps = network_of(name), longer(few)
                rates, limits = [], []
                for _ in range(repeats):
                    limits.append(matmul_rate(threads, precision))
                    rates.append(256 / step_seconds(network, some(data, 256 * (steps + 1)), recipe, threads))
                flops = 3 * forward_flops(network)
                shares = [100 * r * flops / limit for r, limit in zip(rates, limits, strict=True)]
                what = f"{precision}, {threads} thread{'s' * (threads > 1)}, batch 256"
                about = (spread(rates, 0) + " img/s", spread([limit / 1e9 for limit in limits], 0) + " GFLOP/s matmul")
                reach = targets.get((DEVICE.type, name, precision), "")
                yield row(4, what, name, *about, spread(shares, 0) + " %", reach)


def step_seconds(network: torch.nn.Module, images: cc.Images, recipe: cc.Recipe, threads: int) -> float:
    """Return the median time of a step, augmentation included, after the first (which touches fresh memory)."""
    marks: list[Any] = []

    def mark(*_: object) -> None:
        if DEVICE.type == "cuda":  # by the GPU's own clock: the CPU is steps ahead of it
            marks.append(torch.cuda.Event(enable_timing=True))
            marks[-1].record()
        else:
            marks.append(time.perf_counter())

    network.register_forward_pre_hook(mark)
    cc.train(network, images, recipe, threads=threads, device=DEVICE)
    network._forward_pre_hooks.clear()
    finish()
    apart = (lambda a, b: a.elapsed_time(b) / 1e3) if DEVICE.type == "cuda" else (lambda a, b: b - a)
    return statistics.median(apart(a, b) for a, b in pairwise(marks[1:]))


def matmul_rate(threads: int, precision: str) -> float:
    """Return the FLOP/s of a square matrix product in a recipe's precision."""
    size, dtype = 2048 if DEVICE.type == "cpu" else 8192, torch.bfloat16 if precision == "bfloat16" else torch.float32
    with reproducible(DEVICE, 0, threads, precision == "tf32"):
        a, b = (torch.randn(size, size).to(DEVICE, dtype) for _ in range(2))
        a @ b
        return 2 * size**3 / statistics.median(seconds(lambda: a @ b) for _ in range(7))


def threads_to_try() -> list[int]:
    """Return one thread and one a core; with a GPU one, for there they matter little."""
    return sorted({1, cores()}) if DEVICE.type == "cpu" else [1]


def mask_operations(data: cc.Dataset, names: list[str], repeats: int) -> Iterator[Row]:
    """5. What is done to ResNet-18's 11 million weights between trainings; the usual way where it has one."""
    from torch.nn.utils import prune

    network, other = cc.build("resnet18", 10, 0).to(DEVICE), cc.build("resnet18", 10, 1).to(DEVICE)
    weights = dict(network.named_parameters())
    dense = masks.dense(weights, cc.prunable(network))
    half = masks.magnitude(weights, dense, 0.5)
    second = masks.magnitude(dict(other.named_parameters()), dense, 0.5)
    ticket = cc.Ticket.of(network, half)
    pruned = half | {}
    factors = [m.float() for m in half.values()], [m.float() for m in second.values()]

    def prune_usual() -> None:
        copy = cc.build("resnet18", 10, 0).to(DEVICE)
        prune.global_unstructured(usual.masked(copy), prune.L1Unstructured, amount=0.15)

    make = lambda: usual.masked(cc.build("resnet18", 10, 0).to(DEVICE))  # noqa: E731
    build = statistics.median(seconds(make) for _ in range(repeats))
    with tempfile.TemporaryDirectory() as folder:
        path, other_path = Path(folder) / "ticket.safetensors", Path(folder) / "ticket.pt"
        jobs = {
            "global magnitude mask, dense": (
                lambda: masks.magnitude(weights, dense, 0.15),
                prune_usual,
                "under 150 ms",
            ),
            "global magnitude mask, half": (lambda: masks.magnitude(weights, pruned, 0.15), None, "under 150 ms"),
            "overlap of two masks": (
                lambda: masks.overlap(half, second),
                lambda: [a * b for a, b in zip(*factors, strict=True)],
                "",
            ),
            "all statistics of an overlap": (
                lambda: masks.Overlap.of([half, second], dense, masks.overlap(half, second), weights),
                None,
                "",
            ),
            "save and verified load of a ticket": (
                lambda: (ticket.save(path), cc.Ticket.load(path)),
                lambda: (torch.save([ticket.theta0, half], other_path), torch.load(other_path)),
                "under 300 ms",
            ),
        }
        for threads in threads_to_try():
            torch.set_num_threads(threads)
            for what, (ours, theirs, reach) in jobs.items():
                times = paired(ours, theirs or (lambda: None), repeats * 2)
                extra = build if theirs is prune_usual else 0.0
                mine = spread([t * 1e3 for t in times["ours"]], 0) + " ms"
                other_times = [max(t - extra, 0.0) for t in times["theirs"]]
                ratio = spread([b / a for a, b in zip(times["ours"], other_times, strict=True)]) if theirs else ""
                about = (mine, spread([t * 1e3 for t in other_times], 0) + " ms" if theirs else "", ratio)
                yield row(5, f"{what}, {threads} thread{'s' * (threads > 1)}", "resnet18", *about, reach)


def scaling(data: cc.Dataset, names: list[str], repeats: int) -> Iterator[Row]:
    """6. Time of a round against P and against the size of the data; the other side is one copy after the other."""
    name, count = "conv3 width 16", 12288
    dense = cc.Ticket.of(network_of(name))
    cases = [(parts, count) for parts in (2, 3, 4, 5)] + [(2, count // 4), (2, count // 2), (2, 2 * count)]
    for parts, images in cases:
        split = cc.partition(some(data, images), parts)
        beside = lambda s=split: one_round(dense, s)  # noqa: E731
        if DEVICE.type == "cuda":  # there copies train one after the other anyway
            beside()
            took = spread([seconds(beside) for _ in range(repeats)]) + " s"
            yield row(6, f"COLT round, P = {parts}, {images} images", name, took, "", "")
            continue
        times = paired(beside, lambda s=split: one_round(dense, s, workers=1), repeats)
        about = [spread(times[side]) + " s" for side in ("ours", "theirs")]
        yield row(6, f"COLT round, P = {parts}, {images} images", name, *about, spread(times["ratio"]))


def memory(data: cc.Dataset, names: list[str], repeats: int) -> Iterator[Row]:
    """7. Peak memory of a ResNet-18 round, both copies side by side, over all processes (proportional set sizes).

    Of a GPU, where the copies train one after the other, the most that PyTorch has held there.
    """
    if DEVICE.type == "cuda":
        torch.cuda.reset_peak_memory_stats(DEVICE)
        one_round(cc.Ticket.of(cc.build("resnet18", 10, 0)), cc.partition(some(data, 2048), 2))
        peak = torch.cuda.max_memory_allocated(DEVICE) / 1e9
        yield row(7, "peak memory of a COLT round, on the GPU", "resnet18", f"{peak:.2f} GB", "", "", "")
        return
    if not Path("/proc/self/smaps_rollup").exists():
        return
    stop_idle()
    dense, parts = cc.Ticket.of(cc.build("resnet18", 10, 0)), cc.partition(some(data, 2048), 2)
    held_out = cc.partition(data.validation, 2)
    peaks, over = [0.0], threading.Event()

    def watch() -> None:
        while not over.wait(0.1):
            peaks.append(sum(_memory(int(pid)) for pid in [os.getpid(), *_children()]))

    watcher = threading.Thread(target=watch)
    watcher.start()
    one_round(dense, parts, validation=held_out)
    over.set()
    watcher.join()
    yield row(7, "peak memory of a COLT round", "resnet18", f"{max(peaks):.2f} GB", "", "", "at most 6 GB")


def _children() -> list[str]:
    return [pid for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()]


def _memory(process: int) -> float:
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0) * 1024 / 1e9


def compact_training(data: cc.Dataset, names: list[str], repeats: int) -> Iterator[Row]:
    """8. Training a compact ticket against the dense network, beside what its FLOPs say; one thread."""
    torch.set_num_threads(1)
    slow = RECIPE.changed(learning_rate=1e-5)
    for name in names:
        batch = some(data, 256)
        pixels, labels = normalise(batch.images, data.mean, data.std).to(DEVICE), batch.labels.to(DEVICE)
        whole = network_of(name)
        weights = dict(whole.named_parameters())
        half = masks.magnitude(weights, masks.dense(weights, cc.prunable(whole)), 0.5, "layer")
        small = cc.compact(whole, masks.refill(half, weights))
        flops = forward_flops(small, data.train.shape) / forward_flops(whole, data.train.shape)
        sides = [Trainer(network, Training(batch, slow), DEVICE) for network in (small, whole)]
        steps = longer({"conv3 width 16": 8, "conv3": 3}.get(name, 1))

        def run(side: Trainer, steps: int = steps, batch: Any = (pixels, labels)) -> None:
            for step in range(steps):
                side._step(step, *batch)

        often = repeats * (3 if name.startswith("conv3") else 1)
        with keeping_memory(DEVICE):
            times = paired(partial(run, sides[0]), partial(run, sides[1]), often)
        each = [[t / steps * 1e3 for t in times[side]] for side in ("ours", "theirs")]
        reached = [ratio * flops for ratio in times["ratio"]]
        what = f"training step, compact at {flops:.2f} of the FLOPs / dense: faster, and share of what FLOPs say"
        about = (spread(each[0], 1) + " ms", spread(each[1], 1) + " ms")
        yield row(8, what, name, *about, f"{spread(times['ratio'])}; {spread(reached)}", "share from 0.80 to 1.20")


def compact_inference(data: cc.Dataset, names: list[str], repeats: int) -> Iterator[Row]:
    """9. Answers of a refilled, compact ticket against the dense network's, two threads, 256 images at once."""
    runtimes = ["pytorch"] + ["onnx"] * (DEVICE.type == "cpu" and find_spec("onnxruntime") is not None)
    for name in [name for name in names if name in ("conv3", "resnet18")]:
        whole = network_of(name)
        weights = dict(whole.named_parameters())
        for density in (0.5, 0.3):
            kept = masks.magnitude(weights, masks.dense(weights, cc.prunable(whole)), 1 - density)
            ticket = cc.Ticket.of(whole, masks.refill(kept, weights)).silent()
            for runtime, multiple in product(runtimes, (1, 16)):
                table = cc.speed(
                    ticket, shape=data.train.shape, batches=[256], threads=[min(2, cores())], device=DEVICE,
                    runtime=runtime, multiple=multiple, rounds=repeats, seconds=0.3,
                ).set_index("form")  # fmt: skip
                both = (table.loc[form] for form in ("compact", "dense"))
                told = [f"{one['latency']:.1f} ({one['low']:.1f}-{one['high']:.1f}) ms" for one in both]
                share = table.loc["compact", "flops"] / table.loc["dense", "flops"]
                sizes = f", channels in sixteens, {runtime}" if multiple > 1 else f", {runtime}"
                what = f"answers, refilled at {density:.0%} of the weights ({share:.2f} of the FLOPs) / dense{sizes}"
                yield row(9, what, name, *told, f"{table.loc['compact', 'faster']:.2f}", "at least 2")


ITEMS = [
    *(masked_step, training_loop, colt_round, share_of_matmul, mask_operations, scaling, memory),
    *(compact_training, compact_inference),
]


def machine() -> str:
    """Describe this machine without naming it."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30 if hasattr(os, "sysconf") else 0
    kind = torch.backends.cpu.get_cpu_capability()
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return (
        f"{cores()} cores ({platform.machine()}, {kind}), {memory:.0f} GiB, {gpu}; "
        f"torch {torch.__version__}, Python {platform.python_version()}"
    )


def main() -> None:
    """Run what is asked for and write the table."""
    global DEVICE
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    numbers = range(1, len(ITEMS) + 1)
    parser.add_argument("--only", type=int, nargs="+", choices=numbers, default=list(numbers), metavar="ITEM")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--data", default="cifar10-mini")
    parser.add_argument("--out", type=Path, default=Path("results"))
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1")
    chosen = parser.parse_args()
    try:
        DEVICE = choose_device(chosen.device)
    except ValueError as problem:
        parser.error(str(problem))
    stem = "bench" if DEVICE.type == "cpu" else f"bench-{DEVICE.type}"
    data, begun, lines = cc.load(chosen.data), time.perf_counter(), []
    print(machine(), flush=True)
    for number in chosen.only:
        names = [n for n in chosen.networks if number == SHARES or declared_objective(NETWORKS[n][0]) is None]
        lines += list(ITEMS[number - 1](data, names, chosen.repeats))
    about = f"{machine()}\n\n`python benchmarks/bench.py {' '.join(sys.argv[1:])}`".replace(" `", "`")
    about += f", {date.today()}, {time.perf_counter() - begun:.0f} s. Medians, the lowest and the highest in brackets."
    table = merged(pd.DataFrame(lines), chosen.out, stem)
    chosen.out.mkdir(parents=True, exist_ok=True)
    table.to_csv(chosen.out / f"{stem}.csv", index=False)
    (chosen.out / f"{stem}.md").write_text(f"{about}\n\n{table.fillna('').to_markdown(index=False)}\n")
    print(f"\n{about}\n\n{table.fillna('').to_markdown(index=False)}")


def merged(new: pd.DataFrame, folder: Path, stem: str) -> pd.DataFrame:
    """Keep the items of an earlier run on this same machine that were not asked for now."""
    text = folder / f"{stem}.md"
    if not text.exists() or text.read_text().splitlines()[0] != machine():
        return new
    old = pd.read_csv(folder / f"{stem}.csv")
    return pd.concat([old[~old["item"].isin(new["item"])], new]).sort_values("item", kind="stable")


if __name__ == "__main__":
    main()
