"""The interactive views without a browser: what they show, held against the masks themselves, and every bad input."""

import base64
import json
import re
import shutil
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import colt_core as cc
from colt_core.studies.saved import runs_in
from colt_core.tickets.ticket import _checksum

ROOT = Path(__file__).parent.parent

SOURCES = Path(cc.__file__).parent


@pytest.fixture(scope="module")
def place(tmp_path_factory, folder):
    """A store of five runs: COLT with three copies, IMP, matched and random beside it, and one of another network."""
    root = tmp_path_factory.mktemp("store")
    recipe = cc.Recipe.named("mini").changed(epochs=1, batch_size=8)
    fields = {"dataset": str(folder), "network_args": {"width": 4}, "rate": 0.2, "target": 0.7, "recipe": recipe}
    fields |= {"parts": 3, "scores": (0.5, 0.6)}
    for method in ("colt", "imp", "matched", "random"):
        cc.run(cc.Experiment(method=method, **fields), root, device="cpu")
    cc.run(cc.Experiment(method="imp", **fields | {"network_args": {"width": 6}, "scores": None}), root, device="cpu")
    return root


@pytest.fixture
def copy(place, tmp_path):
    shutil.copytree(place, tmp_path / "store")
    return tmp_path / "store"


def run_of(place, method, width=4):
    return next(
        r for r in runs_in(place)[0] if r.about["method"] == method and r.about["network_args"]["width"] == width
    )


def wait_for(view, text, seconds=90):
    """Wait until the cockpit says something, and has drawn what it says."""
    until = time.monotonic() + seconds
    while text not in words(view) or view.live.state == "running":
        assert time.monotonic() < until, words(view)
        time.sleep(0.05)


def choose(view, method, width=4):
    view.run = run_of(view.store, method, width).hash


def words(view):
    said = view.words
    return said if isinstance(said, str) else re.sub(r"&#x27;", "'", said.value)


# --- the explorer ---


def test_the_explorer_shows_what_the_ticket_files_hold(place):
    run = run_of(place, "colt")
    view = cc.widgets.explorer([run.hash], place)
    last = run.rounds()[-1]["round"]
    assert [text for text, _ in view.about()["others"]] == [
        *("A's copies 0 and 1", "A's copies 0 and 2", "A's copies 1 and 2"),
        *("all 3 copies of A at once", "A's own mask a round before"),
    ]
    for number in (1, last):
        view.round = number
        for pair in ("copies 0 1", "copies 1 2"):
            view.other = pair
            i, j = map(int, pair.split()[1:])
            a, b = run.mask(number, i), run.mask(number, j)
            alive = run.mask(number - 1)
            for row, name in zip(view.sheet["cells"], a, strict=True):
                counts = [int(m.sum()) for m in (alive[name], a[name], b[name], a[name] & b[name])]
                assert row[:5] == [name.removesuffix(".weight"), *(f"{n:,}" for n in counts)]
                assert row[5] == f"{counts[1] * counts[2] / max(1, counts[0]):,.0f}"
            assert f"Whole network: {cc.masks.count(cc.masks.overlap(a, b)):,} in both" in words(view)
            assert f"Jaccard {cc.masks.jaccard(a, b):.3f}" in words(view)
            assert f"within layers {cc.masks.chance(a, b, within=alive):.3f}" in words(view)


def test_all_copies_at_once_are_counted_by_how_many_keep_a_weight(place):
    run = run_of(place, "colt")
    view = cc.widgets.explorer([run.hash], place)
    view.round, view.other = 2, "all"
    copies, alive = [run.mask(2, i) for i in range(3)], run.mask(1)
    for i, name in enumerate(alive):
        by = torch.stack([mask[name] for mask in copies]).sum(0)[alive[name]]
        counts = [int((by == k).sum()) for k in (3, 0)]
        assert view.sheet["cells"][i][1:5] == [f"{n:,}" for n in (len(by), counts[0], len(by) - sum(counts), counts[1])]
        sizes = [int((torch.stack([m[name] for m in copies]).sum(0) == k).sum()) for k in range(4)]
        assert [text.split(": ")[1].split(" ")[0] for text in view.sheet["legend"][i]] == [f"{n:,}" for n in sizes]
    both, either = cc.masks.count(cc.masks.overlap(*copies)), cc.masks.count(cc.masks.union(*copies))
    assert f"{both:,} kept by all 3 copies" in words(view) and f"(Jaccard) {both / either:.3f}" in words(view)
    assert f"within layers {cc.masks.chance(*copies, within=alive):.3f}" in words(view)


