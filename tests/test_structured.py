"""Whole channels and dense blocks made of unstructured masks: their laws, and the methods that yield them."""

import itertools
import math
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import colt_core as cc
from colt_core import masks, models
from colt_core.compute.store import open_store
from colt_core.masks.channels import chance_of_sharing
from colt_core.methods import refill_controls
from colt_core.methods.refill_controls import random_channels
from colt_core.methods.structured import filled
from colt_core.studies.records import is_scored


def drawn(seed, shapes=((12, 3, 3, 3), (20, 12, 3, 3), (16, 20)), density=0.4):
    rng = torch.Generator().manual_seed(seed)
    mask = {f"layer{i}.weight": torch.rand(shape, generator=rng) < density for i, shape in enumerate(shapes)}
    for kept in mask.values():
        kept.view(-1)[0] = True
    return mask, {name: torch.randn(kept.shape, generator=rng) for name, kept in mask.items()}


# --- refill ------------------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 999), density=st.floats(0.01, 0.95))
def test_refilled_rows_are_whole_within_the_budget_and_the_best(seed, density):
    mask, weights = drawn(seed, density=density)
    filled = masks.refill(mask, weights)
    for name, kept in filled.items():
        rows, n = kept.flatten(1), kept[0].numel()
        assert ((rows.all(1)) | ~rows.any(1)).all(), "rows are all ones or all zeros"
        budget = int(mask[name].sum())
        assert int(kept.sum()) <= max(budget, n) and (budget - int(kept.sum()) < n)
        scores = (weights[name].abs() * mask[name]).flatten(1).double().sum(1)
        chosen = rows.any(1)
        assert scores[chosen].min() >= scores[~chosen].max() if (~chosen).any() else True
    again = masks.refill(filled, weights)
    assert all(torch.equal(again[name], filled[name]) for name in filled), "it is idempotent"


def test_refill_by_hand_ties_and_refill_plus():
    mask = {"a.weight": torch.tensor([[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 0], [0, 0, 0, 0], [1, 1, 0, 0]]).bool()}
    ones = {"a.weight": torch.ones(5, 4)}
    whole = lambda filled: filled["a.weight"].all(1).nonzero().flatten().tolist()
    assert whole(masks.refill(mask, ones)) == [0, 2], "8 kept of rows of 4: two rows; of equal ones the first"
    assert whole(masks.refill(mask, ones, extra=0.34)) == [0, 2, 4], "2 + 3 * 0.34 = 3.02"
    large = {"a.weight": torch.ones(5, 4).index_fill(0, torch.tensor([1]), 9.0)}
    assert whole(masks.refill(mask, large)) == [1, 2], "magnitudes count, not weights"
    few = {"a.weight": torch.zeros(5, 4).bool().index_put((torch.tensor(3), torch.tensor(1)), torch.tensor(True))}
    assert whole(masks.refill(few, ones)) == [3], "at least one row"


