"""The official code's choices as switches: each does what it says, and nothing else."""

import pytest
import torch
from torch.nn.utils import prune

import colt_core as cc
from colt_core.compute.copies import train_side_by_side
from colt_core.data import CIFAR100_STATISTICS
from colt_core.methods.cycles import begin, first_round, share_counted, train_round
from colt_core.seeding import derive
from colt_core.studies import inputs
from colt_core.studies import run as runs
from colt_core.studies.records import read_records
from colt_core.training import Training, epochs


@pytest.fixture
def make(folder):
    """Experiments of seconds: 36 pictures, a narrow conv3, three epochs of Adam."""
    recipe = cc.Recipe.named("mini").changed(epochs=3, batch_size=8)
    base = {"dataset": str(folder), "network_args": {"width": 4}, "rate": 0.3, "target": 0.8, "recipe": recipe}
    return lambda *official, **fields: cc.Experiment(**(base | {"scores": (0.5,), "official": official} | fields))


def tickets(experiment, store):
    return {p.name: cc.Ticket.load(p) for p in sorted((store / experiment.hash).glob("round-*.safetensors"))}


def test_without_switches_an_experiment_is_what_it_was(make):
    assert make().official is None and make().hash == make(official=None).hash
    assert "official" not in make().labels() and make("best-epoch").labels()["official"] == "best-epoch"
    assert cc.Experiment(dataset="cifar10-mini").hash == "e6447fe5233905a7"
    with pytest.raises(ValueError, match="official"):
        make("magic")


def test_best_epoch_prunes_the_best_weights_in_the_first_round_alone(few, parts):
    network = cc.build("conv3", 10, seed=0, width=4)
    recipe = cc.Recipe.named("mini").changed(epochs=6, batch_size=24, learning_rate=0.02)
    held_out = cc.partition(few.validation, 2)
    how = {"validation": held_out, "device": "cpu", "seed": 3}
    found = list(cc.colt(network, parts, recipe, 0.3, 0.6, best_epoch=True, **how))
    plain = list(cc.colt(network, parts, recipe, 0.3, 0.6, **how))
    networks = [cc.with_head(network, 5, 3) for _ in parts]
    seeds = [derive(3, "train", 1, i) for i in range(2)]
    how = zip(parts, held_out, seeds, strict=True)
    trainings = [Training(part, recipe, validation=out, seed=seed) for part, out, seed in how]
    copies = train_side_by_side(networks, trainings, device="cpu")
    best = [copy.history.best_epoch for copy in copies]
    assert any(epoch < 5 for epoch in best), "the best epoch is the last: nothing is tested"
    for copy, mask in zip(copies, found[1].partition_masks, strict=True):
        copy.network.to(memory_format=torch.contiguous_format).load_state_dict(copy.history.best_state)
        modules = [(getattr(copy.network, name.removesuffix(".weight")), "weight") for name in mask]
        prune.global_unstructured(modules, prune.L1Unstructured, amount=round(0.3 * cc.masks.size(mask)))
        for (module, _), kept in zip(modules, mask.values(), strict=True):
            assert torch.equal(module.weight_mask.bool(), kept)
    assert cc.masks.hamming(found[1].ticket.mask, plain[1].ticket.mask) > 0
    with pytest.raises(ValueError, match="validation images are needed"):
        cc.colt(network, parts, recipe, 0.3, 0.6, best_epoch=True, device="cpu")


def test_kept_statistics_go_on_and_change_no_mask(few, parts, recipe):
    network = cc.build("conv3", 10, seed=0, width=4)
    how = {"device": "cpu", "workers": 1}
    plain = begin(network, parts, recipe, 0.3, 0.6, None, how)
    search = begin(network, parts, recipe, 0.3, 0.6, None, how | {"keep_statistics": True})
    ticket = first_round(search).ticket
    steps, choose = recipe.steps(len(parts[0])), lambda *_: None
    first, _ = train_round(search, ticket, 1, choose)
    kept, _ = train_round(search, ticket, 2, choose, first)
    reset, _ = train_round(plain, ticket, 2, choose, first)
    for old, one, other in zip(*([copy.network for copy in copies] for copies in (first, kept, reset)), strict=True):
        assert old.norm1.num_batches_tracked == other.norm1.num_batches_tracked == steps
        assert one.norm1.num_batches_tracked == 2 * steps
        assert not torch.equal(one.norm1.running_mean, other.norm1.running_mean)
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_statistics_kept_finds_the_very_same_masks(make, tmp_path):
    experiments = make(), make("statistics-kept")
    for experiment in experiments:
        cc.run(experiment, tmp_path, device="cpu")
    plain, kept = (tickets(experiment, tmp_path) for experiment in experiments)
    assert [t.hash for t in plain.values()] == [t.hash for t in kept.values()] and len(plain) > 3
    of = lambda e, key: [r[key] for r in read_records(e, tmp_path) if r["kind"] == "round"]
    assert of(experiments[0], "curves") != of(experiments[1], "curves"), "the validation accuracies tell them apart"


