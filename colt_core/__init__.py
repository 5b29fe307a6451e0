"""The COLT workbook's core: find, look into, compare and transfer Cyclic Overlapping Lottery Tickets.

    import colt_core as cc

    data = cc.load("cifar10-mini")
    parts = cc.partition(data.train, parts=2, by="class")
    network = cc.build("conv3", classes=10, seed=0)
    for cycle in cc.colt(network, parts, cc.Recipe.named("mini"), rate=0.3, target=0.97):
        print(cycle.number, cycle.density)

Importing this is light; plots, reports and widgets load their libraries when first used.
"""

from importlib import import_module
from typing import Any

from . import masks
from .compute.copies import train_copies
from .compute.store import Store, open_store
from .data import Dataset, Images, load, partition
from .foreign import trust
from .methods import (
    METHODS,
    Look,
    Method,
    averaged,
    bound,
    colt,
    consensus,
    crossfit,
    displacement,
    grasp,
    imp,
    initial,
    oneshot,
    random,
    reinit,
    snip,
    soup,
    synflow,
)
from .models import NETWORKS, anatomy, build, prunable, with_head
from .seeding import choose_device
from .settings import meant
from .studies.experiment import Experiment, Scoring
from .studies.plan import Plan, plan, status
from .studies.records import store_folder
from .studies.run import rounds, run
from .studies.study import Study, study
from .tickets import Round, Score, Ticket, carried, compact, elastic, evaluate
from .training import ELBO, KD, EarlyBird, Objective, Recipe, Reconstruction, accuracy, train
from .version import __version__

_LAZY = {
    "arithmetic": "studies.arithmetic",
    "cards": "publish.card",
    "live": "studies.live",
    "plots": "plots",
    "report": "report",
    "saved": "studies.saved",
    "text": "text",
    "trackers": "publish.trackers",
    "widgets": "widgets",
    "workbook": "workbook",
}

_FUNCTIONS = {"Sharing": "training.sharing", "export": "publish.onnx"}
_FUNCTIONS |= {"pareto": "publish.pareto", "speed": "publish.speed"}

__all__ = [
    "ELBO",
    "KD",
    "METHODS",
    "NETWORKS",
    "Dataset",
    "EarlyBird",
    "Experiment",
    "Images",
    "Look",
    "Method",
    "Objective",
    "Plan",
    "Recipe",
    "Reconstruction",
    "Round",
    "Score",
    "Scoring",
    "Store",
    "Study",
    "Ticket",
    "__version__",
    "accuracy",
    "anatomy",
    "averaged",
    "bound",
    "build",
    "carried",
    "choose_device",
    "colt",
    "compact",
    "consensus",
    "crossfit",
    "displacement",
    "elastic",
    "evaluate",
    "grasp",
    "imp",
    "initial",
    "load",
    "masks",
    "oneshot",
    "open_store",
    "partition",
    "plan",
    "prunable",
    "random",
    "reinit",
    "rounds",
    "run",
    "snip",
    "soup",
    "status",
    "store_folder",
    "study",
    "synflow",
    "train",
    "train_copies",
    "trust",
    "with_head",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return import_module(f".{_LAZY[name]}", __name__)
    if name in _FUNCTIONS:
        return getattr(import_module(f".{_FUNCTIONS[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}{meant(name, __dir__())}")


def __dir__() -> list[str]:
    return sorted({*__all__, *_LAZY, *_FUNCTIONS, *(name for name in globals() if name.startswith("__"))})
