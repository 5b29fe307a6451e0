"""Whatever is given as a description: it makes an object that survives a round trip, or a `ValueError` of one line."""

import json
import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import colt_core as cc
from colt_core.studies.reading import parsed
from colt_core.studies.study import Study, Transfer
from colt_core.studies.typed import READERS, typed

TEXT = st.text(st.characters(codec=None), max_size=20) | st.sampled_from(["", "self", ":", ".:x", "a\nb", "\0", "../x"])
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | TEXT
JSON = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3))
OBJECTS = st.dictionaries(TEXT, JSON, max_size=3)
FRACTIONS = st.floats(0, 1) | st.sampled_from([0.15, 0.3, 0.9, 1e-17, 5e-324, 1 - 1e-16])
CHAOS = settings(max_examples=200)

pytestmark = pytest.mark.chaos


def fields(model, good):
    """Dictionaries of a model's fields, each with a good value or any, and now and then of an unknown one."""
    known = {name: good.get(name, JSON) | JSON for name in model.model_fields}
    few = st.fixed_dictionaries({}, optional=good) | st.fixed_dictionaries({}, optional=known)
    return few | st.builds(lambda a, b: a | b, few, OBJECTS)


RECIPES = fields(
    cc.Recipe,
    {
        "epochs": st.integers(1, 99), "batch_size": st.integers(2, 512), "optimizer": st.sampled_from(["sgd", "adam"]),
        "learning_rate": st.floats(1e-6, 1), "milestones": st.lists(st.integers(0, 99), max_size=3),
        "flip": st.booleans(), "schedule": st.sampled_from(["step", "cosine", "constant"]),
    },
)  # fmt: skip
GOOD = {
    "dataset": st.sampled_from(["cifar10-mini", "cifar10:0-4", "cifar100"]), "parts": st.integers(1, 9),
    "network": st.sampled_from(["conv3", "resnet18"]), "network_args": OBJECTS, "seed": st.integers(0, 2**70),
    "method": st.sampled_from(list(cc.METHODS)), "recipe": st.sampled_from(["mini", "small"]) | RECIPES,
    "rate": FRACTIONS, "target": FRACTIONS, "by": st.sampled_from(["class", "random"]),
    "options": st.just({}) | OBJECTS,
    "early_bird": st.fixed_dictionaries({}, optional={"delta": FRACTIONS, "window": st.integers(1, 9)}),
    "official": st.lists(st.sampled_from(["best-epoch", "all-counted"])), "scores": st.lists(FRACTIONS, max_size=3),
    "objective": st.sampled_from(["cross-entropy", "toys:SquaredError"]) | OBJECTS,
    "scoring": st.fixed_dictionaries({}, optional={"head": st.sampled_from(["own", "fresh"])}),
    "score_on": st.none() | st.sampled_from(["cifar10"]), "scope": st.sampled_from(["global", "layer"]),
    "pooling": st.sampled_from(["mean", "smallest", "median"]),
}  # fmt: skip
EXPERIMENTS = fields(cc.Experiment, GOOD)
SHARED = st.fixed_dictionaries({}, optional={k: v for k, v in GOOD.items() if k not in ("seed", "method", "pooling")})
WHOLE = {
    "name": st.sampled_from(["a", "a/b"]), "title": TEXT, "base": SHARED,
    "methods": st.dictionaries(st.sampled_from(list(cc.METHODS)), SHARED, min_size=1, max_size=3),
}  # fmt: skip
MORE = {
    "grid": st.dictionaries(st.sampled_from(list(GOOD)), st.lists(JSON, max_size=3), max_size=2),
    "seeds": st.lists(st.integers(0, 99), min_size=1, max_size=3),
    "transfer": st.none() | fields(Transfer, {"among": st.lists(TEXT), "scores": st.lists(FRACTIONS)}),
    "pieces": st.lists(st.fixed_dictionaries({"name": st.sampled_from(["x", "y", "../up"])}), max_size=2),
}
ODD = st.just({}) | fields(Study, WHOLE | MORE | {"base": EXPERIMENTS})
STUDIES = st.builds(lambda a, b: a | b, st.fixed_dictionaries(WHOLE, optional=MORE), ODD)


