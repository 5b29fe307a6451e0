"""From records to tables in the paper's shape, with intervals over seeds; to verdicts; to Markdown, LaTeX and CSV."""

from .accuracy import accuracy_table, area, at_sparsities, by_rounds, paper_table, screening
from .agreement import by_side, overlaps, with_theta0
from .answer import Answer, answer
from .arms import arms, called, called_by, scored
from .choice import best_of
from .compare import against, compare, conclusion, over_sparsities, verdict
from .cost import at_costs, reach, rounds_table
from .findings import Finding, Findings, asked, findings, sided
from .gains import answered_gains, gains, ladder, regimes, shares, shares_of, spent
from .overview import beside, collapsed, overview
from .questions import Question, Questions, answers, decided, described, predictions, told
from .records import distinct, load, measured_by, metric_of, metrics
from .statistics import fieller, holm, interval, seeds_needed, summary
from .tables import LEVELS, joined, readable, save, tables
from .transfer import AGAINST, transfer_conclusion, transfer_gains, transfers
from .trouble import failures, say_warnings, warnings
from .verdicts import verdicts
from .words import count_seeds, level, percent, points, sized, spread, written

__all__ = [
    "AGAINST",
    "LEVELS",
    "Answer",
    "Finding",
    "Findings",
    "Question",
    "Questions",
    "accuracy_table",
    "against",
    "answer",
    "answered_gains",
    "answers",
    "area",
    "arms",
    "asked",
    "at_costs",
    "at_sparsities",
    "beside",
    "best_of",
    "by_rounds",
    "by_side",
    "called",
    "called_by",
    "collapsed",
    "compare",
    "conclusion",
    "count_seeds",
    "decided",
    "described",
    "distinct",
    "failures",
    "fieller",
    "findings",
    "gains",
    "holm",
    "interval",
    "joined",
    "ladder",
    "level",
    "load",
    "measured_by",
    "metric_of",
    "metrics",
    "over_sparsities",
    "overlaps",
    "overview",
    "paper_table",
    "percent",
    "points",
    "predictions",
    "reach",
    "readable",
    "regimes",
    "rounds_table",
    "save",
    "say_warnings",
    "scored",
    "screening",
    "seeds_needed",
    "shares",
    "shares_of",
    "sided",
    "sized",
    "spent",
    "spread",
    "summary",
    "tables",
    "told",
    "transfer_conclusion",
    "transfer_gains",
    "transfers",
    "verdict",
    "verdicts",
    "warnings",
    "with_theta0",
    "written",
]
