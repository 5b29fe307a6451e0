"""How far the partitions' masks agree, by arm and round."""

import pandas as pd

from .arms import arms, hashes
from .cost import images_at_hand
from .statistics import half_width


def overlaps(records: pd.DataFrame) -> pd.DataFrame:
    """Return, for each arm and round, how far the partitions' masks agree beyond chance, with intervals over seeds.

    Columns dataset, network, method (the arm), round, density, jaccard, chance (within each layer), gap (the Jaccard
    index minus chance), half_width (of the gap), seeds, train_images, experiments. Only rounds in which several copies
    were pruned.
    """
    found = arms(records)
    found = found[found["kind"] == "round"]
    found = found[[isinstance(overlap, dict) for overlap in found["overlap"]]]
    values = {name: [float(overlap[name]) for overlap in found["overlap"]] for name in ("jaccard", "chance")}
    found = found.assign(**values, method=found["arm"]).assign(gap=lambda r: r["jaccard"] - r["chance"])
    groups = found.groupby(["dataset", "network", "method", "round"], sort=False)
    columns = {name: groups[name].mean() for name in ("density", "jaccard", "chance", "gap")}
    columns["half_width"] = half_width(groups["gap"].std(), groups["gap"].count())
    columns |= {"seeds": groups["seed"].nunique()} | images_at_hand(groups)
    return pd.DataFrame(columns | {"experiments": groups["experiment"].agg(hashes)}).reset_index()