def test_a_dense_mask_stays_as_it_is():
    mask, weights = drawn(0, density=2.0)
    for same in (masks.refill(mask, weights), masks.regroup(mask)):
        assert all(kept.all() for kept in same.values())
    narrower = masks.regroup(mask, rule="paper")
    for name, kept in narrower.items():
        n = kept[0].numel()
        assert masks.density({name: kept}) == (3 * n // 5 + 1) / n, "the paper's rule cuts it to 60 %"


def test_depthwise_convolutions_stay_and_mistakes_are_told():
    mask, weights = drawn(1, ((8, 1, 3, 3), (8, 8)), 0.5)
    for other in (masks.refill(mask, weights), masks.regroup(mask, rows=4)):
        assert torch.equal(other["layer0.weight"], mask["layer0.weight"])
    empty = {"a.weight": torch.zeros(4, 4).bool()}
    for act, told in (
        (lambda: masks.refill(empty, {"a.weight": torch.ones(4, 4)}), "layer a keeps no weight"),
        (lambda: masks.refill(mask, weights, extra=1.0), "extra must lie in 0..1"),
        (lambda: masks.refill(mask, {}), "has no parameter"),
        (lambda: masks.regroup(mask, rule="best"), "unknown rule 'best'; allowed: budget, paper"),
        (lambda: masks.regroup(mask, rows=9), "clusters of 9 rows are larger than layer layer1, of 8"),
        (lambda: masks.regroup(mask, rows=0), "rows must be a whole number from 1"),
    ):
        with pytest.raises(ValueError, match=told):
            act()


# --- regroup -----------------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 999), density=st.floats(0.05, 0.9), rows=st.integers(2, 8))
def test_blocks_are_disjoint_cover_the_mask_and_keep_the_budget(seed, density, rows):
    mask, _ = drawn(seed, density=density)
    found, new = masks.blocks(mask, rows), masks.regroup(mask, rows)
    for name, kept in mask.items():
        own = [block for block in found if block.layer == name]
        covered = torch.zeros(kept.flatten(1).shape, dtype=torch.int)
        for block in own:
            covered[torch.tensor(block.rows)[:, None], torch.tensor(block.columns)] += 1
            before = int(kept.flatten(1)[torch.tensor(block.rows)].sum())
            size = len(block.rows) * len(block.columns)
            assert abs(size - before) <= len(block.rows) / 2 or len(block.columns) == 1
            inside = kept.flatten(1)[torch.tensor(block.rows)][:, torch.tensor(block.columns)]
            assert block.fill == pytest.approx(float(inside.float().mean()))
        assert covered.max() <= 1 and torch.equal(covered.bool(), new[name].flatten(1))
        sizes = [len(block.rows) for block in own]
        assert max(sizes) - min(sizes) <= 1 and sum(sizes) == int(kept.flatten(1).any(1).sum())


@given(seed=st.integers(0, 999))
def test_the_papers_rule_is_the_least_width_that_it_allows(seed):
    mask, _ = drawn(seed, density=0.3)
    for block in masks.blocks(mask, 5, "paper"):
        rows = mask[block.layer].flatten(1)[torch.tensor(block.rows)]
        order = torch.argsort(-rows.sum(0), stable=True)
        fits = lambda i, rows=rows, order=order: all(i > 1.5 * int(row[order[i:]].sum()) for row in rows)
        width = len(block.columns)
        assert fits(width) and not any(fits(i) for i in range(1, width))


def test_rows_of_transposed_convolutions_are_their_output_channels():
    network = cc.build("autoencoder", 10, width=8)
    ticket, rng = cc.Ticket.of(network), torch.Generator().manual_seed(0)
    mask = {name: torch.rand(kept.shape, generator=rng) < 0.4 for name, kept in ticket.mask.items()}
    turned, known = masks.outputs_first(mask, ticket.transposed), {"transposed": ticket.transposed}
    plainly = masks.regroup({name: kept.contiguous() for name, kept in turned.items()}, 3)
    found = masks.outputs_first(masks.regroup(mask, 3, **known), ticket.transposed)
    assert ticket.transposed and all(torch.equal(kept, plainly[name]) for name, kept in found.items())
    assert masks.blocks(mask, 3, **known) == masks.blocks(turned, 3)
    assert any(
        not torch.equal(kept, masks.regroup(mask, 3)[name]) for name, kept in masks.regroup(mask, 3, **known).items()
    )


def test_planted_groups_are_found_whole():
    rng = torch.Generator().manual_seed(3)
    groups = torch.randperm(32, generator=rng) % 4
    kept = torch.zeros(32, 64).bool()
    for row, group in enumerate(groups.tolist()):
        kept[row, 16 * group : 16 * group + 16] = torch.rand(16, generator=rng) < 0.8
    found = {frozenset(cluster.tolist()) for cluster in masks.clusters(kept, 8)}
    assert found == {frozenset((groups == g).nonzero().flatten().tolist()) for g in range(4)}


def test_what_chance_fills_of_a_block_is_more_than_the_density():
    mask, _ = drawn(5, ((64, 32, 3, 3),), 0.33)
    fill = sum(b.fill * len(b.rows) * len(b.columns) for b in masks.blocks(mask))
    fill /= sum(len(b.rows) * len(b.columns) for b in masks.blocks(mask))
    assert 0.45 < fill < 0.57, "0.51 for random masks at density 0.33 and eight rows"


# --- the methods -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "source", "other"), [("refill", "colt", "colt"), ("regroup", "imp", "imp")])
def test_the_search_goes_on_unstructured_and_yields_structured_masks(few, tmp_path, method, source, other, monkeypatch):
    recipe = cc.Recipe.named("mini").changed(epochs=1)
    name = cc.Dataset.of((few.train.images, few.train.labels), (few.test.images, few.test.labels)).named()
    fields = {"dataset": name, "network_args": {"width": 8}, "recipe": recipe, "rate": 0.3, "target": 0.6}
    own = {"options": {"source": source}} | ({"scores": (0.5,)} if method == "refill" else {"scores": None})
    experiment = cc.Experiment(method=method, **fields, **own)
    plain = cc.Experiment(method=other, **fields, scores=None)
    cc.run(experiment, tmp_path, device="cpu")
    with monkeypatch.context() as patch:
        patch.setattr("colt_core.training.loop.Trainer._step", lambda *_: pytest.fail("trained twice"))
        followed = list(cc.rounds(plain, tmp_path, device="cpu"))
    found = list(cc.rounds(experiment, tmp_path, device="cpu"))
    assert [r.number for r in found] == [r.number for r in followed] and len(found) > 2
    for ours, theirs in zip(found[1:], followed[1:], strict=True):
        assert all(torch.equal(kept, theirs.ticket.mask[n]) for n, kept in ours.own.items())
        if method == "regroup":
            expected = masks.regroup(theirs.ticket.mask)
            assert all(torch.equal(kept, expected[n]) for n, kept in ours.ticket.mask.items())
        else:
            assert all(len(kept.flatten(1).float().mean(1).unique()) <= 2 for kept in ours.ticket.mask.values())
            assert len(ours.ticket.compact().mask["conv3.weight"]) < 32
    with pytest.raises(ValueError, match="source"):
        cc.Experiment(method=method, **fields, options={"source": "snip"})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"method": "refill", "network": "toys:branching"}, "the channels of toys:branching cannot be followed"),
        ({"method": "channels", "network": "toys:branching"}, "the channels of toys:branching cannot be followed"),
        ({"method": "regroup", "rows": 99}, "rows must be at most 4, as layer conv1 has, not 99"),
    ],
)
def test_what_cannot_be_reshaped_is_refused_before_any_training(fields, message, tmp_path, monkeypatch):
    monkeypatch.setattr("colt_core.training.loop.Trainer._step", lambda *_: pytest.fail("it was trained"))
    recipe = cc.Recipe.named("mini").changed(epochs=1)
    base = {"dataset": "cifar10-mini@16:0-3", "recipe": recipe, "rate": 0.3, "target": 0.6, "scores": None}
    base |= {"network": "conv3", "network_args": {"width": 4} if "network" not in fields else {}}
    job = cc.Experiment(**base | fields)
    for call in (lambda: cc.run(job, tmp_path, "cpu"), lambda: list(cc.rounds(job, tmp_path, "cpu"))):
        with pytest.raises(ValueError, match=message):
            call()