def test_the_picture_and_its_legend_come_from_one_table(place):
    """The static picture's legend, drawn by matplotlib, says what the browser's does."""
    view = cc.widgets.explorer([run_of(place, "colt").hash], place)
    view.layer = "conv2.weight"
    figure = cc.plots.filters(*view.masks([view.layer])[:2], view.layer, names=("copy 0", "copy 1"))
    assert [text.get_text() for text in figure.legends[0].get_texts()] == view.sheet["legend"][1]
    assert view.still().startswith(b"\x89PNG")


def test_a_clicked_weight_tells_its_history(place):
    run = run_of(place, "colt")
    view = cc.widgets.explorer([run.hash], place)
    view.layer = "conv2.weight"
    with pytest.raises(ValueError, match="no weight is chosen"):
        view.history()
    view.weight = [5, 2 * 9 + 7]  # filter 5, input channel 2, kernel position (2, 1)
    from colt_core.widgets.explorer import weight_table

    table = weight_table(run, "conv2.weight", (5, 2, 2, 1))
    assert view.history().equals(table)
    for record in run.rounds():
        row = table[table["round"] == record["round"]].iloc[0]
        assert row["ticket"] == bool(run.mask(record["round"])["conv2.weight"][5, 2, 2, 1])
        for copy in range(run.copies(record["round"])):
            assert row[f"copy {copy}"] == bool(run.mask(record["round"], copy)["conv2.weight"][5, 2, 2, 1])


def make_run(place, change, width=4, records=1, method="colt", **fields):
    """Write a run with one pruned round by hand: theta0 of conv3, masks changed by a function."""
    e = cc.Experiment(network_args={"width": width}, method=method, scores=None, **fields)
    ticket = cc.Ticket.of(cc.build("conv3", 10, seed=0, width=width))
    folder = Path(place) / e.hash
    folder.mkdir(parents=True)
    about = e.model_dump(mode="json", exclude={"scores", "score_on"})
    (folder / "experiment.json").write_text(json.dumps(about))
    lines = []
    for number in range(records + 1):
        mask = change(ticket.mask) if number else ticket.mask
        copies = [{n: m.clone() for n, m in mask.items()} for _ in range(2 if number else 0)]
        found = cc.Round(number, cc.Ticket(ticket.architecture, ticket.theta0, mask), copies)
        found.save(folder / f"round-{number:02d}.safetensors")
        lines.append(json.dumps({"kind": "round", **e.labels(), **found.record()}))
    (folder / "records.jsonl").write_text("\n".join(lines) + "\n")
    return e


def test_two_methods_are_compared_at_the_nearest_density(place):
    view = cc.widgets.explorer(store=place)
    choose(view, "colt")
    view.round = 2
    other = run_of(place, "imp")
    view.other = other.hash
    mine = run_of(place, "colt").rounds()[2]["density"]
    number = min(other.rounds(), key=lambda r: abs(r["density"] - mine))["round"]
    a, b = run_of(place, "colt").mask(2), other.mask(number)
    assert f"B is round {number} of imp" in words(view) and f"Jaccard {cc.masks.jaccard(a, b):.3f}" in words(view)
    view.other = "before"
    assert f"{cc.masks.count(a):,} in both, 0 in this round only" in words(view)
    choose(view, "random")  # masks that do not nest
    view.other = "before"
    a, b = (run_of(place, "random").mask(n) for n in (2, 1))
    both = cc.masks.count(cc.masks.overlap(a, b))
    assert f"{both:,} in both, {cc.masks.count(a) - both:,} in this round only" in words(view)
    assert cc.masks.count(a) > both


def test_masks_of_different_networks_are_refused_in_words_and_the_view_goes_on(place):
    view = cc.widgets.explorer(store=place)
    choose(view, "colt")
    view.other = run_of(place, "imp", width=6).hash
    assert "A is a mask of conv3 width 4, B of conv3 width 6: masks of different networks" in words(view)
    assert view.still() == b"" and "cells" not in view.sheet
    view.other = "copies 0 1"
    assert "Whole network" in words(view) and view.still() and view.sheet["cells"]


