"""How much each unit of a network, a channel or a hidden neuron, matters to the loss: gate gradients (2105.12002)."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from ..data import Images
from ..data.augmentation import normalise
from ..models.channels import norms_after
from ..seeding import reproducible

SMALL = 1e-20


def unit_importance(
    network: nn.Module,
    images: Images,
    layers: list[str],
    device: str | torch.device = "cpu",
    batch: int = 256,
    threads: int | None = None,
) -> dict[str, torch.Tensor]:
    """Return the importance of the units of some layers: mean over images of |dL(x)/dgate| at gate one.

    A gate multiplies a unit's output, after its normalisation. As its derivative is the sum over the output of gradient
    times value, one backward pass gives all images'.

    Parameters
    ----------
    network
        Trained; in evaluation mode: running statistics, no dropout.
    images
        The training images, as they are (no augmentation).
    layers
        Names of convolutions and hidden linear layers.
    device, batch, threads
        Where; images at once; CPU threads, on which the last bits depend (None: as many as PyTorch is set to).

    Returns
    -------
    dict of Tensor
        float64 [units], by layer, divided by the layer's root mean square: of layers of equal width that is the paper's
        l2 norm up to a constant, and wide layers do not go first.

    References
    ----------
    arXiv 2105.12002, section 3 (which takes |.| of each token; here of each sample).
    """
    where = torch.device(device)
    network = network.to(where).eval()
    read = norms_after(network, layers)
    found = {layer: torch.zeros(0, dtype=torch.float64) for layer in layers}
    outputs: dict[str, torch.Tensor] = {}
    hooks = [network.get_submodule(read[layer]).register_forward_hook(_keeper(outputs, layer)) for layer in layers]
    try:
        with reproducible(where, 0, threads or torch.get_num_threads()):
            for index in torch.arange(len(images)).split(batch):
                index = index.to(images.labels.device)
                pixels = normalise(images.batch(index).to(where), images.mean, images.std)
                loss = nn.functional.cross_entropy(network(pixels), images.labels[index].to(where), reduction="sum")
                gradients = torch.autograd.grad(loss, [outputs[layer] for layer in layers])
                for layer, gradient in zip(layers, gradients, strict=True):
                    gates = (gradient * outputs[layer].detach()).cpu().double()  # MPS has no float64
                    of_images = gates.flatten(2).sum(2) if gates.ndim > 2 else gates
                    total = of_images.abs().sum(0)
                    found[layer] = found[layer] + total if len(found[layer]) else total
    finally:
        for hook in hooks:
            hook.remove()
    return {layer: value / (value.square().mean() + SMALL).sqrt() for layer, value in found.items()}


def _keeper(outputs: dict[str, torch.Tensor], layer: str) -> Callable[[nn.Module, Any, torch.Tensor], torch.Tensor]:
    def keep(_: nn.Module, __: Any, output: torch.Tensor) -> torch.Tensor:
        outputs[layer] = output
        return output.clone()  # a residual network adds to it in place

    return keep


def order_of_units(
    importance: Mapping[str, torch.Tensor], order: str = "winning", rng: torch.Generator | None = None
) -> list[tuple[str, int]]:
    """Return units, (layer, number), in the order in which they are cut; of each layer the last one is left out.

    "winning": the least important first; "losing": the most important first; "random": drawn.
    """
    units = [(layer, unit) for layer, values in importance.items() for unit in range(len(values))]
    values = torch.cat(list(importance.values()))
    if order == "random":
        places = torch.randperm(len(units), generator=rng)
    else:
        places = torch.argsort(values if order == "winning" else -values, stable=True)
    left = {layer: len(values) for layer, values in importance.items()}
    cut = []
    for layer, unit in (units[i] for i in places.tolist()):
        if left[layer] > 1:
            left[layer] -= 1
            cut.append((layer, unit))
    return cut
