"""JupyterLab and Voila in a real browser: every view, by mouse and by keyboard.

With `$COLT_SCREENSHOTS` set, pictures at both sizes are kept in `screenshots/`, which git ignores; of a test that ends,
or fails, the last picture always is.
"""

import json
import os
import re
import secrets
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import nbformat
import pytest
import yaml
from chromium import browser, needed
from waiting import PATIENCE, trainings, wait_for

import colt_core as cc
from colt_core.studies.records import read_records
from colt_core.studies.saved import runs_in

ROOT = Path(__file__).parent.parent
SHOTS = ROOT / "screenshots"
pytestmark = needed
NOTEBOOKS = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))
SIZES = {"small": {"width": 1280, "height": 800}, "large": {"width": 1920, "height": 1080}}
VIEWS = {"02_cycles": 2, "03_mask_overlap": 1}
EXPLORED = "03_mask_overlap"
OPENED = "02_cycles"  # a live run; other notebooks show the same views or pictures, and pytest runs each by itself
SESSION = "window.jupyterapp?.shell.currentWidget?.sessionContext?.session"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A working folder: the notebooks without outputs on a small study, that study's store, JupyterLab's settings."""
    root = tmp_path_factory.mktemp("browser")
    content = yaml.safe_load((Path(cc.__file__).parent / "studies" / "ready" / "mini.yaml").read_text())
    content["base"] |= {"dataset": "cifar10-mini@8:0-3", "target": 0.6, "scores": [0.5]}
    content["base"]["recipe"] = cc.Recipe.named("mini").changed(epochs=1).model_dump()
    content["transfer"] = {"among": ["cifar10-mini@8:0,1", "cifar10-mini@8:5,6"], "scores": [0.5]}
    content["methods"]["imp"] = {"rate": 0.4}
    content["seeds"] = [0]
    (root / "tiny.yaml").write_text(yaml.safe_dump(content))
    (root / "notebooks").mkdir()
    for name in NOTEBOOKS:
        notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
        for cell in (cell for cell in notebook.cells if cell.cell_type == "code"):
            cell.outputs, cell.execution_count = [], None
            cell.source = cell.source.replace('preset: str = "mini"', f"preset: str = {str(root / 'tiny.yaml')!r}")
        nbformat.write(notebook, root / "notebooks" / f"{name}.ipynb")
    (root / "results").symlink_to(ROOT / "results")
    settings = root / "settings" / "@jupyterlab"
    for name, value in {
        "notebook-extension/tracker": {"windowingMode": "none"},  # every cell is in the page
        "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    }.items():
        path = settings / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(value))
    cc.study(cc.Study.named(str(root / "tiny.yaml")).experiments(), root / "store", workers=1)
    SHOTS.mkdir(exist_ok=True)
    return root


@contextmanager
def served(place, command):
    """Start a server on a free loopback port with a token; give its address and token; end it afterwards."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port, token = free.getsockname()[1], secrets.token_hex(16)
    folders = {
        "JUPYTERLAB_SETTINGS_DIR": "settings",
        "JUPYTERLAB_WORKSPACES_DIR": "spaces",
        "JUPYTER_CONFIG_DIR": "conf",
    }
    folders |= {"COLT_STORE": "store", "COLT_OUT": "out", "IPYTHONDIR": "ipython"}
    environment = os.environ | {name: str(place / folder) for name, folder in folders.items()}
    environment |= {"COLT_WORKERS": "1"}  # starting more processes takes longer than these trainings
    command = [str(Path(sys.executable).parent / command[0]), *(c.format(port=port, token=token) for c in command[1:])]
    with open(place / "server.log", "wb") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=place)
    try:
        wait_for(lambda: server.poll() is not None or answers(port))
        assert server.poll() is None, (place / "server.log").read_text()[-2000:]
        yield f"http://127.0.0.1:{port}", token
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def answers(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=30).close()
    except OSError:
        return False
    return True


@pytest.fixture(scope="module")
def lab(place):
    command = ["jupyter-lab", "--no-browser", "--allow-root", "--expose-app-in-browser", "--ServerApp.port={port}"]
    command += ["--ServerApp.ip=127.0.0.1", "--IdentityProvider.token={token}"]
    command += [f"--ServerApp.root_dir={place / 'notebooks'}"]
    with served(place, command) as found:
        yield found


@pytest.fixture(scope="module")
def chromium():
    with browser() as found:
        yield found


