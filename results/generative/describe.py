"""What entry 17 of ../PLAN.md describes and does not test: `python results/generative/describe.py STORE [STUDY.yaml]`.

Reads the records and tickets of the whole study; trains, for the pictures and the Frechet distance, seven tickets of
its last seed and a judge once more (four minutes on one core). Writes described.md beside the study and two figures.
Agreement is told of the arms whose tickets the store has.
"""

import math
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch

import colt_core as cc
from colt_core.training import reconstruction, yardsticks

HERE = Path(__file__).parent
DENSITY = 0.125  # of the pictures
MORE = 0.02  # of Jaccard index: agreement that is called more than a classifier's


def told(
    study: cc.Study, records: pd.DataFrame, arms: list[str], metric: str, digits: int, scale: float = 1
) -> pd.DataFrame:
    """Return mean and 95 % interval over seeds, an arm a row, a density asked for a column; in brackets what it is."""
    rows = []
    for arm in arms:
        own = [study.experiment(arm, seed) for seed in study.seeds]
        mine = records[records["experiment"].isin([e.hash for e in own]) & (records["kind"] == "score")]
        asked = dict(enumerate(own[0].densities, 1)) if own[0].method != "dense" else {0: 1}
        for number, density in asked.items():
            there = mine[mine["round"] == number]
            mean, half = cc.report.interval(scale * there[metric].astype(float))
            reached = there["density"].mean()
            other = f" ({reached:.2f})" if abs(reached - density) > 0.005 else ""
            name = f"{density:g}" if number else "whole"
            rows.append((arm, name, f"{mean:.{digits}f} ± {half:.{digits}f}{other}"))
    frame = pd.DataFrame(rows, columns=["arm", "density", metric])
    table = frame.pivot(index="arm", columns="density", values=metric).fillna("")
    return table.loc[arms, sorted(table.columns, key=lambda name: -2 if name == "whole" else -float(name))]


def agreement(study: cc.Study, store: Path) -> pd.DataFrame:
    """Return what the copies of the first round agree on beyond theta0, by side, with the classifier's beside.

    Beside each arm how many channels its copies' masks have emptied, for a dead channel agrees with itself.
    """
    tables, emptied = [], dict[str, list[int]]()
    for arm, sides in (("colt", None), ("by_random", None), ("vae", None), ("classifier", {"classifier": "*"})):
        own = {seed: study.experiment(arm, seed) for seed in study.seeds}
        if not all(any((store / e.hash).glob("round-*.safetensors")) for e in own.values()):
            continue
        for seed, experiment in own.items():
            found = list(cc.rounds(experiment, store))
            first = next(one for one in found if one.number == 1)
            layers = [cc.masks.by_layer(own, transposed=first.ticket.transposed) for own in first.partition_masks]
            emptied.setdefault(arm, []).append(sum(int(one["dead_out"].sum()) for one in layers))
            table = cc.report.by_side(found) if sides is None else cc.report.by_side(found, sides)
            tables.append(table[table["round"] == 1].assign(arm=arm, seed=seed))
    table = pd.concat(tables, ignore_index=True)
    table["learnt"] = table["jaccard"] - table["chance_theta0"]
    plain = table[table["arm"] == "classifier"].set_index("seed")["learnt"]
    rows = []
    for (arm, side), group in table.groupby(["arm", "side"], sort=False):
        learnt, half = cc.report.interval(group["learnt"])
        gap, gap_half = cc.report.interval(group.set_index("seed")["learnt"] - plain)
        verdict = "" if arm == "classifier" else "more" if gap - gap_half > MORE else "not more, or not told"
        rows.append(
            (arm, side, group["jaccard"].mean(), f"{learnt:+.3f} ± {half:.3f}", f"{gap:+.3f} ± {gap_half:.3f}", verdict,
             "/".join(map(str, emptied[arm])))
        )  # fmt: skip
    names = ["arm", "side", "Jaccard index", "beyond theta0", "minus the classifier's", f"by {MORE} or more?"]
    return pd.DataFrame(rows, columns=[*names, "dead channels of the arm's copies, by seed"]).round(3)


