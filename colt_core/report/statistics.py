"""What a handful of seeds can say: intervals, paired tests, equivalence, correction for several tests, power."""

import math
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import numpy as np
from scipy import optimize, stats

LEAST_SEEDS = 3  # fewer: points only, no interval
LEAST_BOOTSTRAP = 6  # fewer values have too few different resamples: the ends would be about their extremes
RESAMPLES = 1999
TINY = 1e-12  # differences of accuracies below it are rounding


def interval(values: Iterable[float], level: float = 0.95) -> tuple[float, float]:
    """Return mean and half-width of Student's t interval; the half-width is NaN for fewer than three values."""
    series = _numbers(values)
    mean = float(series.mean()) if len(series) else math.nan
    deviation = float(series.std(ddof=1)) if len(series) >= LEAST_SEEDS else math.nan
    return mean, float(half_width(deviation, len(series), level))


def _numbers(values: Iterable[float]) -> np.ndarray:
    series = np.array(list(values), dtype=float)
    return series[~np.isnan(series)]


def half_width(deviation: Any, count: Any, level: float = 0.95) -> Any:
    """Return the half-width of Student's t interval from standard deviation and number; NaN below three values."""
    bound = stats.t.ppf((1 + level) / 2, np.maximum(count, LEAST_SEEDS) - 1)
    return np.where(count >= LEAST_SEEDS, bound * deviation / np.sqrt(np.maximum(count, 1)), math.nan)


def summary(values: Iterable[float], level: float = 0.95) -> dict[str, float]:
    """Return mean, half_width (Student's t), low and high (bootstrap, BCa) and seeds of one value a seed.

    Below three values the half-width is NaN, below six the bootstrap's ends are. The resamples are the same each time.
    """
    series = _numbers(values)
    mean, half = interval(series, level)
    low, high = _bootstrap(series[None], level)[0]
    return {"mean": mean, "half_width": half, "low": float(low), "high": float(high), "seeds": len(series)}


def _bootstrap(values: np.ndarray, level: float) -> np.ndarray:
    """Return the ends of the BCa bootstrap interval of each row's mean; where nothing varies, the mean itself.

    Values are sorted first: the resamples are drawn by place, and the order of the records shall say nothing.
    """
    values = np.sort(values, axis=1)
    if values.shape[1] < LEAST_BOOTSTRAP:
        return np.full((len(values), 2), math.nan)
    ends = np.repeat(values.mean(1)[:, None], 2, 1)
    varied = np.ptp(values, axis=1) > TINY
    if varied.any():
        options: dict[str, Any] = {"n_resamples": RESAMPLES, "method": "BCa", "confidence_level": level, "axis": -1}
        drawn = stats.bootstrap((values[varied],), np.mean, random_state=np.random.default_rng(0), **options)
        ends[varied] = np.stack(drawn.confidence_interval, 1)
    return ends


def fieller(above: Iterable[float], below: Iterable[float], level: float = 0.95) -> tuple[float, float, float]:
    """Return the ratio of two means, paired one a seed, and the ends of its interval by Fieller's theorem.

    NaN ends below three pairs, and where the mean below is not told from zero: then the interval has no ends.

    References
    ----------
    E. C. Fieller, Some problems in interval estimation, JRSS B 16 (1954) 175-185.
    """
    a, b = (np.array(list(values), dtype=float) for values in (above, below))
    count = len(a)
    ratio = float(a.mean() / b.mean()) if count and b.mean() else math.nan
    if count < LEAST_SEEDS:
        return ratio, math.nan, math.nan
    bound = float(stats.t.ppf((1 + level) / 2, count - 1)) ** 2 / count
    spread = np.cov(a, b, ddof=1) * bound
    square, mixed = b.mean() ** 2 - spread[1, 1], a.mean() * b.mean() - spread[0, 1]
    root = mixed**2 - square * (a.mean() ** 2 - spread[0, 0])
    if square <= 0 or root < -TINY * mixed**2:
        return ratio, math.nan, math.nan
    low, high = ((mixed + sign * math.sqrt(max(0.0, root))) / square for sign in (-1, 1))
    return ratio, float(low), float(high)


# --- paired differences ------------------------------------------------------------------------------------------


