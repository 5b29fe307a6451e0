from colorsys import rgb_to_hls
from dataclasses import replace
from itertools import combinations, pairwise

import matplotlib
import matplotlib.pyplot as plt
import pandas as pd
import pytest
import torch
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from test_report import carried_records, records

import colt_core as cc
from colt_core import plots, report
from colt_core.plots.frame import counts_axis, looks_of, percent_axis, sparsity_axis, spelled

matplotlib.use("agg")


@pytest.fixture(scope="module")
def runs(few, parts, recipe):
    network = cc.build("conv3", 10, width=4)
    held_out = cc.partition(few.validation, 2)
    found = {
        "colt": list(cc.colt(network, parts, recipe, 0.3, 0.8, device="cpu", validation=held_out)),
        "imp": list(cc.imp(network, few.train, recipe, 0.3, 0.5, device="cpu", validation=[few.validation])),
    }
    # So few images teach next to nothing; here that is no reason to leave the copies out of figures of agreement.
    return {method: [replace(r, doubts=[]) for r in rounds] for method, rounds in found.items()}


def told(rounds, **fields):
    about = {"kind": "round", "experiment": "e", "dataset": "d", "network": "n", "method": "colt", "seed": 0}
    return [about | found.record() | fields for found in rounds]


def drawings(runs, few, parts):
    table = plots.rounds_table(runs)
    cycle = runs["colt"][1]
    layers = pd.DataFrame([{"round": c.number} | row for c in runs["colt"] if c.overlap for row in c.overlap.layers])
    accuracy = report.accuracy_table(records(), [0.5, 0.7])
    yield plots.class_counts({"class": plots.counts_table(parts, few.classes)})
    yield plots.pictures(parts)
    yield plots.magnitudes([torch.rand(500), torch.rand(500)], [0.3, 0.3], 0.3)
    yield plots.trajectories(table, 0.3, 2)
    yield plots.overlap_over_cycles(table[table["method"] == "colt"])
    yield plots.overlap_by_layer(layers)
    yield plots.filters(*cycle.partition_masks, "conv2.weight")
    yield plots.accuracy_sparsity(accuracy)
    yield plots.accuracy_sparsity(report.accuracy_table(records(2), [0.5]))
    moved = carried_records()
    yield plots.transfer(report.transfers(moved, [0.5]), report.transfer_gains(moved, [0.5]))
    yield plots.countings(table[table["method"] == "colt"].assign(density_all=0.5))
    yield plots.costs(report.rounds_table(records(), [0.8, 0.9]))
    compared = report.compare(records(), "colt", "imp", [0.5, 0.7])
    yield plots.comparisons(compared)
    yield plots.comparisons(pd.concat([compared.assign(method="colt", other=name) for name in ("imp", "random")]))
    yield plots.comparisons(report.compare(records(2), "colt", "imp", [0.5]))
    yield plots.overlaps(pd.DataFrame(told(runs["colt"])))


def test_every_figure_is_drawn_once_with_titles_and_is_closed(runs, few, parts):
    for figure in drawings(runs, few, parts):
        assert isinstance(figure, Figure) and figure.axes[0].get_title(loc="left")
    assert not plt.get_fignums()


def test_a_figure_is_saved_beside_its_numbers_with_the_same_bytes_each_time(runs, tmp_path):
    table = plots.rounds_table(runs)
    for name in ("a", "b"):
        plots.save(plots.trajectories(table, 0.3, 2), name, table, tmp_path)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert pd.read_csv(tmp_path / "a.csv")["density"].tolist() == pytest.approx(table["density"].tolist())


def test_the_filter_picture_shows_the_masks(runs):
    first, second = runs["colt"][1].partition_masks
    figure = plots.filters(first, second, "conv3.weight", limit=(16, 64))
    code = torch.tensor(figure.axes[0].images[0].get_array().data)
    a, b = first["conv3.weight"].flatten(1), second["conv3.weight"].flatten(1)
    assert torch.equal(code == 0, a & b) and torch.equal(code == 1, a & ~b)
    assert torch.equal(code == 2, b & ~a) and torch.equal(code == 3, ~a & ~b)


