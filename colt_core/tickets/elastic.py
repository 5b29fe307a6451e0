"""A ticket of one depth as a ticket of another: `elastic()` (2103.16547, section 3)."""

from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import nn

from .. import models
from ..files import Tensors
from ..settings import shown
from .ticket import Ticket

Order = Literal["append", "interpolate"]


def elastic(ticket: Ticket, network: str, order: Order = "append") -> Ticket:
    """Stretch or squeeze a ticket to another depth of its family.

    A stage's first block is copied once; the others, with their weights, normalisation and masks, as often as the depth
    asks for, earlier ones first. Stem and head stay as they are. Squeezing keeps the first blocks of each stage: it
    takes back what appending has done.

    Parameters
    ----------
    ticket
        Of a network that declares its stages, a tuple of module names, each a sequence of blocks: our CIFAR ResNets,
        or a class of yours with an attribute `stages`.
    network
        The name of the other depth: "resnet32".
    order
        "append": the blocks after the first over and over, 1 2 1 2; "interpolate": each one's uses side by side,
        1 1 2 2.

    Returns
    -------
    Ticket
        Of the same depth, the ticket itself.

    Raises
    ------
    ValueError
        In one line: an unknown order; a network without stages, or whose blocks have names in place of numbers; another
        family, width or number of classes; a stage of one block, of which nothing can be repeated.
    """
    if not isinstance(ticket, Ticket) or not isinstance(network, str):
        raise ValueError(f"a Ticket and the name of a network are expected, not {shown(ticket)} and {shown(network)}")
    if order not in ("append", "interpolate"):
        raise ValueError(f"unknown order {order!r}; allowed: append, interpolate")
    about = ticket.architecture
    if ticket.template is not None:
        raise ValueError(
            f"a ticket of {about['name']} cannot be stretched: what was changed in it is in no other depth"
        )
    if network == about["name"]:
        return ticket
    before = _depths(ticket.model(), about["name"])  # first: a network without stages takes other arguments, too
    target = _built(network, ticket)
    after = _depths(target, network)
    if before.keys() != after.keys():
        stages = ", ".join(before), ", ".join(after)
        raise ValueError(f"{network} is of another family: its stages are {stages[1]}, the ticket's {stages[0]}")
    uses = {stage: repeats(before[stage], after[stage], order) for stage in before}
    state = {name: value.detach() for name, value in target.state_dict().items()}
    names = {name: _origin(name, uses) for name in state}
    theta0, mask = _gathered(ticket.theta0, names, state, network), {}
    for name, origin in names.items():
        if origin in ticket.mask:
            mask[name] = ticket.mask[origin].clone()
    found = ticket.derived(theta0=theta0, mask=mask, elastic=f"{about['name']} {order}")
    kept = {name: value for name, value in about.items() if name != "code"}
    own = {name: value for name, value in models.architecture(target).items() if name == "code"}
    return Ticket(kept | {"name": network} | own, found.theta0, found.mask, found.provenance)


def repeats(count: int, target: int, order: Order) -> list[int]:
    """Return which of a stage's `count` blocks stands at each of `target` places.

    Raises
    ------
    ValueError
        For one block that is to become several: it changes the size, and cannot follow itself.
    """
    if target <= count:
        return list(range(target))
    if count == 1:
        raise ValueError("a stage of one block cannot be stretched: it has none that could be repeated")
    others = count - 1
    if order == "append":
        return [0] + [1 + place % others for place in range(target - 1)]
    often, more = divmod(target - 1, others)
    return [0] + [block for block in range(1, count) for _ in range(often + (block <= more))]


def _built(network: str, ticket: Ticket) -> nn.Module:
    about = ticket.architecture
    try:
        return models.build(network, about["classes"], 0, **about["arguments"])
    except TypeError as problem:
        raise ValueError(f"{network} does not take the arguments of a {about['name']}: {problem}") from None


def _depths(network: nn.Module, name: str) -> dict[str, int]:
    """Return the number of blocks of each stage that a network declares."""
    stages: Any = getattr(network, "stages", None)
    if not stages:
        raise ValueError(f"a {name} declares no stages: its blocks have no order in which they could be repeated")
    depths = {}
    for stage in [stages] if isinstance(stages, str) else stages:
        try:
            names = [called for called, _ in network.get_submodule(stage).named_children()]
        except AttributeError:
            raise ValueError(f"a {name} declares the stage {stage!r}, and has no module of that name") from None
        if names != [str(number) for number in range(len(names))]:
            raise ValueError(f"the blocks of {stage} are named {', '.join(names)}, and must be 0, 1, 2, ...")
        depths[stage] = len(names)
    return depths


def block_of(name: str, stages: Iterable[str]) -> tuple[str, int, str] | None:
    """Return the stage, the block's number and the rest of a tensor's name; None outside the stages."""
    for stage in stages:
        if name.startswith(f"{stage}."):
            number, _, rest = name.removeprefix(f"{stage}.").partition(".")
            return stage, int(number), rest
    return None


def _origin(name: str, uses: dict[str, list[int]]) -> str:
    """Return the source's tensor that stands under a name of the target."""
    if (place := block_of(name, uses)) is None:
        return name
    stage, number, rest = place
    return f"{stage}.{uses[stage][number]}.{rest}"


def _gathered(source: Tensors, names: dict[str, str], state: Tensors, network: str) -> Tensors:
    """Copy each tensor from its origin; refuse what does not fit."""
    found: dict[str, torch.Tensor] = {}
    for name, origin in names.items():
        there = tuple(source[origin].shape) if origin in source else "nothing"
        if there != tuple(state[name].shape):
            about = f"{name} is {tuple(state[name].shape)} there, {there} in the ticket"
            raise ValueError(f"{network} is of another family or width: {about}")
        found[name] = source[origin].clone()
    return found
