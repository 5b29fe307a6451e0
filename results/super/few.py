"""5,000 training images of CIFAR-10, 500 a class: small data, where super tickets were seen. `dataset: few:images`."""

import torch

import colt_core as cc


def images() -> cc.Dataset:
    """Return 500 training and 100 validation images a class, the first of each; the whole test set."""
    whole = cc.load("cifar10")

    def first(part: cc.Images, count: int) -> cc.Images:
        rows = [(part.labels == label).nonzero().flatten()[:count] for label in range(len(part.classes))]
        return part.take(torch.cat(rows).sort().values)

    return cc.Dataset("few:images", first(whole.train, 500), first(whole.validation, 100), whole.test)