def test_overlap_is_drawn_with_its_chance_levels(runs):
    table = plots.rounds_table({"colt": runs["colt"]})
    lines = {line.get_label(): line.get_ydata() for line in plots.overlap_over_cycles(table).axes[0].lines}
    assert lines["chance within each layer"][0] == runs["colt"][1].overlap.chance
    assert lines["between the partitions' masks"][0] == runs["colt"][1].overlap.jaccard


def test_every_method_has_a_colour_and_a_marker_of_its_own():
    assert set(cc.METHODS) <= set(plots.COLOURS)
    assert len({to_rgb(c) for c in plots.COLOURS.values()}) == len(set(plots.MARKERS.values())) == len(plots.COLOURS)


def test_class_counts_add_up(few, parts):
    table = plots.counts_table(parts, few.classes)
    assert table.to_numpy().sum() == len(few.train) and table.index.tolist() == list(few.classes)


def test_arms_of_one_method_share_its_hue_and_differ_in_shade_and_stroke():
    frame = records()
    again = frame[frame["method"] == "colt"].assign(by="random", experiment=lambda rows: rows["experiment"] + "r")
    both = pd.concat([frame.assign(by="class"), again], ignore_index=True)
    table = report.accuracy_table(both[both["method"] == "colt"], [0.5, 0.7])
    first, second = [bars.lines[0] for bars in plots.accuracy_sparsity(table).axes[0].containers]
    assert to_rgb(first.get_color()) == to_rgb(plots.COLOURS["colt"])
    mine, other = (rgb_to_hls(*to_rgb(line.get_color())) for line in (first, second))
    assert mine[0] == pytest.approx(other[0], abs=0.01) and abs(mine[1] - other[1]) > 0.05
    assert first.get_linestyle() != second.get_linestyle()


def test_shades_of_a_method_are_legible_on_white_and_told_apart():
    for method in plots.COLOURS:
        looks = looks_of([method, *(f"{method} ({number})" for number in "abcd")])
        lights = [rgb_to_hls(*to_rgb(look["color"]))[1] for look in looks.values()]
        assert max(lights[1:]) < 0.66
        assert min(abs(a - b) for a, b in combinations(lights[1:], 2)) > 0.05


def test_a_dozen_arms_of_one_method_are_told_apart_by_more_than_their_shades():
    looks = looks_of(["colt", *(f"colt ({number})" for number in range(11))])
    assert max(look["markersize"] for look in looks.values()) <= 9
    drawn = [(look["marker"], look.get("linestyle"), look["color"], look["markersize"]) for look in looks.values()]
    assert len(set(drawn)) == len(drawn)
    for one, other in pairwise(list(looks.values())[3:]):
        assert one["marker"] != other["marker"]
    assert [look["marker"] for look in looks_of(["dual", "dual (a)", "dual (b)"]).values()][1:] == ["s", "D"]


def test_the_pareto_front_holds_what_no_other_arm_beats():
    rows = [("dense", 1.0, 0.40), ("colt", 1.0, 0.38), ("refill", 2.0, 0.35), ("narrow", 1.5, 0.34)]
    table = pd.DataFrame(rows, columns=["method", "faster", "accuracy"])
    table = table.assign(density=0.5, half_width=0.01, slowest=table["faster"], fastest=table["faster"])
    (front,) = [line for line in plots.pareto(table).axes[0].lines if line.get_label() == "Pareto front"]
    corners = set(zip(front.get_xdata(), front.get_ydata(), strict=True))
    assert corners == {(1.0, 0.40), (1.0, 0.35), (2.0, 0.35)}


