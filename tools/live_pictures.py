"""Take the README's pictures of the interactive views from the app page: python tools/live_pictures.py STORE

Needs the extra `test` (Voila, Playwright) and a Chromium. Writes figures/live_cockpit.png, live_explorer.png and
live_compare.png from what the store holds (`make run` or `make figures` fills `runs`).
"""

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

from playwright.sync_api import sync_playwright

SIZE = {"width": 1640, "height": 1300}


def main(store: Path) -> None:
    """Serve the page, set each view up, and keep its picture."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    voila = Path(sys.executable).parent / "voila"
    command = [str(voila), "notebooks/app.ipynb", "--no-browser", "--Voila.ip=127.0.0.1", f"--port={port}"]
    server = subprocess.Popen(command, env=os.environ | {"COLT_STORE": str(store.resolve())})
    try:
        with sync_playwright() as engine:
            browser = engine.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            page = browser.new_page(viewport=SIZE)
            for _ in range(240):
                try:
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
                except OSError:
                    time.sleep(0.25)
            page.goto(f"http://127.0.0.1:{port}")
            take(page)
            browser.close()
    finally:
        server.terminate()
        server.wait()


def take(page) -> None:
    """Take the three pictures."""

    def shown(tab: str, ready: str):
        page.get_by_role("tab", name=tab).click()
        view = page.locator(".colt-view:visible").first
        view.locator(".colt-says", has_text=ready).first.wait_for(timeout=120_000)
        page.wait_for_timeout(1500)
        return view

    shown("Cockpit", "Round").screenshot(path="figures/live_cockpit.png")
    masks = shown("Masks", "Whole network")
    masks.locator(".colt-table td", has_text="conv3").click()
    page.wait_for_timeout(1000)
    masks.locator(".colt-mask").first.click(position={"x": 300, "y": 200})
    page.wait_for_timeout(1000)
    masks.screenshot(path="figures/live_explorer.png")
    tickets = shown("Tickets", "scored tickets")
    tickets.locator("select").nth(3).select_option("0")  # one seed
    tickets.locator("select").nth(2).select_option(["imp", "matched", "random", "union", "consensus", "colt"])
    tickets.get_by_role("button", name="similarity").click()
    tickets.locator(".colt-says", has_text="the most alike side by side").wait_for()
    page.wait_for_timeout(1500)
    tickets.screenshot(path="figures/live_compare.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
