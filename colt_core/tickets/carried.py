"""A ticket's layers in another network: an encoder as a classifier, an autoencoder as a VAE: `carried()`."""

from torch import nn

from .. import masks, models
from .ticket import Ticket

PREFIXES = ("", "encoder.", "decoder.")


def carried(ticket: Ticket, network: nn.Module, start: str | None = None) -> Ticket:
    """Lay a ticket over another network: layers of one name and shape take its weights and masks, the others stay.

    Parameters
    ----------
    ticket
        Found on whichever network.
    network
        The other, freshly built; it is not changed. What the ticket does not know keeps its initialisation, and all of
        its prunable weights.
    start
        What the names of the ticket's layers begin with where the network's do not ("encoder.": an autoencoder's
        encoder as conv3's convolutions), or the other way round; None: whichever fits most weights.

    Returns
    -------
    Ticket
        Of the other network. Normalisation goes along with its layer's convolution.

    Raises
    ------
    ValueError
        In one line, where they have no prunable layer in common, or one of another shape; for a silent ticket.
    """
    own = Ticket.of(network)
    if ticket.architecture.get("silent"):
        raise ValueError(
            "a silent ticket holds channels at zero, and another network does not: carry ticket.silent(False)"
        )
    if own.template is not None:
        raise ValueError(f"a {own.architecture['name']} has no name to build it by: it cannot take a ticket")
    pairs = [_pairs(ticket, own, prefix) for prefix in (PREFIXES if start is None else (start,))]
    origin = max(pairs, key=lambda one: sum(own.mask[name].numel() for name in one if name in own.mask))
    if not any(name in own.mask for name in origin):
        names = ticket.architecture["name"], own.architecture["name"]
        raise ValueError(f"a {names[0]}'s ticket has no layer that a {names[1]} knows by name")
    for name, there in origin.items():
        if (shape := tuple(ticket.theta0[there].shape)) != tuple(own.theta0[name].shape):
            about = f"{name} is {tuple(own.theta0[name].shape)} in the network, {shape} in the ticket"
            raise ValueError(f"the ticket does not fit: {about}")
    theta0 = own.theta0 | {name: ticket.theta0[there].clone() for name, there in origin.items()}
    mask = {name: ticket.mask.get(origin.get(name, ""), kept).clone() for name, kept in own.mask.items()}
    masks.check(mask, theta0)
    origins = {"parent": ticket.hash, "carried": ticket.architecture["name"]}
    return Ticket(own.architecture, theta0, mask, ticket.provenance | origins)


def _pairs(ticket: Ticket, own: Ticket, start: str) -> dict[str, str]:
    """Return for each of the network's tensors the ticket's of that name; those of a head stay the network's own."""
    heads = tuple(f"{head}." for head in (models.head_name(own.model()),) if head)
    found = {}
    for name in own.theta0:
        if heads and name.startswith(heads):
            continue
        for there in (name, f"{start}{name}", name.removeprefix(start)):
            if there in ticket.theta0:
                found[name] = there
                break
    return found