def test_all_counted_stops_by_the_sparsity_of_the_whole_network(make, tmp_path):
    some = cc.run(make(scores=None), tmp_path, device="cpu")
    target = 1 - float(some.loc[some["round"] == 2, "density"].iloc[0])  # what the second round reaches exactly
    plain, counted = (cc.run(make(*n, target=target, scores=None), tmp_path) for n in ((), ("all-counted",)))
    assert plain["round"].max() == 2 and counted["round"].max() == 3
    network = cc.build("conv3", 2, width=4)  # the larger partition has two of the three classes
    every = sum(w.numel() for name, w in network.named_parameters() if name.endswith("weight"))
    size = cc.masks.size(cc.masks.dense(dict(network.named_parameters()), cc.prunable(network)))
    whole = (1 - counted.set_index("round")["density"]) * size / every
    assert whole[2] < target <= whole[3]
    with pytest.raises(ValueError, match=r"target sparsity 0\.97 cannot be reached: .* ends at 0\.9"):
        cc.run(make("all-counted", target=0.97), tmp_path)
    runs.check(make(target=0.97))


def test_the_official_conv3_cannot_pass_96_55_percent_on_half_of_cifar100():
    network = cc.build("conv3", 100)
    dense = cc.masks.dense(dict(network.named_parameters()), cc.prunable(network))
    share = share_counted(dense, network, 50)
    assert share == pytest.approx(370_368 / (370_368 + 448 + 256 * 50)) and round(100 * share, 2) == 96.55


def test_the_plan_knows_that_a_target_counts_every_weight(make, tmp_path):
    counted = make("all-counted", method="imp", rate=0.2, scores=None)
    planned = cc.plan(counted, tmp_path, device="cpu").rounds
    frame = cc.run(counted, tmp_path, device="cpu")
    assert planned == (len(frame), len(frame)) and cc.plan(counted, tmp_path, device="cpu").rounds == (0, 0)


def test_a_dense_network_takes_every_switch(make, tmp_path):
    every = ("best-epoch", "statistics-kept", "all-counted", "test-selected", "cifar100-normalised")
    assert len(cc.run(make(*every, method="dense", scores=()), tmp_path, device="cpu")) == 2


def test_best_epoch_goes_on_from_the_epoch_it_was_killed_in(make, tmp_path, monkeypatch):
    experiment, seen = make("best-epoch"), []
    monkeypatch.setenv("COLT_WORKERS", "1")

    def stop_after_two(*arguments):
        seen.append(1)
        if len(seen) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        runs.carry_out(experiment, cc.open_store(tmp_path), "cpu", 1, watch=stop_after_two)
    assert list((tmp_path / "trainings").glob("*.epoch-0001")), "the first epoch's state is kept"
    cc.run(experiment, tmp_path, device="cpu")
    assert not list((tmp_path / "trainings").glob("*.epoch*"))


def test_test_selected_reports_the_best_epoch_on_the_test_set_of_the_same_training(make, tmp_path):
    experiments = make(), make("test-selected")
    frames = [cc.run(experiment, tmp_path, device="cpu") for experiment in experiments]
    plain, chosen = (frame[frame["kind"] == "score"].iloc[0] for frame in frames)
    data, ticket = (
        cc.load(experiments[0].dataset),
        list(cc.rounds(experiments[0], tmp_path))[int(plain["round"])].ticket,
    )
    network, accuracies = ticket.model(len(data.classes), 0), []
    mask = ticket.mask_for(network, fresh_head=True)
    for _ in epochs(network, Training(data.train, experiments[0].recipe, mask), "cpu"):
        accuracies.append(cc.accuracy(network, data.test))
    assert plain["accuracy"] == accuracies[-1] and chosen["accuracy"] == max(accuracies)
    assert [t.hash for t in tickets(experiments[0], tmp_path).values()] == [
        t.hash for t in tickets(experiments[1], tmp_path).values()
    ]


def test_another_sets_statistics_normalise_every_part_and_nothing_else(make):
    plain = inputs.dataset_of(make().dataset)
    seen = inputs.as_seen(make().dataset, ("cifar100-normalised",))
    for part in ("train", "validation", "test"):
        assert (getattr(seen, part).mean, getattr(seen, part).std) == CIFAR100_STATISTICS
        assert torch.equal(getattr(seen, part).images, getattr(plain, part).images)
    assert inputs.as_seen(make().dataset, None) == plain and seen.validation is not seen.test


@pytest.mark.parametrize("choice", ["best-epoch", "statistics-kept", "all-counted", "cifar100-normalised"])
def test_with_a_switch_a_resumed_run_ends_with_the_same_bytes(make, tmp_path, choice):
    experiment = make(choice)
    cc.run(experiment, tmp_path / "whole", device="cpu")
    finder = cc.rounds(experiment, tmp_path / "pieces", device="cpu")
    for _ in range(3):
        next(finder)
    finder.close()
    cc.run(experiment, tmp_path / "pieces", device="cpu")
    read = lambda place: {p.name: p.read_bytes() for p in (place / experiment.hash).glob("round-*")}
    assert read(tmp_path / "whole") == read(tmp_path / "pieces") and len(read(tmp_path / "whole")) > 3
    curves = [
        [r["curves"] for r in read_records(experiment, tmp_path / n) if r["kind"] == "round"]
        for n in ("whole", "pieces")
    ]
    assert curves[0] == curves[1]
