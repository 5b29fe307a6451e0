import math
from fractions import Fraction
from itertools import combinations, product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch.nn.utils import prune

import colt_core as cc
from colt_core import masks
from colt_core.masks import prune as pruning


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
@settings(max_examples=60)
def test_magnitude_yields_a_subset_of_the_exact_size(mask, rate, seed):
    weights = {n: torch.randn(m.shape, generator=torch.Generator().manual_seed(seed)) for n, m in mask.items()}
    pruned = masks.magnitude(weights, mask, rate)
    assert masks.count(masks.difference(pruned, mask)) == 0
    assert masks.count(pruned) == masks.count(mask) - round(rate * masks.count(mask))


class Elsewhere(torch.Tensor):
    """A tensor that says it lies on an accelerator, so that what is done there is done here."""

    device = torch.device("cuda")


FINITE = st.one_of(
    st.floats(width=32, allow_nan=False, allow_infinity=False),
    st.sampled_from([0.0, -0.0, 1.0, -1.0, 3.4e38, -3.4e38, 1e-45]),  # equal ones, too
)
GONE = st.one_of(FINITE, st.sampled_from([math.nan, math.inf, -math.inf]))
SCORED = st.lists(  # layers, each a list of: kept, its score, the score that it has if it is gone
    st.lists(st.tuples(st.booleans(), FINITE, GONE), min_size=1, max_size=12), min_size=1, max_size=3
)


@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("where", ["numpy's selection", "kthvalue"])
@given(layers=SCORED, rate=st.floats(0, 1))
@settings(max_examples=150)
def test_of_any_scores_the_lowest_of_the_kept_are_lost_the_first_of_equals_first(where, scope, layers, rate):
    """What is gone stays gone, whatever scores, negative ones too, and those of what is gone itself, may say."""
    mask = {str(i): torch.tensor([[kept for kept, _, _ in layer]]) for i, layer in enumerate(layers)}
    scores = {str(i): torch.tensor([[s if kept else g for kept, s, g in layer]]) for i, layer in enumerate(layers)}
    with pytest.MonkeyPatch.context() as patch:
        if where == "kthvalue":
            real = pruning._smallest
            patch.setattr(pruning, "_smallest", lambda pool, rank: real(pool.as_subclass(Elsewhere), rank))
        pruned = masks.prune_lowest(scores, mask, rate, scope)
    for names in [list(mask)] if scope == "global" else [[name] for name in mask]:
        flat = [torch.cat([m[name].flatten() for name in names]).tolist() for m in (mask, scores, pruned)]
        before, values, after = flat
        alive = [i for i, kept in enumerate(before) if kept]
        lost = sorted(alive, key=lambda i: (values[i], i))[: round(rate * len(alive))]
        assert [i for i, kept in enumerate(after) if kept] == [i for i in alive if i not in lost]


def test_both_ways_to_select_are_called_each_on_its_device(monkeypatch):
    pool = torch.tensor([3.0, -1.0, 2.0])
    assert pruning._smallest(pool, 2) == pruning._smallest(pool.as_subclass(Elsewhere), 2) == 2
    monkeypatch.setattr(np, "partition", lambda *_: pytest.fail("NumPy has no part of an accelerator's tensors"))
    assert pruning._smallest(pool.as_subclass(Elsewhere), 1) == -1


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
@settings(max_examples=60)
def test_overlap_and_union_are_a_lattice(a, b, c):
    assert equal(masks.overlap(a, b, c), masks.overlap(masks.overlap(c, a), b))
    assert equal(masks.union(a, b, c), masks.union(c, masks.union(b, a)))
    assert equal(masks.overlap(a, a), a) and equal(masks.union(a, a), a)
    assert equal(masks.overlap(a, masks.union(a, b)), a)
    assert masks.count(masks.union(a, b)) + masks.count(masks.overlap(a, b)) == masks.count(a) + masks.count(b)


@given(mask_strategy, mask_strategy)
@settings(max_examples=60)
def test_core_and_specialists_make_up_the_union(a, b):
    core, mine, yours = masks.overlap(a, b), masks.difference(a, b), masks.difference(b, a)
    assert equal(masks.union(core, mine, yours), masks.union(a, b))
    assert masks.count(core) + masks.count(mine) + masks.count(yours) == masks.count(masks.union(a, b))
    assert masks.hamming(a, b) == pytest.approx((masks.count(mine) + masks.count(yours)) / masks.size(a))
    assert masks.jaccard(a, b) == masks.jaccard(b, a) <= 1


