"""What `results/*/describe.py` tell beside the answers: each on a small study of its own, from its command's entry."""

import importlib.util
from pathlib import Path

import pandas as pd
import pytest

import colt_core as cc

RESULTS = Path(__file__).parent.parent / "results"


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Return a function that runs a small study and then a script's `main`, and gives the tables that it writes."""

    def made(name, base, methods, *more):
        recipe = cc.Recipe.named("mini").changed(epochs=1).model_dump(mode="json")
        common = {"dataset": "cifar10-mini@16:0-3", "recipe": recipe, "densities": [0.5, 0.2], "scores": [0.5]}
        study = cc.Study(name=name, title="small", base=common | base, methods=methods, seeds=[0, 1])
        cc.study(study.experiments(), tmp_path / "store", device="cpu", workers=1)
        spec = importlib.util.spec_from_file_location(f"describe_{name}", RESULTS / name / "describe.py")
        script = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(script)
        monkeypatch.setenv("COLT_OUT", str(tmp_path / "figures"))
        script.main(tmp_path / "store", study, tmp_path, *more)
        return study, {path.stem: pd.read_csv(path) for path in tmp_path.glob("*.csv")}

    return made


def test_how_far_a_transformation_comes_and_what_the_cut_costs(small, tmp_path):
    own = {"steps": 120}
    arms = {"dual": own, "plain": {"method": "dual", "control": "plain"} | own, "random": {}}
    study, tables = small("dual", {"network": "conv3", "network_args": {"width": 4}}, arms)
    table = tables["transformed"].set_index(["arm", "round"])
    assert set(table.index) == {(arm, number) for arm in ("dual", "dual (plain)") for number in (1, 2)}
    found = [list(cc.rounds(study.experiment("dual", seed), tmp_path / "store"))[2].measures for seed in (0, 1)]
    row = table.loc["dual", 2]
    assert row["left"] == pytest.approx(sum(one["left"] for one in found) / 2) and row["seeds"] == 2
    assert row["cut"] == pytest.approx(sum(one["after"] - one["before"] for one in found) / 2)
    assert (table.loc["dual", "left"] < table.loc["dual (plain)", "left"]).all(), "without a pull nothing goes"


def test_accuracy_stands_beside_measured_speed_for_each_number_of_threads(small, monkeypatch):
    timed = cc.pareto
    quick = {"rounds": 1, "seconds": 1e-3, "batch": 2, "shape": (3, 16, 16)}
    monkeypatch.setattr(cc, "pareto", lambda *given, **how: timed(*given, **how | quick))
    arms = {"dense": {"scores": []}, "refill": {"scores": []}}
    _, tables = small("structured", {"network": "conv3", "network_args": {"width": 8}}, arms)
    assert set(tables) == {"pareto-structured-1", "pareto-structured-2"}
    for table in tables.values():
        assert list(table["method"]) == ["dense", "refill", "refill"] and set(table["seeds"]) == {2}


def test_a_stretched_mask_is_held_against_the_targets_own_from_the_same_theta0(small):
    arms = {"elastic": {"source": "resnet14"}}
    _, tables = small("elastic", {"network": "resnet20", "scores": None, "densities": [0.5]}, arms, "cpu")
    row = tables["agreement"].iloc[0]
    assert row["seeds"] == 2 and 0.2 < row["jaccard"] < 1
    assert row["beyond chance"] > row["beyond chance_theta0"], "part of what they share they were born with"
