"""Which experiments are one arm: they differ in nothing but the seed."""

import json
from collections import Counter
from typing import Any

import numpy as np
import pandas as pd

from ..methods import recorded
from ..studies.experiment import NESTED, SETTINGS, settings_in
from ..studies.records import scored_by
from ..studies.study import Study
from .records import distinct, left, metric_of, score_values

IDENTITY = ["experiment", "dataset", "network", "method"]
SETTING = ["scored_on", "network", "method"]
PACE = ("rate", "target")  # where densities are named, they say nothing
DETAILED = ("network_args", "recipe")  # their fields are many: in an arm's name they stand last
UNSET = {"early_bird": "no", "official": "no", "objective": "cross-entropy"}  # of the others "default" is told

ROUNDS = "rounds"
Settings = tuple[dict[str, Any], dict[str, Any]]  # an experiment's settings by name, and the fields of nested ones


# --- methods -----------------------------------------------------------------------------------------------------


def called(arm: str) -> str:
    """Return an arm as sentences and figures call it: its method's name there, what is in its brackets as it is."""
    plain = arm.split(" ")[0]
    return recorded(plain).look.name + arm[len(plain) :]


# --- arms --------------------------------------------------------------------------------------------------------


def arms(records: pd.DataFrame, short: bool = False) -> pd.DataFrame:
    """Return the records with a column `arm`: the method, in brackets the settings in which its experiments differ.

    Settings count that differ, the seed apart, between experiments of one data set, network and method within these
    records: "colt (parts 3)". Of recipes, network arguments and early-bird stopping the fields that differ are named.
    Where scores were made in several ways, the way is told, "colt scored by own head"; and a score on another data set,
    "colt from cifar100", where the same arm of another source stands there. Each record is there once, see `distinct`.

    With `short`, of a method's variants the usual one, whose settings most experiments here share, goes by the method's
    name alone, and the others by what sets them apart from it: "colt", "colt (parts 3)".
    """
    records = distinct(records)
    named = records.assign(arm=_names(records, short))
    if "scored_on" not in named:
        return named.assign(scored_on=None)
    scores = named["kind"] == "score"
    if "scored_by" in named and named.loc[scores, "scored_by"].nunique(dropna=False) > 1:
        told = scores & named["scored_by"].notna()
        named.loc[told, "arm"] += " scored by " + named.loc[told, "scored_by"]
    foreign = named["scored_on"].notna() & (named["scored_on"] != named["dataset"])
    if foreign.any():
        foreign &= named.groupby(["scored_on", "network", "arm"])["dataset"].transform("nunique") > 1
        named.loc[foreign, "arm"] += " from " + named.loc[foreign, "dataset"]
    if "called" in named:
        told = named["called"].notna()
        named.loc[told, "arm"] = named.loc[told, "called"]
    return named


def called_by(records: pd.DataFrame, study: Study) -> pd.DataFrame:
    """Return the records with a column `called`, which `arms` takes: the name that a study gives each of its arms.

    "colt (class twice)" for the arm `class_twice`, a method's name alone for the arm of that name. Records of no arm of
    the study have none. A round that several arms share, which differ in how they score, goes by the first. Rows stand
    in the order of the study's arms.
    """
    names: dict[tuple[str, str | None], str] = {}
    for seed in study.seeds:
        for name in study.methods:
            own = study.experiment(name, seed)
            words = " ".join(word for word in name.split("_") if word != own.method)
            arm = f"{own.method} ({words})" if words else own.method
            names.setdefault((own.hash, scored_by(own).get("scored_by")), arm)
            names.setdefault((own.hash, ROUNDS), arm)
    ways = records["scored_by"] if "scored_by" in records else pd.Series(None, index=records.index, dtype=object)
    ways = ways.astype(object).where(ways.notna(), None).where(records["kind"] == "score", ROUNDS)
    called = records.assign(called=[names.get(key) for key in zip(records["experiment"], ways, strict=True)])
    order = {arm: place for place, arm in enumerate(dict.fromkeys(names.values()))}
    return called.sort_values("called", key=lambda arms: arms.map(order).fillna(len(order)), kind="stable")


def _names(records: pd.DataFrame, short: bool = False) -> list[str]:
    """Return each record's arm by its experiment's settings alone."""
    known = [name for name in dict.fromkeys((*IDENTITY, *SETTINGS)) if name in records and name != "seed"]
    groups: dict[tuple[str, ...], dict[str, Settings]] = {}
    for row in records[known].drop_duplicates().to_dict("records"):
        group = groups.setdefault(tuple(row[name] for name in IDENTITY[1:]), {})
        group[row["experiment"]] = _settings(row)
    groups = {key: _without_code(group) for key, group in groups.items()}
    names = {}
    common = _common(groups) if short else None
    for key, group in groups.items():
        for experiment, name in _apart(key[-1], group, common).items():
            names[(experiment, *key)] = name
    return [names[key] for key in records[IDENTITY].itertuples(index=False, name=None)]


def _without_code(group: dict[str, Settings]) -> dict[str, Settings]:
    """Leave the versions of code out where what names the code tells experiments apart without them."""
    bare = {one: ({k: v for k, v in told.items() if k != "code"}, own) for one, (told, own) in group.items()}
    told_apart, whole = ({str(one) for one in several.values()} for several in (bare, group))
    return bare if len(told_apart) == len(whole) else group


