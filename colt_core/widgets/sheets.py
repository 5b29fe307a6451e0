"""What the explorer shows of a choice of masks: their bits, and one table of numbers that words and pictures take."""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from .. import masks, plots
from ..masks import Mask, bits
from ..studies.saved import DAMAGED, Saved
from .parts import warned

PAIR = ("layer", "alive", "A", "B", "both", "by chance", "Jaccard", "chance", "z", "kappa")
ALL = ("layer", "alive", "by all", "by some", "by none", "by chance", "Jaccard", "chance")
MOST = 96  # packed masks that are remembered: 135 MB of ResNet-18's


@dataclass(frozen=True)
class Side:
    """One mask: a round's ticket (`copy` None), or that of one of its copies."""

    run: Saved
    number: int
    copy: int | None = None

    @property
    def key(self) -> str:
        """What the mask goes by in the browser."""
        return f"{self.run.hash}/{self.number}/{'ticket' if self.copy is None else self.copy}"

    def mask(self, layers: Iterable[str] | None = None) -> Mask:
        """Read the mask, of all layers or of some, output channels first."""
        return masks.outputs_first(self.run.mask(self.number, self.copy, layers), self.run.transposed)


@dataclass(frozen=True)
class Choice:
    """The masks that are compared, and the one all were pruned from (None: all weights)."""

    sides: tuple[Side, ...]
    names: tuple[str, ...]
    before: Side | None = None
    every: bool = False  # of a round's copies: "kept by all", "by k"


