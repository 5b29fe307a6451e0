import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch.nn.utils import prune

import colt_core as cc
from colt_core import masks


def random_mask(seed, keep=0.5, shapes=((4, 3, 3, 3), (6, 4, 3, 3))):
    rng = torch.Generator().manual_seed(seed)
    return {f"{i}.weight": torch.rand(shape, generator=rng) < keep for i, shape in enumerate(shapes)}


mask_strategy = st.builds(random_mask, st.integers(0, 2**31), st.floats(0, 1))


def equal(a, b):
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


# --- magnitude ---


@pytest.mark.parametrize("rate", [0.1, 0.15, 0.2, 0.333, 0.5])
def test_magnitude_removes_what_global_unstructured_removes_round_after_round(rate):
    network = cc.build("conv3", 10, seed=3, width=8)
    names = cc.prunable(network)
    mask = masks.dense(dict(network.named_parameters()), names)
    modules = [(network.get_submodule(name.removesuffix(".weight")), "weight") for name in names]
    for step in range(6):
        rng = torch.Generator().manual_seed(step)
        weights = {n: torch.randn(m.shape, generator=rng) for n, m in mask.items()}
        for (module, _), name in zip(modules, names, strict=True):
            original = module.weight_orig if step else module.weight
            original.data.copy_(weights[name])
            if step:  # what a forward pass would do
                module.weight = module.weight_orig * module.weight_mask
        prune.global_unstructured(modules, prune.L1Unstructured, amount=rate)
        mask = masks.magnitude(weights, mask, rate)
        oracle = {n: m.weight_mask.bool() for (m, _), n in zip(modules, names, strict=True)}
        assert equal(mask, oracle)


def test_magnitude_by_layer_removes_what_l1_unstructured_removes():
    network = cc.build("conv3", 10, seed=1, width=8)
    weights = dict(network.named_parameters())
    mask = masks.magnitude(weights, masks.dense(weights, cc.prunable(network)), 0.3, "layer")
    for name in mask:
        module = network.get_submodule(name.removesuffix(".weight"))
        prune.l1_unstructured(module, "weight", amount=0.3)
        assert torch.equal(mask[name], module.weight_mask.bool())


def test_magnitude_by_hand():
    weights = {"a": torch.tensor([[0.5, -0.1, 3.0]]), "b": torch.tensor([[-2.0, 0.2, 0.0]])}
    mask = {"a": torch.tensor([[True, True, True]]), "b": torch.tensor([[True, True, False]])}
    # Kept: 0.5, -0.1, 3, -2, 0.2; round(0.4 * 5) = 2 go: -0.1 and 0.2. The 0.0 was gone before and does not count.
    pruned = masks.magnitude(weights, mask, 0.4)
    assert pruned["a"].tolist() == [[True, False, True]]
    assert pruned["b"].tolist() == [[True, False, False]]


def test_ties_go_first_come_first_and_exactly_as_many_as_asked():
    weights = {"b": torch.full((2, 5), 0.5), "a": torch.full((1, 4), -0.5)}
    mask = {name: torch.ones_like(w, dtype=torch.bool) for name, w in weights.items()}
    pruned = masks.magnitude(weights, mask, 0.5)
    assert masks.flatten(pruned).tolist() == [False] * 7 + [True] * 7


def test_a_tiny_weight_is_not_gone_before_it_is_pruned():
    weights = {"a": torch.tensor([[1e-9, 1e-8, 1.0, 2.0]])}
    mask = {"a": torch.ones(1, 4, dtype=torch.bool)}
    assert masks.magnitude(weights, mask, 0.25)["a"].tolist() == [[False, True, True, True]]
    assert masks.count(masks.magnitude(weights, mask, 0.0)) == 4


