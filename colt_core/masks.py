"""The algebra of masks. A mask is a plain `dict[str, torch.Tensor]` of bool tensors, keyed by parameter name."""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import reduce
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    import pandas as pd

Mask = dict[str, torch.Tensor]
Weights = Mapping[str, torch.Tensor]
Measure = Callable[[torch.Tensor], torch.Tensor]


def dense(weights: Weights, names: list[str]) -> Mask:
    """Return the mask that keeps every weight of the named parameters."""
    return {name: torch.ones_like(weights[name], dtype=torch.bool) for name in names}


def check(mask: Weights, weights: Weights, what: str = "the network") -> None:
    """Raise one clear `ValueError` unless every tensor of `mask` is boolean and fits a parameter of `weights`."""
    for name, kept in mask.items():
        if name not in weights:
            raise ValueError(f"the mask is for another network: {what} has no parameter {name!r}")
        if kept.shape != weights[name].shape:
            shapes = f"{tuple(kept.shape)} in the mask, {tuple(weights[name].shape)} in {what}"
            raise ValueError(f"the mask is for another network: {name!r} has shape {shapes}")
        if kept.dtype != torch.bool:
            raise ValueError(f"a mask holds booleans, but {name!r} is {kept.dtype}")


# --- making masks -----------------------------------------------------------------------------------------------


def magnitude(weights: Weights, mask: Mask, rate: float, scope: str = "global") -> Mask:
    """Remove the fraction `rate` of the weights still kept, those of smallest magnitude.

    Exactly `round(rate * kept)` weights go, as `torch.nn.utils.prune.global_unstructured` counts them; of equal
    magnitudes the first in the order of the mask's names and of the flattened tensors goes first, on every device.

    Parameters
    ----------
    weights
        Trained weights by parameter name; parameters that are not in `mask` are ignored.
    mask
        What is still kept. A weight that is gone stays gone.
    rate
        Fraction of the kept weights to remove, in [0, 1].
    scope
        "global": all layers in one pool (the paper); "layer": the same fraction in each layer.

    Returns
    -------
    Mask
        A subset of `mask`, on the mask's device.

    Raises
    ------
    ValueError
        For a rate or a scope outside the allowed, a mask of another network, or weights that are not finite.
    """
    if not 0 <= rate <= 1:
        raise ValueError(f"rate must lie in [0, 1], not {rate}")
    check(mask, weights)
    return _prune({name: weights[name].detach().to(mask[name].device) for name in mask}, mask, rate, scope, torch.abs_)


def prune_lowest(scores: Weights, mask: Mask, rate: float, scope: str = "global") -> Mask:
    """Remove the fraction `rate` of the kept weights that have the lowest scores (see `magnitude`)."""
    return _prune(scores, mask, rate, scope)


def _prune(scores: Weights, mask: Mask, rate: float, scope: str, measure: Measure | None = None) -> Mask:
    """Prune by scores, which `measure` may first change in place in a copy."""
    if scope not in ("global", "layer"):
        raise ValueError(f"unknown scope {scope!r}; allowed: global, layer")
    kept: Mask = {}
    for names in [list(mask)] if scope == "global" else [[name] for name in mask]:
        pool = torch.cat([scores[name].flatten() for name in names])
        stay = _drop(measure(pool) if measure else pool, torch.cat([mask[name].flatten() for name in names]), rate)
        pieces = stay.split([mask[name].numel() for name in names])
        kept |= {name: piece.view_as(mask[name]).clone() for name, piece in zip(names, pieces, strict=True)}
    return kept