class Sheets:
    """Sheets of some saved runs, by their hashes. Nothing is trained; files are read when asked for."""

    def __init__(self, runs: dict[str, Saved]) -> None:
        self.runs = runs
        self._bits: OrderedDict[str, bits.Bits] = OrderedDict()

    def about(self, name: str) -> dict[str, Any]:
        """Return what can be chosen of a run: layers with their shapes, rounds with density and copies, and B.

        Raises
        ------
        ValueError
            In one line, where there is nothing to choose from.
        """
        run = self.runs[name]
        records = run.rounds()
        if not records:
            raise ValueError("this run has no finished round yet: press Reload when it has")
        last = records[-1]["round"]
        copies, layers = run.copies(last), run.layers(last)
        pairs = [(f"A's copies {i} and {j}", f"copies {i} {j}") for i in range(copies) for j in range(i + 1, copies)]
        every = [(f"all {copies} copies of A at once", "all")] if copies > 1 else []
        own = [*pairs, *every, ("A's own mask a round before", "before")]
        others = [(other.label, other.hash) for other in self.runs.values() if other is not run]
        return {
            "layers": [[layer, list(turned(shape, layer in run.transposed))] for layer, shape in layers.items()],
            "turned": [layer for layer in layers if layer in run.transposed],
            "starts": bits.starts(layers),
            "rounds": [[r["round"], r["density"], copies if r["round"] else 0] for r in records],
            "others": own + others if copies else others + own,
        }

    def choice(self, name: str, number: int, other: str) -> Choice:
        """Return which masks a choice of run, round and B means.

        Raises
        ------
        ValueError
            In one line, where there are no such masks, or they are of different networks.
        """
        run = self.runs[name]
        if other == "all" or other.startswith("copies"):
            if not number:
                raise ValueError("round 0 is dense: no copy has been pruned yet; move the slider to a later round")
            chosen = range(run.copies(number)) if other == "all" else [int(i) for i in other.split()[1:]]
            sides = tuple(Side(run, number, i) for i in chosen)
            return Choice(sides, tuple(f"copy {i}" for i in chosen), Side(run, number - 1), other == "all")
        if other == "before":  # masks of controls need not nest
            return Choice((Side(run, number), Side(run, max(0, number - 1))), ("this round", "round before"))
        try:
            found = self.runs[other].rounds()
        except ValueError as problem:
            raise ValueError(f"B: {problem}") from None
        if not found:
            raise ValueError(f"B ({self.runs[other].label}) has no finished round yet")
        density = record_of(run, number)["density"]
        at = min(found, key=lambda record: abs(record["density"] - density))["round"]
        there = self.runs[other]
        if run.layers(number) != there.layers(at):
            raise ValueError(
                f"A is a mask of {run.network}, B of {there.network}: masks of different networks cannot be compared"
            )
        return Choice((Side(run, number), Side(there, at)), ("A", "B"))

    def packed(self, side: Side | str) -> bits.Bits:
        """Return a mask bit-packed."""
        if isinstance(side, str):
            name, number, copy = side.split("/")
            side = Side(self.runs[name], int(number), None if copy == "ticket" else int(copy))
        if side.key not in self._bits:
            self._bits[side.key] = bits.pack(side.mask())
            if len(self._bits) > MOST:
                self._bits.popitem(last=False)
        self._bits.move_to_end(side.key)
        return self._bits[side.key]

    def sheet(self, name: str, number: int, other: str) -> dict[str, Any]:
        """Return what is shown of a choice, as JSON; `masks` are those that it needs, A's of this round with them.

        `cells`, `legend` and `notes` have an entry a layer; where nothing can be shown, `problem` says why.
        """
        try:
            return self._sheet(self.choice(name, number, other))
        except DAMAGED as problem:
            return {"problem": str(problem)}

    def _sheet(self, choice: Choice) -> dict[str, Any]:
        first = choice.sides[0]
        run, number, shapes = first.run, first.number, first.run.layers(first.number)
        self._check(run, number, shapes)
        rows = self._every(choice, shapes) if choice.every else self._pair(choice, shapes)
        copies = run.copies(number)
        own = [Side(run, number), *(Side(run, number, i) for i in range(copies))]
        told = [_share_words(row, len(choice.sides)) for row in rows] if choice.every else None
        return {
            "columns": list(ALL if choice.every else PAIR),
            "cells": [(_every_cells if choice.every else pair_cells)(row) for row in rows],
            "legend": told or [plots.venn_words(row, choice.names) for row in rows],
            "notes": [f"{row['layer']}: {plots.beside_chance(row)}" for row in rows],
            "collapsed": [not row["a"] + row["b"] for row in rows],
            "words": (_every_words if choice.every else _pair_words)(choice, rows),
            "every": choice.every,
            "names": list(choice.names),
            "sides": [side.key for side in choice.sides],
            "masks": list(dict.fromkeys(side.key for side in (*choice.sides, *own))),
        }

    def _check(self, run: Saved, number: int, shapes: bits.Shapes) -> None:
        """Refuse a round whose file does not hold the mask that its record speaks of."""
        said, kept = record_of(run, number)["density"], sum(bits.counts(self.packed(Side(run, number)), shapes))
        density = kept / sum(prod(shape) for shape in shapes.values())
        if abs(density - said) > 1e-9:
            raise ValueError(
                f"round {number} of {run.hash} is altered: its file keeps {density:.4%} of the weights, "
                f"its record says {said:.4%}"
            )

    def _alive(self, choice: Choice, shapes: bits.Shapes) -> tuple[list[int], Any]:
        """Return the weights alive before, a number a layer, and their bits (or all bits)."""
        if choice.before is None:
            return [prod(shape) for shape in shapes.values()], np.uint8(255)
        alive = self.packed(choice.before)
        return bits.counts(alive, shapes), alive

    def _pair(self, choice: Choice, shapes: bits.Shapes) -> list[dict[str, Any]]:
        """Return `masks.layer_statistics` of the two masks, from their bits."""
        n, alive = self._alive(choice, shapes)
        a, b = (self.packed(side) & alive for side in choice.sides)
        table = zip(n, bits.counts(a, shapes), bits.counts(b, shapes), bits.counts(a & b, shapes), strict=True)
        return [
            masks.agreement_row(name, prod(shape), *counts)
            for (name, shape), counts in zip(shapes.items(), table, strict=True)
        ]

    def _every(self, choice: Choice, shapes: bits.Shapes) -> list[dict[str, Any]]:
        """Return a row a layer: how many weights k of the copies keep, and what chance would give."""
        n, alive = self._alive(choice, shapes)
        packed = [self.packed(side) & alive for side in choice.sides]
        by = bits.kept_by(packed, shapes)
        kept = np.array([bits.counts(mask, shapes) for mask in packed]).T
        rows = []
        for (name, shape), left, k, own in zip(shapes.items(), n, by, kept, strict=True):
            share = own / max(1, left)
            common, either = left * share.prod(), left * (1 - (1 - share).prod())
            row = {"layer": name.removesuffix(".weight"), "weights": prod(shape), "alive": left, "by": k.tolist()}
            row |= {
                "a": int(own[0]),
                "b": int(own[1:].sum()),
                "both": int(k[-1]),
                "expected": common,
                "z": float("nan"),
            }
            row |= {"either": int(k[1:].sum()), "expected_either": either}
            rows.append(row)
        return rows


