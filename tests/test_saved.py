"""Runs of a store, read for looking at: held against `rounds`, and with every kind of damage."""

import json

import pytest
import torch

import colt_core as cc
from colt_core.studies.saved import runs_in


@pytest.fixture(scope="module")
def store(tmp_path_factory, folder):
    place = tmp_path_factory.mktemp("store")
    recipe = cc.Recipe.named("mini").changed(epochs=1, batch_size=8)
    fields = {"dataset": str(folder), "network_args": {"width": 4}, "rate": 0.3, "target": 0.7, "recipe": recipe}
    for method in ("colt", "imp"):
        cc.run(cc.Experiment(method=method, scores=(0.5,), **fields), place, device="cpu")
    return place


@pytest.fixture
def copy(store, tmp_path):
    import shutil

    shutil.copytree(store, tmp_path / "store")
    return tmp_path / "store"


def colt(place):
    return next(run for run in runs_in(place)[0] if run.about["method"] == "colt")


def test_masks_read_one_by_one_are_those_of_the_rounds(store):
    run = colt(store)
    rounds = list(cc.rounds(run.experiment(), store, device="cpu"))
    assert [r["round"] for r in run.rounds()] == [r.number for r in rounds]
    for found in rounds:
        for name, kept in found.ticket.mask.items():
            assert torch.equal(run.mask(found.number, layers=[name])[name], kept)
        assert list(run.mask(found.number)) == list(run.layers(found.number)) == list(found.ticket.mask)
        assert run.copies(found.number) == len(found.partition_masks)
        for i, mask in enumerate(found.partition_masks):
            assert all(torch.equal(kept, mask[n]) for n, kept in run.mask(found.number, i).items())
    last, index = rounds[-1], (2, 1, 0, 2)
    assert run.weight(last.number, "conv2.weight", index) == pytest.approx(
        float(last.ticket.theta0["conv2.weight"][index])
    )
    kept = run.kept(last.number, "conv2.weight", index)
    expected = {str(i): bool(m["conv2.weight"][index]) for i, m in enumerate(last.partition_masks)}
    assert kept == {"ticket": bool(last.ticket.mask["conv2.weight"][index])} | expected


def test_an_empty_or_missing_store_has_no_runs(tmp_path):
    assert runs_in(tmp_path) == ([], []) and runs_in(tmp_path / "none") == ([], [])


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"method": "colt"}'])
def test_a_description_that_cannot_be_read_is_named_and_the_others_are_found(copy, content):
    run = colt(copy)
    (copy / run.hash / "experiment.json").write_bytes(content)
    found, problems = runs_in(copy)
    assert [r.about["method"] for r in found] == ["imp"] and len(problems) == 1 and run.hash in problems[0]


def test_damaged_records_are_named(copy):
    run = colt(copy)
    (copy / run.hash / "records.jsonl").write_bytes(b"{broken\n")
    with pytest.raises(ValueError, match=f"the records of {run.hash} are damaged"):
        run.records()
    assert len(runs_in(copy)[1]) == 1


def test_a_round_that_is_being_written_is_not_there_yet(copy):
    run = colt(copy)
    path = copy / run.hash / "records.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2]) + lines[2][:40])  # a torn last line
    assert [r["round"] for r in run.rounds()] == [json.loads(line)["round"] for line in lines[:2]]


@pytest.mark.parametrize("damage", ["missing", "truncated", "empty", "text"])
def test_a_damaged_file_is_one_clear_line(copy, damage):
    run = colt(copy)
    path = copy / run.hash / "round-01.safetensors"
    whole = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes({"truncated": whole[:-100], "empty": b"", "text": b"no ticket at all"}[damage])
    with pytest.raises(
        ValueError, match=f"the file of round 1 of {run.hash} is {damage if damage == 'missing' else 'damaged'}"
    ) as caught:
        run.mask(1)
    assert "\n" not in str(caught.value)
    assert run.mask(2)