def _drop(scores: torch.Tensor, kept: torch.Tensor, rate: float) -> torch.Tensor:
    """One pool: flat bool tensor without the `round(rate * kept)` lowest-scored weights; ties go first come, first."""
    pool, kept = scores.flatten(), kept.flatten()
    alive = int(kept.count_nonzero())
    if not (math.isfinite(pool.max()) or pool[kept].isfinite().all()):
        raise ValueError("the weights are not finite: this training diverged, so nothing can be pruned by magnitude")
    lost = round(rate * alive)
    if not lost:
        return kept.clone()
    if alive < len(pool):
        pool = pool / kept  # inf or NaN where a weight is gone: above every threshold
    threshold = _smallest(pool, lost)
    stay = (pool > threshold) & kept
    if missing := alive - lost - int(stay.count_nonzero()):
        stay[(pool == threshold).nonzero().flatten()[-missing:]] = True
    return stay


def _smallest(pool: torch.Tensor, rank: int) -> float:
    """Return the value of this rank, from 1, without sorting. NumPy's selection is several times PyTorch's on a CPU."""
    if pool.device.type == "cpu":
        return float(np.partition(pool.numpy(), rank - 1)[rank - 1])
    return float(pool.kthvalue(rank).values)


def reachable(mask: Mask, rate: float, scope: str = "global") -> float:
    """Return the highest sparsity that repeated pruning at `rate` can reach before `round(rate * kept)` becomes 0."""
    stuck = next(n for n in range(math.ceil(0.5 / rate) + 1, -1, -1) if round(rate * n) == 0)
    sizes = [m.numel() for m in mask.values()]
    pools = sizes if scope == "layer" else [sum(sizes)]
    return 1 - sum(min(stuck, size) for size in pools) / sum(sizes)


def random_like(mask: Mask, generator: torch.Generator) -> Mask:
    """Return a random mask that keeps, in each layer, as many weights as `mask` does (the control for its layout)."""
    shuffled = {}
    for name, kept in mask.items():
        order = torch.randperm(kept.numel(), generator=generator).to(kept.device)
        shuffled[name] = kept.flatten()[order].view_as(kept)
    return shuffled


# --- combining masks --------------------------------------------------------------------------------------------


def overlap(*masks: Mask) -> Mask:
    """Keep the weights that every mask keeps (AND): COLT's step."""
    return vote(*masks, least=len(masks))


def union(*masks: Mask) -> Mask:
    """Keep the weights that any mask keeps (OR)."""
    return vote(*masks, least=1)


def vote(*masks: Mask, least: int) -> Mask:
    """Keep the weights that at least `least` of the masks keep (k of N; AND and OR are its two ends)."""
    if not masks:
        raise ValueError("at least one mask is needed")
    if not 1 <= least <= len(masks):
        raise ValueError(f"least must lie in 1..{len(masks)}, the number of masks, not {least}")
    for other in masks[1:]:
        _same(masks[0], other)
    if least in (1, len(masks)):
        join = torch.logical_or if least == 1 else torch.logical_and
        return {name: reduce(join, (m[name] for m in masks)).clone() for name in masks[0]}
    return {name: torch.stack([m[name] for m in masks]).sum(0) >= least for name in masks[0]}


def difference(a: Mask, b: Mask) -> Mask:
    """Keep what `a` keeps and `b` does not: the weights that only a's partition wanted (its specialists)."""
    _same(a, b)
    return {name: a[name] & ~b[name] for name in a}


def _same(a: Mask, b: Mask) -> None:
    if list(a) != list(b) or any(a[name].shape != b[name].shape for name in a):
        raise ValueError("the masks belong to different networks: their names or shapes differ")


# --- measuring masks --------------------------------------------------------------------------------------------


def count(mask: Mask) -> int:
    """Return the number of weights kept."""
    return sum(int(kept.count_nonzero()) for kept in mask.values())


def size(mask: Mask) -> int:
    """Return the number of weights that the mask covers, kept or not."""
    return sum(kept.numel() for kept in mask.values())


def density(mask: Mask) -> float:
    """Return kept / prunable, in [0, 1]; sparsity is one minus it."""
    return count(mask) / size(mask)