def one_side(study: cc.Study, records: pd.DataFrame, store: Path) -> pd.DataFrame:
    """Return PSNR of tickets pruned on one side alone, and of matched where that side is as sparse, by log density."""
    scores = records[records["kind"] == "score"].set_index(["experiment", "round"])["psnr"]
    rows = []
    for side in ("encoder", "decoder"):
        alone, both = [], []
        for seed in study.seeds:
            matched = study.experiment("matched", seed)
            found = [one for one in cc.rounds(matched, store) if one.number]
            theirs = [name for name in found[0].ticket.mask if name.startswith("decoder.") == (side == "decoder")]
            masks = [{name: one.ticket.mask[name] for name in theirs} for one in found]
            places = [-math.log(cc.masks.density(mask)) for mask in masks]
            heights = [scores[matched.hash, one.number] for one in found]
            wanted = [-math.log(density) for density in study.experiment(side, seed).densities]
            alone.append([scores[study.experiment(side, seed).hash, n] for n in range(1, len(wanted) + 1)])
            both.append(np.interp(wanted, places, heights, left=math.nan, right=math.nan))
        difference = np.array(alone) - np.array(both)
        for name, values in (
            (f"{side} alone", alone),
            ("both, at that density of it", both),
            ("difference", difference),
        ):
            told = [cc.report.interval(column) for column in np.array(values).T]
            sign = "+" if name == "difference" else ""
            texts = ["" if math.isnan(mean) else f"{mean:{sign}.2f} ± {half:.2f}" for mean, half in told]
            rows.append((name, *texts))
    return pd.DataFrame(rows, columns=["PSNR in dB", *(f"{d:g}" for d in study.experiment("encoder").densities)])


def against_narrow(study: cc.Study, records: pd.DataFrame) -> str:
    """Say what tickets of the pictures' density gain on a narrow dense network of about as many weights."""
    scores = records[records["kind"] == "score"].set_index(["experiment", "round"])
    number, told = 1 + study.experiment("colt").densities.index(DENSITY), []
    narrow = [scores.loc[(study.experiment("narrow", seed).hash, 0)] for seed in study.seeds]
    for arm in ("colt", "matched"):
        own = [scores.loc[(study.experiment(arm, seed).hash, number)] for seed in study.seeds]
        mean, half = cc.report.interval([a["psnr"] - b["psnr"] for a, b in zip(own, narrow, strict=True)])
        told.append(f"{cc.report.called(arm)} {mean:+.2f} ± {half:.2f} dB")
    sizes = [cc.masks.size(cc.Ticket.of(cc.build("autoencoder", seed=0, **own)).mask) for own in ({}, {"width": 6})]
    about = f"{sizes[1]:,} weights, all trained, for {DENSITY * sizes[0]:,.0f}"
    return f"Tickets of density {DENSITY:g} minus the narrow dense network ({about}): {', '.join(told)}."


def trained(study: cc.Study, store: Path, arm: str, seed: int, data: cc.Dataset) -> torch.nn.Module:
    """Return what an arm's ticket at the pictures' density becomes: trained from theta0 under its mask."""
    experiment = study.experiment(arm, seed)
    last = [r for r in cc.rounds(experiment, store) if experiment.method == "dense" or r.density > 0.99 * DENSITY][-1]
    network = last.ticket.model()
    cc.train(network, data.train, experiment.recipe, mask=last.ticket.mask_for(network), seed=seed)
    return network


