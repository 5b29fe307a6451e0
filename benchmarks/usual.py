"""The usual way to train and prune in PyTorch, which `bench.py` compares with: what most research code does.

A DataLoader with torchvision's transforms on PIL images, torch.nn.utils.prune's masks and global pruning, PyTorch's
default memory format, optimiser and threads, one copy after the other, on the network's device.
"""

from collections.abc import Iterator

import torch
from PIL import Image
from torch import nn
from torch.nn.utils import prune
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

import colt_core as cc


class Pictures(Dataset):
    """CIFAR images as torchvision's own data sets give them: arrays turned to PIL images, then transformed."""

    def __init__(self, images: cc.Images, recipe: cc.Recipe) -> None:
        self.arrays = images.images.permute(0, 2, 3, 1).contiguous().numpy()
        self.labels = images.labels.tolist()
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(images.size, padding=recipe.crop),
                transforms.RandomHorizontalFlip(),
                transforms.RandomRotation(recipe.rotation),
                transforms.ToTensor(),
                transforms.Normalize(images.mean, images.std),
            ]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(Image.fromarray(self.arrays[index])), self.labels[index]


def epoch(network: nn.Module, images: cc.Images, recipe: cc.Recipe, loaders: int) -> Iterator[int]:
    """Train one epoch; yield the images of each step when it is done."""
    batches = DataLoader(Pictures(images, recipe), recipe.batch_size, shuffle=True, num_workers=loaders)
    sgd = torch.optim.SGD(
        network.parameters(), recipe.learning_rate, momentum=recipe.momentum, weight_decay=recipe.weight_decay
    )
    network.train()
    device = next(network.parameters()).device
    for pixels, labels in batches:
        pixels, labels = pixels.to(device), labels.to(device)
        sgd.zero_grad()
        loss = nn.functional.cross_entropy(network(pixels), labels)
        loss.backward()
        sgd.step()
        loss.item()
        yield len(labels)


def masked(network: nn.Module) -> list[tuple[nn.Module, str]]:
    """Put torch.nn.utils.prune's masks on every convolution (here: nothing is pruned yet)."""
    places = [(module, "weight") for module in network.modules() if isinstance(module, nn.Conv2d)]
    for module, name in places:
        prune.identity(module, name)
    return places


def colt_round(networks: list[nn.Module], parts: list[cc.Images], recipe: cc.Recipe, loaders: int) -> int:
    """One COLT round: train each copy for an epoch, prune each globally, keep what all keep; return how many."""
    kept = []
    for network, part in zip(networks, parts, strict=True):
        places = masked(network)
        for _ in epoch(network, part, recipe, loaders):
            pass
        prune.global_unstructured(places, prune.L1Unstructured, amount=0.15)
        kept.append([module.weight_mask for module, _ in places])
    return int(sum(torch.stack(layer).prod(0).sum() for layer in zip(*kept, strict=True)))
