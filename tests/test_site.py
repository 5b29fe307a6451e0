"""The workbook as a site: its pages come from the code, every link leads somewhere, and it works opened from disk."""

import importlib.util
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

import chromium
import pytest
import yaml

import colt_core as cc

ROOT = Path(__file__).parent.parent
SHOTS = ROOT / "screenshots"
EVERY = {}  # all live views
WIDTHS = {"phone": (390, 844), "laptop": (1280, 800), "wide": (1920, 1080)}
PAGES = ["index", "live", "notebooks/05_tables", "methods/index", "methods/soup", "api/index", "figures", "reproduce"]


def module(name):
    spec = importlib.util.spec_from_file_location(f"site_{name}", ROOT / "site" / f"{name}.py")
    found = importlib.util.module_from_spec(spec)
    before = list(sys.path)
    spec.loader.exec_module(found)
    sys.path[:] = before
    return found


@pytest.fixture(scope="module")
def build():
    found = module("build")
    EVERY.update(found.LIVE)
    found.LIVE = {"what_if": found.LIVE["what_if"]}  # the others take a minute
    return found


@pytest.fixture(scope="module")
def source(build, tmp_path_factory):
    folder = tmp_path_factory.mktemp("site") / "source"
    build.assemble(folder)
    return folder


# --- the pages, before Sphinx ---


@pytest.mark.parametrize("method", cc.METHODS.values(), ids=lambda m: m.name)
def test_a_method_has_a_page_with_its_law_its_paper_and_its_code(source, method):
    text = (source / "methods" / f"{method.name}.md").read_text()
    assert method.about in text and method.look.name in text.splitlines()[0]
    assert method.law, "a Method says what it keeps"
    assert re.sub(r"\s|\\qquad", "", method.law) in re.sub(r"\s|```(\{math\})?", "", text)
    for number in method.papers:
        assert f"https://arxiv.org/abs/{number}" in text
    assert method.papers or "## The paper\n\nNone" in text
    ranges = re.findall(r"literalinclude\} (\S+)\n:lines: (\d+)-(\d+)", text)
    lines = [(source / "methods" / file).read_text().splitlines()[int(a) - 1 : int(b)] for file, a, b in ranges]
    code = ["\n".join(piece) for piece in lines]
    assert sum(f'name="{method.name}"' in piece for piece in code) == 1 and code[-1].endswith(")")
    called = [name for name in method.find.__code__.co_names if f"def {name}(" in "".join(code)]
    assert called or f"def {method.find.__name__}(" in "".join(code), "the code that finds is not in view"


def test_an_option_has_its_type_as_it_stands_in_the_code(build):
    model = cc.METHODS["displacement"].options
    assert dict(build.options(model)) == {"option `gain`": r"`Number \| None`, default `None`"}
    for method in (m for m in cc.METHODS.values() if m.options is not None):
        assert len(dict(build.options(method.options))) == len(method.options.model_fields), method.name


def test_a_page_shows_all_that_its_method_calls_in_its_file_and_nothing_of_others(build):
    module = sys.modules[cc.METHODS["super"].find.__module__]
    first = [
        Path(module.__file__).read_text().splitlines()[a - 1] for a, _ in build.used(cc.METHODS["super"].find, module)
    ]
    assert [line.split("(")[0] for line in first] == [
        "def super_tickets", "def _layers", "def without", "def count_to", "def _find",
    ]  # fmt: skip