# --- channels that copies share ----------------------------------------------------------------------------------


def test_shared_channels_agree_with_drawing_them_at_random():
    """The mean is k l / C, of three sets k l m / C^2; the whole distribution is that of 20,000 drawings."""
    rng, count = torch.Generator().manual_seed(0), 16
    for kept in ((7, 9), (5, 8, 12)):
        chances = chance_of_sharing(count, kept)
        assert chances.sum() == pytest.approx(1)
        drawn = torch.zeros(count + 1)
        for _ in range(20_000):
            sets = [set(torch.randperm(count, generator=rng)[:k].tolist()) for k in kept]
            drawn[len(set.intersection(*sets))] += 1
        assert abs(chances - (drawn / 20_000).numpy()).max() < 0.012
        mean = float(chances @ range(count + 1))
        assert mean == pytest.approx(count * math.prod(k / count for k in kept))


def test_shared_channels_of_masks_by_hand_and_mistakes():
    one = {"a.weight": torch.tensor([[1, 1], [0, 1], [0, 0], [0, 0]]).bool()}
    two = {"a.weight": torch.tensor([[1, 1], [0, 0], [1, 0], [0, 0]]).bool()}
    [found] = masks.shared_channels(one, two)
    assert (found.layer, found.channels, found.kept, found.shared, found.expected) == ("a", 4, (2, 2), 1, 1.0)
    assert found.z == pytest.approx(0) and found.p == pytest.approx(5 / 6), "0 shared: 1 of 6"
    [same] = masks.shared_channels(*[{"a.weight": torch.ones(4, 2).bool()}] * 2)
    assert same.shared == 4 and math.isnan(same.z), "where all are kept chance has no choice"
    with pytest.raises(ValueError, match="two masks or more, not 1"):
        masks.shared_channels(one)
    with pytest.raises(ValueError, match="over different layers"):
        masks.shared_channels(one, {})


