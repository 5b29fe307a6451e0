"""How far the partitions' masks agree, by arm and round."""

import math
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import pandas as pd

from ..compute.store import Store, open_store
from ..masks import Mask, chance, density, jaccard
from ..studies.records import Place
from ..tickets import Round
from .arms import arms, check_seeds, hashes
from .cost import images_at_hand
from .records import check_columns, warned
from .statistics import half_width
from .trouble import copy_at_chance

SIDES = {"decoder": "decoder.*", "encoder": "*"}  # the latent's convolutions are the encoder's last
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


def by_side(rounds: Iterable[Round], sides: Mapping[str, str] = SIDES) -> pd.DataFrame:
    """Return how far the copies' masks agree in parts of the network, an autoencoder's encoder and decoder by default.

    Parameters
    ----------
    rounds
        A finder's, from the dense one on.
    sides
        For the name of a part a pattern of its parameters' names; a layer belongs to the first that fits.

    Returns
    -------
    pandas.DataFrame
        Columns round, density, side, kept (the part's own density), jaccard, chance (within each layer), chance_theta0
        (among weights of like initial magnitude); a row a part and round of several copies.
    """
    rows: list[dict[str, Any]] = []
    before: Round | None = None
    for found in rounds:
        if before is not None and found.partition_masks:
            within = before.own or before.ticket.mask
            for side, names in _parts(within, sides).items():
                alive, *own = ({name: mask[name] for name in names} for mask in (within, *found.partition_masks))
                told = {"jaccard": jaccard(*own), "chance": chance(*own, within=alive)}
                told |= {"chance_theta0": chance(*own, within=alive, given=found.ticket.theta0)}
                kept = density({name: found.ticket.mask[name] for name in names})
                rows.append({"round": found.number, "density": found.density, "side": side, "kept": kept} | told)
        before = found
    return pd.DataFrame(rows)


def _parts(mask: Mask, sides: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the layers of each part that has some."""
    found: dict[str, list[str]] = {}
    for name in mask:
        side = next((side for side, pattern in sides.items() if fnmatchcase(name, pattern)), None)
        if side is not None:
            found.setdefault(side, []).append(name)
    return found