def test_the_index_of_methods_has_three_cells_a_row(source):
    rows = [line for line in (source / "methods" / "index.md").read_text().splitlines() if line.startswith("|")]
    assert len(rows) == 2 + len(cc.METHODS) and {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {4}


def test_every_figure_has_its_numbers_beside_it(source):
    text = (source / "figures.md").read_text()
    for path in (ROOT / "figures").glob("*.png"):
        assert f"(figures/{path.name})" in text
        assert path.with_suffix(".csv").exists() <= (f"<figures/{path.stem}.csv>" in text)


def test_the_citation_is_the_files(source):
    text, about = (source / "cite.md").read_text(), yaml.safe_load((ROOT / "CITATION.cff").read_text())
    paper = about["preferred-citation"]
    assert f"{{{paper['title']}}}" in text and str(paper["year"]) in text and about["version"] in text
    assert all(one["family-names"] in text for one in paper["authors"])


def test_what_the_glossary_promises_the_pages_use():
    text = (ROOT / "site" / "pages" / "glossary.md").read_text()
    terms = re.findall(r"^(\S.*)\n    \S", text, re.MULTILINE)
    assert {"ticket", "cycle", "round", "overlap", "matched", "density", "rewind", "partition"} <= set(terms)
    assert len(terms) == len(set(terms))
    assert set(re.findall(r"\{term\}`([^`]+)`", text)) <= set(terms)


def test_a_view_that_can_be_saved_is_shown_live_and_one_that_cannot_by_its_picture(build, tmp_path, monkeypatch):
    class Saved:
        def save(self, path):
            path.write_text("<p>a view</p>")

    def explorer() -> Saved:
        """Show masks."""

    def compare() -> int:
        """Show tickets."""

    monkeypatch.setattr(cc.widgets, "explorer", explorer)
    monkeypatch.setattr(cc.widgets, "compare", compare)
    live = {"explorer": ("Masks", "live_explorer", Saved), "compare": ("Tickets", "live_compare", compare)}
    monkeypatch.setattr(build, "LIVE", live)
    shown, still = build.views(tmp_path / "live")
    assert (tmp_path / "live" / "explorer.html").read_text() == "<p>a view</p>"
    assert 'src="live/explorer.html"' in shown and "figures/live_compare.png" in still


def test_what_is_assembled_twice_is_not_read_again(build, source):
    before = {path: path.stat().st_mtime_ns for path in source.rglob("*") if path.is_file()}
    (source / "methods" / "gone.md").write_text("a method that is no more")
    build.assemble(source)
    assert {path: path.stat().st_mtime_ns for path in source.rglob("*") if path.is_file()} == before


# --- the site ---


class Links(HTMLParser):
    """What a page names: its anchors, where its links lead, what it loads."""

    def __init__(self, text):
        super().__init__()
        self.anchors, self.links, self.loads = set(), [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        has = dict(attrs)
        self.anchors |= {has["id"]} if has.get("id") else set()
        if tag == "a" and has.get("href"):
            self.links.append(has["href"])
        if tag in ("img", "script", "iframe", "source") and has.get("src"):
            self.loads.append(has["src"])
        if tag == "link" and has.get("rel") in ("stylesheet", "preload", "icon") and has.get("href"):
            self.loads.append(has["href"])


@pytest.fixture(scope="module")
def site(build, tmp_path_factory):
    """The built site; `make site` has left it, or it is built now."""
    for name in ("myst_nb", "sphinx_book_theme", "sphinxcontrib.lightbox2", "latex2mathml", "sphinx_design"):
        pytest.importorskip(name, reason=f"{name} is not installed: make site, or pip install -e '.[site]'")
    out, source = ROOT / "build" / "site", tmp_path_factory.mktemp("whole") / "source"
    build.LIVE = EVERY
    build.assemble(source)
    if not (out / "digest").exists() or (out / "digest").read_text() != build.digest(source, ROOT / "site"):
        done = subprocess.run([sys.executable, ROOT / "site" / "build.py"], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return out / "html"


@pytest.fixture(scope="module")
def pages(site):
    return {path: Links(path.read_text()) for path in site.rglob("*.html") if not {"live", "_static"} & {*path.parts}}


def test_every_link_inside_the_site_leads_somewhere(site, pages):
    assert {site / "notebooks" / f"{path.stem}.html" for path in (ROOT / "notebooks").glob("*.ipynb")} <= set(pages)
    for page, found in pages.items():
        for link in (link for link in found.links + found.loads if not re.match(r"[a-z]+:|#$", link)):
            place, anchor = urldefrag(link)
            target = (page.parent / unquote(place.partition("?")[0])).resolve() if place else page
            assert target.exists(), f"{page.relative_to(site)} leads to {link}"
            if anchor and target in pages:
                assert unquote(anchor) in pages[target].anchors, f"{page.relative_to(site)} leads to {link}"


def test_tables_that_a_notebook_writes_in_markdown_are_tables(site):
    text = (site / "notebooks" / "00_start_here.html").read_text()
    cells = re.findall(r"<td[^>]*>\s*(?:<p>)?(.*?)(?:</p>)?\s*</td>", text, re.DOTALL)
    assert {"as accurate as the unpruned network", "COLT by class minus matched is below 0"} <= set(cells)


def test_no_page_needs_the_network(site, pages):
    for page, found in pages.items():
        outside = [load for load in found.loads if not load.startswith("data:") and re.match(r"[a-z]+:|//", load)]
        assert not outside, f"{page.relative_to(site)} loads {outside[0]}"


def test_the_site_is_small_and_has_what_is_searched(site):
    assert sum(path.stat().st_size for path in site.rglob("*") if path.is_file()) < 60e6
    index = json.loads(re.fullmatch(r"Search\.setIndex\((.*)\)", (site / "searchindex.js").read_text(), re.DOTALL)[1])
    assert {"methods/consensus", "notebooks/00_start_here", "glossary", "api/report"} <= set(index["docnames"])


# --- in a browser, from disk ---


@pytest.fixture(scope="module")
def browser(site):
    if not chromium.CHROMIUM:
        pytest.skip("there is no Chromium on this machine (Debian: apt install chromium)")
    SHOTS.mkdir(exist_ok=True)
    with chromium.browser() as found:
        yield found


@pytest.fixture
def window(browser):
    """Opens windows; afterwards nothing but files was asked for, and no script has failed."""
    windows, asked, wrong = [], [], []

    def opened(width="laptop", scheme="light"):
        page = browser.new_page(
            viewport=dict(zip(("width", "height"), WIDTHS[width], strict=True)), color_scheme=scheme
        )
        page.on("request", lambda request: asked.append(request.url))
        # Leaving a page aborts what it still loads.
        page.on("requestfailed", lambda r: wrong.append(r.url) if "ABORTED" not in (r.failure or "") else None)
        page.on("pageerror", lambda problem: wrong.append(str(problem)))
        windows.append(page)
        return page

    yield opened
    for page in windows:
        page.close()
    assert not wrong
    assert all(url.startswith(("file:", "data:", "blob:")) for url in asked)


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_cut_at_any_width(site, window, width):
    page = window(width, "dark" if width == "wide" else "light")
    for name in PAGES:
        page.goto((site / f"{name}.html").as_uri())
        assert page.locator(".bd-article h1").first.is_visible()
        inner, outer = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert inner <= outer, f"{name} is {inner} pixels wide in {outer}"
        page.screenshot(path=SHOTS / f"site_{name.replace('/', '_')}_{width}.png")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(site, browser, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page = browser.new_page(color_scheme=scheme)  # axe asks for the style sheets again, which a disk refuses
    seen = ("index", "live", "notebooks/05_tables", "methods/soup", "figures")
    for name in seen if scheme == "light" else seen[1:3]:  # the site's colours, code and tables among them
        page.goto((site / f"{name}.html").as_uri())
        found = axe.run(page, options={"runOnly": ["wcag2a", "wcag2aa"]})
        assert found.violations_count == 0, f"{name}: {found.generate_report()}"
    page.close()


def test_no_page_leaves_a_phone(site, pages, window):
    page = window("phone")
    for path in (path for path in pages if path.parent in (site, site / "api", site / "notebooks")):
        page.goto(path.as_uri(), wait_until="domcontentloaded")
        inner, outer = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert inner <= outer, f"{path.name} is {inner} pixels wide in {outer}"


def test_search_finds_from_disk(site, browser):
    page = browser.new_page()  # of the pages found it also wants an excerpt, which browsers refuse it from disk
    page.goto((site / "search.html").as_uri() + "?q=consensus")
    page.locator("#search-results li a[href*='methods/consensus']").first.wait_for()
    page.close()


def test_the_dark_theme_is_dark_and_can_be_chosen(site, window):
    light = "e => getComputedStyle(e).backgroundColor.match(/\\d+/g).slice(0, 3).reduce((a, b) => a + +b, 0)"
    page = window(scheme="dark")
    page.goto((site / "index.html").as_uri())
    assert page.locator("body").evaluate(light) < 200
    page.locator("button.theme-switch-button:visible").first.click()
    page.locator("button.theme-change-button[data-mode=light]:visible").first.click()
    assert page.locator("body").evaluate(light) > 600


def test_a_figure_is_zoomed_by_a_click_and_by_keys(site, window):
    page = window()
    page.goto((site / "notebooks" / "05_tables.html").as_uri())
    figure = page.locator("a[data-lightbox] img").first
    small = figure.bounding_box()["width"]
    figure.click()
    large = page.locator("#lightbox .lb-image")
    large.wait_for(state="visible")
    page.wait_for_function("document.querySelector('#lightbox .lb-image').getBoundingClientRect().width > 0")
    assert large.bounding_box()["width"] > small
    page.screenshot(path=SHOTS / "site_zoomed.png")
    page.keyboard.press("Escape")
    page.locator("#lightbox").wait_for(state="hidden")
    page.locator("a[data-lightbox]").first.focus()
    page.keyboard.press("Enter")
    large.wait_for(state="visible")


def test_formulas_are_drawn_by_the_browser(site, window):
    page = window()
    page.goto((site / "methods" / "colt.html").as_uri())
    box = page.locator(".formula math").first.bounding_box()
    assert box["width"] > 100 and box["height"] > 15