@pytest.mark.parametrize("store", ["missing", "empty"])
def test_an_empty_store_is_said_in_words(tmp_path, store):
    where = tmp_path / store
    if store == "empty":
        where.mkdir()
    view = cc.widgets.explorer(store=where)
    assert "there are no runs in" in words(view) and "start one in the cockpit" in words(view)
    assert "there are no rounds in" in words(cc.widgets.compare(store=where))
    assert "Ready: nothing of this run is in the store." in words(cc.widgets.cockpit(store=where))
    make_run(where, lambda masks: masks)
    view.read()
    assert "Round 1: 100.00% dense" in words(view)


def test_runs_that_are_asked_for_and_not_there_are_said_in_words(place):
    e = run_of(place, "colt").experiment()
    view = cc.widgets.explorer([e, e.changed(seed=9)], place)
    assert len(view.runs) == 1 and "1 of the 2 runs asked for are not in the store yet" in words(view)
    view = cc.widgets.explorer([e.changed(seed=9)], place)
    assert "none of the 1 runs asked for is in" in words(view)


def test_a_damaged_file_is_said_in_words_and_the_other_rounds_are_shown(copy):
    run = run_of(copy, "colt")
    path = copy / run.hash / "round-02.safetensors"
    path.write_bytes(path.read_bytes()[:-50])
    view = cc.widgets.explorer([run.hash], copy)
    view.round = 2
    assert f"the file of round 2 of {run.hash} is damaged" in words(view) and view.still() == b""
    view.round = 1
    assert "Whole network" in words(view) and view.still()