def _settings(row: dict[str, Any]) -> Settings:
    """Return an experiment's settings by name, and apart from them the fields of those that are descriptions."""
    told: dict[str, Any] = {}
    fields: dict[str, Any] = {}
    settings = settings_in(row)
    for name, value in settings.items():
        if name in IDENTITY or (name in PACE and "densities" in settings):
            continue
        if name == "code":
            told[name] = " ".join(map(str, value.values()))
        elif name in DETAILED:
            fields |= value
        elif name == "finding":
            fields |= {f"finding {field}": own for field, own in value.items()}
        elif name == "densities":
            told[name] = " ".join(f"{density:g}" for density in value)
        elif name in NESTED:
            told[name] = value.get("name", "yes")
            fields = {k: v for k, v in value.items() if k != "name"} | fields
        else:
            told[name] = value
    return told, fields


def _common(groups: dict[tuple[str, ...], dict[str, Settings]]) -> Counter[tuple[str, str]]:
    """Count how many experiments have each setting."""
    several = (one for group in groups.values() for one in group.values())
    return Counter((name, _text(value)) for told, own in several for name, value in (told | own).items())


def _usual(group: dict[str, Settings], common: Counter[tuple[str, str]]) -> Settings:
    """Return the settings of a group that most experiments, of whatever method, have too."""
    own = _common({("",): group})

    def shared(one: Settings) -> tuple[int, int, str]:
        told = [(name, _text(value)) for name, value in (one[0] | one[1]).items()]
        return sum(common[pair] for pair in told), sum(own[pair] for pair in told), str(told)

    return max(group.values(), key=shared)


def _apart(method: str, group: dict[str, Settings], common: Counter[tuple[str, str]] | None = None) -> dict[str, str]:
    """Name the experiments of a group by what sets them apart, with `common` from the usual one alone."""
    if common is not None:
        usual, names = _usual(group, common), {}
        for experiment, one in group.items():
            names[experiment] = _apart(method, {"": usual, experiment: one})[experiment] if one != usual else method
        return names
    settings = _varied([told for told, _ in group.values()])
    fields = _varied([own for _, own in group.values()])
    names = {}
    for experiment, (told, own) in group.items():
        named = [n for n in sorted(settings, key=_place) if n in told or n not in (*PACE, "densities")]
        texts = [f"{n} {_text(told.get(n, UNSET.get(n, 'default')))}" for n in named]
        texts += [f"{name} {_text(value)}" for name, value in own.items() if name in fields]
        names[experiment] = f"{method} ({', '.join(texts)})" if texts else method
    return names


def _varied(several: list[dict[str, Any]]) -> set[str]:
    """Return the names whose values differ between some dicts."""
    names = {name for one in several for name in one}
    return {name for name in names if any(one.get(name) != several[0].get(name) for one in several)}


def _place(setting: str) -> tuple[int, str]:
    """Return where a setting stands in an arm's name: as in `SETTINGS`, a method's own options at their place."""
    return SETTINGS.index(setting if setting in SETTINGS else "options"), setting


def _text(value: Any) -> str:
    """Return a setting as an arm's name has it."""
    if isinstance(value, list | dict):
        return json.dumps(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


# --- scores ------------------------------------------------------------------------------------------------------


def scored(records: pd.DataFrame) -> pd.DataFrame:
    """Return every score, a row each, with the columns `arm` (see `arms`) and `sparsity`."""
    named = arms(records)
    scores = named[named["kind"] == "score"]
    return scores.assign(sparsity=1 - left(scores)).reset_index(drop=True)


def scores_by_arm(records: pd.DataFrame) -> pd.DataFrame:
    """Return the scores of one metric, `method` the arm, `finder` the plain method, one experiment an arm and seed.

    Scores that are no numbers are left out: they count for no seed, and `warnings` names them.

    Raises
    ------
    ValueError
        If the records mix metrics, or several experiments of one data set, network, arm and seed.
    """
    scores = scored(records)
    metric, _ = metric_of(scores)
    values = score_values(scores)
    scores = scores.assign(finder=scores["method"], method=scores["arm"], **{metric: values})[~np.isnan(values)]
    if "chance" in scores:
        scores = scores.assign(chance=scores["chance"].astype(float))  # None: nobody can say
    check_seeds(scores, "scored_on")
    return scores


def check_seeds(table: pd.DataFrame, where: str) -> None:
    """Raise a `ValueError` where an arm (in `method`) has several experiments of one seed on one data set."""
    if not len(table):
        return
    runs = table["experiment"] if "study" not in table else table["study"].str.cat(table["experiment"], sep=": ")
    mixed = runs.groupby([table[name] for name in (where, "network", "method", "seed")]).nunique()
    if (mixed > 1).any():
        data, network, method, seed = mixed.idxmax()
        what = f"{mixed.max()} experiments of {method} with {network} on {data}, seed {seed}"
        raise ValueError(f"the records mix {what}; choose among them first, a table takes one a seed")


def hashes(*experiments: Any) -> str:
    """Return the experiments behind a row, each once."""
    return " ".join(dict.fromkeys(name for several in experiments for name in several))
