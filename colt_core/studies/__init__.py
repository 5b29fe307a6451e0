"""Many experiments, described, planned, run on any number of processes and machines, and found again."""

from .experiment import Experiment, Scoring
from .plan import Plan, plan, status
from .run import read_records, rounds, run, store_folder
from .study import Study, study

__all__ = [
    "Experiment",
    "Plan",
    "Scoring",
    "Study",
    "plan",
    "read_records",
    "rounds",
    "run",
    "status",
    "store_folder",
    "study",
]
