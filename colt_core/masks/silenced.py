"""Channels that a mask has cut, silenced: what of their normalisation must be zero that they are zero."""

from torch import nn

from ..models import channels
from .mask import Mask, check


def silenced(mask: Mask, network: nn.Module) -> Mask:
    """Return a mask over scales and shifts of normalisation, and biases, of channels that a mask has cut whole.

    A row of zeros is no dead channel: batch normalisation still adds its shift. Applied beside the mask, and held in
    training (`Training`'s mask may hold both), this one makes those channels zero for every input. It is kept apart
    from the mask, so that it enters no density.

    Parameters
    ----------
    mask
        Over the network's prunable weights.
    network
        Any module whose forward pass can be traced.

    Returns
    -------
    Mask
        bool [channels] by parameter name; only parameters with a channel to silence.

    Raises
    ------
    ValueError
        In one line: a mask that does not fit, a network that cannot be followed.
    """
    check(mask, dict(network.named_parameters()))
    return channels.silenced(network, mask)
