"""What a network learns and how it is scored: `Objective`; cross-entropy and accuracy unless another is given."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Self

import torch
from torch import nn

from .. import models
from ..data import Images, check_images
from ..data.augmentation import normalise
from ..files import Tensors
from ..foreign import imported
from ..settings import first_line, shown
from .recipe import Recipe


class Objective(ABC):
    """What is learnt: a loss, a metric that tells how well, and whether the network and the images fit.

    A subclass may stand in any module that can be imported: it travels to worker processes and into experiments by its
    name, "package.module:Class", its `settings()` and its `tensors()`, and is made anew from them by `rebuilt`.

    Attributes
    ----------
    metric
        The metric's name: it names the columns of records and tables.
    higher_is_better
        The metric's direction.
    gives
        What a network must give for it: "scores", one a class; "images", of the shape of those it takes; or "any".
    """

    metric: str = "accuracy"
    higher_is_better: bool = True
    gives: models.Gives = "any"

    def check(self, network: nn.Module, images: Images) -> None:  # noqa: B027 (nothing to refuse, unless it says so)
        """Raise a `ValueError` in one line, before any training, where network and images do not fit."""

    def check_recipe(self, recipe: Recipe) -> None:  # noqa: B027 (most take any)
        """Raise a `ValueError` in one line for a recipe that makes no sense for it."""

    @abstractmethod
    def loss(self, network: nn.Module, pixels: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the mean loss of a batch, which is minimised, and the metric summed over the batch.

        Parameters
        ----------
        network
            In training mode; calls it.
        pixels, labels
            Normalised float [B, C, H, W] and int64 [B], on the network's device. Labels are the classes of the images
            at hand, counted from 0: those of a partition by class are counted anew (`fitted` is told which they are),
            so what reads values into labels wants parts that are split otherwise.
        """

    def taught(self, made: Callable[[str], nn.Module], images: Images) -> "Objective":
        """Return it with what it has to be given first: `made` trains a network on `images`, by what it is called."""
        return self

    def fitted(self, images: Images) -> "Objective":
        """Return it as some images need it: a partition's have classes of their own, and any are normalised somehow."""
        return self

    def pull(self, network: nn.Module, step: int) -> None:  # noqa: B027 (most do not pull)
        """Change the gradients before the optimiser takes this step of the schedule; nothing by default."""

    @abstractmethod
    def score(self, network: nn.Module, images: Images) -> float:
        """Return the metric's mean over some images, without augmentation, the network in evaluation mode."""

    def others(self, network: nn.Module, images: Images) -> dict[str, float]:
        """Return further measures of a trained network on some images, by name: columns beside the metric's."""
        return {}

    def forwards(self, images: Images) -> float:
        """Return the FLOPs that the loss of one image takes beside the network's own passes: a teacher's, say."""
        return 0.0

    def chance(self, images: Images) -> float | None:
        """Return the metric of a network that has learnt nothing; None where nobody can say."""
        return None

    def settings(self) -> dict[str, Any]:
        """Return what it was made with, as JSON can hold it: it joins hashes and keys."""
        return {}

    def tensors(self) -> Tensors:
        """Return the tensors that a worker process must be sent, a teacher's weights for example."""
        return {}

    def networks(self) -> list[nn.Module]:
        """Return the networks that it holds: where `build` cannot make one again, this process trains."""
        return []

    @classmethod
    def rebuilt(cls, settings: Mapping[str, Any], tensors: Tensors) -> Self:
        """Make it anew from its settings and tensors."""
        return cls(**settings)