@given(mask_strategy, mask_strategy, mask_strategy)
@settings(max_examples=30)
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


def pruned_from_one(count, seed=1):
    """Some masks of different densities, layer by layer, and the mask that they were all pruned from."""
    within = random_mask(seed, 0.8)
    keep = [0.3, 0.7, 0.5, 0.9, 0.6][:count]
    return [masks.overlap(random_mask(seed + i, share), within) for i, share in enumerate(keep, 1)], within


@pytest.mark.parametrize("copies", [2, 3, 5])
def test_chance_is_what_random_masks_of_these_layer_densities_give(copies):
    """By Monte Carlo: each mask's kept weights are dealt anew within every layer, among those alive."""
    found, within = pruned_from_one(copies)
    rng, counts = np.random.default_rng(0), []
    for _ in range(2000):
        drawn = [[rng.permutation(int(within[n].sum())) < int(m[n].sum()) for m in found] for n in within]
        counts.append([sum(how(layer, 0).sum() for layer in drawn) for how in (np.all, np.any)])
    both, either = np.array(counts, dtype=float).T
    ratio = both.mean() / either.mean()
    error = np.std(both - ratio * either) / either.mean() / math.sqrt(len(both))
    assert masks.chance(*found, within=within) == pytest.approx(ratio, abs=4 * error)
    assert error < 0.02 * ratio, "the estimate is too rough to tell anything"


@given(st.lists(st.tuples(st.integers(1, 4), st.lists(st.integers(0, 4), min_size=4, max_size=4)), min_size=1,
                max_size=3), st.integers(2, 4))  # fmt: skip
@settings(max_examples=40)
def test_chance_is_the_mean_over_every_way_to_deal_the_kept_weights(layers, copies):
    """Exactly, for layers so small that all masks with these counts can be written down."""
    both = either = Fraction(0)
    given_masks = [{} for _ in range(copies)]
    for number, (size, kept) in enumerate(layers):
        kept = [min(count, size) for count in kept[:copies]]
        for mask, count in zip(given_masks, kept, strict=True):
            mask[str(number)] = torch.arange(size) < count
        ways = list(product(*(map(set, combinations(range(size), count)) for count in kept)))
        both += Fraction(sum(len(set.intersection(*way)) for way in ways), len(ways))
        either += Fraction(sum(len(set.union(*way)) for way in ways), len(ways))
    assert masks.chance(*given_masks) == pytest.approx(float(both / either) if either else 1.0, abs=1e-12)


@pytest.mark.parametrize("copies", [3, 4])
def test_the_overlap_of_three_masks_or_more_is_what_counting_gives(copies):
    found, within = pruned_from_one(copies, seed=20)
    rng = torch.Generator().manual_seed(9)
    theta0 = {name: torch.randn(kept.shape, generator=rng) for name, kept in within.items()}
    combined = masks.vote(*found, least=copies - 1)
    overlap = masks.Overlap.of(found, within, combined, theta0)
    flat = lambda mask: np.concatenate([kept.numpy().ravel() for kept in mask.values()])
    alive, stack, weights = flat(within), np.stack([flat(mask) for mask in found]), np.abs(flat(theta0))
    assert overlap.jaccard == stack.all(0).sum() / stack.any(0).sum()
    assert overlap.keep == flat(combined).sum() / alive.sum()
    assert overlap.chance == masks.chance(*found, within=within) != overlap.chance_global
    share = [mask.sum() / alive.sum() for mask in stack]
    every, none = np.prod(share), np.prod([1 - part for part in share])
    assert overlap.chance_global == pytest.approx(every / (1 - none))
    kappas, inherited = [], []
    for a, b in combinations(stack[:, alive], 2):
        expected = a.mean() * b.mean() + (1 - a.mean()) * (1 - b.mean())
        kappas.append(((a == b).mean() - expected) / (1 - expected))
    for mask in stack:
        largest = np.zeros_like(alive)
        largest[np.argsort(np.where(alive, weights, -1))[-mask.sum() :]] = True
        inherited.append((mask & largest).sum() / (mask | largest).sum())
    assert overlap.kappa == pytest.approx(np.mean(kappas)) and overlap.inherited == pytest.approx(np.mean(inherited))
    tables = [masks.by_layer(a, b, within) for a, b in combinations(found, 2)]
    for row in overlap.layers:
        for name in ("alive", "a", "b", "both", "expected", "jaccard", "chance", "z", "kappa"):
            assert row[name] == pytest.approx(np.mean([table.loc[row["layer"], name] for table in tables]))


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


