"""Early-bird stopping: a training that only serves to find a mask ends when its mask has settled (arXiv 1909.11957)."""

from collections import deque
from collections.abc import Callable
from typing import Literal

from pydantic import Field
from torch import nn

from .. import masks
from ..masks import Mask
from ..settings import Settings

Draw = Callable[[list[nn.Module]], tuple[list[Mask], Mask]]


class EarlyBird(Settings):
    """When to end the trainings of a round before their recipe does. Frozen. Off in faithful runs.

    After every epoch the mask is drawn as if the training ended there. It has settled when its normalised Hamming
    distance to each of the masks of the `window` epochs before is below `delta`.

    Attributes
    ----------
    delta
        In (0, 1): the share of the weights alive in this round on which two masks may differ. The paper's is 0.1, of
        channel masks; two independent masks that each lose the fraction r differ on 2 r (1 - r).
    window
        Epochs to look back; a training lasts longer than that.
    on
        "masks": each copy ends when its own mask has settled. "overlap": all end when the combined mask has.

    References
    ----------
    arXiv 1909.11957, section 4 (there: a queue of five masks, delta 0.1).
    """

    delta: float = Field(0.1, gt=0, lt=1)
    window: int = Field(5, ge=1)
    on: Literal["masks", "overlap"] = "masks"


class Settling:
    """Watches the masks of one round over its epochs: give it to `train_copies` as `settled`."""

    def __init__(self, rule: EarlyBird, before: Mask, draw: Draw) -> None:
        self.rule, self.alive, self.draw = rule, masks.count(before), draw
        self.seen: deque[list[Mask]] = deque(maxlen=rule.window)

    def __call__(self, copies: list[nn.Module]) -> list[bool]:
        """Tell for each copy whether its training may end."""
        chosen, combined = self.draw(copies)
        now = chosen if self.rule.on == "masks" else [combined]
        far = [max((self._distance(mask, old[i]) for old in self.seen), default=1.0) for i, mask in enumerate(now)]
        full = len(self.seen) == self.rule.window
        self.seen.append(now)
        settled = [full and distance < self.rule.delta for distance in far]
        return settled if self.rule.on == "masks" else settled * len(copies)

    def _distance(self, a: Mask, b: Mask) -> float:
        """Return the share of this round's weights on which two masks differ."""
        return masks.hamming(a, b) * masks.size(a) / self.alive if self.alive else 0.0