def made(make, about):
    """Make it; None where it is refused, which must be in one line and not at length."""
    try:
        return make(**about)
    except ValueError as problem:
        assert type(problem) is ValueError and len(str(problem).splitlines()) == 1 and str(problem).isprintable()
        return None


def test_good_ones_are_among_them():
    assert made(cc.Experiment, {"rate": 0.3}) and made(cc.Recipe, {}) and made(cc.Experiment, {"rate": 3}) is None


@CHAOS
@given(EXPERIMENTS)
@example({"network_args": {"a": -0.0, "b": 1e308, "c": 10**30, "": None, "é": [True, [], {}]}})
@example({"network_args": {"a": math.inf}})
@example({"dataset": "a\nb", "score_on": "\0"})
@example({"self": 1, "method": "self"})
def test_an_experiment_survives_a_round_trip_or_is_refused_in_one_line(about):
    before = repr(about)
    experiment = made(cc.Experiment, about)
    assert repr(about) == before, "what was given has been changed"
    if experiment is None:
        return
    described = json.loads(json.dumps(experiment.model_dump(mode="json"), allow_nan=False))
    again = cc.Experiment.from_description(described)
    assert again == experiment and again.hash == experiment.hash == experiment.changed().hash
    assert again.labels() == experiment.labels()
    text = json.dumps(experiment.model_dump(mode="json"))
    for value in about.values():  # whatever the caller does with it afterwards
        if isinstance(value, dict | list):
            value.clear()
    assert json.dumps(experiment.model_dump(mode="json")) == text
    assert cc.Experiment.from_description(json.loads(text)).hash == experiment.hash


@CHAOS
@given(RECIPES)
def test_a_recipe_survives_a_round_trip_or_is_refused_in_one_line(about):
    recipe = made(cc.Recipe, about)
    if recipe is not None:
        assert cc.Recipe(**json.loads(json.dumps(recipe.model_dump(mode="json"), allow_nan=False))) == recipe
        assert math.isfinite(recipe.rate_at(0, 1))


@CHAOS
@given(STUDIES)
def test_a_study_survives_a_round_trip_or_is_refused_in_one_line(about):
    study = made(Study, about)
    if study is None:
        return
    assert Study(**json.loads(json.dumps(study.model_dump(mode="json"), allow_nan=False))) == study
    for ask in (study.each, study.experiments, lambda: study.levels):
        made(lambda ask=ask: ask() or True, {})


@CHAOS
@given(st.text() | st.text("[]{}:,&*!|>-?'\"#%@ \n\t0123456789_xeabn.~<=").map("a: ".__add__) | JSON.map(repr))
def test_any_text_is_yaml_or_is_refused_in_one_line(text):
    made(parsed, {"text": text, "what": "it"})


@CHAOS
@given(st.sampled_from(list(READERS)), st.text() | JSON.map(repr) | st.sampled_from(["1", "0.5", "{}", "[0.5]"]))
def test_any_text_on_the_command_line_is_a_value_or_is_refused_in_one_line(name, text):
    value = made(typed, {"name": name, "text": text})
    if value is not None:
        made(cc.Experiment, {name: value})


@pytest.mark.parametrize("depth", [10, 200, 3000, 100_000])
def test_what_is_nested_is_refused_in_one_line_before_it_is_too_deep(depth):
    value: object = 1
    for _ in range(depth):
        value = [value]
    for name in cc.Experiment.model_fields:
        kept = made(cc.Experiment, {name: {"width": value} if name == "network_args" else value})
        assert (kept is None) == (name != "network_args" or depth > 10)
    for model, name in ((Study, "base"), (Study, "pieces"), (cc.Recipe, "epochs")):
        assert made(model, {name: value}) is None
    while isinstance(value, list):  # else Python's own end of it is as deep
        value = value.pop()
