"""Views saved as pages: opened from a disk in a real browser, without Python and without a network."""

import functools
import gzip
import http.server
import json
import struct
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from chromium import browser, needed
from waiting import PATIENCE

import colt_core as cc
from colt_core.masks import bits
from colt_core.studies.records import ticket_name

COPIES, ROUNDS = 3, 3
WIDTHS = (700, 900, 1280, 1920)


def written_run(store, network="conv3", method="colt", seed=0, **arguments):
    """Write a run by hand: each round, copies that lose a random fifth, and a ticket of what they have in common."""
    e = cc.Experiment(network=network, network_args=arguments, method=method, parts=COPIES, scores=None)
    ticket = cc.Ticket.of(cc.build(network, 10, seed=0, **arguments))
    (store / e.hash).mkdir(parents=True)
    (store / e.hash / "experiment.json").write_text(json.dumps(e.model_dump(exclude={"scores", "score_on"})))
    alive, rng, lines = ticket.mask, torch.Generator().manual_seed(seed), []
    for number in range(ROUNDS + 1):
        copies = [{n: m & (torch.rand(m.shape, generator=rng) < 0.8) for n, m in alive.items()} for _ in range(COPIES)]
        alive = cc.masks.overlap(*copies) if number else alive
        found = cc.Round(number, cc.Ticket(ticket.architecture, ticket.theta0, alive), copies if number else [])
        found.save(store / ticket_name(e, number))
        lines.append(json.dumps({"kind": "round", **e.labels(), **found.record()}))
    (store / e.hash / "records.jsonl").write_text("\n".join(lines) + "\n")
    return e


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    root = tmp_path_factory.mktemp("store")
    written_run(root, width=4)
    written_run(root, method="imp", seed=1, width=4)
    return root


@pytest.fixture(scope="module")
def chromium():
    with browser() as found:
        yield found


def fresh(chromium, **options):
    """Return a page that waits as long as it must."""
    page = chromium.new_page(**options)
    page.set_default_timeout(1000 * PATIENCE)
    return page


@pytest.fixture
def page(chromium):
    """A page that fails its test where it asks the network for something or where a script goes wrong."""
    found = fresh(chromium, viewport={"width": 1280, "height": 900})
    wrong = []
    found.on("pageerror", lambda error: wrong.append(str(error)))
    found.on("request", lambda r: None if r.url.startswith(("file:", "data:", "blob:")) else wrong.append(r.url))
    yield found
    found.close()
    assert not wrong


# --- what travels ---


def test_packed_masks_count_as_masks_do():
    rng = torch.Generator().manual_seed(3)
    shapes = {"a": (3, 5), "b": (8, 2, 3, 3), "c": (1, 1)}  # 15 and 1: bits that fill a last byte are nobody's
    masks = [{n: torch.rand(s, generator=rng) < 0.6 for n, s in shapes.items()} for _ in range(4)]
    packed = [bits.pack(mask) for mask in masks]
    assert len(packed[0]) == 2 + 18 + 1 and bits.starts(shapes) == [0, 2, 20]
    assert bits.counts(packed[0], shapes) == [int(m.sum()) for m in masks[0].values()]
    by = [torch.stack([mask[name] for mask in masks]).sum(0).flatten().bincount(minlength=5) for name in shapes]
    assert bits.kept_by(packed, shapes).tolist() == torch.stack(by).tolist()


def test_what_the_browser_is_sent_are_the_masks_and_theta0(store):
    view, sent = cc.widgets.explorer(store=store), []
    view.send = lambda content, buffers=(): sent.append((content, buffers))
    run = view.sheets.runs[view.run]
    view._asked(view, {"want": "sheet", "of": [view.run, 2, "copies 0 2"], "have": [f"{view.run}/2/1"]}, None)
    view._asked(view, {"want": "theta0", "of": [view.run, "conv2.weight"]}, None)
    (content, buffers), (_, (theta0,)) = sent
    assert content["keys"] == [f"{view.run}/2/{copy}" for copy in ("0", "2", "ticket")]
    assert bytes(buffers[1]) == bits.pack(run.mask(2, 2)).tobytes()
    assert np.frombuffer(theta0, np.float32).tolist() == run.initial("conv2.weight").flatten().tolist()


