"""How numbers are written: in percent and points where the metric is accuracy, as they are where it is another."""

import math

ACCURACY = "accuracy"


def level(sparsity: float) -> str:
    """Return a sparsity as a heading: "95% sparse", "99.1% sparse"."""
    return f"{100 * sparsity:.4g}% sparse"


def percent(mean: float, half: float = math.nan) -> str:
    """Return "41.2 ± 1.3" (percent), or "41.2" without an interval."""
    return f"{100 * mean:.1f}" if math.isnan(half) else f"{100 * mean:.1f} ± {100 * half:.1f}"


def written(mean: float, half: float = math.nan, metric: str = ACCURACY) -> str:
    """Return a mean with its interval: of accuracy as `percent`, of another metric "0.0412 ± 0.0013"."""
    if metric == ACCURACY:
        return percent(mean, half)
    return f"{mean:.4g}" if math.isnan(half) else f"{mean:.4g} ± {half:.2g}"


def spread(difference: float, half_width: float = math.nan, metric: str = ACCURACY) -> str:
    """Return a difference with its sign: of accuracy in points, "-0.4 ± 1.1", or "-0.4" without an interval."""
    if metric == ACCURACY:
        return f"{100 * difference:+.1f}" + ("" if math.isnan(half_width) else f" ± {100 * half_width:.1f}")
    return f"{difference:+.3g}" + ("" if math.isnan(half_width) else f" ± {half_width:.2g}")


def points(share: float, metric: str = ACCURACY) -> str:
    """Return a size of difference: of accuracy "1 point", "0.5 points"; of another metric "0.01"."""
    if metric != ACCURACY:
        return f"{share:g}"
    return f"{100 * share:g} point" if share == 0.01 else f"{100 * share:g} points"


def unit(metric: str = ACCURACY) -> str:
    """Return what differences are counted in: "points" of accuracy, "dB" of PSNR, else the metric's name."""
    return {ACCURACY: "points", "psnr": "dB"}.get(metric, metric)


def count_seeds(count: int) -> str:
    """Return "1 seed", "3 seeds"."""
    return f"{count} seed" if count == 1 else f"{count} seeds"


def sized(dataset: str, images: float) -> str:
    """Return "tinyimagenet (18,000 training images)": the number tells a part of a data set from the whole."""
    return f"{dataset} ({images:,.0f} training images)"
