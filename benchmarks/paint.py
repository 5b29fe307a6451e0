"""How soon something is seen: the first paint of every page of the site, of the saved views, and of the views in Voila.

    python benchmarks/paint.py [SITE]        writes results/paint.md; SITE is the folder that `make site` wrote

Chromium opens every page of its own, with an empty cache, at 1280 x 900. "First" is its own first contentful paint. Of
views "whole" is when the view's own content stands there: the explorer's legend, the chart of a comparison, the fields
of the cockpit. Voila starts a kernel for the page, which imports torch: most of the time goes to it.
"""

import contextlib
import datetime
import os
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

import colt_core as cc

ROOT = Path(__file__).resolve().parent.parent
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
STORE = ROOT / "results" / "small" / "store"
CONTENT = {"explorer": ".colt-legend li", "compare": "#view svg.marks", "what_if": "#view svg.marks"}
PAINTED = "() => performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? null"


def opened(engine: Any, url: str, content: str | None = None, patience: float = 120) -> tuple[float, float]:
    """Open a page with an empty cache; return the milliseconds to its first paint, and until its content is there."""
    page = engine.new_page(viewport={"width": 1280, "height": 900})
    begun = time.perf_counter()
    page.goto(url, wait_until="load")
    page.wait_for_function(PAINTED, timeout=1000 * patience)
    if content:
        page.locator(content).first.wait_for(timeout=1000 * patience)
    whole = 1000 * (time.perf_counter() - begun)
    first = page.evaluate(PAINTED)
    page.close()
    return first, whole


def saved_views(folder: Path) -> dict[str, Path]:
    """Save each view of the reference runs as a page of its own."""
    small = [one for piece in cc.Study.named("small").each() for one in piece.experiments([0])]
    views = {
        "explorer": cc.widgets.explorer([one for one in small if one.method in ("colt", "matched")], STORE),
        "compare": cc.widgets.compare(store=STORE),
        "what_if": cc.widgets.what_if(),
    }
    return {name: Path(view.save(folder / f"{name}.html")) for name, view in views.items()}


@contextlib.contextmanager
def voila() -> Iterator[str]:
    """Serve the app as `make app` does; give its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "voila", "notebooks/app.ipynb", "--no-browser", f"--port={port}"]
    server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


def row(name: str, pairs: list[tuple[float, float]]) -> str:
    """Return a line of the table: the median of some openings."""
    first, whole = (statistics.median(pair[i] for pair in pairs) for i in (0, 1))
    return f"| {name} | {len(pairs)} | {first:.0f} | {whole:.0f} |"


def main() -> None:
    """Open everything and write the table."""
    from playwright.sync_api import sync_playwright

    torch.set_num_threads(1)
    site = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build" / "site" / "html"
    pages = sorted(page for page in site.rglob("*.html") if "_static" not in page.parts)
    if not pages:
        raise SystemExit(f"there are no pages in {site}: build them with `make site`, or name their folder")
    before, lines, slow = os.getloadavg()[0], [], []
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        engine = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        version = engine.version
        opened(engine, pages[0].as_uri())  # the browser's own first page
        for name, path in saved_views(Path(folder)).items():
            size = f"{path.stat().st_size / 1e6:.1f} MB"
            lines.append(
                row(f"{name}, saved ({size})", [opened(engine, path.as_uri(), CONTENT[name]) for _ in range(5)])
            )
        with voila() as address:
            lines.append(row("app in Voila, its cockpit", [opened(engine, address, ".colt-says") for _ in range(3)]))
        slow = sorted(
            ((*opened(engine, page.as_uri()), page.relative_to(site).as_posix()) for page in pages), reverse=True
        )
        engine.close()
    first = [one for one, _, _ in slow]
    whole = [two for _, two, _ in slow]
    lines.append(
        f"| the site's {len(slow)} pages, median | 1 each "
        f"| {statistics.median(first):.0f} | {statistics.median(whole):.0f} |"
    )
    lines += [f"| its slowest: {name} | 1 | {one:.0f} | {two:.0f} |" for one, two, name in slow[:5]]
    model = next((x.split(": ")[1] for x in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in x), "")
    load = f"load {before:.1f} before and {os.getloadavg()[0]:.1f} after"
    text = "\n".join(
        [
            f"First paints in Chromium {version} (headless, no GPU, 1280 x 900), {datetime.date.today()}; "
            f"{os.cpu_count()} cores ({model or platform.machine()}), {load}. Milliseconds from the request, median.",
            "",
            "| what | openings | first contentful paint | content there, all loaded |",
            "| --- | ---: | ---: | ---: |",
            *lines,
        ]
    )
    print(text)
    (ROOT / "results" / "paint.md").write_text(text + "\n")


if __name__ == "__main__":
    main()
