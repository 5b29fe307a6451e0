"""What `results/*/describe.py` tell beside the answers: each on a small study of its own, from its command's entry."""

import importlib.util
import json
import shutil
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


def test_texts_tell_nothing_before_all_runs_are_there_and_then_all_of_it(tmp_path, monkeypatch, capsys):
    (tmp_path / "store" / "text").mkdir(parents=True)
    spec = importlib.util.spec_from_file_location("describe_text", RESULTS / "text" / "describe.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    monkeypatch.setenv("COLT_OUT", str(tmp_path / "figures"))
    seeds, better = (120, 121, 122), {"winning": 0.02, "losing": -0.03, "random": 0.0, "dense": 0.0}
    for run in [one for corpus in ("20newsgroups", "r8") for one in cc.text.grid(corpus, seeds=seeds)]:
        value = 0.6 + 0.01 * (run.seed - 121) + better[run.order] + 0.001 * ((run.seed * run.percent) % 7 - 3)
        about = {"experiment": run.hash, "heads": 72, "blocks": 6, "parameters": 100, "share": run.percent / 100}
        about |= {"validation": value, "test": value, "seconds": 1.0, "device": "cpu", "torch": "2"}
        text = json.dumps(run.model_dump(mode="json") | about)
        (tmp_path / "store" / "text" / f"{run.hash}.json").write_text(text)
    last = next((tmp_path / "store" / "text").glob(f"{cc.text.grid('20newsgroups', seeds=seeds)[-1].hash}.json"))
    text = last.read_text()
    last.unlink()
    assert not script.main(tmp_path / "store", tmp_path / "out", seeds)
    assert capsys.readouterr().out == "29 of 30 runs are over; no table before all are\n"
    assert not (tmp_path / "out").exists()
    last.write_text(text)
    assert script.main(tmp_path / "store", tmp_path / "out", seeds)
    found = pd.read_csv(tmp_path / "out" / "answer.csv").set_index(["corpus", "arm", "other", "scored_on"]).sort_index()
    row = found.loc["20newsgroups", "winning", "random", "test"]
    assert row["difference"] == pytest.approx(0.02, abs=0.003) and row["verdict"] == "better" and row["seeds"] == 3
    assert set(found.loc["r8", "verdict"]) == {"described"} and found.loc["r8", "p_holm"].isna().all()
    shutil.rmtree(tmp_path / "store")
    before = (tmp_path / "out" / "answer.csv").read_text()
    assert script.main(tmp_path / "out" / "store", tmp_path / "out", seeds), "what is kept tells it again"
    assert (tmp_path / "out" / "answer.csv").read_text() == before


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
    arms = {"dense": {}, "refill": {}, "narrow": {}}
    _, tables = small("structured", {"network": "conv3", "network_args": {"width": 8}, "scores": []}, arms)
    equal = tables.pop("equal-structured")
    assert set(equal["other"]) == {"narrow"} and (equal["sparsity"] - equal["other_sparsity"]).abs().max() < 0.02
    assert set(tables) == {"pareto-structured-1", "pareto-structured-2"}
    for table in tables.values():
        assert set(table["method"]) == {"dense", "refill", "narrow"} and set(table["seeds"]) == {2}


def test_a_stretched_mask_is_held_against_the_targets_own_from_the_same_theta0(small):
    arms = {"elastic": {"source": "resnet14"}}
    _, tables = small("elastic", {"network": "resnet20", "scores": None, "densities": [0.5]}, arms, "cpu")
    row = tables["agreement"].iloc[0]
    assert row["seeds"] == 2 and 0.2 < row["jaccard"] < 1
    assert row["beyond chance"] > row["beyond chance_theta0"], "part of what they share they were born with"