def test_filling_the_overlap_and_overlapping_the_filled_differ_and_no_layer_is_emptied():
    mask, first = drawn(3, ((6, 4),), 2.0)
    second = {"layer0.weight": -first["layer0.weight"].flip(0)}  # the copies prefer opposite channels
    name, both = "layer0.weight", [first, second]
    kept = [masks.magnitude(own, mask, 0.5) for own in both]
    sizes = [{n: w.abs() for n, w in own.items()} for own in both]
    combined = masks.overlap(*kept)
    combined[name][0, 0] = True
    after = filled(combined, kept, sizes)
    before = filled(combined, kept, sizes, fill="copies")
    assert torch.equal(after[name], masks.refill(combined, {name: sizes[0][name] + sizes[1][name]})[name])
    chosen = [masks.refill(own, of)[name] for own, of in zip(kept, sizes, strict=True)]
    expected = chosen[0] & chosen[1]
    assert torch.equal(before[name], expected) or (not expected.any() and int(before[name].any(1).sum()) == 1)
    assert not torch.equal(after[name], before[name]), "the two orders do not commute"
    shuffled = filled(combined, kept, sizes, rng=torch.Generator().manual_seed(0))
    assert masks.count(shuffled) == masks.count(after), "as many weights a layer, hence as many channels"


def test_of_transposed_convolutions_the_output_channels_are_filled_up():
    network = cc.build("autoencoder", 10, width=8)
    ticket, turned = cc.Ticket.of(network), lambda mask: masks.outputs_first(mask, ticket.transposed)
    whole = lambda mask: all(bool((k.flatten(1).all(1) | ~k.flatten(1).any(1)).all()) for k in turned(mask).values())
    rng = torch.Generator().manual_seed(0)
    mask = {name: torch.rand(kept.shape, generator=rng) < 0.4 for name, kept in ticket.mask.items()}
    assert ticket.transposed and whole(masks.refill(mask, ticket.theta0, transposed=ticket.transposed))
    assert not whole(masks.refill(mask, ticket.theta0)), "a mask alone does not know them"
    plain = {name: mask[name] for name in mask if name not in ticket.transposed}
    same = masks.refill(plain, ticket.theta0)
    assert all(torch.equal(k, same[n]) for n, k in masks.refill(plain, ticket.theta0, 0.0, ticket.transposed).items())
    sizes = [{name: ticket.theta0[name].abs() for name in mask}] * 2
    for fill in ("overlap", "copies"):
        assert whole(filled(mask, [mask, mask], sizes, fill=fill, transposed=ticket.transposed))
    name = "decoder.deconv2.weight"
    apart = [{name: torch.zeros_like(mask[name])} for _ in "12"]
    for i, own in enumerate(apart):
        own[name][:, i] = True
    best = filled(apart[0], apart, [{name: sizes[0][name]}] * 2, fill="copies", transposed=[name])
    assert whole(best) and best[name].any(2).any(2).any(0).sum() == 1, "a layer without a common channel keeps the best"
    refilled = ticket.derived(mask=masks.refill(mask, ticket.theta0, transposed=ticket.transposed))
    [drawn] = random_channels([cc.Round(1, refilled)])
    assert whole(drawn.ticket.mask) and masks.count(drawn.ticket.mask) == masks.count(refilled.mask)


