"""WordPiece: a text becomes numbers of pieces of words, by the vocabulary that BERT was trained with."""

import unicodedata
from collections.abc import Iterable

import torch

from .wheels import MODEL, file_of

LONGEST = 100  # characters of a word; a longer one is unknown as a whole, as in BERT's own code


def vocabulary() -> list[str]:
    """Return the pieces of the installed model, in the order of their numbers; errors as of `wheels.file_of`."""
    return file_of(MODEL, "vocab.txt").read_text(encoding="utf-8").splitlines()


class WordPiece:
    """Uncased WordPiece: letters lower and without accents, words split greedily into the longest pieces known.

    Parameters
    ----------
    pieces
        The vocabulary, with [PAD], [UNK], [CLS] and [SEP]; a piece that goes on a word begins with ##.

    References
    ----------
    J. Devlin et al., BERT (arXiv 1810.04805), its `tokenization.py`.
    """

    def __init__(self, pieces: Iterable[str]) -> None:
        self.numbers = {piece: number for number, piece in enumerate(pieces)}
        self._words: dict[str, list[str]] = {}  # what each word that was met has been split into

    def pieces(self, text: str) -> list[str]:
        """Return the pieces of a text, without [CLS] and [SEP]."""
        return [piece for word in words(text) for piece in self.split(word)]

    def split(self, word: str) -> list[str]:
        """Return the longest pieces that make up a word, from its left; one [UNK] where there are none."""
        if word not in self._words:
            self._words[word] = self._greedily(word) if len(word) <= LONGEST else ["[UNK]"]
        return self._words[word]

    def _greedily(self, word: str) -> list[str]:
        found: list[str] = []
        start = 0
        while start < len(word):
            lead = "##" if start else ""
            ends = range(len(word), start, -1)
            end = next((end for end in ends if lead + word[start:end] in self.numbers), None)
            if end is None:
                return ["[UNK]"]
            found.append(lead + word[start:end])
            start = end
        return found

    def encode(self, texts: Iterable[str], length: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return texts as numbers, cut to a length.

        Parameters
        ----------
        texts
            N texts.
        length
            Pieces of each at most, [CLS] and [SEP] among them.

        Returns
        -------
        tokens, attention
            int64 [N, length], filled up with [PAD]; bool [N, length], False there.
        """
        rows = [["[CLS]", *self.pieces(text)[: length - 2], "[SEP]"] for text in texts]
        tokens = torch.full((len(rows), length), self.numbers["[PAD]"])
        for place, row in zip(tokens, rows, strict=True):
            place[: len(row)] = torch.tensor([self.numbers[piece] for piece in row])
        lengths = torch.tensor([len(row) for row in rows])
        return tokens, torch.arange(length) < lengths[:, None]


def words(text: str) -> list[str]:
    """Return the words of a text, lower, without accents; marks of punctuation and CJK signs are words of their own."""
    if text.isascii() and text.replace(" ", "").isalpha():  # as the corpora are: nothing to take out or apart
        return text.lower().split()
    plain = "".join(" " if c.isspace() else c for c in text if c.isspace() or not _unseen(c))
    lower = unicodedata.normalize("NFD", "".join(f" {c} " if _is_cjk(c) else c for c in plain).lower())
    bare = (c for c in lower if unicodedata.category(c) != "Mn")
    return "".join(f" {c} " if _is_punctuation(c) else c for c in bare).split()


def _unseen(c: str) -> bool:
    return c in "\0\ufffd" or unicodedata.category(c).startswith("C")


def _is_punctuation(c: str) -> bool:
    """BERT counts all of ASCII that is neither letter, digit nor space, such as $ and ~, whatever Unicode says."""
    return (c.isascii() and c.isprintable() and not c.isalnum() and c != " ") or unicodedata.category(c)[0] == "P"


def _is_cjk(c: str) -> bool:
    blocks = [(0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F), (0x2B740, 0x2B81F)]
    blocks += [(0x2B820, 0x2CEAF), (0xF900, 0xFAFF), (0x2F800, 0x2FA1F)]
    return any(low <= ord(c) <= high for low, high in blocks)