def density_all(mask: Mask, weights: Weights) -> float:
    """Return the share kept of *every* weight: prunable, head and normalisation weights (biases are not counted).

    The official code's sparsity is one minus this, which is why its conv3 with 50 classes cannot pass 96.55 %.
    """
    total = sum(w.numel() for name, w in weights.items() if name.endswith("weight"))
    return (total - size(mask) + count(mask)) / total


def flatten(mask: Mask) -> torch.Tensor:
    """Return the mask as one flat bool tensor, layers in the mask's order."""
    return torch.cat([kept.flatten() for kept in mask.values()])


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
        If they are of different networks.
    """
    both, chance, counts = (torch.zeros(len(masks), len(masks), dtype=torch.float64) for _ in range(3))
    for other in masks[1:]:
        _same(masks[0], other)
    for name in masks[0] if masks else ():
        flat = torch.stack([mask[name].flatten() for mask in masks]).float()  # sums are exact: a layer has < 2**24
        kept = flat.sum(1).double()
        both += (flat @ flat.T).double()
        counts += kept[:, None] + kept[None]
        chance += kept[:, None] * kept[None] / flat.shape[1]

    def index(common: torch.Tensor) -> torch.Tensor:
        return torch.where(counts > common, common / (counts - common).clamp(min=1e-9), 1.0)

    return index(both) - index(chance) if beyond_chance else index(both)


def hamming(a: Mask, b: Mask) -> float:
    """Return the share of weights on which two masks differ, in [0, 1]."""
    _same(a, b)
    return sum(int((a[name] ^ b[name]).count_nonzero()) for name in a) / size(a)


def kappa(a: Mask, b: Mask, within: Mask | None = None) -> float:
    """Return Cohen's kappa of two masks over the weights of `within`: 0 is chance for these densities, 1 is equality.

    One pool over all layers, so layers of different density alone raise it; `by_layer` has it layer by layer.
    """
    either = (within or dense(a, list(a))).values()
    tables = [_agreement(*layer) for layer in zip(a.values(), b.values(), either, strict=True)]
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


def chance(*masks: Mask, within: Mask | None = None) -> float:
    """Return the Jaccard index to be expected if each mask were random *within each layer* at its own keep rate.

    Parameters
    ----------
    masks
        Two or more masks.
    within
        The mask they were all pruned from; weights that were gone before take no part in the lottery.
    """
    alive, kept = _counts(masks, within)
    both, either = _expected(alive, kept)
    return float(both.sum() / either.sum()) if either.sum() else 1.0


def chance_global(*masks: Mask, within: Mask | None = None) -> float:
    """Return the Jaccard index of masks that are random over all layers at once: k / (2 - k) for two of keep rate k."""
    alive, kept = _counts(masks, within)
    both, either = _expected(alive.sum(0, keepdim=True), kept.sum(1, keepdim=True))
    return float(both.sum() / either.sum()) if either.sum() else 1.0


def _counts(masks: tuple[Mask, ...], within: Mask | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the weights alive in each layer [L] and those kept by each mask [P, L], as float64."""
    if within:
        masks = tuple(overlap(mask, within) for mask in masks)
    alive = [int(within[name].count_nonzero()) if within else kept.numel() for name, kept in masks[0].items()]
    kept = [[int(mask[name].count_nonzero()) for name in masks[0]] for mask in masks]
    return torch.tensor(alive, dtype=torch.float64), torch.tensor(kept, dtype=torch.float64)