@pytest.fixture(scope="module")
def window(chromium):
    """One for all tests: JupyterLab takes as long to load as a notebook to run."""
    found = chromium.new_page(viewport=SIZES["small"])
    found.set_default_timeout(1000 * PATIENCE)
    yield found
    found.close()


@pytest.fixture
def page(window, request):
    yield window
    window.screenshot(path=SHOTS / f"last_{re.sub(r'[^a-z0-9]+', '_', request.node.name)}.png")


def open_notebook(page, lab, name):
    """Open a notebook in JupyterLab, alone on the page, and wait for its kernel; the one before ends with its own."""
    address, token = lab
    if not page.url.startswith(f"{address}/lab"):
        page.goto(f"{address}/lab?token={token}&reset")
        page.wait_for_function("window.jupyterapp?.restored.then(() => true)")
    page.evaluate(
        """async path => {
            for (const widget of [...jupyterapp.shell.widgets('main')]) {
                await widget.sessionContext?.shutdown();
                widget.dispose();
            }
            await jupyterapp.commands.execute('docmanager:open', {path});
        }""",
        f"{name}.ipynb",
    )
    page.wait_for_selector(".jp-Notebook .jp-CodeCell")
    # The indicator says "idle" before there is a kernel, and whoever runs cells then is asked to select one.
    page.wait_for_function(
        f"path => {SESSION}?.path === path && {SESSION}.kernel?.connectionStatus === 'connected'", arg=f"{name}.ipynb"
    )
    page.evaluate(f"{SESSION}.kernel.info.then(info => info.status)")
    if page.locator(".jp-DirListing:visible").count():
        page.keyboard.press("Control+b")


def run_all(page):
    """Run all cells from the menu; return the text of the first error, or "" when every cell has run."""
    page.get_by_role("menuitem", name="Run", exact=True).first.click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    return page.wait_for_function(
        """() => {
            const error = document.querySelector('[data-mime-type="application/vnd.jupyter.error"]');
            const prompts = [...document.querySelectorAll('.jp-Notebook .jp-CodeCell .jp-InputPrompt')];
            const over = prompts.every(prompt => /\\[\\d+\\]/.test(prompt.textContent));
            return error ? {text: error.textContent} : over ? {text: ''} : false;
        }"""
    ).json_value()["text"]


def shoot(page, name):
    """Keep pictures at both sizes, the upper edge of the view at the top; they take a third of these tests' time."""
    if not os.environ.get("COLT_SCREENSHOTS"):
        return
    for size, viewport in SIZES.items():
        page.set_viewport_size(viewport)
        page.wait_for_timeout(100)
        page.evaluate("document.querySelector('.colt-view')?.scrollIntoView()")
        page.screenshot(path=SHOTS / f"{name}_{size}.png")
    page.set_viewport_size(SIZES["small"])


def view(page, title):
    return page.locator(".colt-view:visible", has=page.locator(".colt-title", has_text=title)).first


def says(view, text):
    """Wait until the view says something."""
    view.locator(".colt-says", has_text=text).first.wait_for()


def wait_until(page, what, told=str):
    """Wait until something is so, while the page goes on."""
    until = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < until, told()
        page.wait_for_timeout(50)


def wait_for_views(page, count):
    """Wait until all views of a notebook are in the page: they come after their cells have run."""
    page.wait_for_function("count => document.querySelectorAll('.colt-view').length === count", arg=count)


def control(view, name):
    """Return a labelled control: a menu, a field, or the handle of a slider."""
    label = view.locator(f'.widget-label:text-is("{name}")').first
    return label.locator("xpath=..").locator("select, input, .noUi-handle").first


# --- every notebook ---


def test_a_notebook_with_live_views_runs_in_jupyterlab_without_an_error(page, lab):
    open_notebook(page, lab, OPENED)
    assert run_all(page) == ""
    wait_for_views(page, VIEWS[OPENED])
    shoot(page, OPENED)


# --- the explorer ---