def test_a_file_beside_the_page_holds_each_mask_once(store, tmp_path):
    view = cc.widgets.explorer(store=store)
    path = view.save(tmp_path / "explorer.html", rounds=[1, 2], beside=True)
    raw = gzip.decompress((tmp_path / "explorer.bin").read_bytes())
    (length,) = struct.unpack_from("<I", raw)
    book = json.loads(raw[4 : 4 + length])
    colt = next(run for run in view.sheets.runs.values() if run.about["method"] == "colt")
    for number in (1, 2):
        assert book["common"][f"{colt.hash}/{number}/ticket"] == [f"{colt.hash}/{number}/{i}" for i in range(COPIES)]
        for copy in range(COPIES):
            start, size = book["arrays"][f"bits {colt.hash}/{number}/{copy}"]
            assert raw[start : start + size] == bits.pack(colt.mask(number, copy)).tobytes()
    assert not any("/3/" in name for name in book["arrays"]) and "explorer.bin" in path.read_text()


def test_nothing_is_saved_where_there_is_nothing_to_show(tmp_path):
    with pytest.raises(ValueError, match="there is nothing to save: there are no runs in"):
        cc.widgets.explorer(store=tmp_path / "none").save(tmp_path / "page.html")
    with pytest.raises(ValueError, match="there is nothing to save: no scored ticket"):
        cc.widgets.compare(store=tmp_path / "none").save(tmp_path / "page.html")
    assert not list(tmp_path.glob("*.html"))


# --- the explorer ---


def opened(page, path):
    page.goto(path.as_uri())
    page.wait_for_selector(".colt-legend li")
    return page


PIXEL = """([row, column, rows, columns]) => {
    const canvas = document.querySelector('.colt-mask canvas'), bars = 34;
    const [w, h] = [canvas.clientWidth - bars, canvas.clientHeight - bars];
    const [x, y] = [w * (column + 0.5) / columns, bars + h * (row + 0.5) / rows];
    return [...canvas.getContext('2d').getImageData(Math.floor(x), Math.floor(y), 1, 1).data].slice(0, 3);
}"""
BOTH, A, B, NONE = [0x22] * 3, [0xD5, 0x5E, 0x00], [0x00, 0x72, 0xB2], [0xF2] * 3


@needed
def test_the_explorer_opens_from_a_disk_and_draws_each_weight(page, store, tmp_path):
    """Pixels, numbers and words are held against the masks themselves."""
    view = cc.widgets.explorer(store=store)
    run = next(run for run in view.sheets.runs.values() if run.about["method"] == "colt")
    view.run = run.hash
    opened(page, view.save(tmp_path / "explorer.html"))
    field = lambda name: page.get_by_label(name, exact=True)
    field("Round").focus()
    page.keyboard.press("ArrowRight")
    field("B").select_option("copies 0 2")
    copies = [run.mask(2, i) for i in range(COPIES)]
    a, b = copies[0]["conv1.weight"].flatten(1), copies[2]["conv1.weight"].flatten(1)
    for row, column in [(0, 0), (1, 5), (3, 26), (2, 13), (0, 20), (1, 17), (3, 8)]:
        expected = [[NONE, B], [A, BOTH]][int(a[row, column])][int(b[row, column])]
        assert page.evaluate(PIXEL, [row, column, *a.shape]) == expected
    alive = run.mask(1)
    for i, r in enumerate(cc.masks.layer_statistics(copies[0], copies[2], alive)):
        cells = page.locator(".colt-table tbody tr").nth(i).locator("td").all_inner_texts()
        assert cells[:5] == [r["layer"], *(f"{r[n]:,}" for n in ("alive", "a", "b", "both"))]
        assert cells[6:8] == [f"{r['jaccard']:.3f}", f"{r['chance']:.3f}"]
    field("B").select_option("all")
    kept = torch.stack([mask["conv1.weight"] for mask in copies]).sum(0)
    legend = page.locator(".colt-legend li").all_inner_texts()
    for k, text in enumerate(reversed(legend)):
        assert f": {int((kept == k).sum()):,} (" in text
    # One weight: by mouse, then by keys; zoomed in it is told as it was.
    index = (2, 1, 1, 0)
    ticket = [bool(run.mask(n)["conv1.weight"][index]) for n in range(ROUNDS + 1)]
    words = f"kept up to round {len(ticket) - 1}" if all(ticket) else f"first gone in round {ticket.index(False)}"
    holders = [str(i) for i in range(COPIES) if copies[i]["conv1.weight"][index]]
    told = f"conv1[2, 1, 1, 0]\ntheta0 = {run.weight(0, 'conv1.weight', index):+.4f}\n{words}\n"
    told += f"round 2: kept by {len(holders)} of 3 copies" + (f": {', '.join(holders)}" if holders else "")
    box = page.locator(".colt-mask canvas").bounding_box()
    w, h = box["width"] - 34, box["height"] - 34
    page.mouse.move(box["x"] + w * 12.5 / 27, box["y"] + 34 + h * 2.5 / 4)  # input 1, position (1, 0): column 9 + 3
    note = page.locator(".colt-note")
    assert note.inner_text() == told
    page.mouse.down()
    page.mouse.up()
    history = page.locator(".colt-history")
    assert history.locator("p").inner_text() == told.split("\nround")[0].replace("\nt", ", t").replace("\n", ": ")
    rows = history.locator("tbody tr")
    assert rows.count() == 1 + COPIES
    shown = rows.nth(0).locator("td").evaluate_all("cells => cells.map(cell => cell.dataset.kept === '1')")
    assert shown == ticket
    page.keyboard.press("+")
    assert page.locator(".colt-caption").inner_text().startswith("Part: filters")
    page.keyboard.press("ArrowLeft")
    assert note.inner_text().startswith("conv1[2, 1, 0, 2]\n")
    page.keyboard.press("0")
    whole = "Whole layer: filters 0 to 3 down, inputs 0 to 2 (3 x 3 each) across."
    assert page.locator(".colt-caption").inner_text() == whole