def test_an_altered_mask_is_found_out_by_its_record(copy):
    run = run_of(copy, "colt")
    path = copy / run.hash / "round-01.safetensors"
    with safe_open(path, "pt") as file:
        about = json.loads(file.metadata()["ticket"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    tensors["mask/conv2.weight"][0] = ~tensors["mask/conv2.weight"][0]
    save_file(tensors, path, {"ticket": json.dumps(about)})
    view = cc.widgets.explorer([run.hash], copy)
    assert f"round 1 of {run.hash} is altered: its file keeps" in words(view)
    assert about["sha256"] != _checksum(tensors, {k: v for k, v in about.items() if k != "sha256"})


def test_a_collapsed_layer_is_said_in_words(tmp_path):
    make_run(tmp_path, lambda masks: masks | {"conv2.weight": torch.zeros_like(masks["conv2.weight"])}, records=2)
    view = cc.widgets.explorer(store=tmp_path)
    assert view.sheet["collapsed"] == [False, True, False] and view.still()
    view.round = 2
    assert view.sheet["notes"][1] == "conv2: no weight of this layer was left to prune"
    view = cc.widgets.compare(store=tmp_path)
    view.view.value = "layers"
    assert view.picture.png


def test_a_store_that_is_being_written_is_shown_as_far_as_it_is(copy):
    run = run_of(copy, "colt")
    path = copy / run.hash / "records.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    rounds = [line for line in lines if json.loads(line)["kind"] == "round"]
    path.write_bytes(b"".join(rounds[:2]) + rounds[2][:50])
    view = cc.widgets.explorer([run.hash], copy)
    assert view.about()["rounds"][-1][0] == 1 and "Whole network" in words(view)
    path.write_bytes(b"".join(lines))
    view.read()
    assert view.about()["rounds"][-1][0] == len(rounds) - 1
    path.write_bytes(b"")  # only begun
    view.read()
    assert "this run has no finished round yet: press Reload when it has" in words(view)


def test_broken_folders_are_named_beside_what_can_be_shown(copy):
    (copy / "0123456789abcdef").mkdir()
    (copy / "0123456789abcdef" / "experiment.json").write_text("{")
    for view in (cc.widgets.explorer(store=copy), cc.widgets.compare(store=copy), cc.widgets.cockpit(store=copy)):
        assert "0123456789abcdef cannot be read" in words(view) and view.still()


# --- the comparison ---


def test_every_view_tells_what_the_records_warn_of(place, tmp_path):
    """Three copies of one class each: there was nothing to learn."""
    run = run_of(place, "colt")
    explorer, cockpit = cc.widgets.explorer([run.hash], place), cc.widgets.cockpit(run.experiment(), place)
    rounds = len(run.rounds()) - 1
    named = {explorer: "round 1", cockpit: f"{rounds} rounds from 1 to {rounds}"}
    for view, when in named.items():
        assert f"Warning, {when}: each of 3 copies has a single class to learn." in words(view)
        assert "means nothing" in words(view)
    assert "of 5 runs carry warnings: see cc.report.warnings(records)" in words(cc.widgets.compare(store=place))


def test_the_cockpit_warns_of_nonsense_before_it_is_computed(tmp_path):
    nonsense = cc.Experiment(dataset="cifar10-mini", parts=10, rate=0.6, target=0.9, recipe="mini")
    said = words(cc.widgets.cockpit(nonsense, tmp_path))
    assert "10 of 10 copies have a single class to learn" in said and "at most 5 partitions" in said
    assert "leave 0.01 % of the weights" in said and "collapse" in said
    assert "Warning" not in words(cc.widgets.cockpit(store=tmp_path))


def test_the_comparison_shows_each_score_and_finds_its_ticket(place):
    view = cc.widgets.compare(store=place)
    scores = [r for run in runs_in(place)[0] for r in run.records() if r["kind"] == "score"]
    scores.sort(key=lambda r: ("colt", "imp", "matched", "random").index(r["method"]))  # COLT first, then its controls
    view.singles.value = True
    assert f"{len(scores)} scored tickets of 4 runs" in words(view) and len(view.picture.spots) == len(scores)
    for number, record in enumerate(scores):
        text = view.picture.spots[number][2]
        assert (
            f"round {record['round']}\n{record['accuracy']:.1%} accuracy at {1 - record['density']:.2%} sparsity"
            in text
        )
        view.picture.spot = number
        assert view.ticket.density == record["density"]
        assert f"{record['experiment']}/round-{record['round']:02d}.safetensors" in view.details.value
    xs = [x for x, _, _ in view.picture.spots]
    by_density = sorted(range(len(scores)), key=lambda i: -scores[i]["density"])
    assert [xs[i] for i in by_density] == sorted(xs)  # sparser is further right
    view.filters["arm"].value = ("imp",)
    assert len(view.picture.spots) == sum(r["method"] == "imp" for r in scores)
    view.filters["seed"].value = ()
    assert "no scored ticket fits these filters" in words(view) and view.picture.png == b""


def test_similarities_are_those_of_the_masks(place):
    view = cc.widgets.compare(store=place)
    view.view.value, view.which.value = "similarity", -1.0
    view.filters["arm"].value = ("colt", "matched")
    rounds = {m: run_of(place, m).rounds()[1:] for m in ("colt", "matched")}
    count = sum(map(len, rounds.values()))
    assert f"{count} tickets" in words(view) and len(view.picture.spots) == count**2
    found = sorted(float(text.rsplit(" ", 1)[1]) for _, _, text in view.picture.spots)
    masks = [run_of(place, m).mask(r["round"]) for m, several in rounds.items() for r in several]
    assert found == pytest.approx(sorted(cc.masks.jaccard(a, b) for a in masks for b in masks), abs=6e-4)
    view.measure.value = True
    found = sorted(float(text.rsplit(" ", 1)[1]) for _, _, text in view.picture.spots)
    expected = sorted(cc.masks.jaccard(a, b) - cc.masks.chance(a, b) for a in masks for b in masks)
    assert found == pytest.approx(expected, abs=6e-4)
    view.filters["arm"].value, view.which.value = ("colt",), view.which.options[0][1]
    assert "two tickets are needed" in words(view)


def test_tickets_of_other_networks_are_left_out_in_words(place):
    view = cc.widgets.compare(store=place)
    view.view.value, view.which.value = "layers", -1.0
    view.filters["net"].value = ("conv3 width 4", "conv3 width 6")
    view.filters["arm"].value = ("imp",)
    assert "tickets of other networks than conv3 width" in words(view)


def scored(store, **fields):
    """Write a finished run with made-up scores: a description, and records of three rounds, two of them scored."""
    gain = fields.pop("gain", 0.0)
    e = cc.Experiment(**{"dataset": "cifar10-mini", "network_args": {"width": 4}, "scores": None} | fields)
    (store / e.hash).mkdir(parents=True)
    about = e.model_dump(mode="json", exclude={"scores", "score_on", "scoring"}) | {"format": 1, "data": []}
    (store / e.hash / "experiment.json").write_text(json.dumps(about))
    usual = {"image_epochs": 0, "curves": [], "accuracies": [], "overlap": None, "flops": 0.0, "seconds": 0.0}
    last = 1 if e.method == "dense" else 2 if e.target < 0.6 else 3
    with open(store / e.hash / "records.jsonl", "w") as file:
        for number in range(last):
            one = e.labels() | {"round": number, "density": 0.5**number}
            file.write(json.dumps(one | usual | {"kind": "round"}) + "\n")
            if number or e.method == "dense":
                value = 0.5 + gain - 0.05 * number + 0.001 * ((7 * e.seed) % 5)
                score = {"accuracy": value, "chance": 0.1, "train_images": 2700, "scored_on": e.dataset}
                file.write(json.dumps(one | score | {"kind": "score"}) + "\n")
    return e


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    """COLT with two rates, one of them with its target raised later, and controls, three seeds; halves beside them."""
    root = tmp_path_factory.mktemp("grid")
    for seed in range(3):
        for method, gain in (("colt", 0.0), ("imp", 0.1), ("matched", 0.001), ("random", -0.1), ("dense", 0.15)):
            scored(root, method=method, seed=seed, gain=gain, rate=0.3, target=0.7)
        scored(root, method="colt", seed=seed, rate=0.3, target=0.5)
        scored(root, method="colt", seed=seed, rate=0.2, target=0.7, gain=0.02)
        scored(root, method="snip", seed=seed, rate=0.3, target=0.7)
        scored(root, method="colt", seed=seed, dataset="cifar10-mini:0-4", rate=0.3, target=0.7, gain=0.2)
    return root


def test_the_comparison_opens_on_one_data_set_and_colts_controls_with_seeds_collapsed(grid):
    view = cc.widgets.compare(store=grid)
    assert view.filters["scored_on"].value == ("cifar10-mini",)
    assert view.filters["arm"].value == ("colt", "imp", "matched", "random", "dense")
    table = view.table()
    assert set(table["seeds"]) == {3} and len(table) == 4 * 2 + 1
    colt = table[(table["arm"] == "colt") & (table["step"] == 1)].iloc[0]
    mean, half = cc.report.interval([0.45, 0.452, 0.454])
    assert (colt["accuracy"], colt["half_width"], colt["density"]) == pytest.approx((mean, half, 0.5))
    assert len(view.picture.spots) == len(table) and "mean of 3 seeds" in view.picture.spots[0][2]
    assert "27 scored tickets of 15 runs" in words(view)  # the raised target is there once
    data = re.search(r"base64,([^\"]+)", view.csv.value)[1]
    assert base64.b64decode(data).decode() == table.to_csv(index=False)
    view.singles.value = True
    assert len(view.picture.spots) == 27


def test_only_what_differs_is_named_and_the_plain_arm_keeps_its_name(grid):
    view = cc.widgets.compare(store=grid)
    assert [label for label, _ in view.filters["arm"].options][:2] == ["COLT", "COLT (rate 0.2)"]
    view.filters["arm"].value = ("colt",)
    assert "6 scored tickets of 3 runs" in words(view)
    view.filters["scored_on"].value = ("cifar10-mini", "cifar10-mini:0-4")
    titles = [axis.get_title(loc="left") for axis in cc.plots.curves(view.table()).axes]
    assert titles == ["CIFAR-10-mini, conv3 width 4", "CIFAR-10-mini:0-4, conv3 width 4"]  # no two share an axis
    view.filters["scored_on"].value = ("cifar10-mini:0-4",)
    assert [value for _, value in view.filters["arm"].options] == ["colt"]  # each filter narrows those after it


def test_the_verdicts_beside_the_curves_are_the_reports(grid):
    view = cc.widgets.compare(store=grid)
    records = cc.report.load(grid).query("dataset == 'cifar10-mini' and rate == 0.3 and target == 0.7")
    expected = cc.report.against(records, "colt", ["imp", "matched", "random"], [0.5, 0.75])
    for mark, other, name in (("▼", "imp", "IMP"), ("▲", "random", "random"), ("▼=", "matched", "IMP at COLT")):
        line = next(one for one in view.verdicts.value.split("<tr>") if f"minus {name}" in one)
        said = expected[expected["other"] == other]
        assert set(said["verdict"]) == {{"▼": "worse", "▲": "better", "▼=": "worse, yet equivalent"}[mark]}
        for row in said.itertuples():
            assert f"{mark} {cc.report.spread(row.difference, row.half_width)}" in line
    view.against.value = "imp"
    assert "▲ +10.0" in view.verdicts.value


def test_a_query_filters_and_runs_no_code(grid):
    view = cc.widgets.compare(store=grid)
    view.query.value = "sparsity > 0.6 and method in ['colt', 'imp']"
    assert "6 scored tickets of 6 runs" in words(view)
    for text, why in {
        "@pd": "it is no condition",
        "__import__('os')": "call is not allowed",
        "method.str.len() > 1": "is not allowed",
        "seed.__class__ == 1": "attribute is not allowed",
        "seed == open": "there is no column 'open'",
        "seed ** 9 ** 9 > 1": "pow is not allowed",
        "'a' * 10 == method": "arithmetic is of columns and numbers",
        "seed <": "it is no condition",
        "seed > 'a'": "query",
        "1" * 400: "longer than 300",
    }.items():
        view.query.value = text
        assert why in words(view) and "columns: method, arm" in words(view), text
    view.query.value = ""
    assert "27 scored tickets" in words(view)


def test_a_grid_is_drawn_over_the_settings_that_differ(grid):
    view = cc.widgets.compare(store=grid)
    view.filters["arm"].value = ("colt", "colt (rate 0.2)")
    view.view.value = "settings"
    assert "6 runs" in words(view) and view.picture.alt == "6 runs over rate, seed"


def test_records_alone_can_be_compared(place, tmp_path):
    records = cc.report.load(place)
    view = cc.widgets.compare(records, tmp_path)
    assert "scored tickets" in words(view)
    view.picture.spot = 0
    assert "Its store is not this one" in view.details.value and view.ticket is None
    view.view.value = "similarity"
    assert "no pruned ticket with its file here" in words(view)


# --- what if ---


def test_what_if_says_what_arithmetic_gives():
    view = cc.widgets.what_if()
    assert "15 rounds to 99.1%" in words(view) and "IMP at 20% a round: 22 rounds" in words(view)
    for overlap, rounds in ((0.90, 18), (0.94, 21), (0.95, 23), (1.0, 29)):
        view.overlap.value = overlap
        assert f"{rounds} rounds to 99.1%" in words(view)
    view.overlap.value = 0.5
    assert "less than 0.824 is impossible at this rate" in words(view)  # (1 - 2 x 0.15) / 0.85
    view.parts.value, view.rate.value, view.overlap.value = 10, 0.5, 0.0
    assert "may leave nothing" in words(view) and view.picture.png == b""
    view.rate.value, view.overlap.value = 0.6, 0.4
    assert "single round leaves 0.0105 % of the weights" in words(view) and "collapse" in words(view)


# --- the cockpit ---


def test_the_cockpit_describes_the_experiment_that_it_was_given(place, tmp_path):
    e = run_of(place, "colt").experiment()
    view = cc.widgets.cockpit(e, place)
    assert view.experiment.hash == e.hash
    assert "Done: every round is in the store." in words(view)
    assert [r.density for r in view.rounds] == [r.density for r in cc.rounds(e, place)]
    assert [b.disabled for b in (view.start, view.pause, view.resume, view.stop)] == [True] * 4
    view.fields["seed"].value = 9
    assert "Ready" in words(view) and not view.start.disabled and view.rounds == []
    view.known.value = e.hash
    assert view.fields["seed"].value == 0 and "Done" in words(view)


def test_the_cockpit_shows_runs_of_other_metrics_and_of_methods_of_ones_own(place, tmp_path, monkeypatch):
    store = ROOT / "results" / "generative" / "store"
    run = next(r for r in runs_in(store)[0] if r.about["method"] == "dense" and r.about["network"] == "autoencoder")
    shutil.copytree(store / run.hash, tmp_path / run.hash)
    view = cc.widgets.cockpit(runs_in(tmp_path)[0][0].experiment(), tmp_path)
    assert re.search(r"Last score: round 0, test (mse 0\.\d+|psnr \d+\.\d+ dB)\.", words(view))
    (tmp_path / "of_my_own.py").write_text("import colt_core as cc\nMINE = cc.METHODS['imp']\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    mine = run_of(place, "colt").experiment().changed(method="of_my_own:MINE")
    assert cc.widgets.cockpit(mine, place).experiment.method == "of_my_own:MINE"


def test_a_weight_that_the_other_run_lost_later_is_not_said_to_be_gone(tmp_path):
    kept = make_run(tmp_path, lambda masks: masks)
    lost = lambda masks: {n: torch.zeros_like(m) for n, m in masks.items()}
    other = make_run(tmp_path, lost, records=3, method="imp")
    view = cc.widgets.explorer([kept, other], tmp_path)
    view.other = other.hash
    view.weight = [0, 0]
    table = view.history()
    assert list(table["ticket"]) == [True, True, None, None] and list(table["B: imp"]) == [True, False, False, False]


@pytest.mark.parametrize(
    "line", ["null", "{}", '{"kind": "round"}', '{"kind": "round", "round": 99, "density": 0.5}', "{"]
)
def test_records_that_are_no_records_are_said_in_words_by_every_view(copy, line):
    run = run_of(copy, "colt")
    with open(copy / run.hash / "records.jsonl", "a") as file:
        file.write(line + "\n")
    for view in cc.widgets.app(copy).views.values():
        assert isinstance(words(view), str)
    assert f"{run.hash} cannot be read (the records of {run.hash} are damaged" in words(cc.widgets.explorer(store=copy))
    view = cc.widgets.cockpit(run.experiment(), copy)
    assert f"the records of {run.hash} are damaged" in words(view) and view.start.disabled
    with pytest.raises(ValueError, match="are damaged"):
        _ = view.rounds


def test_reload_shows_new_runs_and_keeps_what_was_chosen(place, tmp_path):
    shutil.copytree(place / run_of(place, "colt").hash, tmp_path / run_of(place, "colt").hash)
    view = cc.widgets.compare(store=tmp_path)
    view.which.value = -1.0
    shutil.copytree(place / run_of(place, "imp").hash, tmp_path / run_of(place, "imp").hash)
    view.reload.click()
    assert set(view.filters["arm"].value) == {"colt", "imp"} and view.which.value == -1.0
    view.filters["arm"].value = ("imp",)
    view.reload.click()
    assert view.filters["arm"].value == ("imp",)


def test_settings_beyond_a_sliders_ends_are_kept(place, tmp_path):
    e = (
        run_of(place, "colt")
        .experiment()
        .changed(target=0.4, rate=0.7, parts=3, scores=(0.3,), score_on="cifar10-mini")
    )
    view = cc.widgets.cockpit(e, tmp_path)
    assert view.experiment == e


def test_a_cost_that_cannot_be_told_takes_no_button_away(place, tmp_path, monkeypatch):
    view = cc.widgets.cockpit(run_of(place, "colt").experiment(), tmp_path)
    view.live.state = "paused"
    view.draw()
    before = [b.disabled for b in (view.start, view.pause, view.resume, view.stop)]
    monkeypatch.setattr(
        sys.modules["colt_core.widgets.cockpit"], "plan", lambda *_: (_ for _ in ()).throw(RuntimeError("no memory"))
    )
    view._ask_cost()
    assert "no memory" in words(view) and before == [True, True, False, False]
    assert [b.disabled for b in (view.start, view.pause, view.resume, view.stop)] == before


def test_a_form_that_changes_does_not_let_a_run_go(place, tmp_path):
    view = cc.widgets.cockpit(run_of(place, "colt").experiment(), tmp_path)
    live, live.state = view.live, "running"
    view.fields["seed"].value = 7
    assert view.live is live
    live.state = "stopped"


def test_the_cockpit_finds_an_unfinished_run(copy):
    run = run_of(copy, "colt")
    (copy / run.hash / "complete").unlink()
    view = cc.widgets.cockpit(run.experiment(), copy)
    assert "Not finished: Continue goes on" in words(view)
    assert view.start.disabled and not view.resume.disabled
    told = {value: text for text, value in view.known.options}[run.hash]
    assert re.search(r"rate 0\.2, target 70 % \(unfinished, (just now|.* ago)\)$", told)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("network_args", {"width": "wide"}, "width must be a whole number, not 'wide'"),
        ("network_args", {"width": "{4"}, "width is no YAML"),
        ("network_args", {"width": "0"}, "conv3 cannot be built with {'width': 0}: width must be at least 1, not 0"),
        ("network", "convnet", "unknown network 'convnet'; allowed: conv3"),
        ("network", "torchvision:resnet", "torchvision has no classifier 'resnet'"),
        ("dataset", "nowhere/pictures", "unknown data set 'nowhere/pictures'"),
        ("parts", 5, "parts must be at most 3, the number of classes, not 5"),
        ("rate", 1.5, "rate must lie strictly between 0 and 1, not 1.5"),
        ("seed", -1, "seed: Input should be greater than or equal to 0"),
    ],
)
def test_settings_that_no_run_can_have_are_said_in_words(place, tmp_path, field, value, message, monkeypatch):
    monkeypatch.setenv("COLT_WORKERS", "1")
    view = cc.widgets.cockpit(run_of(place, "colt").experiment(), tmp_path)
    view.fields[field].value = value
    if not view.start.disabled:  # what only the data can tell
        view.start.click()
        wait_for(view, "Failed")
    assert message in words(view)
    assert not list(tmp_path.glob("*/records.jsonl"))


def test_a_run_of_another_process_is_said_to_be_one_and_followed(copy):
    """This process holds the claim, as one that computes would."""
    run = run_of(copy, "colt")
    lines = (copy / run.hash / "records.jsonl").read_text().splitlines(keepends=True)
    (copy / run.hash / "complete").unlink()
    (copy / run.hash / "records.jsonl").write_text(lines[0])
    view = cc.widgets.cockpit(run.experiment(), copy)
    assert "Not finished" in words(view)
    with cc.open_store(copy).claim(f"{run.hash}/experiment"):
        view._look()
        assert "Running in another process: process" in words(view) and "Round 0:" in words(view)
        assert all(b.disabled for b in (view.start, view.pause, view.resume, view.stop))
        (copy / run.hash / "records.jsonl").write_text("".join(lines[:2]))
        view._look()
        assert "Round 1:" in words(view)
    view._look()
    assert "Not finished" in words(view) and not view.resume.disabled


def test_a_form_takes_any_number_and_says_what_is_wrong_with_it(tmp_path):
    view = cc.widgets.cockpit(store=tmp_path)
    view.fields["rate"].value = 0.9
    assert view.experiment.rate == 0.9 and "Warning" in words(view)
    view.fields["rate"].value, view.fields["parts"].value = 0.15, 11
    assert "parts must be at most 10, the number of classes, not 11" in words(view) and view.start.disabled


def test_the_cockpit_runs_and_scores_as_run_does(place, tmp_path, monkeypatch):
    monkeypatch.setenv("COLT_WORKERS", "1")
    e = run_of(place, "imp").experiment()
    view = cc.widgets.cockpit(e, tmp_path, "cpu")
    view.fields["scores"].value = "the last ticket"
    view.start.click()
    wait_for(view, "Done")
    assert "Last score: round" in words(view)
    assert [r.ticket.hash for r in view.rounds] == [r.ticket.hash for r in cc.rounds(e, place)]
    last = f"{len(view.rounds)} rounds of imp"  # drawn in the thread that follows the run
    assert any(last in view.picture.alt or time.sleep(0.1) for _ in range(600)) and view.bar.value == 1


# --- the rules ---


def test_each_view_leaves_its_picture_where_no_kernel_runs(place):
    views = [cc.widgets.cockpit(store=place), cc.widgets.explorer(store=place), cc.widgets.compare(store=place)]
    for view in [*views, cc.widgets.what_if(), cc.widgets.app(place)]:
        shown = view._repr_mimebundle_()
        bundle = shown[0] if isinstance(shown, tuple) else shown  # the second: metadata
        assert bundle["image/png"].startswith("iVBOR") and "interactive where a kernel runs" in bundle["text/plain"]


def test_nothing_that_can_hang_papermill_is_used():
    for path in [*(SOURCES / "widgets").glob("*.py"), *(SOURCES.parent / "notebooks").glob("*.ipynb")]:
        assert not re.search(r"\binteract\b\(|interactive_output|widgets\.Output|interactive\(", path.read_text()), path