def test_agreement_has_a_panel_an_arm_and_data_set_each_with_both_nulls(runs):
    rows = told(runs["colt"], by="class") + told(runs["colt"], by="random", experiment="f")
    rows += told(runs["colt"], by="class", dataset="other", experiment="g")
    figure = plots.overlaps(pd.DataFrame(rows))
    titles = [axis.get_title(loc="left") for axis in figure.axes]
    assert titles == ["d, n\nCOLT (by class)", "d, n\nCOLT (by random)", "other, n\nCOLT"]
    found = runs["colt"][1].overlap
    for axis in figure.axes:
        lines = {line.get_label(): line.get_ydata()[0] for line in axis.lines}
        assert lines["chance within each layer"] == pytest.approx(found.chance)
        assert lines["chance among like initial magnitudes"] == pytest.approx(found.chance_theta0)
        assert axis.containers[0].lines[0].get_ydata()[0] == pytest.approx(found.jaccard)


def test_bars_of_equal_density_stand_side_by_side_in_order():
    colt = records().query("method == 'colt'")
    rows = pd.concat([records(), colt.assign(method="random", experiment="r" + colt["experiment"])])
    table = report.accuracy_table(rows, [0.5])
    lines = [bars.lines[0] for bars in plots.accuracy_sparsity(table).axes[0].containers]
    drawn = sorted(float(line.get_xdata()[0]) for line in lines)
    assert len(set(drawn)) == len(drawn) and all(
        abs(x / y - 1) < 0.03 for x, y in zip(drawn, sorted(1 - table["sparsity"]), strict=False)
    )


def test_a_forest_shows_each_difference_beside_the_margin():
    table = report.compare(records(), "colt", "imp", [0.5, 0.7])
    axis = plots.comparisons(table, margin=0.02).axes[0]
    places = [bars.lines[0].get_xdata()[0] for bars in axis.containers]
    assert places == pytest.approx(list(100 * table["difference"]))
    assert [label.get_text() for label in axis.get_yticklabels()] == ["50% sparse", "70% sparse"], (
        "scores stand at one density"
    )


def test_a_forest_of_several_pairs_has_a_row_a_pair_and_in_it_a_bar_a_sparsity():
    table = report.compare(records(), "colt", "imp", [0.5, 0.7])
    both = pd.concat([table.assign(method="colt", other=name) for name in ("imp", "random")])
    figure = plots.comparisons(both)
    axis = figure.axes[0]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["COLT − IMP", "COLT − random, same layers"]
    drawn = [(float(x), float(y)) for bars in axis.containers for x, y in bars.lines[0].get_xydata()]
    assert [x for x, _ in drawn] == pytest.approx(list(100 * both["difference"]))
    rows = [round(y) for _, y in drawn]
    assert rows == [0, 0, 1, 1] and drawn[0][1] < drawn[1][1]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "± 1 point",
        "50% sparse (59% reached)",
        "70% sparse (75% reached)",
    ]


def test_a_forest_says_both_sparsities_where_they_lie_apart():
    table = report.compare(records(), "colt", "imp", [0.5]).assign(sparsity=0.62, other_sparsity=0.5)
    axis = plots.comparisons(table).axes[0]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["62% and 50% sparse"]


def test_the_transfer_figure_orders_data_sets_from_few_classes_to_many():
    moved = carried_records()
    few = {"a": 1 / 100, "b": 1 / 10}
    moved["chance"] = moved["scored_on"].map(few)
    figure = plots.transfer(report.transfers(moved, [0.5]), report.transfer_gains(moved, [0.5]))
    rows = [label.get_text().split(":")[0] for label in figure.axes[0].get_yticklabels()]
    assert rows == ["mean of all pairs", "a (100 images) →\nb", "b (200 images) →\na"]


def test_arms_of_fewer_seeds_say_so():
    one = records(1).query("method == 'colt'").assign(method="snip", experiment="one")
    rows = pd.concat([records(), one])
    figure = plots.accuracy_sparsity(report.accuracy_table(rows, [0.5]))
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert sum("1 seed" in name for name in names) == sum(name.startswith("SNIP, 1 seed") for name in names) == 1