@needed
def test_two_runs_are_compared_and_every_view_is_reached_by_keys(page, store, tmp_path):
    view = cc.widgets.explorer(store=store)
    opened(page, view.save(tmp_path / "explorer.html"))
    runs = {run.about["method"]: run for run in view.sheets.runs.values()}
    reached = []
    for _ in range(9):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.ariaLabel?.split(/[:;]/)[0] ?? ''"))
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none", f"the focus on {reached[-1]} is not seen"
    assert [*reached[:4], *reached[7:]] == ["A", "B", "Round", "Layer", "conv1", "every layer's counts"]
    page.get_by_label("A", exact=True).select_option(runs["imp"].hash)
    page.get_by_label("B", exact=True).select_option(runs["colt"].hash)
    both = cc.masks.count(cc.masks.overlap(runs["imp"].mask(1), runs["colt"].mask(1)))
    assert f"Whole network: {both:,} in both" in page.locator(".colt-says").inner_text()
    page.get_by_label("Round", exact=True).focus()
    page.keyboard.press("End")
    assert "Round 3:" in page.locator(".colt-says").inner_text()


@needed
def test_the_explorer_runs_from_a_file_beside_the_page(chromium, store, tmp_path):
    view = cc.widgets.explorer(store=store)
    view.save(tmp_path / "site" / "explorer.html", rounds=[2], theta0=False, beside=True)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    handler = functools.partial(Quiet, directory=tmp_path / "site")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page = fresh(chromium)
        page.goto(f"http://127.0.0.1:{server.server_port}/explorer.html")
        page.wait_for_selector(".colt-legend li")
        assert "Round 2:" in page.locator(".colt-says").inner_text()
        page.locator(".colt-mask").click()
        assert "theta0 is not in this file" in page.locator(".colt-history p").inner_text()
        page.close()
        server.shutdown()


CUT = """() => {
    const wide = document.documentElement.scrollWidth > innerWidth ? ['page'] : [];
    const seen = [...document.querySelectorAll('main *')].filter(e => e.clientWidth > 1 && !e.closest('svg, select'));
    const cut = seen.filter(e => e.scrollWidth > e.clientWidth + 1);
    return [...wide, ...cut.map(e => `${e.tagName} ${e.className}`)];
}"""


@needed
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_nothing_is_cut_at_any_width_and_axe_finds_nothing(chromium, tmp_path, theme):
    from axe_playwright_python.sync_playwright import Axe

    written_run(tmp_path, network="resnet20")
    path = cc.widgets.explorer(store=tmp_path).save(tmp_path / "explorer.html", rounds=[1, 2])
    page = fresh(chromium, color_scheme=theme)
    opened(page, path)
    page.locator(".colt-mask").click()
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        page.wait_for_timeout(50)
        assert page.evaluate(CUT) == [], width
        left, right = (page.locator(f".colt-{part}").bounding_box() for part in ("left", "numbers"))
        assert (right["x"] > left["x"] + left["width"]) == (width >= 1280)  # side by side where there is room
        table = page.locator(".colt-table").bounding_box()
        assert table["x"] + table["width"] <= width
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    page.close()


# --- what-if and compare ---


