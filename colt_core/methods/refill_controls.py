"""Controls of whole channels: is a structured ticket more than its channels' number, its widths, its density?

References: arXiv 2202.04736; the narrow dense network is the objection of 1810.05270.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from .. import masks
from ..data import Images
from ..files import Tensors
from ..seeding import derive, generator
from ..tickets import Cost, Round
from ..training import Recipe
from .choices import by_magnitude
from .cycles import begin, cycles
from .method import Look, Method, Setting
from .options import ChannelOptions, DensityOptions


def random_channels(
    rounds: Iterable[Round], seed: int = 0, provenance: Mapping[str, Any] | None = None
) -> Iterator[Round]:
    """Yield, for each round of whole channels, theta0 with as many channels of each layer, drawn at random.

    Layers that lose none, and depthwise convolutions, stay as they are; `provenance` as for `random`.
    """
    for found in rounds:
        rng, drawn = generator(seed, "random channels", found.number), {}
        inputs_first, depthwise = found.ticket.transposed, found.ticket.depthwise
        for name, kept in masks.outputs_first(found.ticket.mask, inputs_first).items():
            order = torch.randperm(len(kept), generator=rng)
            drawn[name] = kept.clone() if masks.is_depthwise(name, kept, depthwise) else kept[order]
        mask = {name: kept.contiguous() for name, kept in masks.outputs_first(drawn, inputs_first).items()}
        about = {**(provenance or {}), "control": "channels", "drawn": seed}
        yield Round(found.number, found.ticket.derived(mask=mask, **about), cost=found.cost)


def narrow(rounds: Iterable[Round], seed: int = 0, provenance: Mapping[str, Any] | None = None) -> Iterator[Round]:
    """Yield, for each round of whole channels, a dense network of those widths with an initialisation of its own.

    The strongest objection to a structured ticket: is it more than its widths? It is written as a mask over the whole
    network, of the weights that are left when it is compact, whose channels are silent: the same function. Its weights
    are drawn as the whole network's are, and scaled to the widths that are left; the head that scoring draws is the
    whole network's, as every arm's. Its widths are taken as given: it is booked at no cost of finding, though here a
    search has found them. `provenance` as for `random`.
    """
    for found in rounds:
        about = {**(provenance or {}), "control": "narrow", "drawn": seed}
        mask, small = found.ticket.effective(), found.ticket.compact().theta0
        drawn = found.ticket.derived(mask=mask).redraw(derive(seed, "narrow"), **about)
        theta0 = {name: value.clone() for name, value in drawn.theta0.items()}
        fan = _fan(theta0)
        for name, value in theta0.items():
            if value.ndim > 1:
                value *= math.sqrt(fan(value) / fan(small[name]))
                bias, inputs = theta0.get(name.removesuffix("weight") + "bias"), value[0].numel()
                if bias is not None and float(bias.abs().max()) <= inputs**-0.5:  # PyTorch draws it by the inputs
                    bias *= math.sqrt(inputs / small[name][0].numel())
        yield Round(found.number, drawn.derived(theta0=theta0, parent=found.ticket.hash), cost=Cost())


def _fan(theta0: Tensors) -> Callable[[torch.Tensor], int]:
    """Return what the spread of initial weights goes with: a layer's inputs (PyTorch's own) or outputs (ResNets').

    That is the one by which the layers of four dimensions, in units of its inverse root, are spread most alike.
    """

    def inputs(weight: torch.Tensor) -> int:
        return weight[0].numel()

    def outputs(weight: torch.Tensor) -> int:
        return len(weight) * weight[0, 0].numel() if weight.ndim == 4 else inputs(weight)

    layers = [weight for weight in theta0.values() if weight.ndim == 4 and weight.numel() > 1]

    def unlike(fan: Callable[[torch.Tensor], int]) -> float:
        return float(torch.tensor([math.log(fan(one) * float(one.var()) + 1e-30) for one in layers]).var())

    return outputs if len(layers) > 1 and unlike(outputs) < unlike(inputs) else inputs


def _refilled(experiment: Any) -> Any:
    """Return the experiment of whole channels that a control follows: its other options are that one's."""
    own = dict(experiment.options)
    other = own.pop("of", None) or "refill"
    return experiment.changed(method=other, options=own, scores=None, score_on=None, scoring=None)


def _to_effective(setting: Setting) -> Iterator[Round]:
    """IMP to the densities that structured tickets have once they are compact."""
    densities, left = [], 1.0
    for ticket in (one.ticket for one in setting.reference() if one.number):
        size = masks.size(ticket.mask)  # where whole channels stay as they were, one weight goes all the same
        left = min(masks.count(ticket.effective()) / size, left - 1 / size)
        densities.append(left)
    densities = densities or [0.5]  # nothing is found yet: it is only looked whether the search could begin

    def finder(network: nn.Module, images: Images, recipe: Recipe, **options: Any) -> Iterator[Round]:
        search = begin(network, [images], recipe, 0.5, 0.5, densities, {"whole": images} | options)
        return cycles(search, by_magnitude(search))

    return setting.over_everything(finder)


CHANNELS = Method(
    name="channels",
    about="as many channels as refill keeps in each layer, drawn at random",
    law=r"\text{of layer } l \text{ as many whole rows as refill keeps, drawn at random}",
    papers=("2202.04736",),
    find=lambda s: random_channels(s.remaining(), s.seed, s.options["provenance"]),
    look=Look("random channels", "#777777", (7, 1, 0)),
    follows=_refilled,
    options=ChannelOptions,
    trains="never",
)
NARROW = Method(
    name="narrow",
    about="a dense network of refill's widths, initialised anew",
    law=r"m = 1 \text{ in a network of refill's widths}, \qquad \theta_0' \text{ drawn anew}",
    papers=("1810.05270",),
    find=lambda s: narrow(s.remaining(), s.seed, s.options["provenance"]),
    look=Look("narrow dense", "#333333", (8, 1, 0)),
    follows=_refilled,
    options=ChannelOptions,
    trains="never",
)
EFFECTIVE = Method(
    name="effective",
    about="iterative magnitude pruning to the densities that refill's tickets have once they are compact",
    law=r"m_{t+1} = \operatorname{top}(|w|;\, m_t) \text{ of the density that refill's compact ticket has}",
    papers=("2202.04736",),
    find=_to_effective,
    look=Look("IMP at the effective density", "#003F6B", (4, 0, 0), hollow=True),
    follows=_refilled,
    options=DensityOptions,
)