def test_the_scored_tickets_are_shown_in_their_range_unless_they_are_near_guessing():
    rows = pd.DataFrame(
        {"arm": "colt", "experiment": "e", "density": [0.5, 0.1], "accuracy": [0.6, 0.5], "chance": 0.1}
    )
    far = plots.tickets(rows).axes[0]
    assert far.get_ylim()[0] > 0.4 and far.get_ylabel() == "test accuracy (guessing: 10.0%)"
    near = plots.tickets(rows.assign(accuracy=[0.3, 0.15])).axes[0]
    assert near.get_ylim()[0] < 0.1 and near.get_ylabel() == "test accuracy"


def test_the_transfer_figure_draws_what_the_tables_say():
    moved = carried_records()
    table, gains = report.transfers(moved, [0.5]), report.transfer_gains(moved, [0.5])
    figure = plots.transfer(table, gains)
    titles = [axis.get_title(loc="left") for axis in figure.axes]
    assert titles[0] == "minus the target's own ticket" and len(titles) == gains["against"].nunique()
    own = figure.axes[0]
    rows = [label.get_text().split(" (")[0] for label in own.get_yticklabels()]
    drawn = {rows[round(float(bars.lines[0].get_ydata()[0]))]: bars.lines[0].get_xdata()[0] for bars in own.containers}
    found = gains[gains["against"] == "own"].set_index(["source", "target"])["difference"]
    assert drawn["a"] == pytest.approx(100 * found["a", "b"]) == pytest.approx(-3.0)
    assert drawn["mean of all pairs"] == pytest.approx(100 * found["all", "all"])


# --- what figures share ---


def ticks(axis, which="x"):
    axis.figure.canvas.draw()
    one = axis.xaxis if which == "x" else axis.yaxis
    return [label.get_text() for label in one.get_ticklabels()]


def drawn_over(densities, at=None):
    with plots.canvas() as (_, axis):
        axis.plot(densities, densities)
        axis.set_xscale("log")
        sparsity_axis(axis, at=at)
    return ticks(axis)


def test_an_axis_of_sparsities_has_ticks_whatever_was_asked():
    assert drawn_over([0.5, 0.2], [0.5, 0.65, 0.8]) == ["50", "65", "80"]
    assert drawn_over([0.4139, 0.4131], [0.5]) == ["50"], "what was asked stands alone where nothing else does"
    assert drawn_over([0.413, 0.407]) == ["59"], "of narrow axes whole percents"
    assert drawn_over([0.5, 0.01], [0.5]) == ["50", "90", "98"], "round ones fill the rest"


def test_ticks_have_no_more_digits_than_they_need():
    with plots.canvas() as (_, axis):
        axis.set(ylim=(0.61, 0.64), yticks=[0.61, 0.62, 0.63], xlim=(0, 80000), xticks=[0.5, 60000])
        percent_axis(axis)
        counts_axis(axis)
        assert ticks(axis, "y") == ["61%", "62%", "63%"] and ticks(axis) == ["0.5", "60,000"]
        axis.set_yticks([0.61, 0.615])
        assert ticks(axis, "y") == ["61.0%", "61.5%"]


def test_data_sets_and_networks_are_written_as_people_write_them():
    told = spelled("cause_resnet20: resnet20 on cifar100, then cifar10-mini")
    assert told == "cause_resnet20: ResNet-20 on CIFAR-100, then CIFAR-10-mini"
    title = plots.accuracy_sparsity(report.accuracy_table(records(), [0.5]), "vae on cifar10").axes[0].get_title("left")
    assert title == "VAE on CIFAR-10"


def test_no_density_is_drawn_far_from_its_place():
    names = ["colt", *(f"colt ({number})" for number in range(11))]
    table = report.accuracy_table(records().query("method == 'colt'"), [0.5])
    many = pd.concat([table.assign(method=name) for name in names])
    figure = plots.accuracy_sparsity(many)
    drawn = [bars.lines[0].get_xdata()[0] for bars in figure.axes[0].containers]
    place = 1 - table["sparsity"].iloc[0]
    assert len(set(drawn)) == 12 and max(abs(x / place - 1) for x in drawn) < 0.0201
    assert "side by side" in figure.legends[0].get_title().get_text()