@needed
def test_what_if_answers_from_a_disk_as_arithmetic_does(page, tmp_path):
    page.goto(cc.widgets.what_if().save(tmp_path / "what_if.html").as_uri())
    title = page.locator("svg .role-title")
    title.wait_for()
    assert title.text_content().startswith("COLT keeps 0.7225 of its weights a round: 15 rounds to 99.1%IMP at 20% a")
    assert page.get_by_text("target: 99.1 % sparse").is_visible()
    controls, chart = (page.locator(part).first.bounding_box() for part in (".vega-bindings", "svg.marks"))
    assert controls["y"] + controls["height"] <= chart["y"] + 1, "the sliders stand above what they change"
    for overlap in (0.9, 1.0):
        page.locator('input[name="overlap"]').evaluate(
            "(e, v) => (e.value = v, e.dispatchEvent(new Event('input')))", overlap
        )
        said = f": {cc.arithmetic.rounds_to(0.991, 0.85 * overlap)} rounds to"
        page.wait_for_function("said => document.querySelector('svg .role-title').textContent.includes(said)", arg=said)


@needed
def test_a_comparison_is_filtered_on_a_page_and_its_points_say_their_numbers(page, tmp_path):
    view = cc.widgets.compare(store=Path(__file__).parent.parent / "results" / "split" / "store")
    page.goto(view.save(tmp_path / "compare.html").as_uri())
    assert "<table>" in view.verdicts.value and view.verdicts.value in (tmp_path / "compare.html").read_text()
    assert page.locator("section.colt-verdicts table").is_visible()
    shown = view.chosen(view.scores)
    where = shown["scored_on"] + ", " + shown["net"]
    assert page.locator('select[name="where"]').input_value() == where.value_counts().index[0]
    mine = shown[where == where.value_counts().index[0]]
    points = page.locator("svg .mark-symbol path[aria-label]:not(.background)")
    several = mine.groupby(["arm", "round"])["accuracy"].mean()
    points.first.wait_for()
    assert points.count() == len(several)
    axes = [axis.locator("text").all_text_contents() for axis in page.locator("svg .role-axis-label").all()]
    assert any({"75", "80"} <= set(ticks) for ticks in axes), f"sparsities, in percent: {axes}"
    page.locator('select[name="one"]').select_option(cc.plots.arm_name("colt"))
    page.locator('input[name="single"]').check()
    colt = mine[mine["arm"] == "colt"]
    page.wait_for_function(f"document.querySelectorAll('svg .mark-symbol path[aria-label]').length === {len(colt)}")
    told = " ".join(points.evaluate_all("marks => marks.map(mark => mark.ariaLabel)"))
    assert all(f"{value:.1%}" in told for value in colt["accuracy"])
    with page.expect_download() as taken:
        page.get_by_role("link", name="The numbers (CSV)").click()
    assert len(pd.read_csv(taken.value.path())) == len(shown)


@needed
def test_axe_finds_nothing_in_charts_in_either_theme(chromium, tmp_path):
    from axe_playwright_python.sync_playwright import Axe

    results = Path(__file__).parent.parent / "results"
    views = cc.widgets.compare(store=results / "split" / "store"), cc.widgets.what_if()
    paths = [view.save(tmp_path / f"{number}.html") for number, view in enumerate(views)]
    for theme in ("light", "dark"):
        page = fresh(chromium, color_scheme=theme)
        for path in paths:
            page.goto(path.as_uri())
            page.locator("svg.marks").first.wait_for()
            found = Axe().run(page, options={"runOnly": ["wcag2a", "wcag2aa"]})
            assert found.violations_count == 0, found.generate_report()
        page.close()


def scored(method, seed):
    """Records of a run with two scored tickets."""
    about = {"kind": "score", "method": method, "seed": seed, "experiment": f"{method}{seed}", "network": "conv3"}
    about |= {"network_args": "{}", "dataset": "cifar10", "scored_on": "cifar10", "train_images": 100, "chance": 0.1}
    places = [(1, 0.5, 0.6), (2, 0.2, 0.5)]
    return [about | {"round": n, "density": d, "accuracy": a + 0.01 * seed} for n, d, a in places]


def test_a_chart_of_tickets_is_told_its_numbers():
    table = [r | {"arm": r["method"], "net": "conv3"} for m in ("colt", "imp") for s in range(3) for r in scored(m, s)]
    chart = cc.plots.tickets_chart(pd.DataFrame(table)).to_dict()
    (rows,) = chart["datasets"].values()
    assert sorted((r["method"], r["seed"], r["value"]) for r in rows) == sorted(
        (cc.plots.arm_name(r["method"]), str(r["seed"]), r["accuracy"]) for r in table
    )
    colours = chart["layer"][2]["encoding"]["color"]["scale"]
    assert dict(zip(colours["domain"], colours["range"], strict=True)) == {
        cc.plots.arm_name(m): cc.plots.COLOURS[m] for m in ("colt", "imp")
    }
    assert "from the lowest seed to the highest" in chart["title"]["subtitle"]
    with pytest.raises(ValueError, match="no records"):
        cc.plots.tickets_chart(pd.DataFrame())
