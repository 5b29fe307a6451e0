"""How far the partitions' masks agree, by arm and round."""

import math
from typing import Any

import numpy as np
import pandas as pd

from ..compute.store import Store, open_store
from ..masks import chance
from ..studies.records import Place
from ..tickets import Round
from .arms import arms, check_seeds, hashes
from .cost import images_at_hand
from .records import check_columns, warned
from .statistics import half_width
from .trouble import copy_at_chance

MEASURES = ("jaccard", "chance", "chance_theta0")


def with_theta0(records: pd.DataFrame, store: Place = None) -> pd.DataFrame:
    """Return records in which every round of several copies says what its masks would share by theta0 alone.

    Records older than the measure are completed from the tickets in the store; where those are not there, they stay as
    they are.
    """
    place, found = open_store(store), []
    before: dict[str, Round] = {}
    for row in records.to_dict("records"):
        overlap = row.get("overlap")
        if row["kind"] == "round" and isinstance(overlap, dict) and overlap.get("chance_theta0") is None:
            now = _ticket(row, row["round"], place)
            last = before.get(row["experiment"]) or _ticket(row, row["round"] - 1, place)
            if now and last and now.partition_masks:
                within, theta0 = last.own or last.ticket.mask, now.ticket.theta0
                given = chance(*now.partition_masks, within=within, given=theta0)
                row = row | {"overlap": overlap | {"chance_theta0": given}}
            before = {row["experiment"]: now} if now else {}
        found.append(row)
    return pd.DataFrame(found, columns=records.columns, index=records.index)


def _ticket(row: dict[str, Any], number: int, store: Store) -> Round | None:
    """Return a round with its masks; None where its file is not there."""
    name = f"{row['experiment']}/round-{number:02d}.safetensors"
    if not store.exists(name):
        return None
    with store.fetched(name) as path:
        return Round.load(path, {**row, "round": number})


def overlaps(records: pd.DataFrame) -> pd.DataFrame:
    """Return, for each arm and round, how far the partitions' masks agree beyond chance, with intervals over seeds.

    Columns dataset, network, method (the arm), round, density, jaccard, chance (within each layer), gap (the Jaccard
    index minus chance), half_width (of the gap), chance_theta0 (among weights of like initial magnitude, see
    `masks.chance`), learnt (the index minus that), learnt_half, seeds, train_images, experiments. Only rounds in which
    several copies were pruned. Where a copy ended at chance, masks agree or not for no reason: such a round counts in
    no mean of agreement. Where records carry warnings, the column `warned` counts them. Records older than
    `chance_theta0` lack it, and NaN stands there: `with_theta0` measures it in the tickets.
    """
    found = _agreements(records)
    check_seeds(found, "dataset")
    groups = found.groupby(["dataset", "network", "method", "round"], sort=False)
    columns = {name: groups[name].mean() for name in ("density", "jaccard", "chance", "gap")}
    columns["half_width"] = half_width(groups["gap"].std(), groups["gap"].count())
    columns |= {name: groups[name].mean() for name in ("chance_theta0", "learnt")}
    columns["learnt_half"] = half_width(groups["learnt"].std(), groups["learnt"].count())
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
    values = {name: [_agreement(row, name) for row in rows] for name in MEASURES}
    found = found.assign(method=found["arm"], warned=[bool(warned(row.get("warnings"))) for row in rows], **values)
    found = found.assign(gap=found["jaccard"] - found["chance"])
    return found.assign(learnt=found["jaccard"] - found["chance_theta0"])


def _agreement(record: dict[str, Any], name: str) -> float:
    """Return a measure of a round's overlap as a number."""
    value = record["overlap"].get(name)
    return math.nan if value is None or copy_at_chance(record) else float(value)