# --- masks that do not fit each other ---

TOGETHER = {  # whatever takes two masks or more
    "jaccard": masks.jaccard,
    "hamming": masks.hamming,
    "kappa": masks.kappa,
    "kappa within": lambda a, b: masks.kappa(a, a, b),
    "chance": masks.chance,
    "chance within": lambda a, b: masks.chance(a, a, within=b),
    "chance_global": masks.chance_global,
    "similarities": lambda a, b: masks.similarities([a, b]).tolist(),
    "beyond chance": lambda a, b: masks.similarities([a, b], beyond_chance=True).tolist(),
    "overlap": lambda a, b: masks.count(masks.overlap(a, b)),
    "union": lambda a, b: masks.count(masks.union(a, b)),
    "vote": lambda a, b: masks.count(masks.vote(a, b, a, least=2)),
    "combine": lambda a, b: masks.count(masks.combine([a, b], "and")),
    "difference": lambda a, b: masks.count(masks.difference(a, b)),
    "layer_statistics": lambda a, b: str(masks.layer_statistics(a, b)),
    "by_layer": lambda a, b: masks.by_layer(a, b).to_string(),
    "by_layer within": lambda a, b: masks.by_layer(a, a, b).to_string(),
}


@pytest.mark.parametrize("name", TOGETHER)
@given(mask_strategy, mask_strategy)
@settings(max_examples=15)
def test_masks_are_read_by_name_whatever_their_order(name, a, b):
    turned = dict(reversed(b.items()))
    assert list(turned) != list(a)
    assert str(TOGETHER[name](a, turned)) == str(TOGETHER[name](a, b))  # as text: NaN is NaN


def misfits(mask):
    """A mask changed so that it fits its own network no more, with what an error says of it."""
    first, second = mask
    kept = mask[first]
    yield {first: kept}, f"different networks: one alone has '{second}'"
    yield mask | {"extra": kept}, "different networks: one alone has 'extra'"
    yield {first: kept, "other": mask[second]}, "different networks: one alone has "
    yield mask | {first: kept[:, :1]}, f"different networks: '{first}' has shapes (4, "
    yield mask | {first: kept[0]}, f"different networks: '{first}' has shapes "
    yield mask | {first: kept.reshape(-1)}, f"different networks: '{first}' has shapes "
    yield mask | {second: mask[second].float()}, f"a mask holds booleans, but '{second}' is torch.float32"
    yield mask | {first: kept.to(torch.uint8)}, f"a mask holds booleans, but '{first}' is torch.uint8"
    yield mask | {first: kept.to("meta")}, f"the masks lie on different devices: '{first}' on "


@pytest.mark.parametrize("name", TOGETHER)
@given(mask_strategy, st.integers(0, 8), st.booleans())
@settings(max_examples=25)
def test_masks_that_do_not_fit_are_refused_in_one_line(name, mask, number, turned):
    misfit, message = list(misfits(mask))[number]
    with pytest.raises(ValueError) as caught:
        TOGETHER[name](*(misfit, mask) if turned else (mask, misfit))
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_no_masks_and_scores_of_another_network_are_refused_in_one_line():
    for measure in (masks.jaccard, masks.chance, masks.chance_global, masks.overlap):
        with pytest.raises(ValueError, match="^at least one mask is needed$"):
            measure()
    with pytest.raises(ValueError, match="has shape"):
        masks.prune_lowest({"a": torch.ones(3, 1)}, {"a": torch.ones(3, 4).bool()}, 0.5)
    with pytest.raises(ValueError, match="a mask holds booleans"):
        masks.by_layer({"a": torch.ones(3, 4)})