def test_the_explorer_follows_sliders_table_and_keys(page, lab, place):
    """What it shows is held against the masks in the ticket files, read with safetensors alone."""
    from safetensors import safe_open

    study = cc.Study.named(str(place / "tiny.yaml"))
    folder = place / "store" / study.experiment("colt").hash
    last = len(list(folder.glob("round-*"))) - 1

    def both(number, layer):
        with safe_open(folder / f"round-{number:02d}.safetensors", "pt") as file:
            a, b = (file.get_tensor(f"partition/{i}/{layer}.weight") for i in (0, 1))
            return int((a & b).sum()), [bool(m.flatten(1)[0, 1]) for m in (a, b)]

    open_notebook(page, lab, EXPLORED)
    assert run_all(page) == ""
    wait_for_views(page, VIEWS[EXPLORED])
    shoot(page, EXPLORED)
    seen = view(page, "Mask explorer")
    canvas = seen.locator(".colt-mask")
    pixels = lambda: canvas.locator("canvas").evaluate("canvas => canvas.toDataURL()")
    cell = lambda: seen.locator('.colt-table tr[aria-selected="true"] td').all_inner_texts()
    told = lambda: canvas.get_attribute("aria-label")

    def shows(number, layer):
        count = f"{both(number, layer)[0]:,}"
        wait_until(page, lambda: [cell()[i : i + 1] for i in (0, 4)] == [[layer], [count]], lambda: (count, cell()))
        wait_until(page, lambda: told().startswith(f"{layer}: in common {count}"), told)

    says(seen, "Round 1:")
    shows(1, "conv1")
    before = pixels()
    seen.get_by_label("Layer", exact=True).focus()
    page.keyboard.press("ArrowRight")
    shows(1, "conv2")
    wait_until(page, lambda: pixels() != before)
    seen.get_by_label("Round", exact=True).focus()
    for number in range(2, last + 1):
        page.keyboard.press("ArrowRight")
        says(seen, f"Round {number}:")
        shows(number, "conv2")
    seen.locator(".colt-table td", has_text="conv3").click()
    shows(last, "conv3")
    # A weight, by a click into the picture's middle, then by keys to the first row's second column.
    canvas.click()
    history = seen.locator(".colt-history p")
    chosen = history.inner_text
    wait_until(page, lambda: re.match(r"conv3\[.*\], theta0 = [+-]\d\.\d{4}: (kept|first gone)", chosen()), chosen)
    for _ in range(64):
        canvas.press("ArrowUp")
    wait_until(page, lambda: "conv3[0, " in chosen(), chosen)
    first = chosen()
    canvas.press("ArrowRight")
    wait_until(page, lambda: "conv3[0, " in chosen() and chosen() != first, chosen)
    shoot(page, "explorer")


# --- the cockpit ---


def test_the_cockpit_starts_pauses_continues_stops_and_is_found_again_after_a_restart(page, lab, place, hold):
    """The run comes to trainings that are held in the store, so that it is where the test looks, at any speed."""
    recipe = cc.Recipe.named("mini").changed(epochs=1)
    fields = {"dataset": "cifar10-mini@16:0-3", "network_args": {"width": 4}, "rate": 0.3, "target": 0.9, "seed": 5}
    fields |= {"recipe": recipe.model_dump(), "scores": None}
    experiment, store = cc.Experiment(**fields), place / "store"
    found = trainings(experiment, place / "alone")
    assert len(found) > 5, "there is no fifth round: make it longer"
    second, fourth = (hold(store, found[number][0]) for number in (2, 4))
    # Its copies train in processes of their own, which pause and end with it.
    lines = ["import os", "import colt_core as cc", "os.environ['COLT_WORKERS'] = '2'"]
    code = "\n".join([*lines, f"cockpit = cc.widgets.cockpit(cc.Experiment(**{fields!r}))", "cockpit"])
    cells = [nbformat.v4.new_code_cell(code), nbformat.v4.new_code_cell('print("rounds", len(cockpit.rounds))')]
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), place / "notebooks" / "cockpit.ipynb")
    records = lambda: [r for r in read_records(experiment, store) if r["kind"] == "round"]
    open_notebook(page, lab, "cockpit")
    assert run_all(page) == ""
    seen = view(page, "Cycle cockpit")
    button = lambda name: seen.get_by_role("button", name=name)
    disabled = lambda *names: wait_until(page, lambda: all(button(name).is_disabled() for name in names))
    says(seen, "Ready: nothing of this run is in the store.")
    disabled("Pause", "Continue")
    assert not records()
    button("Start").click()
    says(seen, "Running.")
    says(seen, "Round 1:")  # found and shown while it runs
    disabled("Start", "Continue")
    button("Pause").press("Enter")
    says(seen, "Paused between two steps")
    second.let_go()
    wait_until(page, lambda: second.taken)  # it goes on to this training, and before its first step it is held
    page.wait_for_timeout(1000)  # whatever is not held goes on meanwhile
    assert second.taken and len(records()) == 2
    run_cell(page, 1, "rounds 2")  # the kernel is free, and sees them
    button("Continue").click()
    says(seen, "Running.")
    says(seen, "Round 3:")
    button("Stop").click()
    says(seen, "Not finished: Continue goes on")
    disabled("Pause", "Stop")
    assert len(records()) == 4
    page.get_by_role("menuitem", name="Kernel", exact=True).click()
    page.get_by_role("menuitem", name="Restart Kernel and Run All Cells…", exact=True).click()
    page.locator(".jp-Dialog .jp-mod-accept").click()
    page.wait_for_function(
        "text => [...document.querySelectorAll('.jp-OutputArea-output')].at(-1)?.textContent.includes(text)",
        arg="rounds 4",
    )
    fourth.let_go()
    seen = view(page, "Cycle cockpit")
    says(seen, "Not finished: Continue goes on")
    seen.get_by_role("button", name="Continue").click()
    says(seen, "Done: every round is in the store.")
    shoot(page, "cockpit")
    assert len(records()) == len(found)
    alone = sorted((place / "alone" / experiment.hash).glob("*.safetensors"))
    assert len(alone) == len(found)
    for path in alone:
        assert path.read_bytes() == (store / experiment.hash / path.name).read_bytes()