def main(store: Path, file: Path) -> None:
    """Write all of it."""
    study = cc.Study.named(str(file))
    data, seed = cc.load(study.dataset), study.seeds[-1]
    records = pd.DataFrame(cc.report.load(store))
    text = [
        "# What entry 17 describes",
        "Means and 95 % intervals over three seeds; columns are the densities asked for.",
    ]

    def add(title: str, table: pd.DataFrame, index: bool = True) -> None:
        text.extend([f"## {title}", table.to_markdown(index=index)])

    def scored(title: str, arms: list[str], metric: str, digits: int, scale: float = 1) -> None:
        add(title, told(study, records, arms, metric, digits, scale))

    both = ["dense", "narrow", "colt", "by_random", "matched", "union", "random", "reinit"]
    vaes = ["vae_dense", "vae", "vae_matched", "vae_random", "autoencoder_to_vae"]
    moved = ["classifier", "encoder_to_classifier", "encoder_to_classifier_random", "encoder_to_classifier_redrawn"]
    latent = cc.build("autoencoder", seed=0).encode(torch.zeros(1, *data.train.shape)).numel()
    errors = yardsticks.simple_errors(data, [latent])
    plain = {name: f"{reconstruction.psnr(error):.2f} dB" for name, error in errors.items()}
    scored("Autoencoder: PSNR in dB", both, "psnr", 2)
    add("Beside it, without a network", pd.DataFrame([plain]), index=False)
    scored("Accuracy on reconstructions over that on originals, %", both, "recognised", 1, 100)
    text.append(against_narrow(study, records))
    add("One side alone, and both, at that side's own density", one_side(study, records, store), index=False)
    add("Do the copies of the first round agree more than a classifier's?", agreement(study, store), index=False)
    for metric, digits in (("nats", 4), ("psnr", 2), ("kl", 1), ("active", 0)):
        scored(f"VAE: {metric}", vaes, metric, digits)
    own = {study.experiment(arm, s).hash: f"{arm} (seed {s})" for arm in vaes for s in study.seeds}
    silent = records[records["experiment"].isin(list(own)) & (records["active"] == 0)]["experiment"]
    collapsed = ", ".join(dict.fromkeys(silent.map(own))) or "none"
    text.append(f"Collapsed to the prior, no latent number active, at one density or more: {collapsed}.")
    scored("Encoders' tickets as classifiers: accuracy, %", moved, "accuracy", 1, 100)
    scored("Classifiers' tickets as encoders: PSNR in dB", ["classifier_to_encoder"], "psnr", 2)

    shown = data.test.take(torch.arange(8) * (len(data.test) // 8))
    rows = {"original": shown.images}
    for arm in ("dense", "matched", "colt", "random"):
        name = arm if arm == "dense" else f"{cc.report.called(arm)}, {cc.report.level(1 - DENSITY)}"
        rows[name] = reconstruction.reconstructed(trained(study, store, arm, seed, data), shown).images
    title = f"{study.name}: what tickets give back (seed {seed})"
    numbers = pd.DataFrame({"row": list(rows)})
    cc.plots.save(cc.plots.picture_rows(rows, title), "generative_reconstructions", numbers, "figures")
    judge = cc.build("conv3", len(data.classes), seed=seed, width=16)
    cc.train(judge, data.train, study.experiment("classifier", seed).recipe, seed=seed)
    step = max(1, len(data.test) // 2000)
    few, other = (data.test.take(torch.arange(first, len(data.test), step)) for first in (0, step // 2))
    kinds = {"our classifier": judge, "an untrained one": cc.build("conv3", len(data.classes), seed=seed + 1, width=16)}
    real = {kind: yardsticks.features_of(one, few) for kind, one in kinds.items()}
    null = {kind: yardsticks.frechet(real[kind], yardsticks.features_of(one, other)) for kind, one in kinds.items()}
    distances, rows = {"as many other test images": null}, {}
    for arm in ("vae_dense", "vae", "vae_random"):
        drawn = yardsticks.samples(trained(study, store, arm, seed, data), len(few), few, seed)
        seen = {kind: yardsticks.features_of(one, drawn) for kind, one in kinds.items()}
        distances[arm] = {kind: yardsticks.frechet(real[kind], seen[kind]) for kind in kinds}
        rows[arm] = drawn.images[:9]
    told_distances = pd.DataFrame(distances).map("{:.3g}".format)
    add(f"Frechet distance of {len(few):,} samples and as many test images, by whose features (seed {seed}); no FID",
        told_distances)  # fmt: skip
    title = f"{study.name}: what VAEs draw, {cc.report.level(1 - DENSITY)} (seed {seed})"
    cc.plots.save(cc.plots.picture_rows(rows, title), "generative_samples", pd.DataFrame(distances), "figures")
    (file.parent / "described.md").write_text("\n\n".join(text) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else HERE / "generative.yaml")
