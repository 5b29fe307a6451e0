"""How far masks agree, beside what chance would give: over the whole network, and layer by layer."""

import math
from collections.abc import Collection
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .combine import overlap, same_network, union
from .mask import Mask, Weights, check, count, dense, layer_row, outputs_first, size
from .prune import magnitude

if TYPE_CHECKING:
    import pandas as pd


BINS = 40  # of initial magnitude, a layer
LEAST_IN_BIN = 10  # weights: bins of one weight would call everything inherited


def jaccard(*masks: Mask) -> float:
    """Return |kept by all| / |kept by any|, in [0, 1]; 1.0 where nothing is kept at all."""
    either = count(union(*masks))
    return count(overlap(*masks)) / either if either else 1.0


def similarities(masks: list[Mask], beyond_chance: bool = False) -> torch.Tensor:
    """Return the Jaccard index of every two of N masks, [N, N] of float64.

    Parameters
    ----------
    masks
        Of one network.
    beyond_chance
        Take off what masks that are random within each layer, with the same counts there, would have: 0 is chance.

    Raises
    ------
    ValueError
        If they do not fit each other, see `same_network`.
    """
    both, chance, counts = (torch.zeros(len(masks), len(masks), dtype=torch.float64) for _ in range(3))
    if masks:
        same_network(*masks)
    for name in masks[0] if masks else ():
        flat = torch.stack([mask[name].flatten() for mask in masks]).float()  # sums are exact: a layer has < 2**24
        kept = flat.sum(1).cpu().double()
        both += (flat @ flat.T).cpu().double()
        counts += kept[:, None] + kept[None]
        chance += kept[:, None] * kept[None] / flat.shape[1]

    def index(common: torch.Tensor) -> torch.Tensor:
        return torch.where(counts > common, common / (counts - common).clamp(min=1e-9), 1.0)

    return index(both) - index(chance) if beyond_chance else index(both)


def hamming(a: Mask, b: Mask) -> float:
    """Return the share of weights on which two masks differ, in [0, 1]."""
    same_network(a, b)
    return sum(int((a[name] ^ b[name]).count_nonzero()) for name in a) / size(a)


def kappa(a: Mask, b: Mask, within: Mask | None = None) -> float:
    """Return Cohen's kappa of two masks over the weights of `within`: 0 is chance for these densities, 1 is equality.

    One pool over all layers, so layers of different density alone raise it; `by_layer` has it layer by layer.
    """
    alive = dense(a, list(a)) if within is None else within
    same_network(a, b, alive)
    tables = [_agreement(a[name], b[name], alive[name]) for name in a]
    return _kappa(*(sum(column) for column in zip(*tables, strict=True)))


def _agreement(a: torch.Tensor, b: torch.Tensor, alive: torch.Tensor) -> tuple[int, int, int, int]:
    """Return the weights alive, those kept by `a`, by `b` and by both."""
    first, second = a & alive, b & alive
    return tuple(int(m.count_nonzero()) for m in (alive, first, second, first & second))  # type: ignore[return-value]


def _kappa(alive: int, a: int, b: int, both: int) -> float:
    if not alive:
        return math.nan
    p, q = a / alive, b / alive
    expected = p * q + (1 - p) * (1 - q)
    return ((alive - a - b + 2 * both) / alive - expected) / (1 - expected) if expected < 1 else 1.0


def chance(*masks: Mask, within: Mask | None = None, given: Weights | None = None) -> float:
    """Return the Jaccard index to be expected if each mask were random *within each layer* at its own keep rate.

    Parameters
    ----------
    masks
        Two or more masks.
    within
        The mask they were all pruned from; weights that were gone before take no part in the lottery.
    given
        Weights by name, theta0 for example: random only among weights of like magnitude, in 40 bins of equal number of
        each layer (fewer where a bin would hold less than ten). What masks agree on because they were pruned from one
        initialisation is then part of chance; what is left beyond it they have learnt.

    Raises
    ------
    ValueError
        If masks, `within` and `given` are not of one network.
    """
    alive, kept = _counts(masks, within) if given is None else _counts_in_bins(masks, within, given)
    both, either = _expected(alive, kept)
    return float(both.sum() / either.sum()) if either.sum() else 1.0


