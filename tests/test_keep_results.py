"""tools/keep_results.py writes the evidence that is committed: enough to go on from, and to compute nothing again."""

import importlib.util
import shutil
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import yaml

import colt_core as cc

TOOL = Path(__file__).parent.parent / "tools" / "keep_results.py"
pytestmark = pytest.mark.skipif(not TOOL.exists(), reason="the tools are no part of an installed package")


def tool():
    spec = importlib.util.spec_from_file_location("keep_results", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def keep(name, store, records_alone=False):
    tool().main(name, store, records_alone)


def test_a_store_that_has_nothing_of_a_study_leaves_what_is_kept_as_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kept = tmp_path / "results" / "small" / "store" / "one"
    kept.mkdir(parents=True)
    with pytest.raises(SystemExit, match="^error: .*nowhere has no records of small; nothing was changed$"):
        keep("small", tmp_path / "nowhere")
    assert kept.is_dir()


@pytest.fixture(scope="module")
def patch():
    with pytest.MonkeyPatch.context() as found:
        yield found


@pytest.fixture(scope="module")
def place(tmp_path_factory, folder, patch):
    """A folder with a study file and the store of its runs; the one of `matched` is under way."""
    root = tmp_path_factory.mktemp("keep")
    recipe = cc.Recipe.named("mini").changed(epochs=1, batch_size=8).model_dump(mode="json")
    content = {
        "title": "pictures",
        "base": {
            "dataset": "pictures", "network_args": {"width": 4}, "rate": 0.3, "target": 0.7, "scores": [0.5],
            "recipe": recipe,
        },
        "methods": {"dense": {"scores": []}, "colt": {}, "imp": {}, "matched": {}},
        "transfer": {"among": ["pictures:0,1", "pictures:1,2"], "scores": [0.3], "target": 0.3},
    }  # fmt: skip
    (root / "tiny.yaml").write_text(yaml.safe_dump(content))
    (root / "pictures").symlink_to(folder)
    patch.chdir(root)
    patch.setenv("COLT_OUT", str(root / "out"))
    study = cc.Study.named("tiny.yaml")
    own = {e.method: e for e in study.experiments()}
    finished = [e for e in own.values() if e.method != "matched"]
    cc.study([*finished, *study.transfers()], root / "store", workers=1)
    finder = cc.rounds(own["matched"], root / "store")
    for _ in range(3):
        next(finder)
    finder.close()
    assert not (root / "store" / own["matched"].hash / "complete").exists()
    return SimpleNamespace(root=root, store=root / "store", study=study, own=own, moved=study.transfers())


@pytest.fixture(scope="module")
def kept(place):
    """What the tool leaves in the folder where it is called."""
    stale = place.root / "results" / "tiny" / "store" / "0123456789abcdef"
    stale.mkdir(parents=True)
    keep("tiny.yaml", place.store)
    assert not stale.exists(), "what the study no longer has"
    return stale.parent.parent


def tickets(folder):
    return {path.name: path.read_bytes() for path in folder.glob("round-*.safetensors")}


def test_every_ticket_of_colt_and_of_what_is_under_way_is_kept_and_of_the_rest_the_last(place, kept):
    everything = [*place.own.values(), *place.moved]
    assert {path.name for path in (kept / "store").iterdir()} == {e.hash for e in everything}
    for experiment in everything:
        whole, some = tickets(place.store / experiment.hash), tickets(kept / "store" / experiment.hash)
        assert experiment.method == "dense" or len(whole) > 1
        every = experiment.method in ("colt", "matched")
        assert some == (whole if every else {max(whole): whole[max(whole)]}), experiment.method
        for name in ("experiment.json", "records.jsonl", "complete"):
            source, target = (folder / experiment.hash / name for folder in (place.store, kept / "store"))
            assert source.exists() == target.exists() and (not source.exists() or same_bytes(source, target))


def same_bytes(a, b):
    return a.read_bytes() == b.read_bytes()


def test_copied_back_into_a_store_nothing_is_computed_again_and_what_is_under_way_goes_on(
    place, kept, tmp_path, monkeypatch
):
    back, finished = tmp_path / "back", [e for e in place.own.values() if e.method != "matched"]
    shutil.copytree(kept / "store", back)
    with monkeypatch.context() as no_training:
        no_training.setattr("colt_core.training.loop.Trainer._step", lambda *_: pytest.fail("a training was begun"))
        cc.study([*finished, *place.moved], back, workers=1)
    whole = cc.run(place.own["matched"], tmp_path / "whole")
    assert cc.run(place.own["matched"], back)["density"].tolist() == whole["density"].tolist()
    last = max(tickets(tmp_path / "whole" / place.own["matched"].hash))
    assert same_bytes(*(store / place.own["matched"].hash / last for store in (tmp_path / "whole", back)))


def test_its_tables_and_figures_are_those_of_the_records(place, kept, tmp_path):
    records = cc.report.load(place.store)
    for name, table in cc.report.tables(records=records, sparsities=place.study.levels).items():
        table.to_csv(tmp_path / "table.csv", index=False)
        written, expected = (
            [*path.read_text().splitlines()] for path in (kept / f"{name}.csv", tmp_path / "table.csv")
        )
        assert written[0] == expected[0] and sorted(written) == sorted(expected) and len(written) > 2
    for name in ("tiny-transfers", "tiny-gains"):
        assert len(pd.read_csv(kept / f"{name}.csv")) > 0
    drawn = {path.name for path in (place.root / "out").iterdir()}
    assert {"tiny_transfer.png", "tiny_transfer.csv"} <= drawn
    assert "tiny_accuracy.png" not in drawn, "a line through the points of one seed looks like a finding"


def test_records_alone_are_the_same_records_without_a_ticket(place, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLT_OUT", str(tmp_path / "out"))
    shutil.copy(place.root / "tiny.yaml", tmp_path)
    (tmp_path / "pictures").symlink_to(place.root / "pictures")
    keep("tiny.yaml", place.store, records_alone=True)
    store = tmp_path / "results" / "tiny" / "store"
    assert not list(store.rglob("*.safetensors"))
    for experiment in [*place.own.values(), *place.moved]:
        for name in ("records.jsonl", "experiment.json"):
            assert same_bytes(place.store / experiment.hash / name, store / experiment.hash / name)
    assert not list(tmp_path.glob("out/*_accuracy*"))
    assert "matched" in capsys.readouterr().out, "it says how far the study is"


def test_what_is_described_is_told_piece_by_piece_and_decides_nothing(place, tmp_path):
    about = place.study.model_dump(exclude_unset=True, exclude={"transfer", "name"})
    pieces = [{"name": "slow", "base": {"rate": 0.3}}, {"name": "fast", "base": {"rate": 0.4}}]
    study = cc.Study(name="tiny", pieces=pieces, **about)
    records = cc.report.load(place.store)
    tool().answer(study, records, cc.report.Questions(described={"COLT": {"colt": 1}}), tmp_path)
    told = pd.read_csv(tmp_path / "described.csv")
    assert list(told["study"]) == [piece.name for piece in study.each()] and list(told["said"]) == ["COLT"] * 2
    own = records[(records["experiment"] == place.own["colt"].hash) & (records["kind"] == "score")]
    assert list(told["seeds"]) == [1, 0] and told["estimate"][0] == pytest.approx(own["accuracy"].mean())
    assert not (tmp_path / "decided.csv").exists()


def test_what_others_will_follow_is_kept_whole_and_what_another_store_lacks_stays(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = cc.Recipe.named("mini").changed(epochs=1, batch_size=8).model_dump(mode="json")
    base = {
        "dataset": str(folder),
        "network_args": {"width": 4},
        "recipe": recipe,
        "scores": [],
        "densities": [0.7, 0.5],
    }
    content = {"base": base, "methods": {"colt": {}, "refill": {}, "narrow": {}}}
    Path("follows.yaml").write_text(yaml.safe_dump(content))
    own = {e.method: e for e in cc.Study.named("follows.yaml").experiments()}
    cc.study([own["colt"], own["refill"]], tmp_path / "first", workers=1)
    keep("follows.yaml", tmp_path / "first")
    kept = Path("results/follows/store")
    assert tickets(kept / own["refill"].hash) == tickets(tmp_path / "first" / own["refill"].hash)
    shutil.copytree(kept, tmp_path / "second")
    whole = cc.run(own["narrow"], tmp_path / "second", "cpu")
    assert len(whole[whole["kind"] == "score"]) == 3
    shutil.rmtree(tmp_path / "second" / own["refill"].hash)
    keep("follows.yaml", tmp_path / "second")
    assert {path.name for path in kept.iterdir()} == {e.hash for e in own.values()}
