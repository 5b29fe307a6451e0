"""A method, an objective and networks of a user's own: nothing in the package knows of them."""

import torch
from torch import nn

import colt_core as cc
from colt_core.data.augmentation import normalise
from colt_core.methods.cycles import begin, cycles, magnitude_masks, rate_to
from colt_core.settings import Settings


class FilterOptions(Settings):
    """How many weights of a filter must be kept, that the whole filter is."""

    least: int = 1


def filters(network, images, recipe, densities, least, **options):
    """IMP at another method's densities; what it yields are whole filters, while it goes on with single weights."""
    search = begin(network, [images], recipe, 0.5, 0.5, densities, {"whole": images} | options)

    def choose(copies, mask, number):
        kept = magnitude_masks(copies, mask, rate_to(densities[number - 1], mask), "global")
        return kept, kept[0]

    def whole(ticket, copies):
        full = {n: m.flatten(1).sum(1) >= least for n, m in ticket.mask.items()}
        return {n: full[n].view(-1, *[1] * (m.ndim - 1)).expand_as(m).clone() for n, m in ticket.mask.items()}

    return cycles(search, choose, whole)


FILTERS = cc.Method(
    name="toys:FILTERS",
    about="whole filters of IMP's masks",
    find=lambda s: s.over_everything(filters, s.trajectory(), s.own.least),
    look=cc.Look("whole filters", "#AA3377", "H"),
    follows="imp",
    options=FilterOptions,
)


class SquaredError(cc.Objective):
    """Mean squared error between outputs and one-hot labels, times a scale; scored by itself, lower is better."""

    metric, higher_is_better = "mse", False

    def __init__(self, scale=1.0):
        self.scale = scale

    def loss(self, network, pixels, labels):
        wrong = self._wrong(network(pixels), labels)
        return self.scale * wrong.mean(), wrong.detach().mean(1).sum()

    @torch.no_grad()
    def score(self, network, images):
        network.eval()
        pixels = normalise(images.images.to(next(network.parameters()).device), images.mean, images.std)
        return float(self._wrong(network(pixels), images.labels.to(pixels.device)).mean())

    def chance(self, images):
        return 1 / len(images.classes)  # of outputs that are zero

    def settings(self):
        return {"scale": self.scale}

    @staticmethod
    def _wrong(outputs, labels):
        return (outputs - nn.functional.one_hot(labels, outputs.shape[1])).square()


class Broken(SquaredError):
    """An objective with a mistake: it cannot compute its loss."""

    def loss(self, network, pixels, labels):
        raise ArithmeticError("the loss cannot be computed")


class Forgetful(SquaredError):
    """An objective that does not tell what it was made with."""

    settings = cc.Objective.settings


class Colliding(SquaredError):
    """An objective whose metric has the name of a column that every record has."""

    metric = "density"


class Covering(SquaredError):
    """An objective of whose further measures one has the name of a column that every record has."""

    def others(self, network, images):
        return {"seconds": 1.0, "sharpness": 2.0}


class Headless(nn.Module):
    """All convolutions: the last has a channel a class, averaged over its pixels. It says that it has no head."""

    anatomy = {"head": None, "prunable": ["body*.weight"]}

    def __init__(self, classes, width):
        super().__init__()
        self.body1 = nn.Conv2d(3, width, 3, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.body2 = nn.Conv2d(width, width, 3, stride=2, bias=False)
        self.last = nn.Conv2d(width, classes, 1)

    def forward(self, x):
        return self.last(self.body2(self.norm(self.body1(x)).relu()).relu()).mean((2, 3))


def headless(classes, width=6):
    return Headless(classes, width)


def pooled(classes):
    """Batch normalisation over one value a channel and image: of a batch of one image it has no variance."""
    layers = (nn.Conv2d(3, 4, 3, bias=False), nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(4), nn.Flatten())
    return nn.Sequential(*layers, nn.Linear(4, classes))


class Branching(nn.Module):
    """A forward pass that looks at what it is given: its channels cannot be followed."""

    def __init__(self, classes):
        super().__init__()
        self.body, self.last = nn.Conv2d(3, 8, 3, bias=False), nn.Linear(8, classes)

    def forward(self, x):
        x = self.body(x).mean((2, 3))
        return self.last(x if x.sum() > 0 else -x)


def branching(classes):
    return Branching(classes)


class Dropping(nn.Module):
    """Two convolutions with dropout by a function."""

    def __init__(self, classes, width=8):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(3, width, 3), nn.BatchNorm2d(width)
        self.conv2, self.head = nn.Conv2d(width, 2 * width, 3), nn.Linear(2 * width, classes)

    def forward(self, x):
        x = nn.functional.dropout(self.norm1(self.conv1(x)).relu(), 0.5, self.training)
        return self.head(self.conv2(x).relu().mean((2, 3)))


class Inverted(nn.Module):
    """An inverted residual block: a depthwise convolution between two of single pixels, with squeeze and excitation."""

    def __init__(self, classes, width=12):
        super().__init__()
        self.stem, self.expand = nn.Conv2d(3, 6, 3, 2, bias=False), nn.Conv2d(6, width, 1, bias=False)
        self.norm1, self.norm2, self.norm3 = nn.BatchNorm2d(width), nn.BatchNorm2d(width), nn.BatchNorm2d(6)
        self.depth = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
        self.squeeze, self.excite = nn.Conv2d(width, 4, 1), nn.Conv2d(4, width, 1)
        self.project, self.head = nn.Conv2d(width, 6, 1, bias=False), nn.Linear(6, classes)

    def forward(self, x):
        x = self.stem(x)
        y = self.norm2(self.depth(self.norm1(self.expand(x)).relu())).relu()
        y = y * self.excite(self.squeeze(y.mean((2, 3), keepdim=True)).relu()).sigmoid()
        return self.head((x + self.norm3(self.project(y))).mean((2, 3)))
