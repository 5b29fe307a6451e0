"""What is kept of trained copies, by magnitude: of each copy alone, and of all together. COLT's and IMP's choices."""

from .. import masks
from ..masks import Mask
from .cycles import Choose, Networks, Search, magnitude_masks


def by_magnitude(search: Search) -> Choose:
    """Return IMP's choice: of the one copy its largest weights."""

    def choose(copies: Networks, mask: Mask, number: int) -> tuple[list[Mask], Mask]:
        kept = magnitude_masks(copies, mask, search.step(mask, number), search.options.scope)
        return kept, kept[0]

    return choose


def by_overlap(search: Search, combine: str | int = "and") -> Choose:
    """Return COLT's choice: what every copy keeps of its largest weights; or any copy ("or"), or at least k of them.

    Raises
    ------
    ValueError
        For another way to combine masks.
    """
    scope, densities, parts = search.options.scope, search.densities, len(search.parts)
    if combine not in ("and", "or", *range(1, parts + 1)):
        raise ValueError(f"unknown way to combine masks {combine!r}; allowed: and, or, or a number up to {parts}")

    def choose(copies: Networks, mask: Mask, number: int) -> tuple[list[Mask], Mask]:
        if densities is not None:
            return _to_density(copies, mask, densities[number - 1], combine, scope)
        kept = magnitude_masks(copies, mask, search.rate, scope)  # each copy loses its smallest weights ...
        return kept, masks.combine(kept, combine)  # ... and what every copy kept goes on

    return choose


def _to_density(
    copies: Networks, mask: Mask, density: float, combine: str | int, scope: str
) -> tuple[list[Mask], Mask]:
    """Bisect the number of weights each copy loses until the combined mask is as near to `density` as it can be."""
    alive, wanted = masks.count(mask), round(density * masks.size(mask))
    if not alive:  # an earlier round left nothing, and nothing more can go
        return [mask for _ in copies], mask

    def prune(lost: int) -> tuple[list[Mask], Mask]:
        kept = magnitude_masks(copies, mask, lost / alive, scope)
        return kept, masks.combine(kept, combine)

    # The combined mask shrinks with every weight that each copy loses, so the count can be halved in on.
    low, high = 0, alive  # losing `low` leaves too many, losing `high` at most what is wanted
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if masks.count(prune(middle)[1]) > wanted else (low, middle)
    return min((prune(low), prune(high)), key=lambda found: abs(masks.count(found[1]) - wanted))
