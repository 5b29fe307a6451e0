"""The loop of the text part: fine-tune a network on a corpus, and count what it gets right."""

from typing import Any, Literal

import torch
from pydantic import Field
from torch import nn

from ..seeding import derive, generator, reproducible
from ..settings import Settings
from .bert import Bert
from .texts import Texts


class FineTuning(Settings):
    """How to fine-tune: the paper's optimiser, batch, warm-up and clipping.

    The learning rate rises linearly over the first `warmup` of all steps, then falls linearly to zero. It is twenty
    times the paper's: in the 76 steps that a small sample has, 5e-5 teaches a fresh classifier little (results/text).
    """

    epochs: int = Field(4, ge=1)
    batch_size: int = Field(32, ge=1)
    optimizer: Literal["adamax", "adamw"] = "adamax"
    learning_rate: float = Field(1e-3, gt=0)
    warmup: float = Field(0.1, ge=0, le=1)
    clip: float = Field(1.0, gt=0)

    def rate_at(self, step: int, steps: int) -> float:
        """Return the learning rate of a step, counted from 0, of so many."""
        rising = self.warmup * steps
        return self.learning_rate * min((step + 1) / max(1.0, rising), (steps - step) / max(1.0, steps - rising), 1.0)


def fine_tune(
    network: Bert, texts: Texts, recipe: FineTuning, seed: int = 0, device: str | torch.device = "cpu"
) -> Bert:
    """Train a network in place, and return it.

    Networks of one seed meet the same texts in the same order, whatever was cut of them.

    Parameters
    ----------
    network, texts, recipe
        What, on what, how.
    seed
        Of the order of texts and of dropout.
    """
    where = torch.device(device)
    network, texts = network.to(where).train(), texts.to(where)
    free = [p for p in network.parameters() if p.requires_grad]
    optimizer = _optimizer(free, recipe)
    rng = generator(seed, "order")
    rounds = [torch.randperm(len(texts), generator=rng) for _ in range(recipe.epochs)]
    batches = [index for order in rounds for index in order.split(recipe.batch_size)]
    with reproducible(where, derive(seed, "dropout"), threads=1):
        for step, index in enumerate(batches):
            optimizer.param_groups[0]["lr"] = recipe.rate_at(step, len(batches))
            tokens, attention, labels = texts.batch(index.to(where))
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(tokens, attention), labels).backward()
            nn.utils.clip_grad_norm_(free, recipe.clip)
            optimizer.step()
    return network


def _optimizer(free: list[nn.Parameter], recipe: FineTuning) -> Any:
    if recipe.optimizer == "adamax":
        return torch.optim.Adamax(free, lr=recipe.learning_rate)
    return torch.optim.AdamW(free, lr=recipe.learning_rate, weight_decay=0.01, fused=True)


def accuracy(network: Bert, texts: Texts, device: str | torch.device = "cpu", batch: int = 64) -> float:
    """Return the share of texts that a network puts into their class, in evaluation mode."""
    where = torch.device(device)
    network, texts = network.to(where).eval(), texts.to(where)
    # Texts of one length together: then little of a batch is only filled up.
    order = texts.attention.sum(1).argsort(stable=True)
    right = 0
    with reproducible(where, 0, threads=1), torch.inference_mode():
        for index in order.split(batch):
            tokens, attention, labels = texts.batch(index)
            right += int((network(tokens, attention).argmax(1) == labels).sum())
    return right / len(texts)