# --- the controls ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def jobs(tmp_path_factory):
    """Refill and its controls, found and scored, with their rounds by method."""
    recipe = cc.Recipe.named("mini").changed(epochs=1, batch_size=64)
    base = {"dataset": "cifar10-mini@16:0-3", "network": "conv3", "network_args": {"width": 8}, "recipe": recipe}
    base |= {"densities": (0.5, 0.25), "by": "class", "scores": ()}
    names = ("dense", "refill", "channels", "narrow", "effective")
    found, store = [cc.Experiment(method=name, **base) for name in names], tmp_path_factory.mktemp("store")
    records = cc.study(found, store=store, device="cpu", workers=1)
    return found, records, store, {job.method: list(cc.rounds(job, store, device="cpu")) for job in found}


def test_levels_are_of_the_weights_that_are_left_wherever_they_are_asked_for(jobs, tmp_path):
    """A refilled ticket has fewer weights than its mask: scores, tables and status must go by the same number."""
    found, records, _, rounds = jobs
    left = [masks.density(one.ticket.effective()) for one in rounds["refill"]]
    level = round(1 - (left[1] + rounds["refill"][1].density) / 2, 6)  # reached when compact, not by the mask
    assert 1 - rounds["refill"][1].density < level < 1 - left[1]
    job = found[1].changed(scores=(level,))
    cc.run(job, tmp_path, device="cpu")
    frame = cc.report.load(tmp_path)
    assert frame.query("kind == 'score'")["round"].tolist() == [1] and is_scored(job, open_store(tmp_path))
    assert cc.report.accuracy_table(frame, [level])["method"].tolist() == ["refill"]
    every = cc.report.by_rounds(records)
    several = every.groupby("method")["rounds"].apply(list).to_dict()
    assert several == {"dense": [0], "refill": [1, 2], "channels": [1, 2], "narrow": [1, 2], "effective": [1, 2]}
    own = every.query("method == 'refill'")["sparsity"].tolist()
    assert own == pytest.approx([1 - one for one in left[1:]]) and "rounds" in cc.report.tables(records=records)


def test_a_mask_that_loses_a_layer_ends_its_own_search_alone(tmp_path):
    recipe = cc.Recipe.named("mini").changed(epochs=1, batch_size=64)
    base = {"dataset": "cifar10-mini@16:0-3", "network": "conv3", "network_args": {"width": 2}, "recipe": recipe}
    base |= {"densities": (0.5, 0.01), "scores": None}
    jobs = [cc.Experiment(method=name, **base) for name in ("refill", "imp")]
    records = cc.study(jobs, store=tmp_path, device="cpu", workers=1)
    (failed,) = records.query("kind == 'failed'").itertuples()
    assert failed.method == "refill" and failed.round == 2
    assert "the mask of round 2 cannot be reshaped: layer" in failed.problem and "keeps no weight" in failed.problem
    assert records.query("kind == 'round' and method == 'imp'")["round"].tolist() == [0, 1, 2]


def test_controls_keep_what_they_say_they_keep(jobs):
    *_, rounds = jobs
    for refill, channels, narrow, effective in zip(*(rounds[n] for n in list(rounds)[1:]), strict=True):
        mask = refill.ticket.mask
        count = lambda found: [int(kept.flatten(1).any(1).sum()) for kept in found.ticket.mask.values()]
        assert count(channels) == count(refill) and channels.density == refill.density
        left = refill.ticket.effective()
        assert all((kept <= mask[name]).all() for name, kept in left.items())
        compact = refill.ticket.compact()
        assert masks.count(left) == masks.count(compact.mask) and all(k.all() for k in compact.mask.values())
        assert effective.density == pytest.approx(masks.density(left), abs=1e-3)
        assert all(torch.equal(narrow.ticket.mask[name], left[name]) for name in mask)


