"""Settings are fixed when they are made: nobody changes them afterwards, and what is no JSON never gets in."""

import copy
import json
import math
import pickle

import numpy as np
import pytest
import torch
import yaml

import colt_core as cc
from colt_core import workbook
from colt_core.studies.experiment import Experiment


def test_an_experiments_settings_cannot_be_changed_once_it_is_made():
    given = {"width": 4, "blocks": [1, {"deep": [2]}]}
    one = Experiment(network_args=given, method="consensus", pooling="mean", objective={"name": "toys:SquaredError"})
    before, dumped = one.hash, one.model_dump(mode="json")
    given["width"], given["blocks"][1]["deep"][0] = 8, 3
    assert one.network_args == {"width": 4, "blocks": [1, {"deep": [2]}]}
    changes = [
        lambda: one.network_args.update(width=8),
        lambda: one.network_args["blocks"].append(2),
        lambda: one.network_args["blocks"][1].pop("deep"),
        lambda: one.options.clear(),
        lambda: one.objective.setdefault("scale", 2),
        lambda: Experiment().network_args.__setitem__("width", 8),
    ]
    for change in changes:
        with pytest.raises(TypeError, match=r"cannot be changed; make others with changed\(\.\.\.\)"):
            change()
    with pytest.raises(TypeError, match="cannot be changed"):
        one.network_args["blocks"][1]["deep"] += [3]
    assert Experiment.from_description(dumped).hash == one.hash == before


def test_settings_that_cannot_be_changed_are_plain_wherever_they_go():
    one = Experiment(network_args={"width": 4, "blocks": [1, {"deep": [2]}]})
    for other in (copy.deepcopy(one), pickle.loads(pickle.dumps(one)), one.changed()):
        assert other == one and other.hash == one.hash
        with pytest.raises(TypeError, match="cannot be changed"):
            other.network_args["width"] = 8
    for dumped in (one.model_dump(), one.model_dump(mode="json")):
        assert type(dumped["network_args"]) is dict and type(dumped["network_args"]["blocks"]) is list
        assert yaml.safe_load(yaml.safe_dump(dumped["network_args"])) == one.network_args
    assert json.loads(json.dumps(one.network_args)) == one.network_args | {}
    assert cc.build("conv3", **Experiment(network_args={"width": 4}).network_args).conv1.out_channels == 4


def test_numbers_of_numpy_and_torch_are_plain_numbers():
    plain = Experiment(
        network_args={"width": 4, "ratio": 0.5, "wide": True}, seed=3, parts=2, scores=(0.5,), rate=0.25, target=0.75
    )
    others = [
        {"network_args": {"width": np.int64(4), "ratio": np.float64(0.5), "wide": np.bool_(True)}},
        {"network_args": {"width": torch.tensor(4), "ratio": torch.tensor([0.5]), "wide": torch.tensor(True)}},
        {"seed": np.int32(3), "parts": np.uint8(2), "scores": [np.float32(0.5)], "rate": np.float16(0.25)},
        {"seed": torch.tensor(3), "scores": (torch.tensor(0.5),), "target": np.array(0.75)},
    ]
    for fields in others:
        other = plain.changed(**fields)
        assert other == plain and other.hash == plain.hash, fields
        assert json.dumps(other.model_dump()) == json.dumps(plain.model_dump())
    pooled = Experiment(method="consensus", options={"pooling": np.str_("mean")})
    assert pooled.hash == Experiment(method="consensus", pooling="mean").hash


CIRCLE: dict = {}
CIRCLE["again"] = CIRCLE


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"network_args": {"width": {4}}}, "network_args: must be JSON: .* set "),
        ({"network_args": {"width": math.nan}}, "network_args: must be JSON"),
        ({"network_args": {"width": 1j}}, "network_args: must be JSON"),
        ({"network_args": {"width": np.arange(3)}}, "network_args: must be JSON"),
        ({"network_args": {"width": "\ud800"}}, "network_args: must be JSON"),
        ({"network_args": {"width": CIRCLE}}, "network_args: must be JSON: .*[Cc]ircular"),
        ({"network_args": {"width": json.loads("[" * 200 + "]" * 200)}}, "network_args: must be JSON: .* 30 levels"),
        ({"network_args": {1: 2}}, "network_args: keys must be text, not 1"),
        ({"network_args": {"seed": 1}}, "network_args: seed is no argument of the network alone"),
        ({"recipe": {1: 2}}, "recipe: keys must be text, not 1"),
        ({"options": [1]}, "options must be a mapping, not \\[1\\]"),
        ({"objective": 5}, "objective: must be a name or a mapping"),
        ({"method": ["colt"]}, "method must be text, not \\['colt'\\]"),
        ({"seed": True}, "seed: must be a number, not True"),
        ({"seed": 10**5000}, "seed: is too large"),
        ({"dataset": "a\nb"}, "unknown data set 'a.nb'"),
        ({"dataset": "a" * 5000}, "unknown data set"),
        ({"network": ".models:conv3"}, "cannot be imported"),
        ({"network": "math:pi"}, "the network math:pi must be callable"),
        ({"self": 1}, "unknown key 'self'"),
        ({"recipe": {"learning_rate": math.inf}}, "learning_rate: Input should be a finite number"),
    ],
)
def test_what_is_no_json_is_refused_in_one_line(fields, message):
    with pytest.raises(ValueError, match=message) as caught:
        Experiment(**fields)
    assert len(str(caught.value).splitlines()) == 1 and len(str(caught.value)) < 1000


@pytest.mark.parametrize("name", ["rate", "target", "scores"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, True, "0.5", b"0.5", [0.5], {}, 1 + 0j])
def test_a_fraction_that_is_no_number_is_refused_in_one_line(name, value):
    with pytest.raises(ValueError, match=name) as caught:
        Experiment(**{name: (value,) if name == "scores" else value})
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("fields", [{"rate": 1e-17, "target": 1e-16}, {"rate": 5e-324}, {"rate": 1e-4}])
def test_a_rate_that_would_take_for_ever_is_refused_before_any_training(fields, network, parts, recipe):
    message = "rate .* is too small: more than 10,000 rounds to sparsity"
    with pytest.raises(ValueError, match=message) as caught:
        Experiment(**fields)
    assert len(str(caught.value).splitlines()) == 1
    with pytest.raises(ValueError, match=message):
        cc.colt(network, parts, recipe, **{"target": 0.991} | fields)
    assert Experiment(rate=1e-4, target=0.5).rate == 1e-4


def test_seeds_are_plain_decimal_numbers():
    assert workbook.numbers("0, 1 010") == [0, 1, 10]
    for text in ("²", "1_0", "+1", "0x1"):
        with pytest.raises(ValueError, match="seeds must be whole numbers"):
            workbook.numbers(text)