def turned(shape: Sequence[int], transposed: bool) -> tuple[int, ...]:
    """Return a weight's shape, or an index, with a transposed layer's first two places exchanged; again: as before."""
    return (shape[1], shape[0], *shape[2:]) if transposed else tuple(shape)


def record_of(run: Saved, number: int) -> dict[str, Any]:
    """Return a round's record."""
    return next((r for r in run.rounds() if r["round"] == number), {"density": float("nan")})


def _pair_words(choice: Choice, rows: list[dict[str, Any]]) -> list[str]:
    """Say what is compared, and the Venn numbers of the whole network."""
    first, second = choice.sides
    total = {name: sum(r[name] for r in rows) for name in ("alive", "a", "b", "both", "expected")}
    either, by_chance = total["a"] + total["b"] - total["both"], total["a"] + total["b"] - total["expected"]
    records = [record_of(first.run, first.number)]
    line = f"Round {first.number}: {records[0]['density']:.2%} dense."
    if second.run is not first.run:
        records.append(record_of(second.run, second.number))
        line += (
            f" B is round {second.number} of {second.run.label}, the nearest in density ({records[1]['density']:.2%})."
        )
    a, b = choice.names
    return [
        line,
        f"Whole network: {total['both']:,} in both, {total['a'] - total['both']:,} in {a} only, "
        f"{total['b'] - total['both']:,} in {b} only, {total['alive'] - either:,} in neither{_of(choice)}"
        f"Jaccard {_ratio(total['both'], either):.3f}, "
        f"by chance within layers {_ratio(total['expected'], by_chance):.3f}.",
        *warned(records),
    ]


def _every_words(choice: Choice, rows: list[dict[str, Any]]) -> list[str]:
    """Say how many weights of the whole network how many copies keep."""
    first, copies = choice.sides[0], len(choice.sides)
    total = {name: sum(r[name] for r in rows) for name in ("alive", "both", "either", "expected", "expected_either")}
    some = [f"{sum(r['by'][k] for r in rows):,} by {k}" for k in range(copies - 1, 0, -1)]
    record = record_of(first.run, first.number)
    return [
        f"Round {first.number}: {record['density']:.2%} dense.",
        f"Whole network: {total['both']:,} kept by all {copies} copies, {', '.join(some)}, "
        f"{total['alive'] - total['either']:,} by none{_of(choice)}"
        f"Kept by all / kept by any (Jaccard) {_ratio(total['both'], total['either']):.3f}, "
        f"by chance within layers {_ratio(total['expected'], total['expected_either']):.3f}.",
        *warned([record]),
    ]


def _of(choice: Choice) -> str:
    return " (of those alive before this round). " if choice.before is not None else ". "


def pair_cells(r: dict[str, Any]) -> list[str]:
    """Write a row of `masks.layer_statistics`."""
    plain = lambda value, form: "-" if value != value else format(value, form)  # noqa: E731 (NaN: no variance)
    return [
        r["layer"], *(f"{r[name]:,}" for name in ("alive", "a", "b", "both")), f"{r['expected']:,.0f}",
        plain(r["jaccard"], ".3f"), plain(r["chance"], ".3f"), plain(r["z"], "+.1f"), plain(r["kappa"], "+.3f"),
    ]  # fmt: skip


def _every_cells(r: dict[str, Any]) -> list[str]:
    counts = (r["alive"], r["both"], r["either"] - r["both"], r["alive"] - r["either"])
    ratios = _ratio(r["both"], r["either"]), _ratio(r["expected"], r["expected_either"])
    return [r["layer"], *map("{:,}".format, counts), f"{r['expected']:,.0f}", *map("{:.3f}".format, ratios)]


def _share_words(row: dict[str, Any], copies: int) -> list[str]:
    """Say how many of a layer's weights each number of copies keeps, none first."""
    some = [f"kept by {k} of {copies}" for k in range(1, copies)]
    sizes = [row["weights"] - row["either"], *row["by"][1:]]
    names = ["kept by none", *some, f"kept by all {copies}"]
    return [f"{name}: {n:,} ({n / row['weights']:.0%})" for name, n in zip(names, sizes, strict=True)]


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 1.0