def _expected(alive: torch.Tensor, kept: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the expected size of the intersection and of the union of independent masks, per layer."""
    share = kept / alive.clamp(min=1)
    return alive * share.prod(0), alive * (1 - (1 - share).prod(0))


# --- the overlap of a round --------------------------------------------------------------------------------------


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
    """

    jaccard: float
    chance: float
    chance_global: float
    kappa: float
    inherited: float
    keep: float
    layers: list[dict[str, Any]]

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
    _same(a, b)
    rows = []
    for name in a:
        alive = within[name] if within else torch.ones_like(a[name])
        n, kept_a, kept_b, both = _agreement(a[name], b[name], alive)
        expected = kept_a * kept_b / n if n else 0.0
        variance = expected * (n - kept_a) * (n - kept_b) / (n * (n - 1)) if n > 1 else 0.0
        either, either_expected = kept_a + kept_b - both, kept_a + kept_b - expected
        rows.append(
            {
                "layer": name.removesuffix(".weight"),
                "weights": a[name].numel(),
                "alive": n,
                "a": kept_a,
                "b": kept_b,
                "both": both,
                "expected": expected,
                "jaccard": both / either if either else 1.0,
                "chance": expected / either_expected if either_expected else 1.0,
                "z": (both - expected) / math.sqrt(variance) if variance > 0 else math.nan,
                "kappa": _kappa(n, kept_a, kept_b, both),
            }
        )
    return rows


def by_layer(a: Mask, b: Mask | None = None, within: Mask | None = None) -> "pd.DataFrame":
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
    """
    import pandas as pd

    rows = layer_statistics(a, b, within) if b is not None else [_layer_row(name, kept) for name, kept in a.items()]
    return pd.DataFrame(rows).set_index("layer")


def _layer_row(name: str, kept: torch.Tensor) -> dict[str, Any]:
    return {
        "layer": name.removesuffix(".weight"),
        "weights": kept.numel(),
        "kept": int(kept.count_nonzero()),
        "density": float(kept.double().mean()),
        "dead_out": int((~kept.flatten(1).any(1)).sum()),
        "dead_in": int((~kept.transpose(0, 1).flatten(1).any(1)).sum()),
    }


# --- applying masks and looking for collapse ---------------------------------------------------------------------


@torch.no_grad()
def apply(mask: Mask, network: torch.nn.Module) -> None:
    """Set every masked weight of the network to exactly zero, in place."""
    parameters = dict(network.named_parameters())
    check(mask, parameters)
    for name, kept in mask.items():
        parameters[name].mul_(kept.to(parameters[name]))


@dataclass(frozen=True)
class Collapse:
    """What a mask has cut: layers without a weight, channels without one, and whether input still reaches output."""

    empty_layers: list[str]
    dead_channels: int
    connected: bool


def collapse(mask: Mask, network: torch.nn.Module, image_size: int = 32) -> Collapse:
    """Report layer collapse under a mask.

    Every weight is replaced by its mask, the normalisation is neutral and each layer's output is scaled to a maximum of
    one, so that the output to an image of ones is positive exactly where a path of kept weights is left (SynFlow's
    argument, arXiv 2006.05467).
    """
    from copy import deepcopy

    probe = deepcopy(network).cpu().eval()
    check(mask, dict(probe.named_parameters()))
    with torch.no_grad():
        for name, tensor in probe.state_dict(keep_vars=True).items():
            if tensor.ndim > 1:
                tensor.copy_(mask[name] if name in mask else torch.ones_like(tensor))
            elif tensor.is_floating_point():
                tensor.fill_(1.0 if name.endswith(("weight", "running_var")) else 0.0)
        for module in probe.modules():
            if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
                module.register_forward_hook(lambda _, __, out: out / out.max().clamp(min=1e-30))
        output = probe(torch.ones(1, 3, image_size, image_size))
    table = [_layer_row(name, kept) for name, kept in mask.items()]
    return Collapse(
        empty_layers=[row["layer"] for row in table if row["kept"] == 0],
        dead_channels=sum(row["dead_out"] for row in table),
        connected=bool((output > 0).any()),
    )


def combine(masks: list[Mask], how: str | int) -> Mask:
    """Combine the copies' masks: "and" (overlap), "or" (union), or a number k of copies that must agree."""
    least = {"and": len(masks), "or": 1}.get(how, how) if isinstance(how, str) else how
    if not isinstance(least, int):
        raise ValueError(f"unknown way to combine masks {how!r}; allowed: and, or, or a number of copies")
    return vote(*masks, least=least)
