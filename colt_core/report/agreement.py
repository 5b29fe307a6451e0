"""How far the partitions' masks agree, by arm and round."""

import math
from typing import Any

import numpy as np
import pandas as pd

from .arms import arms, check_seeds, hashes
from .cost import images_at_hand
from .records import check_columns, warned
from .statistics import half_width
from .trouble import copy_at_chance


def overlaps(records: pd.DataFrame) -> pd.DataFrame:
    """Return, for each arm and round, how far the partitions' masks agree beyond chance, with intervals over seeds.

    Columns dataset, network, method (the arm), round, density, jaccard, chance (within each layer), gap (the Jaccard
    index minus chance), half_width (of the gap), seeds, train_images, experiments. Only rounds in which several copies
    were pruned. Where a copy ended at chance, masks agree or not for no reason: such a round counts in no mean of
    agreement. Where records carry warnings, the column `warned` counts them.
    """
    found = _agreements(records)
    check_seeds(found, "dataset")
    groups = found.groupby(["dataset", "network", "method", "round"], sort=False)
    columns = {name: groups[name].mean() for name in ("density", "jaccard", "chance", "gap")}
    columns["half_width"] = half_width(groups["gap"].std(), groups["gap"].count())
    counted = found["seed"].where(found["gap"].notna())
    columns |= {"seeds": counted.groupby(groups.ngroup()).nunique().to_numpy()} | images_at_hand(groups)
    if found["warned"].any():
        columns |= {"warned": groups["warned"].sum()}
    return pd.DataFrame(columns | {"experiments": groups["experiment"].agg(hashes)}).reset_index()


def _agreements(records: pd.DataFrame) -> pd.DataFrame:
    """Return the rounds of several copies with jaccard, chance and gap, NaN where a copy ended at chance."""
    found = arms(records)
    found = found[found["kind"] == "round"]
    check_columns(found, ["overlap"] if len(found) else [])
    several = [isinstance(overlap, dict) for overlap in found.get("overlap", ())]
    found = found[np.array(several, dtype=bool)]
    rows = found.to_dict("records")
    values = {name: [_agreement(row, name) for row in rows] for name in ("jaccard", "chance")}
    found = found.assign(method=found["arm"], warned=[bool(warned(row.get("warnings"))) for row in rows], **values)
    return found.assign(gap=found["jaccard"] - found["chance"])


def _agreement(record: dict[str, Any], name: str) -> float:
    """Return a measure of a round's overlap as a number."""
    value = record["overlap"][name]
    return math.nan if value is None or copy_at_chance(record) else float(value)
