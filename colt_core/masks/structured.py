"""Masks with structure: whole channels (`refill`), dense blocks of rows and columns (`regroup`) (arXiv 2202.04736)."""

import math
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import torch

from ..settings import check_whole
from .mask import Mask, Weights, check, outputs_first

USUAL = 8  # rows of a block
LONGEST = 50  # rounds of balanced k-means
TIMES = 1.5  # of the paper's rule: a block is wider than this times what any of its rows keeps outside


def refill(
    mask: Mask,
    weights: Weights,
    extra: float = 0.0,
    transposed: Collection[str] = (),
    depthwise: Collection[str] | None = None,
) -> Mask:
    """Fill up the best output channels of each layer, and empty the others: as many weights, whole channels.

    Parameters
    ----------
    mask
        Unstructured. Depthwise convolutions (one input channel a filter) stay as they are.
    weights
        The weights that the mask was drawn from, trained in the round that drew it, by name.
    extra
        refill+: this share of the channels that would go stays too.
    transposed
        Layers whose input channels come first (`models.transposed`): of them too the output channels are filled up.
    depthwise
        Layers that stay as they are (`models.depthwise`); None: those whose shape says so, as does a grey stem's.

    Returns
    -------
    Mask
        Of a layer of C rows of n weights with K = kept / n, floor(K + (C - K) extra) rows, at least one, are all ones:
        those with the largest sum of kept magnitudes; of equal ones the first.

    Raises
    ------
    ValueError
        In one line: `extra` outside [0, 1), weights that do not fit, a layer without a weight.
    """
    if not 0 <= extra < 1:
        raise ValueError(f"extra must lie in 0..1, 1 excluded, not {extra!r}")
    check(mask, weights)
    filled, mask = {}, outputs_first(mask, transposed)
    weights = outputs_first({name: weights[name].detach() for name in mask}, transposed)
    for name, kept in mask.items():
        _check_some(name, kept)
        if is_depthwise(name, kept, depthwise):
            filled[name] = kept.clone()
            continue
        scores = (weights[name].abs().cpu() * kept.cpu()).flatten(1).double().sum(1)  # MPS has no float64
        wanted = int(kept.count_nonzero()) / kept[0].numel()
        count = max(1, math.floor(wanted + (len(kept) - wanted) * extra + 1e-9))
        rows = torch.argsort(-scores, stable=True)[:count]
        filled[name] = torch.zeros_like(kept)
        filled[name][rows] = True
    return {name: kept.contiguous() for name, kept in outputs_first(filled, transposed).items()}


@dataclass(frozen=True)
class Block:
    """A dense block of a layer: the numbers of its rows and columns, and the share of it that was kept before."""

    layer: str
    rows: tuple[int, ...]
    columns: tuple[int, ...]
    fill: float


def regroup(
    mask: Mask,
    rows: int | None = None,
    rule: str = "budget",
    depthwise: Collection[str] | None = None,
    transposed: Collection[str] = (),
) -> Mask:
    """Gather the weights of similar rows in dense blocks; see `blocks`, which gives them one by one."""
    mask = {name: kept.contiguous() for name, kept in outputs_first(mask, transposed).items()}
    found = {
        n: kept.clone() if is_depthwise(n, kept, depthwise) else torch.zeros_like(kept) for n, kept in mask.items()
    }
    for block in blocks(mask, rows, rule, depthwise):
        flat = found[block.layer].view(len(found[block.layer]), -1)
        flat[torch.tensor(block.rows)[:, None], torch.tensor(block.columns)] = True
    return {name: kept.contiguous() for name, kept in outputs_first(found, transposed).items()}


