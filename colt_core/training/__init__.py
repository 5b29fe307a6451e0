"""How one network is trained: `Recipe`, `Objective`, `train()`."""

from .adversarial import Adversarial
from .distillation import KD
from .early_bird import EarlyBird, Settling
from .history import History, doubt
from .loop import Drive, Trainer, Training, epochs, train
from .memory import keeping_memory
from .objective import (
    CROSS_ENTROPY,
    OBJECTIVES,
    CrossEntropy,
    Objective,
    accuracy,
    described,
    objective_for,
    objective_of,
)
from .optimizer import Optimizer
from .recipe import RECIPES, Recipe
from .reconstruction import ELBO, Reconstruction

OBJECTIVES |= {"kd": KD, "reconstruction": Reconstruction, "vae": ELBO, "adversarial": Adversarial}

__all__ = [
    "CROSS_ENTROPY",
    "ELBO",
    "KD",
    "OBJECTIVES",
    "RECIPES",
    "Adversarial",
    "CrossEntropy",
    "Drive",
    "EarlyBird",
    "History",
    "Objective",
    "Optimizer",
    "Recipe",
    "Reconstruction",
    "Settling",
    "Trainer",
    "Training",
    "accuracy",
    "described",
    "doubt",
    "epochs",
    "keeping_memory",
    "objective_for",
    "objective_of",
    "train",
]