def test_where_refilled_tickets_stay_as_large_a_weight_goes_all_the_same(jobs, monkeypatch):
    *_, rounds = jobs
    asked = []
    setting = SimpleNamespace(
        reference=lambda: [rounds["refill"][0], *(rounds["refill"][i] for i in (1, 2, 2, 1))],
        over_everything=lambda finder: finder(None, None, None),
    )
    monkeypatch.setattr("colt_core.methods.refill_controls.begin", lambda *given: asked.append(given[5]))
    monkeypatch.setattr("colt_core.methods.refill_controls.by_magnitude", lambda _: None)
    monkeypatch.setattr("colt_core.methods.refill_controls.cycles", lambda *_: iter(()))
    cc.METHODS["effective"].find(setting)
    mask = rounds["refill"][1].ticket.mask
    _, second, *more = asked[0]
    least = masks.count(rounds["refill"][2].ticket.effective()) / masks.size(mask)
    assert second == least and more == pytest.approx([least - i / masks.size(mask) for i in (1, 2)])
    assert all(b < a for a, b in itertools.pairwise(asked[0]))


def test_the_narrow_network_is_dense_drawn_anew_and_scaled_to_its_inputs(jobs):
    *_, rounds = jobs
    own = rounds["narrow"][2].ticket
    small = own.compact().model()
    assert not any((p == 0).all() for p in small.parameters() if p.ndim > 1)
    theirs = rounds["refill"][2].ticket
    assert all(not torch.equal(own.theta0[n], theirs.theta0[n]) for n in own.mask)
    for module in small.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            bound = 1 / math.sqrt(module.weight[0].numel())  # PyTorch's own: uniform within 1 / sqrt(inputs)
            assert 0.8 * bound < module.weight.abs().max() <= bound * 1.0001
    pixels = torch.rand(3, 3, 16, 16)
    assert torch.allclose(small.eval()(pixels), own.model().eval()(pixels), atol=1e-5)


def test_biases_of_the_narrow_network_are_drawn_for_its_widths_too():
    network = cc.build("lenet5", 10, 0)
    weights = dict(network.named_parameters())
    mask = masks.refill(masks.magnitude(weights, masks.dense(weights, cc.prunable(network)), 0.8), weights)
    (found,) = refill_controls.narrow([cc.Round(1, cc.Ticket.of(network, mask).silent())], 3)
    for module in found.ticket.compact().model().modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear) and module.bias.numel() >= 8:
            bound = 1 / math.sqrt(module.weight[0].numel())
            assert 0.6 * bound < module.bias.abs().max() <= bound * 1.0001


def test_the_narrow_resnet_is_drawn_by_its_outputs_as_resnets_are():
    network = cc.build("resnet20", 10, 0)
    weights = dict(network.named_parameters())
    mask = masks.refill(masks.magnitude(weights, masks.dense(weights, cc.prunable(network)), 0.7), weights)
    (found,) = refill_controls.narrow([cc.Round(1, cc.Ticket.of(network, mask).silent())], 3)
    whole, small = found.ticket, found.ticket.compact().model()
    for name, module in small.named_modules():
        if isinstance(module, torch.nn.Conv2d) and module.weight.numel() > 200:
            by_outputs = math.sqrt(2 / (module.out_channels * 9))  # He, fan-out
            assert module.weight.std().item() == pytest.approx(by_outputs, rel=0.25), name
    assert whole.density < 0.3


def test_effective_densities_stand_in_the_records_of_silent_tickets_alone(jobs):
    _, records, _, rounds = jobs
    told = records[(records["kind"] == "round") & (records["round"] == 2)].set_index("method")["density_effective"]
    assert told["refill"] == masks.density(rounds["refill"][2].ticket.effective()) < rounds["refill"][2].density
    assert told.isna()[["effective"]].all()