class CrossEntropy(Objective):
    """Classify images: the mean cross-entropy of a batch; scored by accuracy."""

    gives = "scores"

    def check(self, network: nn.Module, images: Images) -> None:
        """Raise a `ValueError` unless the network has an output for each class, and the images are labelled."""
        if not images.labelled:
            raise ValueError("these images have no labels: classes can be learnt, and accuracy told, of labelled ones")
        models.check_output(network, images.shape, self.gives)  # first: a network without a head is told classes too
        outputs = models.architecture(network)["classes"]
        if outputs is not None and outputs != len(images.classes):
            raise ValueError(f"the head has {outputs} outputs but the images have {len(images.classes)} classes")

    def loss(self, network: nn.Module, pixels: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the mean cross-entropy and the number of correct answers."""
        scores = network(pixels)
        return nn.functional.cross_entropy(scores, labels), (scores.detach().argmax(1) == labels).sum()

    def score(self, network: nn.Module, images: Images) -> float:
        """Return the accuracy."""
        return accuracy(network, images)

    def chance(self, images: Images) -> float:
        """Return the accuracy of guessing: one over the number of classes."""
        return 1 / len(images.classes)


# --- what an objective of one's own gives, looked at ---------------------------------------------------------------


def batch_loss(
    objective: Objective, network: nn.Module, pixels: torch.Tensor, labels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return an objective's loss and metric of a batch, the metric without its gradient.

    Raises
    ------
    ValueError
        In one line, where they are not two single numbers, the loss a tensor.
    """
    given = objective.loss(network, pixels, labels)
    if isinstance(given, tuple) and len(given) == 2:
        loss, metric = given
        metric = torch.tensor(metric, device=pixels.device) if isinstance(metric, (int, float)) else metric
        if isinstance(loss, torch.Tensor) and isinstance(metric, torch.Tensor) and loss.ndim == metric.ndim == 0:
            return loss, metric.detach()
    about = "the batch's mean loss and its metric summed over the batch, each a single number (a tensor without shape)"
    raise ValueError(f"loss() of {type(objective).__name__} gives {_shown(given)}; two are expected: {about}")


def scored(objective: Objective, network: nn.Module, images: Images) -> float:
    """Return an objective's score of some images; a `ValueError` in one line where it is no number."""
    return _number(objective.score(network, images), f"score() of {type(objective).__name__}")


def measured(objective: Objective, network: nn.Module, images: Images) -> dict[str, float]:
    """Return an objective's further measures of some images; a `ValueError` in one line where they are no numbers."""
    given, whose = objective.others(network, images), f"others() of {type(objective).__name__}"
    if not isinstance(given, Mapping):
        raise ValueError(f"{whose} gives {_shown(given)}; numbers by name are expected, {{}} for none")
    return {str(name): _number(value, f"{whose}, {name},") for name, value in given.items()}


def _number(given: Any, whose: str) -> float:
    """Numbers of any kind are taken, PyTorch's and NumPy's too; records hold Python's own."""
    if isinstance(given, (bool, int, float)):
        return given
    with suppress(TypeError, ValueError, RuntimeError):
        if not isinstance(given, str):
            return float(given)
    raise ValueError(f"{whose} gives {_shown(given)}; a number is expected")


def _shown(given: Any) -> str:
    if isinstance(given, tuple):
        return f"({', '.join(_shown(value) for value in given)})"
    return f"a tensor {list(given.shape)}" if isinstance(given, torch.Tensor) else type(given).__name__


CROSS_ENTROPY = CrossEntropy()
OBJECTIVES: dict[str, type[Objective]] = {"cross-entropy": CrossEntropy}


@torch.no_grad()
def accuracy(network: nn.Module, images: Images, batch: int | None = None) -> float:
    """Return the share of images classified correctly, in [0, 1]; no augmentation, BatchNorm in eval mode.

    Raises
    ------
    ValueError
        Where the network gives no scores [N, classes] of these images' classes.
    """
    check_images(images, example="dataset.test")
    device = next(network.parameters()).device
    batch = batch or (256 if device.type == "cpu" else 2000)  # on a CPU larger ones only take memory
    network.eval()
    correct = 0
    for index in torch.arange(len(images)).split(batch):
        index = index.to(images.labels.device)
        pixels = images.batch(index).to(device)
        scores = network(normalise(pixels, images.mean, images.std))
        _check_scores(scores, network, [len(index), len(images.classes)])
        correct += int((scores.argmax(1) == images.labels[index].to(device)).sum())
    return correct / len(images)


def _check_scores(scores: Any, network: nn.Module, expected: list[int]) -> None:
    given = list(scores.shape) if isinstance(scores, torch.Tensor) else f"a {type(scores).__name__}"
    if given != expected:
        about = f"{models.architecture(network)['name']} gives {given} for {expected[0]} images"
        raise ValueError(f"{about}; scores [N, classes], {expected}, are expected")


# --- objectives as text ------------------------------------------------------------------------------------------


def described(objective: Objective) -> dict[str, Any] | None:
    """Return an objective as JSON can hold it, {"name", ...its settings}; None for plain cross-entropy."""
    if type(objective) is CrossEntropy:
        return None
    kind = type(objective)
    known = {ready: name for name, ready in OBJECTIVES.items()}
    return {"name": known.get(kind, f"{kind.__module__}:{kind.__qualname__}"), **objective.settings()}


def objective_of(about: str | Mapping[str, Any] | None, tensors: Tensors | None = None) -> Objective:
    """Return the objective of a description: a name of `OBJECTIVES` or "package.module:Class", or {"name", settings}.

    Raises
    ------
    ValueError
        In one line: an unknown name, or settings that it does not take.
    """
    if about is None:
        return CROSS_ENTROPY
    settings = {"name": about} if isinstance(about, str) else dict(about)
    name = str(settings.pop("name", ""))
    if name not in OBJECTIVES and ":" not in name:
        raise ValueError(f"unknown objective {name!r}; allowed: {', '.join(OBJECTIVES)}, or package.module:Class")
    kind = OBJECTIVES.get(name) or imported(name, "the objective")
    if not (isinstance(kind, type) and issubclass(kind, Objective)):
        raise ValueError(f"{name} must be a subclass of colt_core.Objective")
    try:
        made = kind.rebuilt(settings, tensors or {})
    except TypeError as problem:  # of a name that it does not know, or of a value of a kind that it cannot use
        about = f"the objective {name} does not take the settings {sorted(settings)}"
        raise ValueError(f"{about} ({first_line(problem)})") from None
    if settings and kind.settings is Objective.settings:  # a worker process would make it without them
        raise ValueError(f"the objective {name} is made with {', '.join(settings)}: its settings() must tell them")
    return made


def check_objective(objective: Any) -> None:
    """Raise a `ValueError` for what is no objective: a name, a loss of PyTorch's, a class in place of its instance."""
    if not isinstance(objective, Objective):
        raise ValueError(f"objective must be an Objective, cc.KD(teacher) for example, not {shown(objective)}")


def objective_for(network: nn.Module | str) -> Objective:
    """Return what a network learns unless told otherwise: what it declares, else cross-entropy."""
    return objective_of(models.declared_objective(network))
