"""Dual tickets: the pull against autograd, a scalar recursion and PyTorch's weight decay; the sets; the whole way."""

import math

import pytest
import torch

import colt_core as cc
from colt_core import masks
from colt_core.methods.dual import DualOptions, _kept, _part_way
from colt_core.studies.teachers import head_of, lesson
from colt_core.training.pull import Pull, reach, remains


class Silent(Pull):
    """The pull alone: a loss without a slope."""

    def loss(self, network, pixels, labels):
        loss, right = super().loss(network, pixels, labels)
        return 0 * loss, right


def half_of(network, share=0.5):
    rng = torch.Generator().manual_seed(0)
    weights = dict(network.named_parameters())
    return {name: torch.rand(weights[name].shape, generator=rng) < share for name in cc.prunable(network)}


# --- the pull ----------------------------------------------------------------------------------------------------


def test_lambda_rises_by_equal_steps_from_the_first_and_stays_at_one():
    pull = Pull({}, 1000)
    assert [pull.strength(step) for step in (0, 1, 499, 998, 999, 1000, 10**6)] == [0.001, 0.002, 0.5, 0.999, 1, 1, 1]


def test_what_is_added_is_the_gradient_of_the_penalty_and_nothing_elsewhere():
    network = cc.build("conv3", 10, 0, width=4).double()
    chosen = half_of(network)
    network.zero_grad()
    for p in network.parameters():
        p.grad = torch.zeros_like(p)
    pull = Pull(chosen, 10)
    pull.pull(network, 3)
    penalty = sum(0.4 / 2 * (network.get_parameter(n)[s] ** 2).sum() for n, s in chosen.items())
    wanted = torch.autograd.grad(penalty, [network.get_parameter(n) for n in chosen])
    for (name, there), gradient in zip(chosen.items(), wanted, strict=True):
        found = network.get_parameter(name).grad
        assert torch.allclose(found, gradient, rtol=1e-12) and not found[~there].any()
    others = [p.grad for n, p in network.named_parameters() if n not in chosen]
    assert len(others) > 3 and not any(g.any() for g in others), "stem's normalisation, biases and head are left alone"


def test_where_nothing_is_chosen_it_is_ordinary_training_to_the_bit(few, recipe):
    recipe = recipe.changed(optimizer="sgd")
    one, other = (cc.build("conv3", 10, 0, width=4) for _ in "12")
    none = {name: torch.zeros_like(s) for name, s in half_of(one).items()}
    cc.train(one, few.train, recipe, device="cpu")
    cc.train(other, few.train, recipe, device="cpu", objective=Pull(none, 5))
    assert all(torch.equal(v, other.state_dict()[k]) for k, v in one.state_dict().items())


def test_without_the_loss_weights_follow_the_scalar_recursion(few):
    recipe = cc.Recipe(epochs=3, batch_size=24, learning_rate=0.02, schedule="constant", warmup=0, weight_decay=1e-3)
    network = cc.build("conv3", 10, 0, width=4)
    chosen, before = half_of(network), {n: p.detach().clone() for n, p in network.named_parameters()}
    cc.train(network, few.train, recipe, device="cpu", objective=Silent(chosen, 6))
    for name, there in chosen.items():
        for pulled in (True, False):
            w, v = 1.0, 0.0
            for step in range(15):
                v = 0.9 * v + ((min(1, (step + 1) / 6) if pulled else 0) + 1e-3) * w
                w -= 0.02 * v
            pick = there if pulled else ~there
            found = network.get_parameter(name).detach()[pick]
            assert torch.allclose(found, before[name][pick] * w, rtol=1e-5, atol=1e-7)


def test_what_remains_is_what_a_pulled_weight_comes_to_and_many_steps_are_the_exponential():
    weight = torch.nn.Parameter(torch.ones(()))
    sgd = torch.optim.SGD([weight], lr=0.05, momentum=0.9)
    for step in range(40):
        weight.grad = Pull({}, 22).strength(step) * weight.detach()
        sgd.step()
    assert remains(0.05, 0.9, 22, 18) == pytest.approx(abs(weight.item()), rel=1e-5)
    slow = (1e-5, 0.9, 40_000, 40_000)
    assert remains(*slow) == pytest.approx(math.exp(-reach(*slow)), rel=0.01)


