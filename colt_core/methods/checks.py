"""What is refused before any training, and when a search is over."""

from collections.abc import Callable
from dataclasses import replace

from torch import nn

from .. import masks, models
from ..data import Images, check_images
from ..masks import Mask
from ..settings import check_fraction, check_rounds, plain_number, shown
from ..training import Recipe, Training
from ..training.objective import CROSS_ENTROPY
from .options import Options


def check_inputs(network: nn.Module, parts: list[Images], recipe: Recipe, options: Options) -> None:
    """Refuse, before any training, what could only fail in the middle of it.

    Raises
    ------
    ValueError
        For a network that cannot take such images or gives no tensor [N, classes], an empty partition, a recipe that is
        none, a rewind point without its images or past the end of a training, a pruned head where the heads differ, a
        network without a head where the objective needs another one, a batch of one image that cannot be normalised.
    """
    about = models.architecture(network)
    if not isinstance(recipe, Recipe):
        raise ValueError(f"recipe must be a Recipe, for example Recipe.named('mini'), not {recipe!r}")
    _check_parts(parts)
    if empty := [i for i, part in enumerate(parts) if not len(part)]:
        raise ValueError(f"partition {empty[0]} of {len(parts)} is empty")
    if options.head and any(len(part.classes) != about["classes"] for part in parts):
        raise ValueError("head=True needs copies with one head: not partitions by class")
    for part, classes in zip(parts, heads_of(network, parts), strict=True):
        if classes is None:
            options.objective.check(network, part)
        elif options.objective is not CROSS_ENTROPY:  # of whose head nothing else could be said
            options.objective.fitted(part).check(models.with_head(network, classes), part)
    options.objective.check_recipe(recipe)
    if options.validation is not None:
        several = isinstance(options.validation, list | tuple)
        if (
            not several
            or len(options.validation) < len(parts)
            or not all(isinstance(v, Images) for v in options.validation)
        ):
            raise ValueError(f"validation must be a list of images, for each of {len(parts)} partitions its own")
    if options.best_epoch and not options.validation:
        raise ValueError("to prune the weights of the best epoch, validation images are needed: validation=[...]")
    _check_rewind(parts, recipe, options)
    models.check_output(network, parts[0].shape, options.objective.gives)
    for part in parts:
        Training(part, recipe, first_step=first_step(part, recipe, options)).check_batches(network)
    if options.rewind and options.whole is not None:
        Training(options.whole, recipe, steps=options.rewind).check_batches(network)


def _check_rewind(parts: list[Images], recipe: Recipe, options: Options) -> None:
    """Refuse a rewind point at which nothing would be left of a training."""
    if options.rewind and options.whole is None:
        raise ValueError("to rewind to a later step, the whole training images are needed: whole=data.train")
    if options.whole is not None and options.rewind >= (steps := recipe.total(len(options.whole))):
        raise ValueError(f"rewind must lie in 0..{steps - 1}, the recipe's steps, not {options.rewind}")

    def fits(step: int) -> bool:
        then = replace(options, rewind=step)
        return all(first_step(part, recipe, then) < recipe.total(len(part)) for part in parts)

    if not fits(options.rewind):
        most = next(step for step in range(options.rewind, -1, -1) if fits(step))
        about = "so that a step is left of each partition's training"
        raise ValueError(f"rewind must lie in 0..{most}, {about}, not {options.rewind}")


def _check_parts(parts: object) -> None:
    if not isinstance(parts, list | tuple):
        raise ValueError(f"parts must be a list, of partition(dataset.train) for example, not {type(parts).__name__}")
    for part in parts:
        check_images(part, "each of the parts")


def check_several(parts: list[Images], what: str) -> None:
    """Raise a `ValueError` unless there are copies to bring together."""
    _check_parts(parts)
    if len(parts) < 2:
        raise ValueError(f"{what} needs at least two partitions, not {len(parts)}")


def refuse(options: Options, what: str, *also: str) -> None:
    """Raise a `ValueError` where an option is set that watches or keeps whole trainings, and `also` those named."""
    for name in ("early_bird", "best_epoch", "keep_statistics", *also):
        if getattr(options, name):
            raise ValueError(f"{name.replace('_', ' ')} does not go with {what}")


def first_step(part: Images, recipe: Recipe, options: Options) -> int:
    """Return the step of a partition's schedule at which the same share of it is over as at the rewind point."""
    whole = recipe.steps(len(options.whole)) if options.whole is not None else 1
    return round(options.rewind * recipe.steps(len(part)) / whole)


def stopping_rule(
    densities: list[float] | None, rate: float, target: float, dense: Mask, scope: str, share: float = 1.0
) -> Callable[[int, Mask], bool]:
    """Return the stopping rule: at the target sparsity, or at the end of a density trajectory.

    `share` is the prunable weights' of all, where the target counts them all (see `share_counted`).

    Raises
    ------
    ValueError
        For a rate or target outside (0, 1), a rate that takes for ever, a target out of reach, a trajectory that
        does not fall.
    """
    if densities is not None:
        if not isinstance(densities, list | tuple):
            raise ValueError(f"densities must be a list of what is left after each round, not {shown(densities)}")
        for one in densities:
            plain_number("densities", one)
        if not densities or any(not 0 < b < a <= 1 for a, b in zip([1.0, *densities], densities, strict=False)):
            raise ValueError("densities must fall from one round to the next and lie strictly between 0 and 1")
        return lambda number, _: number >= len(densities)
    check_fraction("rate", rate)
    check_fraction("target", target)
    check_rounds(rate, target)
    highest = masks.reachable(dense, rate, scope) * share
    if target > highest:
        raise ValueError(f"target sparsity {target} cannot be reached: pruning at rate {rate} ends at {highest:.6g}")
    return lambda _, mask: (1 - masks.density(mask)) * share >= target - 1e-12


def share_counted(dense: Mask, network: nn.Module, classes: int) -> float:
    """Return prunable / all weights of a copy with so many classes: head and normalisation too, biases not."""
    every = sum(w.numel() for name, w in network.named_parameters() if name.endswith("weight"))
    if (name := models.head_name(network)) is not None:
        head = network.get_parameter(f"{name}.weight")
        every += head.shape[1] * classes - head.numel()
    return masks.size(dense) / every


def heads_of(network: nn.Module, parts: list[Images]) -> list[int | None]:
    """Return the classes of each part's fresh head; None where theta0's own fits, or there is no head to be made."""
    own = models.architecture(network)["classes"]
    fixed = models.head_name(network) is None
    return [None if fixed or len(part.classes) == own else len(part.classes) for part in parts]


def one_head(network: nn.Module, parts: list[Images]) -> bool:
    """Tell whether one head fits the copies of all parts: each learns the same classes, or there is none."""
    same = models.head_name(network) is None or len({tuple(part.classes) for part in parts}) == 1
    return same and not any(heads_of(network, parts))
