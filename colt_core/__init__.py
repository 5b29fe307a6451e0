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

__version__ = "0.1.0"

from . import masks
from .copies import train_copies
from .data import Dataset, Images, load, partition
from .early_bird import EarlyBird
from .experiments import Experiment, Study
from .methods import METHODS, colt, consensus, grasp, imp, oneshot, random, reinit, snip, synflow
from .models import NETWORKS, build, prunable, with_head
from .planning import Plan, plan, status
from .runs import rounds, run, store_folder, study
from .seeding import choose_device
from .store import Store, open_store
from .tickets import Round, Score, Ticket, evaluate
from .training import Recipe, accuracy, train

_LAZY = ("cards", "live", "plots", "report", "saved", "trackers", "widgets", "workbook")

__all__ = [
    "METHODS",
    "NETWORKS",
    "Dataset",
    "EarlyBird",
    "Experiment",
    "Images",
    "Plan",
    "Recipe",
    "Round",
    "Score",
    "Store",
    "Study",
    "Ticket",
    "accuracy",
    "build",
    "choose_device",
    "colt",
    "consensus",
    "evaluate",
    "grasp",
    "imp",
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
    "status",
    "store_folder",
    "study",
    "synflow",
    "train",
    "train_copies",
    "with_head",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