@given(mask_strategy, st.floats(0, 1), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_magnitude_yields_a_subset_of_the_exact_size(mask, rate, seed):
    weights = {n: torch.randn(m.shape, generator=torch.Generator().manual_seed(seed)) for n, m in mask.items()}
    pruned = masks.magnitude(weights, mask, rate)
    assert masks.count(masks.difference(pruned, mask)) == 0
    assert masks.count(pruned) == masks.count(mask) - round(rate * masks.count(mask))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rate": 1.5}, r"rate must lie in \[0, 1\]"),
        ({"scope": "filter"}, "allowed: global, layer"),
        ({"weights": {"other": torch.ones(2, 2)}}, "another network"),
        ({"weights": {"a": torch.ones(3, 3)}}, "has shape"),
        ({"weights": {"a": torch.tensor([[math.nan, 1.0], [1.0, 1.0]])}}, "diverged"),
    ],
)
def test_magnitude_refuses_bad_input_in_one_line(change, message):
    arguments = {"weights": {"a": torch.ones(2, 2)}, "mask": {"a": torch.ones(2, 2).bool()}, "rate": 0.5} | change
    with pytest.raises(ValueError, match=message) as caught:
        masks.magnitude(**arguments)
    assert "\n" not in str(caught.value)


# --- the algebra ---


@given(mask_strategy, mask_strategy, mask_strategy)
@settings(max_examples=60, deadline=None)
def test_overlap_and_union_are_a_lattice(a, b, c):
    assert equal(masks.overlap(a, b, c), masks.overlap(masks.overlap(c, a), b))
    assert equal(masks.union(a, b, c), masks.union(c, masks.union(b, a)))
    assert equal(masks.overlap(a, a), a) and equal(masks.union(a, a), a)
    assert equal(masks.overlap(a, masks.union(a, b)), a)
    assert masks.count(masks.union(a, b)) + masks.count(masks.overlap(a, b)) == masks.count(a) + masks.count(b)


@given(mask_strategy, mask_strategy)
@settings(max_examples=60, deadline=None)
def test_core_and_specialists_make_up_the_union(a, b):
    core, mine, yours = masks.overlap(a, b), masks.difference(a, b), masks.difference(b, a)
    assert equal(masks.union(core, mine, yours), masks.union(a, b))
    assert masks.count(core) + masks.count(mine) + masks.count(yours) == masks.count(masks.union(a, b))
    assert masks.hamming(a, b) == pytest.approx((masks.count(mine) + masks.count(yours)) / masks.size(a))
    assert masks.jaccard(a, b) == masks.jaccard(b, a) <= 1


@given(mask_strategy, mask_strategy, mask_strategy)
@settings(max_examples=30, deadline=None)
def test_vote_runs_from_union_to_overlap(a, b, c):
    assert equal(masks.vote(a, b, c, least=1), masks.union(a, b, c))
    assert equal(masks.vote(a, b, c, least=3), masks.overlap(a, b, c))
    majority = masks.union(masks.overlap(a, b), masks.overlap(b, c), masks.overlap(a, c))
    assert equal(masks.vote(a, b, c, least=2), majority)


def test_masks_of_different_networks_do_not_combine():
    with pytest.raises(ValueError, match="different networks"):
        masks.overlap(random_mask(0), random_mask(0, shapes=((4, 3, 3, 3),)))


# --- density ---


def test_density_of_prunable_weights_and_of_all():
    network = cc.build("conv3", 50, seed=0)
    weights = dict(network.named_parameters())
    mask = masks.dense(weights, cc.prunable(network))
    empty = {name: torch.zeros_like(kept) for name, kept in mask.items()}
    assert masks.size(mask) == 370_368 and masks.density(mask) == masks.density_all(mask, weights) == 1
    assert masks.density(empty) == 0
    # The official code's conv3 with 50 classes cannot get past 96.55 %, whatever it prunes.
    assert 1 - masks.density_all(empty, weights) == pytest.approx(0.9655, abs=5e-5)


def test_the_highest_reachable_sparsity_is_where_pruning_stops():
    mask = {"a": torch.ones(10, 10, dtype=torch.bool)}
    weights = {"a": torch.rand(10, 10)}
    top = masks.reachable(mask, 0.2)
    for _ in range(60):
        mask = masks.magnitude(weights, mask, 0.2)
    assert masks.density(mask) == pytest.approx(1 - top)


