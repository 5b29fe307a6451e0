"""Super tickets of an encoder: how much each head and block matters to the loss, and which of them are cut."""

import torch
from torch import nn

from ..seeding import reproducible
from ..training.units import SMALL, order_of_units
from .bert import Bert
from .texts import Texts


def unit_importance(network: Bert, texts: Texts, device: str | torch.device = "cpu", batch: int = 32) -> torch.Tensor:
    """Return the importance of each head and block: the mean over texts of |dL(x)/dgate| at gate one.

    Every text has gates of its own, so one backward pass of the summed loss gives the derivatives of all texts.

    Parameters
    ----------
    network
        Fine-tuned, whole; evaluated without dropout.
    texts
        Those it was trained on.
    batch
        Texts at once; no result depends on it.

    Returns
    -------
    Tensor
        float64 [layers, heads + 1], not normalised.

    References
    ----------
    arXiv 2105.12002, section 3; its code takes |.| of every piece of a text, not of the text.
    """
    where = torch.device(device)
    network, texts = network.to(where).eval(), texts.to(where)
    kind = next(network.parameters()).dtype
    total = torch.zeros(network.units.shape, dtype=torch.float64)
    with reproducible(where, 0, threads=1):
        for index in torch.arange(len(texts), device=where).split(batch):
            tokens, attention, labels = texts.batch(index)
            gates = torch.ones(len(index), *network.units.shape, dtype=kind, device=where, requires_grad=True)
            loss = nn.functional.cross_entropy(network(tokens, attention, gates), labels, reduction="sum")
            (slopes,) = torch.autograd.grad(loss, gates)
            total += slopes.cpu().double().abs().sum(0)  # MPS has no float64
    return total / len(texts)


def normalised(importance: torch.Tensor) -> torch.Tensor:
    """Return importance divided by its l2 norm: heads by their layer's, blocks by that of all blocks.

    A layer has one block, so a norm of each layer's own would make all blocks alike.
    """
    heads, blocks = importance[:, :-1], importance[:, -1:]
    return torch.cat([heads / (heads.norm(dim=1, keepdim=True) + SMALL), blocks / (blocks.norm() + SMALL)], 1)


def kept_units(
    importance: torch.Tensor, percent: int, order: str = "winning", rng: torch.Generator | None = None
) -> torch.Tensor:
    """Return which units a ticket keeps when so many percent of the heads and of the blocks are cut.

    Heads are ranked among heads and blocks among blocks; a layer keeps a head at least. Masks of one order nest.

    Parameters
    ----------
    importance
        [layers, heads + 1], not normalised.
    percent
        0 to 99; cut are int(units * percent / 100) of either kind.
    order
        "winning": the least important go first; "losing": the most; "random": drawn by `rng`, the same draw for each
        percent.

    Returns
    -------
    Tensor
        bool [layers, heads + 1].

    Raises
    ------
    ValueError
        For an unknown order, or a percentage that would leave a layer without a head.
    """
    if order not in ("winning", "losing", "random"):
        raise ValueError(f"unknown order {order!r}; allowed: winning, losing, random")
    layers, heads = importance.shape[0], importance.shape[1] - 1
    most = 100 * (heads - 1) // heads
    if not 0 <= percent <= most:
        raise ValueError(f"percent must lie between 0 and {most}, for each layer keeps a head; not {percent}")
    ranked = normalised(importance)
    units = torch.ones(layers, heads + 1, dtype=torch.bool)
    cut = order_of_units({str(layer): ranked[layer, :-1] for layer in range(layers)}, order, rng)
    for name, head in cut[: layers * heads * percent // 100]:
        units[int(name), head] = False
    # All blocks are of one kind and have no floor of a layer's own: here they count as the units of one layer.
    for _, layer in order_of_units({"blocks": ranked[:, -1]}, order, rng)[: layers * percent // 100]:
        units[layer, -1] = False
    return units
