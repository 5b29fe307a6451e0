"""The same function in a physically smaller network: `compact()`."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import nn

from .. import masks, models
from ..masks import Mask
from ..models.channels import losing, rows_of
from ..models.compacted import MULTIPLE, PREFIX, WHOLE_CLASSES_AS, packed, unpacked, with_anatomy
from ..models.shrinking import rounded, shrunk
from ..settings import check_whole, shown


def compact(network: nn.Module, mask: Mask | None = None, multiple: int = 1) -> nn.Module:
    """Return the network without the channels that a mask has cut whole: the same function, physically smaller.

    A channel is cut where the mask leaves its row of a convolution, or of a hidden linear layer, no weight; its
    normalisation and bias count as zero (`silenced`). Rows go with their normalisation, and with the columns that read
    them. Inner channels of residual blocks go always; into the residual stream a block adds by index. Chains, residual
    networks, depthwise convolutions, concatenations and squeeze-and-excitation are followed. A layer that is called
    more than once or computes in a way of its own, and a linear layer that reads more than [N, C] (tokens), stay whole.
    It takes images alone: what else a forward pass may be given is left at its defaults. Of a network that was trained
    without `Ticket.silent` it is another function: what the normalisation of its cut channels has learnt is dropped.

    Parameters
    ----------
    network
        Any module whose forward pass can be traced (`torch.fx`); not changed.
    mask
        Over its weights. Without a channel to cut the network comes back as large as it was.
    multiple
        Leave each layer a multiple of so many rows, and of so many channels to read wherever blocks are added, for
        kernels that like that; the additional ones are zero.

    Returns
    -------
    torch.nn.Module
        On the CPU, weights under the mask. A network that has a name has one again, "compact:" before it, so that it
        travels to workers and into tickets.

    Raises
    ------
    ValueError
        In one line: a mask that does not fit, a layer without a channel, a network that cannot be followed or whose own
        forward pass computes something else in training, or a `multiple` below 1.
    """
    if mask is None and not isinstance(network, nn.Module):
        raise ValueError(
            f"compact takes a network and its mask, not {shown(network)} alone; of a ticket: ticket.compact()"
        )
    _, small = _shrunk(network, mask, multiple)  # type: ignore[arg-type]
    return small


def _shrunk(
    network: nn.Module, mask: Mask, multiple: int, raw: bool = False
) -> tuple[dict[str, torch.Tensor], nn.Module]:
    """Return the rows left of the layers that lose some, and the small network; `raw`: masked weights as they are."""
    check_whole("multiple", multiple, 1)
    if not isinstance(network, nn.Module):
        raise ValueError(f"a network (torch.nn.Module) is made compact, not {shown(network)}")
    masks.check(mask, dict(network.named_parameters()))
    if models.architecture(network)["name"].startswith(PREFIX) and models.is_as_built(network):
        network, mask = _made_whole(network, mask)
    whole = deepcopy(network).cpu()
    rows = rounded(_cut(whole, mask), multiple)
    rows = {name: alive for name, alive in rows.items() if not bool(alive.all())}
    if not raw:
        masks.apply(mask, whole)
    masks.apply(masks.silenced(mask, whole), whole)
    small = with_anatomy(shrunk(whole, rows, multiple), whole) if rows else whole
    about = models.architecture(network)
    if rows and models.is_a_name(about["name"]) and not about["name"].startswith(PREFIX):
        about |= {"name": PREFIX + about["name"], "arguments": _with_rows(about["arguments"], rows, multiple)}
    if models.is_a_name(about["name"]):
        vars(small)["architecture"] = about
    return rows, small


@torch.no_grad()
def effective_mask(network: nn.Module, mask: Mask) -> Mask:
    """Return the weights of a mask that are left when it is compact: those that read a removed channel are not.

    A refilled layer still holds whole rows; of each, the columns that read channels removed before it are useless. So
    a chain keeps about the square of its density. Parameters and errors as `compact`.
    """
    numbered = deepcopy(network).cpu().double()
    for name in mask:
        weight = numbered.get_parameter(name)
        weight.copy_(torch.arange(1, weight.numel() + 1).view(weight.shape))
    _, small = _shrunk(numbered, mask, 1, raw=True)
    left = dict(small.named_parameters())
    found = {}
    for name, kept in mask.items():
        places = torch.zeros(kept.numel(), dtype=torch.bool)
        places[left[name].long().flatten() - 1] = True
        found[name] = places.view(kept.shape) & kept.cpu()
    return found


def _with_rows(arguments: dict[str, Any], rows: dict[str, torch.Tensor], multiple: int) -> dict[str, Any]:
    """Return what a compact network is built from: the whole one's arguments, and the rows of it that are left."""
    told = {WHOLE_CLASSES_AS if name == "classes_as" else name: value for name, value in arguments.items()}
    told |= {"rows": {name: packed(alive) for name, alive in rows.items()}}
    return told | ({MULTIPLE: multiple} if multiple > 1 else {})


