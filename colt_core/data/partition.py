"""How images are split: among the copies of a COLT cycle (`partition`), and into training and validation."""

from collections.abc import Callable

import torch

from ..seeding import generator
from ..settings import check_whole
from .images import Images, check_images


def partition(images: Images, parts: int = 2, by: str = "class", seed: int = 0) -> list[Images]:
    """Split images for the copies of a COLT round.

    Parameters
    ----------
    images
        What to split.
    parts
        The number of partitions P, at least 2 (1 gives the whole back).
    by
        "class": contiguous class ids, labels shifted to start at 0; where P does not divide C the first partitions
        hold one class more, and no class is dropped. "random": a seeded shuffle. "stratified": every partition gets
        its share of each class. "order": every partition is the whole set in another order (the null of no split).
    seed
        For the shuffles.

    Returns
    -------
    list of Images
        For "class", "random" and "stratified": disjoint, and together all of `images`.

    Raises
    ------
    ValueError
        If P is larger than the number of classes ("class") or images, a partition would be empty, or `by` is unknown.

    References
    ----------
    arXiv 2212.12770, section III (class-wise split).
    """
    check_images(images)
    if by not in PARTITIONINGS:
        raise ValueError(f"unknown partitioning {by!r}; allowed: {', '.join(PARTITIONINGS)}")
    check_whole("parts", parts, 1)
    if by in ("class", "stratified") and parts > 1 and not images.labelled:
        raise ValueError(f"these images have no labels to be split by {by}; allowed: random, order")
    if parts > (limit := len(images.classes) if by == "class" else len(images)):
        what = "classes" if by == "class" else "images"
        raise ValueError(f"parts must be at most {limit}, the number of {what}, not {parts}")
    split = PARTITIONINGS[by](images, parts, generator(seed, "partition", by, parts))
    if empty := [i for i, part in enumerate(split) if not len(part)]:
        raise ValueError(f"partition {empty[0]} of {parts} would be empty: none of its classes has an image")
    return split


def _by_class(images: Images, parts: int, rng: torch.Generator) -> list[Images]:
    return [images.only(chunk.tolist()) for chunk in torch.arange(len(images.classes)).tensor_split(parts)]


def _by_chance(images: Images, parts: int, rng: torch.Generator) -> list[Images]:
    order = torch.randperm(len(images), generator=rng)
    return [images.take(chunk.sort().values) for chunk in order.tensor_split(parts)]


def _stratified(images: Images, parts: int, rng: torch.Generator) -> list[Images]:
    order = torch.randperm(len(images), generator=rng)
    by_class = order[images.labels.cpu()[order].argsort(stable=True)]
    return [images.take(by_class[i::parts].sort().values) for i in range(parts)]


def _by_order(images: Images, parts: int, rng: torch.Generator) -> list[Images]:
    return [images.take(torch.randperm(len(images), generator=rng)) for _ in range(parts)]


PARTITIONINGS: dict[str, Callable[[Images, int, torch.Generator], list[Images]]] = {
    "class": _by_class,
    "random": _by_chance,
    "stratified": _stratified,
    "order": _by_order,
}


def split_validation(images: Images, share: float, seed: int = 0) -> tuple[Images, Images]:
    """Cut a stratified validation split of `round(share * n)` images, at least one, from each class's n images.

    Raises
    ------
    ValueError
        If no image of some class would be left to train on.
    """
    rng = generator(seed, "validation")
    order, labels = torch.randperm(len(images), generator=rng), images.labels.cpu()
    held_out = torch.zeros(len(images), dtype=torch.bool)
    for label in range(len(images.classes)):
        of_class = order[labels[order] == label]
        out = max(1, round(share * len(of_class)))
        if 0 < len(of_class) <= out:
            found = f"all {len(of_class)} images of class {images.classes[label]!r}"
            raise ValueError(f"validation {share} would hold out {found}; at least one must be left to train on")
        held_out[of_class[:out]] = True
    return images.take((~held_out).nonzero().flatten()), images.take(held_out.nonzero().flatten())