def test_accuracy_is_held_against_measured_speed(jobs):
    found, records, store, _ = jobs
    table = cc.pareto(found, records, store, batch=2, rounds=1, seconds=1e-3, shape=(3, 16, 16))
    assert list(table["method"]) == ["channels"] * 2 + ["dense"] + [
        n for n in ("effective", "narrow", "refill") for _ in "12"
    ]
    assert (table["slowest"] <= table["fastest"]).all() and (table["faster"] > 0).all()
    for row in table.to_dict("records"):  # timed is what was scored
        masked = row["method"].split(" ")[0] in ("colt", "matched", "regroup", "effective")
        assert row["form"] == ("dense" if row["density"] == 1 else "masked" if masked else "compact"), row
        assert (
            (row["flops"], row["density_effective"]) == (1, row["density"])
            if row["form"] != "compact"
            else row["flops"] < 1
        )
    small, whole = (table[table["method"].isin(names)] for names in (("refill", "narrow"), ("dense", "effective")))
    assert (small["flops"] < 0.8).all() and (whole["flops"] == 1).all()
    scores = records[(records["kind"] == "score") & (records["method"] == "refill") & (records["round"] == 2)]
    assert table["accuracy"].iloc[-1] == scores["accuracy"].iloc[0]
    figure = cc.plots.pareto(table)
    assert len(figure.axes[0].get_legend().get_texts()) == 5 + 1  # and the front
    with pytest.raises(ValueError, match="no records"):
        cc.pareto(found, records.iloc[:0], store)


def test_networks_and_data_sets_are_points_of_their_own(jobs, monkeypatch):
    found, records, store, rounds = jobs
    job = found[1]
    one = records[records["experiment"] == job.hash]
    other = one.assign(experiment="f" * 16, network="resnet20", seed=1)
    other["accuracy"] = 1 - other["accuracy"].astype(float)
    twin = SimpleNamespace(hash="f" * 16, dataset=job.dataset, score_on=None)
    monkeypatch.setattr("colt_core.publish.pareto._timed", lambda *_: {"faster": 1.0, "slowest": 1.0, "fastest": 1.0})
    monkeypatch.setattr("colt_core.publish.pareto.saved_rounds", lambda *_: rounds["refill"])
    table = cc.pareto([job, twin], pd.concat([one, other]), store)
    assert list(table["network"]) == ["conv3"] * 2 + ["resnet20"] * 2 and set(table["seeds"]) == {1}
    assert table["accuracy"][:2].to_list() == pytest.approx((1 - table["accuracy"][2:]).to_list())
    with pytest.raises(ValueError, match="a figure takes one network, not conv3, resnet20: choose first"):
        cc.plots.pareto(table)


def test_tables_place_whole_channels_by_what_is_left_of_them(jobs):
    """Of equal widths, though one's mask is the denser: they stand side by side."""
    _, records, *_ = jobs
    table = cc.report.at_sparsities(records, [0.5])
    pair = table[table["finder"].isin(["refill", "narrow"])].set_index("finder")
    assert pair["round"].nunique() == 1 and pair["sparsity"].nunique() == 1 and pair["density"].nunique() == 2
    told = records[(records["kind"] == "round") & (records["method"] == "refill")].set_index("round")
    assert pair.loc["refill", "sparsity"] == 1 - told.loc[pair.loc["refill", "round"], "density_effective"]


def test_blocks_have_no_channels_that_a_control_could_go_by():
    for method in ("channels", "narrow"):
        with pytest.raises(ValueError, match="of: .*'super'"):
            cc.Experiment(method=method, options={"of": "regroup"})
    assert cc.Experiment(method="effective", options={"of": "regroup"}).reference().method == "regroup"


def test_a_grey_stem_is_filled_up_and_depthwise_convolutions_are_left():
    for network, alone in (
        (cc.build("conv3", 10, 0, width=8, channels=1), set()),
        (cc.build("mobilenetv2", 10, 0), {n for n, m in cc.build("mobilenetv2").named_modules() if m_groups(m) > 1}),
    ):
        assert models.depthwise(network) == {f"{name}.weight" for name in alone}
        weights = dict(network.named_parameters())
        mask = masks.magnitude(weights, masks.dense(weights, cc.prunable(network)), 0.5, "layer")
        known = models.depthwise(network)
        filled = masks.refill(mask, weights, depthwise=known)
        for name, kept in filled.items():
            rows = kept.flatten(1).float().mean(1)
            assert torch.equal(kept, mask[name]) if name in known else set(rows.tolist()) <= {0.0, 1.0}
        laid = {
            name: kept.to(memory_format=torch.channels_last) if kept.ndim == 4 else kept for name, kept in mask.items()
        }
        again = masks.regroup(laid, depthwise=known)
        assert all(torch.equal(kept, again[n]) for n, kept in masks.regroup(mask, depthwise=known).items())