def paired_tests(
    differences: list[list[float]], margin: float | list[list[float]], level: float
) -> dict[str, np.ndarray]:
    """Return what each row's differences, one a seed, say: the columns of `compare` that rest on them alone.

    The margin of equivalence is one number, or an estimate as well: then one a seed and row, beside its difference.
    """
    counts = np.array([len(row) for row in differences], dtype=int)
    names = ["difference", "half_width", "low", "high", "p", "p_equivalence"]
    names += ["detectable", "detectable_low", "detectable_high"]
    columns = {name: np.full(len(counts), math.nan) for name in names}
    for count in sorted(set(counts)):
        here = np.flatnonzero(counts == count)
        rows = np.array([differences[i] for i in here])
        bound = margin if isinstance(margin, float | int) else np.array([margin[i] for i in here])
        for name, values in _of_equal_counts(rows, bound, level).items():
            columns[name][here] = values
    return columns | {"equivalent": columns["p_equivalence"] < 1 - level, "seeds": counts}


def _of_equal_counts(differences: np.ndarray, margin: float | np.ndarray, level: float) -> dict[str, np.ndarray]:
    """Return the same for an array (comparisons, seeds)."""
    count, means = differences.shape[1], differences.mean(1)
    if count < LEAST_SEEDS:
        return {"difference": means}
    deviation = _deviation(differences)
    error, sizes = deviation / math.sqrt(count), np.abs(means)
    low, high = _bootstrap(differences, level).T
    columns = {"difference": means, "half_width": half_width(deviation, count, level), "low": low, "high": high}
    columns["p"] = np.minimum(1, 2 * _tail(sizes, error, count))
    if isinstance(margin, float | int):
        # Of the two one-sided tests the one against the nearer margin has the larger p.
        columns["p_equivalence"] = _tail(margin - sizes, error, count)
    else:
        within = [margin + sign * differences for sign in (1, -1)]  # both above 0 on average
        tails = [_tail(w.mean(1), _deviation(w) / math.sqrt(count), count) for w in within]
        columns["p_equivalence"] = np.where(np.isnan(margin).any(1), math.nan, np.maximum(*tails))
    # The spread itself is an estimate of few seeds: chi-squared gives its interval, and with it the detectable one's.
    ends = [math.sqrt((count - 1) / stats.chi2.ppf(p, count - 1)) for p in ((1 + level) / 2, (1 - level) / 2)]
    smallest = noncentrality(count, level) * error
    return columns | {
        "detectable": smallest,
        "detectable_low": ends[0] * smallest,
        "detectable_high": ends[1] * smallest,
    }


def _deviation(values: np.ndarray) -> np.ndarray:
    """Return each row's standard deviation; 0 where nothing varies."""
    return np.where(np.ptp(values, axis=1) > TINY, values.std(1, ddof=1), 0)


def _tail(distance: np.ndarray, error: np.ndarray, count: int) -> np.ndarray:
    """Return the chance that Student's t exceeds distance / error; without any spread it is 0, 1/2 or 1."""
    certain = np.where(np.abs(distance) < TINY, 0.5, distance < 0)
    return np.where(error == 0, certain, stats.t.sf(distance / np.where(error == 0, 1, error), count - 1))


def holm(values: Iterable[float]) -> np.ndarray:
    """Return p values adjusted by Holm's step-down method; those that are NaN stay so and do not count."""
    p = np.array(list(values), dtype=float)
    order = np.argsort(p)[: np.isfinite(p).sum()]
    steps = p[order] * np.arange(len(order), 0, -1)
    p[order] = np.minimum(1, np.maximum.accumulate(steps)) if len(order) else p[order]
    return p


# --- power -------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=256)
def noncentrality(count: int, level: float, power: float = 0.8) -> float:
    """Return the true difference, in standard errors, that a two-sided paired t test finds with this power."""
    bound = stats.t.ppf((1 + level) / 2, count - 1)

    def lacking(size: float) -> float:
        return float(stats.nct.sf(bound, count - 1, size) - power)

    return float(optimize.brentq(lacking, 0, 4 * bound + 4))


def seeds_needed(half: float, seeds: float, margin: float = 0.01, level: float = 0.95) -> float:
    """Return how many seeds a paired t test needs to find a difference of `margin` with 80 % power.

    From the half-width of the 95 % t interval that so many seeds gave, which tells the spread; NaN without one, and
    infinity beyond 10,000.
    """
    if not half >= 0 or not seeds >= LEAST_SEEDS:
        return math.nan
    deviation = half * math.sqrt(seeds) / float(stats.t.ppf((1 + level) / 2, seeds - 1))
    enough = (n for n in range(2, 10_001) if noncentrality(n, level) * deviation / math.sqrt(n) <= margin)
    return next(enough, math.inf)
