"""Variants of COLT, trajectories of density, other recipes while finding: against the same by hand."""

import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import colt_core as cc
from colt_core import masks
from colt_core.compute.copies import train_side_by_side
from colt_core.data.augmentation import normalise
from colt_core.methods.averaged import average
from colt_core.methods.bound import lower_bound
from colt_core.methods.crossfit import saliency
from colt_core.seeding import derive
from colt_core.studies.experiment import counts_as
from colt_core.training import Training
from colt_core.training.saliency import sample

DENSITIES = (0.5, 0.25)
QUICK = {"epochs": 2, "batch_size": 250, "crop": 0, "flip": False, "rotation": 0.0, "warmup": 0.5}
BASE = {"dataset": "cifar10-mini:0-1", "network": "conv3", "network_args": {"width": 4}, "recipe": QUICK}
BASE |= {"by": "random", "seed": 3}
COPIES = ("colt", "union", "consensus", "soup", "averaged", "displacement", "bound", "crossfit")


def experiment(method, **fields):
    return cc.Experiment(**({"densities": DENSITIES, "scores": None} | BASE | fields), method=method)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tmp_path_factory.mktemp("store")


def rounds(store, method, **fields):
    return list(cc.rounds(experiment(method, **fields), store, "cpu"))


def equal(a, b):
    return list(a) == list(b) and all(torch.equal(a[n], b[n]) for n in a)


@pytest.fixture
def two(few):
    return cc.partition(few.train, 2, "random")


def trained(network, parts, recipe, seed=0, number=1, starts=None, **how):
    """The copies of a round, trained by hand: in this process, without the loop."""
    ticket = cc.Ticket.of(network)
    copies = [ticket.model() for _ in parts]
    for copy in copies if starts else []:
        copy.load_state_dict(starts)
    for i, (copy, part) in enumerate(zip(copies, parts, strict=True)):
        train = {"mask": ticket.mask, "seed": derive(seed, "train", number, i), "device": "cpu"} | how
        cc.train(copy, part, recipe, **train)
    return copies


def mean(copies, name):
    return torch.stack([copy.get_parameter(name).detach().double() for copy in copies]).mean(0)


# --- trajectories of density ---


@pytest.mark.parametrize("method", [*COPIES, "matched", "imp", "oneshot", "initial", "random", "vote"])
def test_every_method_goes_by_the_densities_that_an_experiment_names(store, method):
    found = rounds(store, method)
    size = masks.size(found[0].ticket.mask)
    for one, density in zip(found[1:], DENSITIES, strict=True):
        off = abs(masks.count(one.ticket.mask) - density * size)
        # Copies that are combined lose weights together, so that a few more or fewer may be left.
        assert off <= (4 if method in ("colt", "union", "vote", "random") else 0.5)


def test_who_needs_densities_alone_waits_for_nobody_where_they_are_named(store):
    for method in ("matched", "union", "consensus", "oneshot", "initial", "soup", "averaged", "snip"):
        assert experiment(method).reference() is None
        assert cc.Experiment(**BASE, method=method).reference().method == "colt"
    assert experiment("random").reference().method == "colt"
    layers = experiment("random", layers_of="matched")
    assert layers.reference().method == "matched" and layers.reference().hash == experiment("matched").hash
    own, other = rounds(store, "random", layers_of="matched"), rounds(store, "matched")
    counts = lambda one: [int(kept.count_nonzero()) for kept in one.ticket.mask.values()]
    assert [counts(one) for one in own] == [counts(one) for one in other]
    assert not equal(own[-1].ticket.mask, other[-1].ticket.mask)


def test_scores_are_taken_where_no_whole_number_of_weights_is_that_share(tmp_path):
    thirds = experiment("colt", densities=(1 / 3, 1 / 9), scores=[0.6666, 1 - 1 / 9])
    records = cc.run(thirds, tmp_path, "cpu")
    scores = records[records["kind"] == "score"]
    assert list(scores["round"]) == [1, 2]
    table = cc.report.at_sparsities(records, thirds.scores)
    assert list(table["round"]) == [1, 2] and list(table["at"]) == list(thirds.scores)
    again = cc.run(thirds, tmp_path, "cpu")
    assert len(again) == len(records)