def test_the_figure_of_predictions_says_how_they_were_tested():
    row = {"study": "s", "about": "a", "prediction": "p", "estimate": 0.01, "half_width": 0.005, "margin": 0.02}
    rows = [row | {"verdict": "holds", "metric": name} for name in ("accuracy", "nats")]
    figure = plots.predictions(pd.DataFrame(rows))
    assert "Holm" in figure.get_supxlabel() and "two one-sided" in figure.get_supxlabel()
    assert figure.axes[1].get_xlabel().startswith("difference in test nats a pixel value")


def test_seeds_beyond_the_frame_are_counted_and_arms_look_as_in_the_figure_of_accuracies():
    about = {"scored_on": "d", "network": "n", "finder": "random", "random": "random", "matched": "matched"}
    about |= {"gain": 0.01, "full": 0.02, "train_images": 9, "experiment": "e"}
    shares = {"random (matched)": [0.1, 5.0, 6.0], "matched (half)": [0.2, 0.3, -3.0]}
    rows = [about | {"method": arm, "seed": i, "share": x} for arm in shares for i, x in enumerate(shares[arm])]
    axis = plots.recovered(pd.DataFrame(rows), ["random (matched)"]).axes[0]
    assert [text.get_text() for text in axis.texts if "beyond" in text.get_text()] == ["2 beyond"]
    look = looks_of(["random", "random (matched)"])["random (matched)"]
    assert look["color"] in {line.get_color() for line in axis.lines}


def test_the_cut_is_the_edge_of_a_bin_and_agreement_has_plain_ticks():
    values = torch.linspace(0, 1, 1000)
    axis = plots.magnitudes([values, values], [0.3333, 0.3333], 0.3).axes[0]
    edges = [patch.get_x() for patch in axis.patches]
    assert min(abs(edge - 0.3333) for edge in edges) < 1e-6
    layers = pd.DataFrame({"round": [1, 2], "layer": "conv1", "kappa": [0.4, 0.1], "z": [30.0, -3.0]})
    assert ticks(plots.overlap_by_layer(layers).axes[1], "y") == ["0", "-2", "2", "5", "10", "20"]


# --- what a ticket is ---


def test_a_ticket_in_pictures_shows_what_is_cut_and_puts_the_rest_back_at_its_start(network):
    theta0 = {name: weight.detach().clone() for name, weight in network.named_parameters()}
    weights = {name: weight + torch.randn_like(weight) for name, weight in theta0.items()}
    mask = cc.masks.magnitude(weights, cc.masks.dense(weights, cc.prunable(network)), 0.8)
    layer = list(mask)[1]
    told = cc.plots.rewound(theta0, weights, mask, layer, limit=(2, 3)).axes[-1].get_xlabel()
    assert f"2 of {len(mask[layer])} filters, 3 of" in told and "red" in told

    figure = cc.plots.trained(weights, mask)
    pool = torch.cat([weights[name].abs()[mask[name]] for name in mask])
    (cut,) = {float(line.get_xdata()[0]) for line in figure.axes[0].lines}
    assert cut < pool.min(), "a weight below the cut is kept"
    told = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    count = cc.masks.count(mask)
    assert told == [f"kept: {count:,}", f"pruned: {cc.masks.size(mask) - count:,}"]

    end, kept, start = (axis.images[0].get_array() for axis in cc.plots.rewound(theta0, weights, mask, layer).axes)
    shown = mask[layer].flatten(1)[: end.shape[0], : end.shape[1]].numpy()
    for picture, of in ((kept, weights), (start, theta0)):
        assert (~picture.mask == shown).all(), "white where the mask is zero, and nowhere else"
        expected = of[layer].detach().flatten(1)[: end.shape[0], : end.shape[1]].numpy()
        assert (picture.data[shown] == expected[shown]).all()
    with pytest.raises(ValueError, match="keeps every weight"):
        cc.plots.trained(weights, {name: torch.ones_like(kept) for name, kept in mask.items()})
