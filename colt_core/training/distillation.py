"""Knowledge distillation: a ticket learns a teacher's answers beside the labels (`KD`; 2101.03255, section 3)."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from functools import singledispatch
from typing import Any, Literal, Self, get_args

import torch
from torch import nn

from .. import models
from ..data import Images
from ..files import Tensors
from ..settings import plain_number, shown
from .objective import CrossEntropy

Soft = Literal["teacher", "smoothed", "even", "shuffled"]
Made = Callable[[str], nn.Module]  # a trained teacher, by what it is called
LOOKED_UP = "dense"
FILE = ".safetensors"
HOTTEST = 1e6  # all answers are even long before
IN_EXPERIMENTS = "the teacher of an experiment must be dense, self or the name of a network"


@singledispatch
def network_of(given: Any) -> nn.Module:
    """Return the network of what is to teach; how tickets and their files are read is registered by `tickets`."""
    raise ValueError(f"a teacher must be a network, a ticket, its file ({FILE}) or a name, not {shown(given)}")


@network_of.register
def _(given: nn.Module) -> nn.Module:
    return given


class KD(CrossEntropy):
    """Learn a teacher's softened answers and the labels: a T^2 KL(teacher || student) + (1 - a) cross-entropy.

    The teacher sees the very pixels that the student sees, in evaluation mode; it draws nothing and stays as it is.
    KL is the sum over classes and the mean over the batch, in float32 also under autocast (the authors' CIFAR code
    means over classes too, which makes it a tenth). A step costs a forward pass of the teacher more.

    Parameters
    ----------
    teacher
        A trained network, a `Ticket` (its weights as they stand, under its mask) or a ticket's file,
        "round-08.safetensors"; several, where `tasks` says which classes each of them knows; or what an experiment is
        to train once, by cross-entropy in the same recipe, and look up afterwards: "dense", the ticket's own network
        unpruned; "self", the ticket itself; or a network's name. Experiments take those three alone.
    temperature, weight
        T and a.
    soft
        "teacher"; or a control that takes out some of what the teacher knows of an image: "smoothed" keeps its
        probability of the label, which tells how hard an image is, and spreads the rest evenly; "even" does the same
        with the batch's mean of these probabilities for all (label smoothing of equal strength: nothing of an image is
        left); "shuffled" takes the answer to another image of the class in the batch, an image alone there its own.
    tasks
        The classes of each of several teachers: an image is taught by the teacher of its class, among its classes.
    names
        The names of the teacher's outputs, so that a partition's copy is taught its own classes.

    Raises
    ------
    ValueError, FileNotFoundError
        In one line: a weight outside [0, 1], a temperature that is not above 0, an unknown `soft`, teachers and tasks
        that do not fit, a file that is no ticket or not there.
    """

    def __init__(
        self,
        teacher: Any = LOOKED_UP,
        temperature: float = 5.0,
        weight: float = 0.9,
        soft: Soft = "teacher",
        tasks: Sequence[Sequence[int]] | None = None,
        names: Sequence[str] = (),
    ) -> None:
        self.temperature, self.weight = plain_number("temperature", temperature), plain_number("weight", weight)
        if not 0 <= self.weight <= 1:
            raise ValueError(f"weight must lie in 0..1, not {weight!r}")
        if not 0 < self.temperature <= HOTTEST:
            raise ValueError(f"temperature must be above 0 and at most {HOTTEST:g}, not {temperature!r}")
        if soft not in get_args(Soft):
            raise ValueError(f"unknown soft targets {soft!r}; allowed: {', '.join(get_args(Soft))}")
        self.wanted = teacher if isinstance(teacher, str) and not teacher.endswith(FILE) else ""
        given = [] if self.wanted else list(teacher) if isinstance(teacher, list | tuple) else [teacher]
        self.teachers = [deepcopy(network_of(one)).eval().requires_grad_(False) for one in given]
        if tasks is not None and not all(isinstance(task, list | tuple) for task in tasks):
            raise ValueError(f"tasks must be the classes of each teacher, [[0, 1], [2, 3]] say, not {shown(tasks)}")
        self.tasks = None if tasks is None else [[int(one) for one in task] for task in tasks]
        if not self.wanted and len(self.teachers) != (1 if self.tasks is None else len(self.tasks)):
            wanted = "one teacher" if self.tasks is None else f"a teacher for each of {len(self.tasks)} tasks"
            raise ValueError(f"KD takes {wanted}, not {len(self.teachers)}")
        self.soft, self.names = soft, tuple(names)

    def check(self, network: nn.Module, images: Images) -> None:
        """Raise a `ValueError` where student or teacher has other outputs than there are classes, or is only named."""
        super().check(network, images)
        if self.wanted and not self.weight:
            return
        self._check_trained()
        counts = [len(images.classes)] if self.tasks is None else [len(task) for task in self.tasks]
        counts = [len(self.names)] if self.names else counts  # a partition's are picked from all of them by `fitted`
        for teacher, count in zip(self.teachers, counts, strict=True):
            known = models.architecture(teacher)["classes"]
            try:
                models.check_output(teacher, images.shape, classes=count if known is None else None)
            except ValueError as problem:
                raise ValueError(f"the teacher: {problem}") from None
            if known not in (None, count):
                raise ValueError(f"the teacher has {known} outputs, and is to teach {count} classes")
        taught = [one for task in self.tasks or () for one in task]
        if self.tasks is not None and sorted(taught) != list(range(len(images.classes))):
            raise ValueError(f"the tasks {self.tasks} are not the images' {len(images.classes)} classes")

    def taught(self, made: Made, images: Images) -> "KD":
        """Return it with its teacher trained, where that was only named; of weight 0 there is nothing to teach."""
        return self if not self.wanted or not self.weight else self._with(made(self.wanted), images.classes)

    def forwards(self, images: Images) -> float:
        """Return the FLOPs of the teacher's forward pass; of several, their mean."""
        each = [models.forward_flops(teacher, images.shape) for teacher in self.teachers if self.weight]
        return sum(each) / max(1, len(each))

    def fitted(self, images: Images) -> "KD":
        """Return it as a partition needs it: the teacher's answers to its own classes.

        Raises
        ------
        ValueError
            Where the teacher knows none of these classes.
        """
        if not self.names or not self.teachers or self.names == images.classes or self.tasks is not None:
            return self
        if missing := [name for name in images.classes if name not in self.names]:
            raise ValueError(f"the teacher does not know the class {missing[0]!r}")
        picked = _Picked(self.teachers[0], [self.names.index(name) for name in images.classes])
        return self._with(picked, images.classes)

    def _with(self, teacher: nn.Module, names: Sequence[str] = ()) -> "KD":
        return KD(teacher, self.temperature, self.weight, self.soft, None, names or self.names)

    def loss(self, network: nn.Module, pixels: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the mean loss of a batch, and the number of correct answers."""
        scores = network(pixels)
        hard, right = nn.functional.cross_entropy(scores, labels), (scores.detach().argmax(1) == labels).sum()
        if self.weight == 0:
            return hard, right
        self._check_trained()
        soft = self._divergence(scores, pixels, labels)
        return self.weight * self.temperature**2 * soft + (1 - self.weight) * hard, right

    def targets(self, pixels: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return what a batch is taught beside its labels: probabilities [B, C], each image's among its task's classes.

        Raises
        ------
        ValueError
            For a teacher that is only named.
        """
        self._check_trained()
        each = list(self._taught(pixels, labels))
        count = each[0][2].shape[1] if self.tasks is None else sum(map(len, self.tasks))  # of tasks not here too
        found = torch.zeros(len(labels), count, device=labels.device)
        for mine, classes, told in each:
            found[mine.nonzero(), classes] = told.exp()
        return found

    def _check_trained(self) -> None:
        if not self.teachers:
            raise ValueError(f"the teacher {self.wanted!r} is not trained yet: give a network, or use an experiment")

    def _divergence(self, scores: torch.Tensor, pixels: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the mean over the batch of KL(teacher || student), each image among its teacher's classes."""
        total = scores.new_zeros((), dtype=torch.float32)
        for mine, classes, told in self._taught(pixels, labels):
            among = scores if self.tasks is None else scores[mine][:, classes]
            student = (among.float() / self.temperature).log_softmax(1)
            total = total + nn.functional.kl_div(student, told, reduction="sum", log_target=True)
        return total / len(labels)

    def _taught(self, pixels: torch.Tensor, labels: torch.Tensor) -> Iterator[tuple[torch.Tensor, ...]]:
        """Yield for each teacher its images of a batch, bool [B]; its classes; the logarithms of their targets."""
        for number, teacher in enumerate(self.teachers):
            own, place, mine = pixels, labels, torch.ones_like(labels, dtype=torch.bool)
            if self.tasks is not None:
                classes = torch.tensor(self.tasks[number], device=labels.device)
                mine = torch.isin(labels, classes)
                own, place = pixels[mine], (labels[mine][:, None] == classes).int().argmax(1)
            if len(own):
                told = self._answers(teacher.to(pixels.device), own, place)
                yield mine, torch.arange(told.shape[1]) if self.tasks is None else classes, told

    @torch.no_grad()
    def _answers(self, teacher: nn.Module, pixels: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the logarithms of the softened targets, [B, C]."""
        kind = next((weight.dtype for weight in teacher.parameters()), pixels.dtype)  # saliency is in float64
        with torch.autocast(pixels.device.type, enabled=False):
            told = (teacher(pixels.to(kind)).float() / self.temperature).log_softmax(1)
        if self.soft == "shuffled":
            return told[_next_alike(labels)]
        if self.soft in ("smoothed", "even"):
            of_label = told.gather(1, labels[:, None])
            of_label = of_label if self.soft == "smoothed" else of_label.exp().mean().log().expand_as(of_label)
            others = told.shape[1] - 1
            spread = ((1 - of_label.exp()).clamp_min(1e-12) / others).log()
            return spread.expand_as(told).scatter(1, labels[:, None], of_label)
        return told

    def settings(self) -> dict[str, Any]:
        """Return temperature, weight and what the teachers are; without what stands at its default."""
        about: dict[str, Any] = {"temperature": self.temperature, "weight": self.weight}
        about |= (
            {"teacher": self.wanted} if self.wanted else {"teachers": [described_network(one) for one in self.teachers]}
        )
        about |= {"soft": self.soft} if self.soft != "teacher" else {}
        about |= {"tasks": self.tasks} if self.tasks is not None else {}
        return about | ({"names": list(self.names)} if self.names else {})

    def tensors(self) -> Tensors:
        """Return the teachers' state dicts as "<number>/<name>"."""
        states = [(number, one.state_dict()) for number, one in enumerate(self.teachers)]
        return {f"{number}/{name}": value.cpu() for number, state in states for name, value in state.items()}

    def networks(self) -> list[nn.Module]:
        """Return the teachers."""
        return [one.whole if isinstance(one, _Picked) else one for one in self.teachers]

    @classmethod
    def rebuilt(cls, settings: Mapping[str, Any], tensors: Tensors) -> Self:
        """Make it anew.

        Raises
        ------
        ValueError
            For a teacher without a name that `build` knows: no other process can make it. For a file's name: a
            description says what is learnt, and another file may come to lie there. For tasks of a named teacher.
        """
        about = dict(settings)
        if "teachers" not in about and (unused := [name for name in ("tasks", "names") if about.get(name)]):
            raise ValueError(f"{unused[0]} are for teachers that are there, in cc.KD(...) alone; {IN_EXPERIMENTS}")
        given = about.get("teacher")
        for one in given if isinstance(given, list | tuple) else [given]:
            if isinstance(one, str) and one.endswith(FILE):
                raise ValueError(f"a ticket's file teaches in cc.KD(...) alone; {IN_EXPERIMENTS}, not {one!r}")
        for number, one in enumerate(described := list(about.pop("teachers", []))):
            start = f"{number}/"
            state = {name.removeprefix(start): v for name, v in tensors.items() if name.startswith(start)}
            described[number] = again(one, state)
        if described:
            about["teacher"] = described if about.get("tasks") else described[0]
        return cls(**about)


class _Picked(nn.Module):
    """Some of a teacher's outputs: those of one partition's classes."""

    def __init__(self, whole: nn.Module, columns: list[int]) -> None:
        super().__init__()
        self.whole, self.columns = whole, columns
        vars(self)["architecture"] = {"name": "a part of the teacher", "classes": len(columns), "arguments": {}}

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.whole(pixels)[:, self.columns]  # type: ignore[no-any-return]


def described_network(teacher: nn.Module) -> dict[str, Any]:
    """Return what a teacher, or a judge, is built from again."""
    if isinstance(teacher, _Picked):
        return described_network(teacher.whole) | {"columns": teacher.columns}
    about = dict(models.architecture(teacher))
    if not models.has_a_name(teacher):
        return about | models.computes(teacher)
    if models.is_as_built(teacher):
        return about
    # What was changed after it was built is in no name, and need not be in the weights: an activation, say.
    return about | {"name": f"{about['name']} (changed)", "modules": str(teacher)}


def again(about: Mapping[str, Any], state: Tensors) -> nn.Module:
    """Build such a network from its description and its weights."""
    about = dict(about)
    if (columns := about.pop("columns", None)) is not None:
        return _Picked(again(about, {n.removeprefix("whole."): v for n, v in state.items()}), columns)
    if not models.is_a_name(about["name"]):
        raise ValueError(f"the teacher, a {about['name']}, has no name that build() knows: train with workers=1")
    teacher = models.build(about["name"], about["classes"], **about["arguments"])
    models.fill(teacher, state)
    return teacher


def _next_alike(labels: torch.Tensor) -> torch.Tensor:
    """Return for each image the place of the next one of its class, the last one's being the first: no draw needed."""
    order = labels.argsort(stable=True)
    found = torch.empty_like(order)
    sorted_labels = labels[order]
    following = order.roll(-1)
    last = torch.ones_like(labels, dtype=torch.bool)
    last[:-1] = sorted_labels[1:] != sorted_labels[:-1]
    first = torch.cummax(torch.where(last.roll(1), torch.arange(len(labels), device=labels.device), 0), 0).values
    following = torch.where(last, order[first], following)
    found[order] = following
    return found