@torch.no_grad()
def _made_whole(network: nn.Module, mask: Mask) -> tuple[nn.Module, Mask]:
    """Return a compact network as the whole one that it was built from, and its mask: nothing where nothing was left.

    So it is cut again as the whole one is, whose layers can all be followed.
    """
    about = models.architecture(network)
    told = {"classes_as" if name == WHOLE_CLASSES_AS else name: value for name, value in about["arguments"].items()}
    rows = {name: unpacked(text, name) for name, text in told.pop("rows").items()}
    multiple = told.pop(MULTIPLE, 1)
    whole = models.build(about["name"].removeprefix(PREFIX), about["classes"], **told)
    numbered = deepcopy(whole).double()
    for value in numbered.state_dict().values():
        value.copy_(torch.arange(value.numel()).view(value.shape))
    places = {name: value.long().flatten() for name, value in shrunk(numbered, rows, multiple).state_dict().items()}

    def spread(values: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        found = {}
        for name, value in values.items():
            found[name] = value
            if value.shape != sizes[name]:  # of others, buffers of bool say, a number tells no place
                found[name] = value.new_zeros(sizes[name])
                found[name].view(-1)[places[name].to(value.device)] = value.flatten()
        return found

    sizes = {name: value.shape for name, value in whole.state_dict().items()}
    models.fill(whole, spread(network.state_dict()), assign=True)
    trained = {name: weight.requires_grad for name, weight in network.named_parameters()}
    for name, weight in whole.named_parameters():
        weight.requires_grad_(trained.get(name, True))
    modes = {name: module.training for name, module in network.named_modules()}
    for name, module in whole.named_modules():
        module.training = modes.get(name, network.training)
    return whole, spread(mask)


def _cut(network: nn.Module, mask: Mask) -> dict[str, torch.Tensor]:
    """Return the rows of the layers that can lose some: no head, whose rows are the classes."""
    layers = losing(network) - {models.head_name(network)}
    return {name: alive for name, alive in rows_of(mask).items() if name in layers}


@torch.no_grad()
def compact_with_mask(network: nn.Module, mask: Mask, multiple: int = 1) -> tuple[nn.Module, Mask, dict[str, str]]:
    """Return `compact(network, mask, multiple)` with its masked weights as they are, and what is left of the mask.

    And, by layer, as `packed`, the rows that lost their last weight to the removal of what they read: the mask leaves
    them none, and yet they are not cut.
    """
    _, small = _shrunk(network, mask, multiple, raw=True)
    marked = deepcopy(network).cpu()
    for name, kept in mask.items():
        there = kept.cpu().reshape(len(kept), -1).any(1).view(-1, *[1] * (kept.ndim - 1))
        marked.get_parameter(name).copy_(torch.where(kept.cpu(), 2, there.int()))  # 1: masked, in a row that is there
    _, left = _shrunk(marked, mask, multiple, raw=True)
    values, emptied = {name: left.get_parameter(name).detach() for name in mask}, {}
    for name, value in values.items():
        if bool((rows := value.reshape(len(value), -1).amax(1) == 1).any()):
            emptied[name.removesuffix(".weight")] = packed(rows)
    return small, {name: value == 2 for name, value in values.items()}, emptied
