import pytest
import torch

import colt_core as cc
from colt_core.training import Settling


def masks_of(*kept):
    return [{"layer.weight": torch.tensor([k]).bool()} for k in kept]


def test_the_rule_by_hand():
    """Eight weights alive of ten; a window of two: the third mask is the first that can have settled."""
    before = {"layer.weight": torch.tensor([[1] * 8 + [0] * 2]).bool()}
    a, b, c = masks_of([1] * 6 + [0] * 4, [1] * 5 + [0, 1, 0, 0, 0], [1] * 5 + [0, 0, 1, 0, 0])
    drawn = iter([a, b, c, c, c])
    rule = cc.EarlyBird(delta=0.26, window=2)
    settling = Settling(rule, before, lambda _: ([(m := next(drawn))], m))
    # distances: b to a 2/8; c to b and to a 2/8 each, below 0.26
    assert [settling([None]) for _ in range(3)] == [[False], [False], [True]]
    drawn = iter([a, b, c, c, c])
    strict = Settling(rule.changed(delta=0.25), before, lambda _: ([(m := next(drawn))], m))
    assert [strict([None]) for _ in range(5)] == [[False]] * 4 + [[True]]


def test_the_overlap_may_settle_while_a_mask_does_not():
    before, mask, other = masks_of([1] * 4, [1, 1, 0, 0], [0, 1, 1, 0])
    masks = iter([[mask, other], [mask, mask]] * 3)
    draw = lambda _: (next(masks), other)
    on_overlap = Settling(cc.EarlyBird(window=1, on="overlap"), before, draw)
    assert [on_overlap([None, None]) for _ in range(2)] == [[False, False], [True, True]]
    on_masks = Settling(cc.EarlyBird(window=1), before, draw)
    assert [on_masks([None, None]) for _ in range(2)] == [[False, False], [True, False]]


@pytest.mark.parametrize("on", ["masks", "overlap"])
def test_every_finder_reports_the_epochs_it_saves(few, parts, network, recipe, on):
    rule = cc.EarlyBird(delta=0.99, window=1, on=on)  # settles as soon as there are two masks to compare
    how = {"device": "cpu", "workers": 1, "early_bird": rule}
    longer = recipe.changed(epochs=5)
    *_, colt = cc.colt(network, parts, longer, 0.4, 0.5, **how)
    *_, imp = cc.imp(network, few.train, longer, 0.4, 0.5, **how)
    *_, matched = cc.imp(network, few.train, longer, densities=[0.7, 0.5], **how)
    *_, union = cc.colt(network, parts, longer, combine="or", densities=[0.7, 0.5], **how)
    *_, oneshot = cc.oneshot(network, few.train, longer, [0.7, 0.5], **how)
    for found in (colt, imp, matched, union, oneshot):
        assert found.epochs_saved == [3] * len(found.curves) and all(len(curve) == 2 for curve in found.curves)
    assert imp.image_epochs == imp.number * 2 * len(few.train) and colt.record()["epochs_saved"] == [3, 3]


def test_faithful_runs_train_their_whole_recipe(parts, network, recipe):
    *_, last = cc.colt(network, parts, recipe.changed(epochs=2), 0.4, 0.3, device="cpu", workers=1)
    assert last.epochs_saved == [0, 0] and all(len(curve) == 2 for curve in last.curves)


def test_an_experiment_without_it_keeps_its_hash_and_one_with_it_has_another(tmp_path, recipe):
    plain = cc.Experiment(network_args={"width": 4}, recipe=recipe.changed(epochs=4), rate=0.4, target=0.3, scores=None)
    early = plain.changed(early_bird={"delta": 0.99, "window": 1})
    assert plain.hash == plain.changed(early_bird=None).hash != early.hash
    assert early.early_bird == cc.EarlyBird(delta=0.99, window=1)
    record = next(cc.rounds(early, tmp_path, "cpu")).record()
    assert record["epochs_saved"] == []
    again = list(cc.rounds(early, tmp_path, "cpu"))
    assert [r.epochs_saved for r in again][1:] == [[2, 2]] * (len(again) - 1)
    assert [r.epochs_saved for r in cc.rounds(early, tmp_path, "cpu")] == [r.epochs_saved for r in again]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"delta": 0}, "delta"),
        ({"window": 0}, "window"),
        ({"on": "weights"}, "'masks' or 'overlap'"),
        ({"patience": 3}, "unknown key 'patience'"),
    ],
)
def test_a_bad_rule_is_one_clear_line(change, message, network, parts, recipe):
    with pytest.raises(ValueError, match=message):
        cc.EarlyBird(**change)
    with pytest.raises(ValueError, match="early_bird must be an EarlyBird"):
        cc.colt(network, parts, recipe, early_bird=0.1)