def chance_global(*masks: Mask, within: Mask | None = None) -> float:
    """Return the Jaccard index of masks that are random over all layers at once: k / (2 - k) for two of keep rate k."""
    alive, kept = _counts(masks, within)
    both, either = _expected(alive.sum(0, keepdim=True), kept.sum(1, keepdim=True))
    return float(both.sum() / either.sum()) if either.sum() else 1.0


def _counts(masks: tuple[Mask, ...], within: Mask | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the weights alive in each layer [L] and those kept by each mask [P, L], as float64."""
    same_network(*masks)
    if within is not None:
        masks = tuple(overlap(mask, within) for mask in masks)
    alive = [kept.numel() if within is None else int(within[name].count_nonzero()) for name, kept in masks[0].items()]
    kept = [[int(mask[name].count_nonzero()) for name in masks[0]] for mask in masks]
    return torch.tensor(alive, dtype=torch.float64), torch.tensor(kept, dtype=torch.float64)


def _counts_in_bins(masks: tuple[Mask, ...], within: Mask | None, given: Weights) -> tuple[torch.Tensor, torch.Tensor]:
    """Return `_counts`, each bin of each layer's weights, by the magnitude of `given`, in a layer's place."""
    same_network(*masks)
    check(masks[0], given)
    everything = dense(masks[0], list(masks[0])) if within is None else within
    same_network(masks[0], everything)
    sizes, counts = [], []
    for name, alive in everything.items():
        left = alive.flatten().cpu().numpy()
        values = given[name].detach().flatten().cpu().float().abs().numpy()[left]
        bins = max(1, min(BINS, len(values) // LEAST_IN_BIN))
        ends = [len(values) * i // bins for i in range(1, bins)]
        # The ends of the bins are a few order statistics: no need to sort eleven million weights for them.
        places = (
            np.searchsorted(np.partition(values, ends)[ends], values, side="right")
            if ends
            else np.zeros(len(values), int)
        )
        sizes.append(np.bincount(places, minlength=bins))
        counts.append([np.bincount(places[mask[name].flatten().cpu().numpy()[left]], minlength=bins) for mask in masks])
    together = np.concatenate(counts, 1) if counts else np.zeros((len(masks), 0))
    return torch.tensor(np.concatenate(sizes)).double(), torch.tensor(together).double()


def _expected(alive: torch.Tensor, kept: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the expected size of the intersection and of the union of independent masks, per layer."""
    share = kept / alive.clamp(min=1)
    return alive * share.prod(0), alive * (1 - (1 - share).prod(0))


@dataclass(frozen=True)
class Overlap:
    """How far the partitions' masks agree, beside what chance would give.

    Attributes
    ----------
    jaccard
        |kept by all| / |kept by any| over all layers.
    chance
        The same for masks that are random within each layer at that layer's keep rates (the fair null).
    chance_global
        The same for masks that are random over all layers at once: k / (2 - k).
    kappa
        Cohen's kappa among the weights that were alive before, the mean over pairs of partitions.
    inherited
        Mean Jaccard index of each partition's mask with pruning the *initial* weights to the same count.
    keep
        The share of the weights alive before that the combined mask keeps.
    layers
        One dict a layer, from the pairs' means: see `by_layer`.
    chance_theta0
        As `chance`, but random only among weights of like initial magnitude: what is inherited is part of it. None: of
        a record older than the measure.
    """

    jaccard: float
    chance: float
    chance_global: float
    kappa: float
    inherited: float
    keep: float
    layers: list[dict[str, Any]]
    chance_theta0: float | None = None

    @classmethod
    def of(cls, masks: list[Mask], within: Mask, combined: Mask, theta0: Weights, scope: str = "global") -> "Overlap":
        """Measure the masks of one round, all pruned from `within`, and `combined`, made of them."""
        pairs = list(combinations(masks, 2))
        alive = count(within)
        counts = [count(m) for m in masks]
        initial = {n: magnitude(theta0, within, 1 - n / alive, scope) for n in set(counts)} if alive else {}
        start = [initial.get(n, m) for n, m in zip(counts, masks, strict=True)]
        layers = [layer_statistics(*pair, within) for pair in pairs]
        return cls(
            jaccard=jaccard(*masks),
            chance=chance(*masks, within=within),
            chance_global=chance_global(*masks, within=within),
            kappa=sum(kappa(*pair, within) for pair in pairs) / len(pairs),
            inherited=sum(jaccard(*pair) for pair in zip(masks, start, strict=True)) / len(masks),
            keep=count(combined) / alive if alive else 1.0,
            layers=[_mean_row(rows) for rows in zip(*layers, strict=True)],
            chance_theta0=chance(*masks, within=within, given=theta0),
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the measurements as plain Python objects."""
        return asdict(self)


def _mean_row(rows: tuple[dict[str, Any], ...]) -> dict[str, Any]:
    return {
        key: value if isinstance(value, str) else sum(row[key] for row in rows) / len(rows)
        for key, value in rows[0].items()
    }


def layer_statistics(a: Mask, b: Mask, within: Mask | None = None) -> list[dict[str, Any]]:
    """Return, for each layer, how two masks agree and what chance would give (see `by_layer`)."""
    everything = dense(a, list(a)) if within is None else within
    same_network(a, b, everything)
    rows = []
    for name in a:
        table = _agreement(a[name], b[name], everything[name])
        rows.append(agreement_row(name, a[name].numel(), *table))
    return rows


def agreement_row(name: str, weights: int, alive: int, a: int, b: int, both: int) -> dict[str, Any]:
    """Return what the counts of two masks in one layer say of their agreement, beside chance (see `by_layer`)."""
    expected = a * b / alive if alive else 0.0
    variance = expected * (alive - a) * (alive - b) / (alive * (alive - 1)) if alive > 1 else 0.0
    either, either_expected = a + b - both, a + b - expected
    return {
        "layer": name.removesuffix(".weight"),
        "weights": weights,
        "alive": alive,
        "a": a,
        "b": b,
        "both": both,
        "expected": expected,
        "jaccard": both / either if either else 1.0,
        "chance": expected / either_expected if either_expected else 1.0,
        "z": (both - expected) / math.sqrt(variance) if variance > 0 else math.nan,
        "kappa": _kappa(alive, a, b, both),
    }


def by_layer(
    a: Mask, b: Mask | None = None, within: Mask | None = None, transposed: Collection[str] = ()
) -> "pd.DataFrame":
    """Return a table with one row a layer.

    With one mask: weights, kept, density, and the channels it kills (`dead_out`: output channels with no incoming
    weight; `dead_in`: input channels that no weight reads). With two: `alive` weights (n), kept by `a` and by `b`,
    by `both`, the count expected of chance (hypergeometric: a b / n), Jaccard index beside its chance, the z-score of
    `both` under the hypergeometric distribution, and Cohen's kappa.

    Parameters
    ----------
    a, b
        Masks of one network.
    within
        The mask that both were pruned from; counts are over its weights.
    transposed
        Layers whose input channels come first (`models.transposed`): their dead channels are counted the right way.
    """
    import pandas as pd

    same_network(a)
    turned = outputs_first(a, transposed)
    rows = layer_statistics(a, b, within) if b is not None else [layer_row(name, m) for name, m in turned.items()]
    return pd.DataFrame(rows).set_index("layer")