@given(st.floats(0.01, 0.99), st.floats(0.01, 0.99))
def test_a_round_counts_as_what_it_was_to_be_cut_to_only_where_it_is_near(density, wanted):
    counted = counts_as(1, density, [wanted])
    assert counted in (1 - density, 1 - wanted)
    assert abs(counted - (1 - density)) <= 0.011 * wanted
    assert counts_as(1, density, None) == counts_as(2, density, [wanted]) == 1 - density


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"densities": [0.5, 0.6]}, "densities must fall from one round to the next: 0.6 follows 0.5"),
        ({"densities": [1.0, 0.5]}, "densities must be falling numbers strictly between 0 and 1, not 1.0"),
        ({"densities": []}, "densities must be a list of falling numbers"),
        ({"densities": "half"}, "densities must be a list of falling numbers, not 'half'"),
        ({"densities": [0.5], "target": 0.9}, "densities end at a sparsity of 0.5: leave the target 0.9 out"),
        ({"finding": 3}, "finding must be a mapping of what it changes of the recipe, not 3"),
        ({"finding": {"speed": 1}}, "unknown key 'speed'"),
        ({"finding": {"epochs": 0}}, "epochs: Input should be greater than 0"),
        ({"finding": {"epochs": "many"}}, "epochs: must be a number, not 'many'"),
        ({"recipe": {"epochs": True}}, "epochs: must be a number, not True"),
        ({"method": "random", "layers_of": "grass"}, "layers_of"),
        ({"method": "matched", "part": -1}, "part"),
        ({"method": "bound", "spread": -1}, "spread"),
        ({"method": "displacement", "gain": 0}, "gain"),
    ],
)
def test_mistakes_in_them_are_one_line(fields, message):
    with pytest.raises(ValueError, match="^[^\n]*$") as problem:
        cc.Experiment(**({"method": "colt"} | fields))
    assert message in str(problem.value)


def test_a_partition_that_is_not_there_is_refused_before_any_training(tmp_path, monkeypatch):
    monkeypatch.setattr("colt_core.training.loop.Trainer.epoch", lambda *_: pytest.fail("a training was begun"))
    with pytest.raises(ValueError, match=r"part must lie in 0\.\.1, the partitions, not 2"):
        cc.run(experiment("matched", part=2), tmp_path, "cpu")


# --- another recipe while finding ---


def test_finding_has_its_own_recipe_and_scoring_keeps_to_the_experiments(store, tmp_path):
    longer = {**QUICK, "epochs": 3, "warmup": 1.0}
    found = rounds(store, "colt", finding={"epochs": 3, "warmup": 1.0, "crop": 0})
    plain = rounds(store, "colt", recipe=longer)
    assert [a.ticket.hash for a in found] == [b.ticket.hash for b in plain]
    assert experiment("colt", finding={"epochs": 2}).hash == experiment("colt").hash, "what changes nothing is left out"
    scored = experiment("colt", finding={"epochs": 3}, scores=[0.5])
    records = cc.run(scored, tmp_path, "cpu")
    score = records[records["kind"] == "score"].iloc[0]
    assert score["score_image_epochs"] == 2 * score["train_images"]
    assert json.loads(score["finding"]) == {"epochs": 3}
    both = cc.report.arms(cc.study([scored, experiment("colt", scores=[0.5])], tmp_path, "cpu", workers=1))
    assert set(both["arm"]) == {"colt", "colt (finding epochs 3)"}
    other = experiment("colt", densities=None, scores=[0.5], target=0.5, rate=0.5)
    named = cc.report.arms(cc.study([other, experiment("colt", scores=[0.5])], tmp_path, "cpu", workers=1))
    assert set(named["arm"]) == {"colt (rate 0.5, target 0.5)", "colt (densities 0.5 0.25)"}