@given(mask_strategy, mask_strategy)
@settings(max_examples=60)
def test_measures_of_agreement_keep_their_laws(a, b):
    for measure in (masks.jaccard, masks.hamming, masks.kappa, masks.chance, masks.chance_global):
        assert measure(a, b) == pytest.approx(measure(b, a), nan_ok=True)
    assert masks.jaccard(a, a) == masks.kappa(a, a) == 1 and masks.hamming(a, a) == 0
    assert 0 <= masks.jaccard(a, b) <= 1 and 0 <= masks.hamming(a, b) <= 1 and masks.kappa(a, b) <= 1
    table = masks.similarities([a, b, a])
    assert torch.equal(table, table.T) and table[0, 1] == pytest.approx(masks.jaccard(a, b))
    beyond = masks.similarities([a, b], beyond_chance=True)[0, 1]
    assert beyond == pytest.approx(masks.jaccard(a, b) - masks.chance(a, b))


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


# --- chance given theta0 ---


def test_chance_given_weights_is_what_shuffling_within_their_bins_gives():
    rng = torch.Generator().manual_seed(5)
    weights = {"a.weight": torch.randn(50, 40, generator=rng), "b.weight": torch.randn(30, 10, generator=rng)}
    within = {name: torch.rand(w.shape, generator=rng) < 0.9 for name, w in weights.items()}
    noisy = lambda: {name: w + 0.7 * torch.randn(w.shape, generator=rng) for name, w in weights.items()}
    three = [masks.magnitude(noisy(), within, rate) for rate in (0.4, 0.5, 0.6)]
    found = masks.chance(*three, within=within, given=weights)

    def shuffled(mask):
        """The mask dealt anew among weights of like magnitude: bins cut by sorting, not as the function does it."""
        dealt = {}
        for name, kept in mask.items():
            alive = within[name].flatten().nonzero().flatten()
            order = alive[weights[name].flatten()[alive].abs().argsort()]
            bins = min(40, len(order) // 10)
            ends = [len(order) * i // bins for i in range(bins + 1)]
            flat = torch.zeros(kept.numel(), dtype=torch.bool)
            for low, high in zip(ends, ends[1:], strict=False):
                places = order[low:high]
                flat[places] = kept.flatten()[places[torch.randperm(high - low, generator=rng)]]
            dealt[name] = flat.view_as(kept)
        return dealt

    drawn = torch.tensor([masks.jaccard(*map(shuffled, three)) for _ in range(300)])
    assert abs(found - drawn.mean()) < 4 * drawn.std() / 300**0.5 + 1e-3  # a ratio of means, not the mean of ratios


def test_what_is_inherited_is_chance_given_theta0_and_what_is_learnt_is_not():
    rng = torch.Generator().manual_seed(6)
    theta0 = {"a.weight": torch.randn(200, 150, generator=rng)}
    full = masks.dense(theta0, list(theta0))
    noise = lambda: 0.5 * torch.randn(200, 150, generator=rng)
    born_alike = [masks.magnitude({"a.weight": theta0["a.weight"] + noise()}, full, 0.5) for _ in range(2)]
    learnt = 2 * torch.randn(200, 150, generator=rng)
    taught_alike = [masks.magnitude({"a.weight": learnt + noise()}, full, 0.5) for _ in range(2)]
    for pair, inherited in ((born_alike, True), (taught_alike, False)):
        beyond = masks.jaccard(*pair) - masks.chance(*pair)
        given = masks.jaccard(*pair) - masks.chance(*pair, given=theta0)
        assert beyond > 0.15
        assert abs(given) < 0.01 if inherited else given > 0.9 * beyond
    same = {"a.weight": torch.ones(200, 150)}  # nothing to tell weights apart by: one bin
    pair = born_alike
    assert masks.chance(*pair, given=same) == pytest.approx(masks.chance(*pair), rel=1e-9)


def test_chance_given_weights_of_another_network_is_refused():
    kept = {"a.weight": torch.ones(4, 4, dtype=torch.bool)}
    with pytest.raises(ValueError, match="another network"):
        masks.chance(kept, kept, given={"b.weight": torch.ones(4, 4)})
    with pytest.raises(ValueError, match="another network"):
        masks.chance(kept, kept, given={"a.weight": torch.ones(2, 4)})
    assert masks.chance(kept, kept, given={"a.weight": torch.rand(4, 4)}) == 1.0
