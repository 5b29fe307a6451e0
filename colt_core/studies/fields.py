"""How an experiment's fields are read: each in its one form, or refused in one line."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .. import data as datasets
from ..files import sha256_of_file
from ..foreign import fingerprint
from ..methods import METHODS, Method
from ..models import PREFIX, declared_objective
from ..settings import shown
from ..training import Recipe, described, objective_of

CODE = re.compile(r"[A-Za-z_][\w.]*(:[A-Za-z_][\w.]*)+")  # "package.module:name"
PLAIN = {"name": "cross-entropy"}  # said of scores alone: of what is found None says it


def finding_of(value: Any, recipe: Any) -> dict[str, Any] | None:
    """Return what of a recipe is another while finding, validated; None: nothing is."""
    if not value or not isinstance(value, Mapping):
        if value is None or value == {}:
            return None
        raise ValueError(f"finding must be a mapping of what it changes of the recipe, not {shown(value)}")
    if not isinstance(recipe, Recipe | Mapping) or not all(isinstance(key, str) for key in [*value, *dict(recipe)]):
        raise ValueError(f"finding must change fields of a recipe, not {shown(value)} of {shown(recipe)}")
    recipe = recipe if isinstance(recipe, Recipe) else Recipe(**recipe)
    usual, other = (one.model_dump(mode="json") for one in (recipe, Recipe(**{**dict(recipe), **value})))
    return {name: other[name] for name in value if other[name] != usual[name]} or None


def objective_in(value: Any) -> dict[str, Any] | None:
    """Return an objective's description in its one form; None for cross-entropy."""
    if not isinstance(value, str | Mapping | None):
        raise ValueError(f"must be a name or a mapping with a name, not {shown(value)}")
    return described(objective_of(value))


def judged_by(value: Any) -> dict[str, Any] | None:
    """Return how scores are made as a description: None is as in finding, which need not be cross-entropy."""
    return PLAIN if value is not None and objective_in(value) is None else objective_in(value)


def declared(network: Any, objective: Any) -> Any:
    """Return the objective of an experiment: the one given, else what its network declares.

    Raises
    ------
    ValueError
        For cross-entropy, where the network learns something else.
    """
    try:
        own = declared_objective(network) if isinstance(network, str) else None
    except ValueError:  # of the network, which is told with the other fields
        own = None
    if own is None or objective is None:
        return objective if own is None else own
    if isinstance(objective, str | Mapping) and objective_in(objective) is None:
        raise ValueError(no_classifier(network, own))
    return objective


def no_classifier(network: str, own: str) -> str:
    """Return what is said where a network that learns something else is given cross-entropy."""
    return f"{network} declares that it learns {own}: it is no classifier, and knows no cross-entropy and no accuracy"


def as_it_comes(objective: str) -> dict[str, Any]:
    """Return an objective's description with nothing set; of one that must be told something its name alone."""
    try:
        return described(objective_of(objective)) or {"name": objective}
    except (ValueError, TypeError):
        return {"name": objective}


def numbers_of(densities: Any) -> list[float]:
    """Return a trajectory as plain numbers, from a list, an array or anything of the kind."""
    values = densities.tolist() if hasattr(densities, "tolist") else densities
    if not isinstance(values, list | tuple) or not values:
        raise ValueError(f"densities must be a list of falling numbers, not {shown(densities)}")
    plain = [value.item() if hasattr(value, "item") else value for value in values]
    if odd := [v for v in plain if isinstance(v, bool) or not isinstance(v, int | float) or not 0 < v < 1]:
        raise ValueError(f"densities must be falling numbers strictly between 0 and 1, not {shown(odd[0])}")
    return plain


def last_of(densities: list[float], target: Any) -> Any:
    """Return the sparsity at which a trajectory ends, which must be the target where that is given as well."""
    last = round(1 - densities[-1], 12)
    if target is None or isinstance(target, bool) or not isinstance(target, int | float):
        return last if target is None else target  # which is refused with the other fields
    if abs(target - last) > 1e-9:
        raise ValueError(f"densities end at a sparsity of {last:g}: leave the target {target:g} out")
    return last


def options_of(method: Method, values: dict[str, Any], fields: Iterable[str]) -> dict[str, Any]:
    """Take a method's own options out of an experiment's fields; return them validated, without those at a default.

    Raises
    ------
    ValueError
        For an option that the method does not have, or one with the name of a field.
    """
    own = list(method.options.model_fields) if method.options else []
    if clash := [name for name in own if name in fields]:
        raise ValueError(f"the option {clash[0]!r} of the method {method.name} has the name of a field of experiments")
    known: dict[str, list[str]] = {}
    for other in METHODS.values():
        for name in other.options.model_fields if other.options else ():
            known.setdefault(name, []).append(other.name)
    given = values.pop("options", None) or {}
    if not isinstance(given, Mapping):
        raise ValueError(f"options must be a mapping, not {shown(given)}")
    given = dict(given)
    for name in [name for name in values if name in own or name in known]:
        value = values.pop(name)
        if name in own:
            given[name] = value
        elif value is not None:
            whose = ", ".join(known[name])
            raise ValueError(
                f"{name} belongs to the method{'s' * (len(known[name]) > 1)} {whose} alone, not to {method.name}"
            )
    options = method.own_options(given)
    return options.model_dump(mode="json", exclude_defaults=True) if options is not None else {}


def code_in(values: Mapping[str, Any]) -> dict[str, str]:
    """Return the names of foreign code among fields of an experiment, and in its options, by what it is."""
    objective = values.get("objective")
    named = {what: values.get(what) for what in ("network", "method", "dataset")}
    named["objective"] = objective.get("name") if isinstance(objective, Mapping) else objective
    for own in (values.get("options"), objective):  # the network that an option, or a teacher, is
        further = [(what, name) for what, name in own.items() if what != "name"] if isinstance(own, Mapping) else []
        named |= {what: name for what, name in further if isinstance(name, str) and CODE.fullmatch(name)}
    told = {what: name.removeprefix(PREFIX) for what, name in named.items() if isinstance(name, str)}
    told = {what: name for what, name in told.items() if ":" in name}
    return {what: name for what, name in told.items() if what != "dataset" or datasets.is_code(name)}


def versions(values: Mapping[str, Any]) -> dict[str, str] | None:
    """Return the versions of foreign code that fields of an experiment name, by what it is; None: they name none.

    Raises
    ------
    ValueError
        As `foreign.fingerprint`, and for a file of weights that is not there.
    """
    told = {what: fingerprint(name, f"the {what}") for what, name in code_in(values).items()}
    arguments = values.get("network_args")
    weights = arguments.get("weights") if isinstance(arguments, Mapping) else None
    if isinstance(weights, str) and Path(weights).is_file():
        told["weights"] = f"sha256:{sha256_of_file(weights)[:16]}"
    return told or None