def test_a_fraction_of_an_epoch_is_its_first_steps(few, network, recipe):
    one, two = (cc.Ticket.of(network).model() for _ in range(2))
    constant = recipe.changed(schedule="constant", warmup=0.0, epochs=2)
    history = cc.train(one, few.train, constant.changed(epochs=1.5), seed=1, device="cpu")
    cc.train(two, few.train, constant, seed=1, steps=8, device="cpu")  # 5 steps an epoch, 7.5 are 8
    assert history.steps == 8 and len(history.epochs) == 2 and history.images == 120 + 3 * 24
    assert equal(one.state_dict(), two.state_dict())
    assert constant.changed(epochs=1.0).epochs == 1 and "1.0" not in constant.changed(epochs=1.0).model_dump_json()


@given(
    st.integers(1, 50), st.integers(2, 8), st.sampled_from(["cosine", "step", "constant"]), st.floats(0, 2),
    st.integers(1, 40),
)  # fmt: skip
@settings(max_examples=50)
def test_a_shortened_recipe_has_the_same_rates_step_by_step(epochs, times, schedule, warmup, steps):
    recipe = cc.Recipe(epochs=epochs, schedule=schedule, warmup=warmup, milestones=(2, 5))
    short = recipe.shortened(times)
    for step in range(0, epochs * steps, max(1, epochs * steps // 40)):
        # A P-th of the epochs, of P times as many steps each.
        assert short.rate_at(step, times * steps) == pytest.approx(recipe.rate_at(step, steps), rel=1e-9, abs=1e-12)


# --- IMP on one partition, theta0 by magnitude ---


def test_imp_on_one_partition_never_sees_the_others(store):
    data = cc.load(BASE["dataset"])
    half = rounds(store, "matched", part=1)
    network = cc.build("conv3", 2, seed=3, width=4)
    alone = cc.partition(data.train, 2, "random", 3)[1]
    recipe = cc.Recipe(**QUICK)
    by_hand = list(cc.imp(network, alone, recipe, densities=list(DENSITIES), seed=3, device="cpu"))
    assert [equal(a.ticket.mask, b.ticket.mask) for a, b in zip(half, by_hand, strict=True)] == [True] * 3
    assert half[-1].image_epochs == 2 * 2 * len(alone)


def test_initial_is_theta0_by_its_own_magnitude_and_trains_nothing(few, network, recipe, monkeypatch):
    monkeypatch.setattr("colt_core.training.loop.Trainer.epoch", lambda *_: pytest.fail("a training was begun"))
    found = list(cc.initial(network, few.train, recipe, [0.5, 0.1], device="cpu"))
    flat = torch.cat([network.get_parameter(n).detach().abs().flatten() for n in found[0].ticket.mask])
    for one in found[1:]:
        kept = torch.cat([mask.flatten() for mask in one.ticket.mask.values()])
        assert flat[kept].min() >= flat[~kept].max() and one.cost.images == one.cost.steps == 0
    assert [round(one.density, 3) for one in found] == [1, 0.5, 0.1]


# --- the variants, a round by hand ---


def test_soup_without_a_shared_beginning_cuts_the_copies_signed_mean(few, network, recipe, two):
    found = list(cc.soup(network, two, recipe, rate=0.4, target=0.3, warm=0, device="cpu"))
    copies = trained(network, two, recipe)
    means = {name: mean(copies, name) for name in found[0].ticket.mask}
    assert equal(found[1].ticket.mask, masks.magnitude(means, found[0].ticket.mask, 0.4))


def test_soup_shares_the_first_quarter_of_its_steps(few, network, recipe, two):
    longer = recipe.changed(epochs=4)
    found = list(cc.soup(network, two, longer, rate=0.4, target=0.3, whole=few.train, device="cpu"))
    steps = 4 * math.ceil(60 / 24) // 4
    shared = cc.Ticket.of(network).model()
    seed = derive(0, "together", 1)
    cc.train(
        shared, few.train, longer.shortened(5 / 3), mask=found[0].ticket.mask, steps=steps, seed=seed, device="cpu"
    )
    copies = trained(network, two, longer, starts=shared.state_dict(), first_step=steps)
    means = {name: mean(copies, name) for name in found[0].ticket.mask}
    assert equal(found[1].ticket.mask, masks.magnitude(means, found[0].ticket.mask, 0.4))
    assert found[1].cost.steps == 4 * 3, "shared or not, as many steps one after the other as a copy takes"
    assert len(found[1].partition_masks) == 2


def test_copies_averaged_once_are_a_soup_and_go_on_from_the_average(few, network, recipe, two):
    once = list(cc.averaged(network, two, recipe, rate=0.4, target=0.3, device="cpu"))
    alone = list(cc.soup(network, two, recipe, rate=0.4, target=0.3, warm=0, device="cpu"))
    assert equal(once[1].ticket.mask, alone[1].ticket.mask)
    twice = list(cc.averaged(network, two, recipe.changed(epochs=2), rate=0.4, target=0.3, device="cpu"))
    ticket, longer = cc.Ticket.of(network), recipe.changed(epochs=2)
    copies = [ticket.model() for _ in two]
    for epoch in range(2):
        trainings = [
            Training(part, longer, ticket.mask, seed=derive(0, "train", 1, i), first_step=3 * epoch, steps=3)
            for i, part in enumerate(two)
        ]
        train_side_by_side(copies, trainings, device="cpu", workers=1)
        mine = {name: value.clone() for name, value in copies[0].state_dict().items()}
        for name, value in copies[1].state_dict().items():
            if value.is_floating_point():
                mine[name] = ((mine[name].double() + value.double()) / 2).float()
        for copy in copies:
            copy.load_state_dict(mine)
    kept = masks.magnitude(dict(copies[0].named_parameters()), ticket.mask, 0.4)
    assert equal(twice[1].ticket.mask, kept)
    assert len(twice[1].curves[0]) == 2 and twice[1].cost.images == 240 and twice[1].cost.steps == 6


def test_copies_of_other_classes_are_averaged_but_for_their_heads():
    a, b = (cc.build("conv3", 5, seed=s, width=4) for s in (1, 2))
    before = {k: v.clone() for k, v in b.state_dict().items()}
    average([a, b], "head.")
    names = list(before)
    assert torch.equal(b.state_dict()["head.weight"], before["head.weight"])
    shared = [n for n in names if not n.startswith("head.") and before[n].is_floating_point()]
    assert len(shared) > 6 and all(torch.equal(a.state_dict()[n], b.state_dict()[n]) for n in shared)


@pytest.mark.parametrize("gain", [None, 1.0, 4.0])
def test_displacement_adds_the_copies_ways_up(few, network, recipe, two, gain):
    found = list(cc.displacement(network, two, recipe, rate=0.4, target=0.3, gain=gain, device="cpu"))
    copies, theta0 = trained(network, two, recipe), found[0].ticket.theta0
    led = {}
    for name in found[0].ticket.mask:
        ways = sum(copy.get_parameter(name).detach().double() - theta0[name].double() for copy in copies)
        led[name] = theta0[name].double() + (gain or 2.0) / 2 * ways
    kept = masks.magnitude(led, found[0].ticket.mask, 0.4)
    differs = sum(int((kept[n] ^ m).count_nonzero()) for n, m in found[1].ticket.mask.items())
    assert differs <= 2, "but for the rounding of a sum taken in another order"


def test_displacement_of_one_partition_with_gain_one_is_imp(few, network, recipe):
    own = list(cc.displacement(network, [few.train], recipe, rate=0.4, target=0.5, gain=1, device="cpu"))
    imp = list(cc.imp(network, few.train, recipe, rate=0.4, target=0.5, device="cpu"))
    same = [equal(a.ticket.mask, b.ticket.mask) for a, b in zip(own, imp, strict=True)]
    assert same == [True] * len(imp)


def test_bound_is_the_mean_less_so_many_deviations(network):
    copies = [cc.build("conv3", 10, seed=s, width=4) for s in (1, 2, 3)]
    mask, theta0 = cc.Ticket.of(network).mask, cc.Ticket.of(network).theta0
    for name in mask:
        several = torch.stack([copy.get_parameter(name).detach().double() for copy in copies])
        growth = several.abs() - theta0[name].double().abs()
        most = several.sign().sum(0).sign()
        signed = torch.where(several.sign() == most, several.abs(), -several.abs())
        for of, values in (("growth", growth), ("magnitude", several.abs()), ("signed", signed)):
            centre = values.sum(0) / 3
            deviation = ((values - centre).square().sum(0) / 2).sqrt()
            for spread in (0.0, 1.5):
                found = lower_bound(copies, theta0, mask, of, spread)[name]
                assert torch.allclose(found, centre - spread * deviation, atol=1e-12), (of, spread)


def test_crossfit_judges_each_copy_by_the_others_images(few, network, two):
    copies = [cc.build("conv3", 10, seed=s, width=4) for s in (1, 2)]
    mask, looked = cc.Ticket.of(network).mask, [sample(part, 0, 2) for part in two]
    expected = {name: torch.zeros_like(kept, dtype=torch.float64) for name, kept in mask.items()}
    for copy, images in zip(copies, reversed(looked), strict=True):
        double = cc.Ticket.of(copy).model().double().train()
        pixels = normalise(images.images, images.mean, images.std).double()
        nn.functional.cross_entropy(double(pixels), images.labels).backward()
        for name in mask:
            weight = double.get_parameter(name)
            expected[name] += (weight * weight.grad).abs().detach()
    found = saliency(copies, looked, mask)
    assert all(torch.allclose(found[name], expected[name], rtol=1e-6, atol=1e-12) for name in mask)


@pytest.mark.parametrize("finder", ["averaged", "soup"])
def test_what_watches_whole_trainings_is_refused(few, network, recipe, two, finder, monkeypatch):
    monkeypatch.setattr("colt_core.training.loop.Trainer.epoch", lambda *_: pytest.fail("a training was begun"))
    with pytest.raises(ValueError, match="early bird does not go with copies that"):
        getattr(cc, finder)(network, two, recipe, early_bird=cc.EarlyBird(), whole=few.train)
    with pytest.raises(ValueError, match="trainings of 1 steps are too short to begin together"):
        cc.soup(network, two, recipe.changed(epochs=0.2), whole=few.train)
    by_class = cc.partition(few.train, 2)
    for name in ("soup", "crossfit"):
        with pytest.raises(ValueError, match="not partitions by class"):
            getattr(cc, name)(network, by_class, recipe, whole=few.train)


# --- what they cost, and what a kill leaves ---


@pytest.mark.parametrize("method", [*COPIES, "matched", "oneshot", "initial"])
def test_the_plan_tells_the_image_passes_that_are_then_taken(tmp_path, method):
    extra = {"parts": 3, "recipe": {**QUICK, "batch_size": 50}} | ({"part": 1} if method == "matched" else {})
    planned = cc.plan(experiment(method, **extra), tmp_path, "cpu").image_epochs
    spent = rounds(tmp_path, method, **extra)[-1].image_epochs
    assert planned[0] == pytest.approx(planned[1]) and planned[1] == pytest.approx(spent, rel=0.02)


def test_copies_side_by_side_take_a_pth_of_the_sequential_steps(store):
    steps = {method: rounds(store, method)[-1].cost.steps for method in (*COPIES, "matched", "initial")}
    assert steps["initial"] == 0
    for method in COPIES:
        assert steps[method] == pytest.approx(steps["matched"] / 2, abs=4), method


@pytest.mark.parametrize("method", ["soup", "averaged", "displacement", "bound", "crossfit", "matched"])
def test_a_run_that_was_broken_off_goes_on_to_the_same_ticket(store, tmp_path, method, monkeypatch):
    whole = rounds(store, method)
    from colt_core.training.loop import Trainer

    plain, done = Trainer.epoch, []

    def dies(self):
        done.append(self)
        if len(done) == 4:
            raise KeyboardInterrupt
        return plain(self)

    monkeypatch.setattr(Trainer, "epoch", dies)
    monkeypatch.setattr("colt_core.compute.copies.cores", lambda: 1)  # in this process, where it can die
    with pytest.raises(KeyboardInterrupt):
        rounds(tmp_path, method)
    monkeypatch.setattr(Trainer, "epoch", plain)
    again = rounds(tmp_path, method)
    assert [a.ticket.hash for a in again] == [b.ticket.hash for b in whole]


def test_copies_that_all_see_everything_share_steps_of_their_own_schedule(few, network, recipe, monkeypatch):
    from colt_core.methods import soup as _  # noqa: F401  (the function; its module is what is patched)

    seen = []
    real = Training.key
    monkeypatch.setattr(Training, "key", lambda self, *a, **k: seen.append(self) or real(self, *a, **k))
    parts = cc.partition(few.train, 2, "order")
    longer = recipe.changed(epochs=4, schedule="cosine")
    list(
        cc.soup(
            network,
            parts,
            longer,
            rate=0.4,
            target=0.3,
            whole=few.train,
            device="cpu",
            store=cc.open_store("memory://soup"),
        )
    )
    shared, *rest = seen
    assert shared.steps == rest[0].first_step == 5 and shared.recipe.epochs == 4, "as long as a copy's own"
    assert all(copy.end == 20 for copy in rest)


@pytest.mark.parametrize(
    ("method", "fields", "message"),
    [
        ("soup", {"by": "class"}, "not partitions by class"),
        ("soup", {"rewind": 1}, "rewind does not go with"),
        ("crossfit", {"by": "order"}, "not partitions by order"),
        ("averaged", {"official": ["best-epoch"]}, "best epoch does not go with"),
        ("matched", {"part": 5}, "part must lie in 0..1"),
        ("displacement", {"parts": 1000, "by": "random"}, "parts must be at most 540"),
    ],
)
def test_what_a_method_refuses_is_refused_before_the_run_that_it_follows(
    tmp_path, method, fields, message, monkeypatch
):
    monkeypatch.setattr("colt_core.training.loop.Trainer.epoch", lambda *_: pytest.fail("a training was begun"))
    for trajectory in ({"densities": DENSITIES}, {"target": 0.5}):
        one = cc.Experiment(**{**BASE, **trajectory, **fields}, method=method)
        with pytest.raises(ValueError, match="^[^\n]*$") as problem:
            cc.study([one], tmp_path, "cpu", workers=1)
        assert message in str(problem.value) and not list(tmp_path.glob("*/round-*"))


def test_a_control_of_a_control_brings_all_that_it_follows(tmp_path):
    one = cc.Experiment(**BASE, method="random", layers_of="matched", rate=0.5, target=0.6, scores=None)
    assert [e.method for e in one.references()] == ["matched", "colt"]
    planned = cc.plan(one, tmp_path, "cpu")
    assert planned.experiments == 2 and planned.rounds[0] >= 3, "the random mask itself trains nothing"
    cc.study([one], tmp_path, "cpu", workers=1)
    kept = cc.status([one, *one.references()], tmp_path)
    assert list(kept["state"]) == ["done", "done", "done"]


def test_a_trajectory_takes_its_target_along():
    one = cc.Experiment(densities=[0.5, 0.25])
    assert one.changed(densities=[0.3]).target == 0.7 and one.changed(method="imp").target == 0.75
    assert one.changed(densities=None).target == 0.991 and cc.Experiment().changed(densities=(0.5,)).target == 0.5
    assert experiment("soup").hash == experiment("soup", warm=0.25).hash, "a default that is given is the default"


def test_unequal_parts_with_fractions_of_an_epoch_are_averaged_to_the_end(network, mini):
    few = mini.train.take(torch.arange(257))
    parts = [few.take(torch.arange(129)), few.take(torch.arange(129, 257))]
    recipe = cc.Recipe.named("mini").changed(epochs=1.4, batch_size=128)
    found = list(cc.averaged(network, parts, recipe, rate=0.4, target=0.3, device="cpu"))
    assert found[1].cost.images == 129 + 65 + 128, "two and one epochs of two steps and of one, to 1.4 of them"