def test_on_a_whole_tensor_it_is_pytorchs_weight_decay(few):
    recipe = cc.Recipe(epochs=2, batch_size=24, learning_rate=0.05, schedule="constant", warmup=0, weight_decay=0.0)
    network, plain = (cc.build("conv3", 10, 0, width=4) for _ in "12")
    chosen = {name: torch.ones_like(s) for name, s in half_of(network).items()}
    cc.train(network, few.train, recipe, device="cpu", objective=Silent(chosen, 1))
    groups = [{"params": [plain.get_parameter(name)], "weight_decay": 1.0} for name in chosen]
    sgd = torch.optim.SGD(groups, lr=0.05, momentum=0.9)
    for _ in range(10):
        for name in chosen:
            plain.get_parameter(name).grad = torch.zeros_like(plain.get_parameter(name))
        sgd.step()
    for name in chosen:
        assert torch.allclose(network.get_parameter(name), plain.get_parameter(name), rtol=1e-4, atol=1e-8)


def test_the_scaling_law_foretells_what_is_left():
    def left(ramp, hold, rate=1e-3):
        w, v = 1.0, 0.0
        for step in range(ramp + hold):
            v = 0.9 * v + (min(1, (step + 1) / ramp) + 5e-4) * w
            w -= rate * v
        return abs(w)

    assert left(1000, 500) == pytest.approx(1.9e-5, rel=0.2) and left(500, 250) == pytest.approx(4.6e-3, rel=0.2)
    assert abs(math.log(left(1000, 500)) + reach(1e-3, 0.9, 1000, 500)) < 1, "to a factor of e"
    ramp, hold, rate = DualOptions().schedule()
    assert (ramp, hold) == (833, 667) and rate == pytest.approx(1e-3, rel=0.1) and left(ramp, hold, rate) < 1e-4


def test_adam_is_refused_for_it_divides_a_pull_away(few):
    recipe, network = cc.Recipe(epochs=1, batch_size=24, optimizer="adam"), cc.build("conv3", 10, 0, width=4)
    with pytest.raises(ValueError, match="the optimizer sgd alone"):
        cc.train(network, few.train, recipe, device="cpu", objective=Pull(half_of(network), 5))


# --- the sets ----------------------------------------------------------------------------------------------------


def test_sets_of_cycles_nest_and_end_where_they_should():
    network = cc.build("conv3", 10, 0, width=8)
    dense = masks.dense(dict(network.named_parameters()), cc.prunable(network))
    goal = masks.random_like(masks.magnitude(dict(network.named_parameters()), dense, 0.8), torch.Generator())
    parts = [_part_way(dense, goal, c / 5, 3) for c in range(6)]
    for name, kept in goal.items():
        shares = [1 - float(part[name].float().mean()) for part in parts]
        ratio = 1 - float(kept.float().mean())
        assert shares == pytest.approx([1 - (1 - ratio) ** (c / 5) for c in range(6)], abs=1 / kept.numel())
        for earlier, later in zip(parts, parts[1:], strict=False):
            assert not (later[name] & ~earlier[name]).any()
        assert torch.equal(parts[5][name], kept) and parts[0][name].all()


# --- the whole way -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def base():
    recipe = cc.Recipe.named("mini").changed(epochs=1, batch_size=64)
    own = {"dataset": "cifar10-mini@16:0-3", "network": "conv3", "network_args": {"width": 4}, "recipe": recipe}
    return own | {"densities": (0.5, 0.2), "method": "dual", "scores": None}


@pytest.fixture(scope="module")
def found(base, tmp_path_factory):
    store = tmp_path_factory.mktemp("dual")
    own = {"steps": 120}
    arms = {"random": {}, "smallest": {"chosen": "smallest"}, "colt": {"chosen": "colt"}}
    arms["cycles"] = {"cycles": 2, "steps": 240}
    arms |= {
        "complement": {"chosen": "colt", "complement": True},
        "plain": {"control": "plain"},
        "cut": {"control": "cut"},
        "none": {"control": "untransformed"},
        "like_colt": {"chosen": "like_colt"},
    }
    jobs = {name: cc.Experiment(**base, options=own | more) for name, more in arms.items()}
    return jobs, store, {name: list(cc.rounds(job, store, device="cpu")) for name, job in jobs.items()}


def test_every_density_has_a_transformation_and_a_theta0_of_its_own(found):
    jobs, _, rounds = found
    start, half, fifth = rounds["random"]
    assert jobs["random"].reference() is None, "the paper's needs no search"
    for one, density in ((half, 0.5), (fifth, 0.2)):
        for name, kept in one.ticket.mask.items():
            assert int((~kept).sum()) == min(math.ceil((1 - density) * kept.numel() - 1e-9), kept.numel() - 1)
            assert not one.ticket.theta0[name][~kept].any(), "theta0 is the transformed network, cut"
            assert not torch.equal(one.ticket.theta0[name], start.ticket.theta0[name])
        assert one.cost.images == pytest.approx(120 * 64, rel=0.05) and not one.accuracies
        assert one.measures.keys() == {"left", "before", "after"} and 0 < one.measures["left"] < 1
    assert all((kept <= half.ticket.mask[name]).all() for name, kept in fifth.ticket.mask.items())
    assert not torch.equal(half.ticket.theta0["head.weight"], start.ticket.theta0["head.weight"]), "its head has learnt"


