"""The algebra of masks. A mask is a plain `dict[str, torch.Tensor]` of bool tensors, keyed by parameter name."""

from . import bits
from .agreement import (
    Overlap,
    agreement_row,
    by_layer,
    chance,
    chance_global,
    hamming,
    jaccard,
    kappa,
    layer_statistics,
    similarities,
)
from .channels import Shared, shared_channels
from .collapse import Collapse, collapse, neutral
from .combine import combine, difference, overlap, union, vote
from .mask import Mask, Weights, apply, check, count, dense, density, density_all, flatten, outputs_first, size
from .prune import magnitude, prune_lowest, random_like, reachable
from .silenced import silenced
from .structured import Block, blocks, clusters, is_depthwise, refill, regroup

__all__ = [
    "Block",
    "Collapse",
    "Mask",
    "Overlap",
    "Shared",
    "Weights",
    "agreement_row",
    "apply",
    "bits",
    "blocks",
    "by_layer",
    "chance",
    "chance_global",
    "check",
    "clusters",
    "collapse",
    "combine",
    "count",
    "dense",
    "density",
    "density_all",
    "difference",
    "flatten",
    "hamming",
    "is_depthwise",
    "jaccard",
    "kappa",
    "layer_statistics",
    "magnitude",
    "neutral",
    "outputs_first",
    "overlap",
    "prune_lowest",
    "random_like",
    "reachable",
    "refill",
    "regroup",
    "shared_channels",
    "silenced",
    "similarities",
    "size",
    "union",
    "vote",
]