def run_cell(page, number, text):
    """Run one cell, and wait until it has printed a text."""
    cell = page.locator(".jp-CodeCell").nth(number)
    cell.locator(".cm-content").click()
    page.keyboard.press("Control+Enter")
    cell.locator(".jp-OutputArea-output", has_text=text).wait_for()


# --- the comparison, what-if, and the page of all four ---


@pytest.fixture(scope="module")
def voila(place):
    command = ["voila", "notebooks/app.ipynb", "--no-browser", "--Voila.ip=127.0.0.1", "--port={port}"]
    with served(place, [*command, "--Voila.token={token}"]) as found:
        yield found


def test_the_app_shows_all_four_views_that_answer(page, voila, place):
    address, token = voila
    page.goto(f"{address}/?token={token}")
    says(view(page, "Cycle cockpit"), "Ready: nothing of this run is in the store.")
    page.get_by_role("tab", name="Tickets").click()
    seen = view(page, "Ticket comparison")
    runs, _ = runs_in(place / "store")
    scores = [r for run in runs for r in run.records() if r["kind"] == "score"]
    says(seen, f"{len(scores)} scored tickets of")
    # One method alone, by its menu; the point by keys; its numbers are the record's.
    seen.locator("select").nth(2).select_option("IMP")
    mine = [r for r in scores if r["method"] == "imp"]
    says(seen, f"{len(mine)} scored tickets of")
    seen.locator(".colt-picture").focus()
    page.keyboard.press("ArrowRight")
    seen.locator(".colt-details code", has_text=mine[0]["experiment"]).wait_for()
    assert f"{mine[0]['accuracy']:.1%} accuracy" in seen.locator(".colt-details").inner_text()
    names = [name.replace("\xa0", " ") for name in seen.locator("select").nth(2).locator("option").all_inner_texts()]
    wanted = [i for i, name in enumerate(names) if name.split(" ")[0] in ("IMP", "random,")]
    seen.locator("select").nth(2).select_option(index=wanted)
    seen.get_by_role("button", name="similarity").click()
    says(seen, "the most alike side by side")
    shoot(page, "compare")
    page.get_by_role("tab", name="What if").click()
    seen = view(page, "What if")
    says(seen, "15 rounds to 99.1%")
    control(seen, "Overlap").focus()
    for _ in range(10):
        page.keyboard.press("ArrowRight")
    says(seen, f"{cc.arithmetic.rounds_to(0.991, 0.85 * 0.90)} rounds to 99.1%")
    page.get_by_role("tab", name="Masks").click()
    says(view(page, "Mask explorer"), "dense")
    for name in ("Cockpit", "Masks", "Tickets", "What if"):
        page.get_by_role("tab", name=name).click()
        shoot(page, f"app_{name.lower().replace(' ', '_')}")
        assert page.evaluate(_INNER_SCROLL) == []


_INNER_SCROLL = """() => [...document.querySelectorAll('.colt-view *')].filter(e => {
    const style = getComputedStyle(e);
    const scrolls = (how, full, shown) => /auto|scroll/.test(how) && full > shown + 1 && shown > 0;
    return scrolls(style.overflowY, e.scrollHeight, e.clientHeight)
        || scrolls(style.overflowX, e.scrollWidth, e.clientWidth);
}).map(e => e.className)"""