def test_masks_are_the_ones_that_were_asked_for(base, found):
    jobs, store, rounds = found
    colt = list(cc.rounds(jobs["colt"].reference(), store, device="cpu"))
    assert jobs["colt"].reference().method == "colt"
    for own, other, there in zip(rounds["colt"][1:], rounds["complement"][1:], colt[1:], strict=True):
        for name, kept in there.ticket.mask.items():
            assert torch.equal(own.ticket.mask[name], kept) and torch.equal(other.ticket.mask[name], ~kept)
    theta0 = rounds["smallest"][0].ticket.theta0
    for name, kept in rounds["smallest"][1].ticket.mask.items():
        assert theta0[name][~kept].abs().max() <= theta0[name][kept].abs().min()
    for name in ("plain", "cut", "cycles"):
        same = rounds[name][1].ticket.mask
        assert all(torch.equal(kept, same[n]) for n, kept in rounds["random"][1].ticket.mask.items())
        assert rounds[name][1].ticket.hash != rounds["random"][1].ticket.hash


def test_masks_as_they_are_take_no_step_and_those_with_colts_layers_are_others(found):
    _, _, rounds = found
    start = rounds["none"][0].ticket
    for bare, drawn in zip(rounds["none"][1:], rounds["random"][1:], strict=True):
        assert all(torch.equal(kept, drawn.ticket.mask[name]) for name, kept in bare.ticket.mask.items())
        assert all(torch.equal(value, start.theta0[name]) for name, value in bare.ticket.theta0.items())
        assert bare.cost.images == 0 and not bare.measures
    for like, own in zip(rounds["like_colt"][1:], rounds["colt"][1:], strict=True):
        for name, kept in own.ticket.mask.items():
            assert like.ticket.mask[name].sum() == kept.sum() and not torch.equal(like.ticket.mask[name], kept)


def test_a_mask_that_was_searched_for_costs_its_search_and_a_plan_counts_each_transformation(base, found, tmp_path):
    jobs, store, rounds = found
    search = list(cc.rounds(jobs["colt"].reference(), store, device="cpu"))
    own = rounds["random"][1].cost.images
    for name in ("colt", "complement", "like_colt"):
        assert [r.cost.images for r in rounds[name][1:]] == [own + r.cost.images for r in search[1:]]
    planned = cc.plan(jobs["random"], tmp_path, "cpu").image_epochs
    assert planned == (2 * 120 * 64,) * 2 and cc.plan(jobs["none"], tmp_path, "cpu").image_epochs == (0, 0)


def test_pulled_weights_are_small_before_the_cut(few):
    """A hundredth of the largest, as the paper's 90,000 steps leave, hundreds do not reach: "left" says how far."""
    ramp, hold, rate = DualOptions(steps=200).schedule()
    network = cc.build("conv3", 10, 0, width=8)
    chosen = half_of(network)
    recipe = cc.Recipe(epochs=40, batch_size=24, learning_rate=rate, schedule="constant", warmup=0)
    assert recipe.total(len(few.train)) == ramp + hold
    cc.train(network, few.train, recipe, device="cpu", objective=Pull(chosen, ramp))
    for name, there in chosen.items():
        weight = network.get_parameter(name).detach().abs()
        assert weight[there].mean() < 0.15 * weight[~there].mean(), "what is left is the loss's slope over lambda"


