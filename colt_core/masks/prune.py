"""Masks made from scores: magnitude pruning, what repeated pruning can reach, and the random control."""

import math
from collections.abc import Callable

import numpy as np
import torch

from .mask import Mask, Weights, check

Measure = Callable[[torch.Tensor], torch.Tensor]


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
    check(mask, scores)
    return _prune(scores, mask, rate, scope)


def _prune(scores: Weights, mask: Mask, rate: float, scope: str, measure: Measure | None = None) -> Mask:
    """Prune by scores, which `measure` may first change in place in a copy."""
    if scope not in ("global", "layer"):
        raise ValueError(f"unknown scope {scope!r}; allowed: global, layer")
    kept: Mask = {}
    pools = [list(mask)] if scope == "global" else [[name] for name in mask]
    for names in pools:
        pool = torch.cat([scores[name].flatten() for name in names])
        alive = torch.cat([mask[name].flatten() for name in names])
        # `cat` has made a copy, so the measure may work in place: of eleven million weights a second copy costs.
        stay = _drop(measure(pool) if measure else pool, alive, rate)
        pieces = stay.split([mask[name].numel() for name in names])
        kept |= {name: piece.view_as(mask[name]).clone() for name, piece in zip(names, pieces, strict=True)}
    return kept


def _drop(scores: torch.Tensor, kept: torch.Tensor, rate: float) -> torch.Tensor:
    """One pool: flat bool tensor without the `round(rate * kept)` lowest-scored weights; ties go first come, first."""
    pool, kept = scores.flatten(), kept.flatten()
    alive = int(kept.count_nonzero())
    low, high = pool.aminmax()  # one pass, and NaN shows in both; only where it fails are dead weights left out
    if not (math.isfinite(low) and math.isfinite(high)) and not pool[kept].isfinite().all():
        raise ValueError("the weights are not finite: this training diverged, so nothing can be pruned by magnitude")
    lost = round(rate * alive)  # as torch.nn.utils.prune counts, so that the two can be compared weight by weight
    if not lost:
        return kept.clone()
    if alive < len(pool):
        pool = torch.where(kept, pool, math.inf)  # what is gone lies above every threshold, and is never lost again
    threshold = _smallest(pool, lost)
    stay = (pool > threshold) & kept
    # Of several weights equal to the threshold too many are gone now: the last of them in order stay.
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
    # `round(rate * n)` is 0 for every n up to about half a weight over the rate: there pruning stands still.
    stuck = next(n for n in range(math.ceil(0.5 / rate) + 1, -1, -1) if round(rate * n) == 0)
    sizes = [m.numel() for m in mask.values()]
    pools = sizes if scope == "layer" else [sum(sizes)]
    return 1 - sum(min(stuck, size) for size in pools) / sum(sizes)


def random_like(mask: Mask, generator: torch.Generator) -> Mask:
    """Return a random mask that keeps, in each layer, as many weights as `mask` does (the control for its layout)."""
    shuffled = {}
    for name, kept in mask.items():
        # Drawn on the CPU whatever the device, so that a seed means the same mask everywhere.
        order = torch.randperm(kept.numel(), generator=generator).to(kept.device)
        shuffled[name] = kept.flatten()[order].view_as(kept)
    return shuffled