def blocks(
    mask: Mask,
    rows: int | None = None,
    rule: str = "budget",
    depthwise: Collection[str] | None = None,
    transposed: Collection[str] = (),
) -> list[Block]:
    """Return the dense blocks that a mask is regrouped into.

    The rows of a layer that keep a weight are put into clusters of about `rows` by balanced k-means, in place of the
    authors' hypergraph partitioner. In each the columns are ordered by how many of its rows keep them; the block is its
    rows by the first of these columns.

    Parameters
    ----------
    mask
        Unstructured; depthwise convolutions are left out.
    rows
        Rows of a cluster, to within one: 8 for a CPU's vectors, 32 on GPUs; None: 8, or all of a layer that has fewer.
    rule
        How wide a block is: "budget", as wide as its rows keep weights in the mean; "paper", the narrowest that for
        each row is wider than 1.5 times what the row keeps outside of it. The paper's keeps more than the mask did.
    depthwise, transposed
        As for `refill`: rows are output channels, of transposed convolutions too.

    Raises
    ------
    ValueError
        In one line: an unknown rule, clusters larger than a layer has rows, a layer without a weight.
    """
    if rule not in ("budget", "paper"):
        raise ValueError(f"unknown rule {rule!r}; allowed: budget, paper")
    if rows is not None:
        check_whole("rows", rows, 1)
    found = []
    for name, kept in outputs_first(mask, transposed).items():
        _check_some(name, kept)
        if is_depthwise(name, kept, depthwise):
            continue
        if rows is not None and rows > len(kept):
            raise ValueError(
                f"clusters of {rows} rows are larger than layer {name.removesuffix('.weight')}, of {len(kept)}"
            )
        found += [
            _block(name, kept.flatten(1).cpu(), cluster, rule)
            for cluster in clusters(kept, rows or min(USUAL, len(kept)))
        ]
    return found


def clusters(kept: torch.Tensor, rows: int) -> list[torch.Tensor]:
    """Return clusters of similar rows of one layer's mask, of equal size to within one: balanced k-means.

    The start is the order of the rows along the second eigenvector of their cosine similarity; each step assigns all
    rows at once, so that no cluster has more than its share (`scipy.optimize.linear_sum_assignment`).
    """
    from scipy.optimize import linear_sum_assignment

    flat = kept.flatten(1).cpu().double()
    living = flat.any(1).nonzero().flatten()
    points = flat[living].numpy()
    count = max(1, round(len(points) / rows))
    sizes = [len(part) for part in np.array_split(np.arange(len(points)), count)]
    unit = points / np.linalg.norm(points, axis=1, keepdims=True)
    values, vectors = np.linalg.eigh(unit @ unit.T)
    order = np.argsort(vectors[:, np.argsort(values)[-2]] if len(points) > 1 else np.zeros(1), kind="stable")
    home = np.empty(len(points), dtype=int)
    home[order] = np.repeat(np.arange(count), sizes)
    seats = np.repeat(np.arange(count), sizes)
    for _ in range(LONGEST):
        centres = np.stack([points[home == c].mean(0) for c in range(count)])
        apart = (points**2).sum(1)[:, None] - 2 * points @ centres.T + (centres**2).sum(1)
        _, taken = linear_sum_assignment(apart[:, seats])
        if np.array_equal(seats[taken], home):
            break
        home = seats[taken]
    return [living[torch.from_numpy(np.flatnonzero(home == c))] for c in range(count)]


def _block(name: str, flat: torch.Tensor, cluster: torch.Tensor, rule: str) -> Block:
    inside = flat[cluster]
    order = torch.argsort(-inside.sum(0), stable=True)
    ordered = inside[:, order]
    if rule == "budget":
        width = max(1, round(int(ordered.count_nonzero()) / len(cluster)))
    else:
        outside = ordered.sum(1, keepdim=True) - ordered.cumsum(1)  # [rows, columns]: left out by the first i + 1
        enough = (torch.arange(1, ordered.shape[1] + 1) > TIMES * outside).all(0)
        width = int(enough.nonzero()[0]) + 1
    columns = order[:width].sort().values
    fill = float(inside[:, columns].float().mean())
    return Block(name, tuple(cluster.tolist()), tuple(columns.tolist()), fill)


def is_depthwise(name: str, kept: torch.Tensor, known: Collection[str] | None = None) -> bool:
    """Tell whether a layer's filters read one channel each, of several; by its shape where nobody knows."""
    return kept.ndim == 4 and kept.shape[1] == 1 and len(kept) > 1 if known is None else name in known


def _check_some(name: str, kept: torch.Tensor) -> None:
    if not bool(kept.any()):
        raise ValueError(f"layer {name.removesuffix('.weight')} keeps no weight: there is nothing to fill")