def test_the_scored_network_is_the_transformed_one(base, found, tmp_path):
    jobs, *_ = found
    job = jobs["random"].changed(scores=(0.5,), scoring={"head": "own"})
    frame = cc.run(job, tmp_path, device="cpu")
    score = frame[frame["kind"] == "score"].iloc[0]
    ticket = list(cc.rounds(job, tmp_path, device="cpu"))[1].ticket
    again = cc.evaluate(ticket, cc.load(job.dataset), job.recipe, job.seed, device="cpu", head="own")
    assert score["accuracy"] == again.value
    assert cc.evaluate(ticket, cc.load(job.dataset), job.recipe, job.seed, device="cpu").value == again.value
    small = ticket.compact()
    assert not small.scored_anew(4) and torch.equal(small.theta0["head.bias"], ticket.theta0["head.bias"])
    assert ticket.redraw(1).scored_anew(4) and ticket.redraw(1).mask == ticket.mask, "what it drew is no learnt head"
    elsewhere = job.changed(dataset="cifar10-mini@16:4-7", score_on=job.dataset, scoring=None)
    assert (head_of(elsewhere, ticket), head_of(job.changed(scoring=None), ticket)) == ("fresh", None)
    taught = job.changed(scoring={"objective": {"name": "kd", "teacher": "self"}, "head": "own"})
    for how, head in ((taught, "own"), (taught.changed(scoring={"head": "fresh"}), "fresh")):
        network, _ = lesson("self", how, cc.load(job.dataset), 1, ticket)
        assert torch.equal(network.head.weight, ticket.theta0["head.weight"]) == (head == "own"), "as it is scored"
    anew = cc.evaluate(ticket, cc.load(job.dataset), job.recipe, job.seed, device="cpu", head="fresh")
    assert anew.curve != again.curve and not ticket.scored_anew(4) and ticket.scored_anew(3), "of other classes"
    assert cc.Ticket.load(ticket.save(tmp_path / "dual.safetensors")).hash == ticket.hash
    assert all(one.ticket.scored_anew(4) for one in found[2]["none"]), "no step was taken: its head is theta0's"


@pytest.mark.parametrize("steps", [130, 150, 400, 1500])
def test_the_rate_that_is_advised_is_one_that_ends(steps):
    with pytest.raises(ValueError, match="shrink a weight by exp") as refused:
        DualOptions(steps=steps, learning_rate=1e-6)
    advised = float(str(refused.value).split(": take ")[1].split(", or more steps")[0])
    assert DualOptions(steps=steps, learning_rate=advised).schedule()[2] == advised


def test_mistakes_are_one_line(base, tmp_path):
    for options, told in (
        (
            {"steps": 40, "learning_rate": 1e-3},
            r"learning rate 0.001 shrink a weight by exp\(-0.3\) only: take more steps",
        ),
        ({"steps": 100}, "100 steps at learning rate 0.014 leave 0.004 of a weight: take more steps"),
        ({"steps": 120, "learning_rate": 0.5}, "of a weight: take more steps"),  # swings past zero for too long
        ({"steps": 1500, "learning_rate": 100.0}, "leave nan of a weight: take a lower learning rate"),
        ({"steps": 500, "cycles": 5}, "100 steps"),
        ({"steps": 1}, "steps"),
        ({"chosen": "best"}, "chosen"),
        ({"cycles": 0}, "cycles"),
    ):
        with pytest.raises(ValueError, match=f"^[^\n]*{told}[^\n]*$"):
            cc.Experiment(**base, options=options)  # so a plan and a study tell it before anything is trained
    taught = cc.Experiment(**base, options={"steps": 120}, objective={"name": "kd"})
    with pytest.raises(ValueError, match="by cross-entropy alone: give another objective to scoring"):
        cc.run(taught, tmp_path, device="cpu")
    for fields, told in (
        ({"early_bird": {"delta": 0.9}}, "early bird does not go with dual tickets"),
        ({"official": ["best-epoch"]}, "best epoch does not go with dual tickets"),
        ({"scope": "layer"}, "scope says nothing of them"),
    ):
        with pytest.raises(ValueError, match=told):
            cc.run(cc.Experiment(**base, options={"steps": 120}, **fields), tmp_path, device="cpu")
    assert not list(tmp_path.iterdir()), "nothing was begun"
    with pytest.raises(ValueError, match="ramp must be a whole number of steps from 1, not 0"):
        Pull({}, 0)
    search = cc.Ticket.of(cc.build("conv3", 10, 0, width=4))
    whole = {name: torch.zeros_like(kept) for name, kept in search.mask.items()} | {
        "conv1.weight": search.mask["conv1.weight"]
    }
    own = DualOptions(chosen="colt", complement=True)
    with pytest.raises(
        ValueError, match="keeps all of conv1, so its complement would leave that layer without a weight"
    ):
        _kept(own, search, 0.5, cc.Round(1, search.derived(mask=whole)), 0)


def test_a_complement_without_a_layer_is_found_once_and_told_as_a_failure(base, tmp_path, monkeypatch):
    def refused(*_):
        raise ValueError("the mask keeps all of conv1")

    monkeypatch.setattr("colt_core.methods.dual._kept", refused)
    job = cc.Experiment(**base, options={"steps": 120, "complement": True})
    cc.study([job], tmp_path, device="cpu", workers=1)
    assert list(cc.status([job], tmp_path)["state"]) == ["failed"]