# --- chance ---


def test_chance_is_what_random_masks_of_these_layer_densities_give():
    a, b, within = random_mask(1, 0.3), random_mask(2, 0.7), random_mask(3, 0.8)
    a, b = masks.overlap(a, within), masks.overlap(b, within)
    rng, values = np.random.default_rng(0), []
    for _ in range(400):
        both = either = 0
        for name in a:
            alive = int(within[name].sum())
            first = rng.permutation(alive) < int(a[name].sum())
            second = rng.permutation(alive) < int(b[name].sum())
            both, either = both + (first & second).sum(), either + (first | second).sum()
        values.append(both / either)
    assert masks.chance(a, b, within=within) == pytest.approx(np.mean(values), abs=4 * np.std(values) / 20)


@pytest.mark.parametrize("k", [0.85, 0.8, 0.7])
def test_global_chance_of_two_masks_is_k_over_two_minus_k(k):
    mask = {"a": torch.arange(1000) < 1000 * k}
    assert masks.chance_global(mask, mask) == pytest.approx(k / (2 - k))


def test_layer_table_has_the_hypergeometric_mean_and_z():
    a, b, within = random_mask(4, 0.5), random_mask(5, 0.5), random_mask(6, 0.7)
    a, b = masks.overlap(a, within), masks.overlap(b, within)
    for name, row in zip(a, masks.by_layer(a, b, within).itertuples(), strict=True):
        null = stats.hypergeom(int(within[name].sum()), int(a[name].sum()), int(b[name].sum()))
        assert row.both == int((a[name] & b[name]).sum())
        assert row.expected == pytest.approx(null.mean())
        assert row.z == pytest.approx((row.both - null.mean()) / null.std())


def test_kappa_by_hand():
    # 8 weights: agree on 5 (3 kept, 2 dropped); p = 4/8, q = 5/8; expected 0.5; kappa = (0.625 - 0.5) / 0.5.
    a = {"x": torch.tensor([1, 1, 1, 1, 0, 0, 0, 0]).bool()}
    b = {"x": torch.tensor([1, 1, 1, 0, 1, 1, 0, 0]).bool()}
    assert masks.kappa(a, b) == pytest.approx(0.25)
    assert masks.kappa(a, a) == 1


def test_random_like_keeps_the_layer_counts_and_nothing_else():
    mask = random_mask(7, 0.3)
    other = masks.random_like(mask, torch.Generator().manual_seed(0))
    assert [int(m.sum()) for m in mask.values()] == [int(m.sum()) for m in other.values()]
    assert not equal(mask, other)


# --- collapse ---


@pytest.mark.parametrize("name", ["conv3", "resnet20", "mobilenetv2"])
def test_collapse_finds_whether_a_path_is_left(name):
    network = cc.build(name, 10)
    dense = masks.dense(dict(network.named_parameters()), cc.prunable(network))
    assert masks.collapse(dense, network).connected and not masks.collapse(dense, network).empty_layers
    cut = dense | {next(iter(dense)): torch.zeros_like(next(iter(dense.values())))}
    report = masks.collapse(cut, network)
    assert not report.connected and len(report.empty_layers) == 1
    assert report.dead_channels == next(iter(dense.values())).shape[0]


def test_a_residual_network_stays_connected_through_its_shortcuts():
    network = cc.build("resnet20", 10)
    dense = masks.dense(dict(network.named_parameters()), cc.prunable(network))
    inner = list(dense)[5]
    assert masks.collapse(dense | {inner: torch.zeros_like(dense[inner])}, network).connected


def test_two_channels_that_do_not_meet_leave_no_path():
    network = cc.build("conv3", 10, width=2)
    mask = masks.dense(dict(network.named_parameters()), cc.prunable(network))
    first, second, _ = mask
    mask[first][1:] = False  # only channel 0 comes out
    mask[second][:, :1] = False  # and only the others are read
    report = masks.collapse(mask, network)
    assert not report.connected and not report.empty_layers