def m_groups(module):
    return getattr(module, "groups", 1)


def test_the_first_seeds_ticket_is_timed(jobs, monkeypatch):
    found, records, store, rounds = jobs
    job, timed = found[1], []
    other = job.changed(seed=1)
    more = records[records["experiment"] == job.hash].assign(experiment=other.hash, seed=1)
    about = {"flops": 1.0, "faster": 1.0, "slowest": 1.0, "fastest": 1.0}
    shapes = []

    def timer(ticket, batch, threads, how):
        timed.append(ticket.hash)
        shapes.append(tuple(how["shape"]))
        return about

    monkeypatch.setattr("colt_core.publish.pareto._timed", timer)
    monkeypatch.setattr(
        "colt_core.publish.pareto.saved_rounds",
        lambda one, _: rounds["refill"] if one is job else pytest.fail("the second seed's was read"),
    )
    table = cc.pareto([job, other, job], pd.concat([records, more]), store)
    assert timed == [one.ticket.hash for one in rounds["refill"][1:]] and set(table["seeds"]) == {2}
    assert set(shapes) == {(3, 16, 16)}, "images are as large as the data set's"

    def gone(one, _):
        yield from rounds["refill"][:2]
        raise FileNotFoundError(f"the records name a round whose file is missing: {one.seed}")

    read = {job.seed: gone, other.seed: lambda *_: rounds["refill"]}
    monkeypatch.setattr("colt_core.publish.pareto.saved_rounds", lambda one, where: read[one.seed](one, where))
    again = cc.pareto([job, other], pd.concat([records, more]), store)
    assert again.equals(table), "what the first seed lacks is the second's"
    read[other.seed] = gone
    with pytest.raises(FileNotFoundError, match="whose file is missing: 1"):
        cc.pareto([job, other], pd.concat([records, more]), store)


def test_a_layer_is_drawn_in_several_forms(jobs):
    *_, rounds = jobs
    found = rounds["refill"][1]
    figure = cc.plots.structure({"COLT": found.own, "refill": found.ticket.mask}, "conv2.weight", rows=4)
    left, right = (axis.images[0].get_array() for axis in figure.axes)
    assert left.sum() == int(found.own["conv2.weight"].sum()) and set(right.all(1) | ~right.any(1)) == {True}
    with pytest.raises(ValueError, match="there is no layer 'x'; allowed: conv1.weight, conv2.weight"):
        cc.plots.structure({"COLT": found.own}, "x")


def test_masks_of_other_methods_can_be_laid_over_another_initialisation(jobs):
    found, _, store, rounds = jobs
    plain = found[1].changed(method="reinit", scores=None, options={})
    assert plain.reference().method == "colt"
    job = found[1].changed(method="reinit", scores=None, options={"of": "refill"})
    assert job.reference().hash == found[1].hash and job.hash != plain.hash
    redrawn = list(cc.rounds(job, store, device="cpu"))[2].ticket
    refilled = rounds["refill"][2].ticket
    assert all(torch.equal(kept, refilled.mask[name]) for name, kept in redrawn.mask.items())
    assert redrawn.architecture["silent"] and not torch.equal(
        redrawn.theta0["conv1.weight"], refilled.theta0["conv1.weight"]
    )


def test_a_control_takes_the_options_of_what_it_follows_and_no_others():
    followed = cc.Experiment(method="effective", of="regroup", rule="paper", rows=4).reference()
    assert followed.method == "regroup" and followed.options == {"rule": "paper", "rows": 4}
    assert cc.Experiment(method="channels", of="super", order="losing").reference().options == {"order": "losing"}
    with pytest.raises(ValueError, match="extra is no option of regroup; allowed: source, rows, rule"):
        cc.Experiment(method="effective", of="regroup", extra=0.3)
    with pytest.raises(ValueError, match="order is no option of refill; allowed: source, extra, fill, shuffled"):
        cc.Experiment(method="narrow", order="losing")
