"""One bar for what takes long: on a terminal a line, in a notebook a plain widget, elsewhere nothing.

Whoever begins first shows it; what is called meanwhile, in this process or in its workers, draws no other over it. A
notebook that is run headless (papermill, nbval, nbconvert) has none, so that its outputs are the same with and without.
"""

import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

SWITCH = "COLT_PROGRESS"  # "0": no bar anywhere; "1": one even where nobody seems to look
WAIT = 1.0  # seconds before there is one: what is done at once needs none


class Bar:
    """What is shown of something under way; this one shows nothing."""

    shows = False

    def say(self, text: str, share: float) -> None:
        """Say what is running and what is left; `share` of it is done, in [0, 1]."""

    def close(self) -> None:
        """Take it away."""


class _Late(Bar):
    """A bar that is there only once it has been worth while."""

    shows = True

    def __init__(self) -> None:
        self._since, self._shown = time.monotonic(), False

    def say(self, text: str, share: float) -> None:
        if not self._shown and time.monotonic() - self._since < WAIT:
            return
        if not self._shown:
            self.begin()
            self._shown = True
        self.draw(text, min(1.0, max(0.0, share)))

    def close(self) -> None:
        if self._shown:
            self.end()

    def begin(self) -> None:
        """Make it."""

    def draw(self, text: str, share: float) -> None:
        """Show a state of it."""

    def end(self) -> None:
        """Take it away."""


class _Line(_Late):
    """A line on a terminal, as wide as that."""

    def begin(self) -> None:
        from tqdm import tqdm

        form = "{percentage:3.0f}% |{bar:12}| {desc}"
        self._bar = tqdm(total=1.0, leave=False, bar_format=form, ncols=_columns(), nrows=20, file=sys.stderr)

    def draw(self, text: str, share: float) -> None:
        self._bar.n, self._bar.ncols = share, _columns()
        self._bar.set_description_str(text, refresh=False)
        self._bar.refresh()

    def end(self) -> None:
        self._bar.close()


def _columns() -> int:
    """Return how wide a line may be; a terminal that does not say has 100 columns."""
    return shutil.get_terminal_size((100, 24)).columns - 1


class _Widget(_Late):
    """A bar of ipywidgets with a line of text; the bars of one cell are one, so that a loop leaves no pile of them."""

    last: tuple[int, Any, Any] | None = None

    def begin(self) -> None:
        import ipywidgets
        from IPython import get_ipython
        from IPython.display import display

        cell = get_ipython().execution_count
        if _Widget.last is None or _Widget.last[0] != cell:
            bar, text = ipywidgets.FloatProgress(min=0, max=1, layout={"width": "180px"}), ipywidgets.Label()
            display(box := ipywidgets.HBox([bar, text]))
            _Widget.last = cell, box, (bar, text)
        _, self._box, (self._bar, self._text) = _Widget.last
        self._box.layout.display = "flex"

    def draw(self, text: str, share: float) -> None:
        self._bar.value, self._text.value = share, text

    def end(self) -> None:
        self._box.layout.display = "none"


_open = Lock()


@contextmanager
def bar(progress: bool | None = None) -> Iterator[Bar]:
    """Give a bar while the block runs.

    Parameters
    ----------
    progress
        None: where somebody looks, a terminal or a notebook that a browser drives, unless `$COLT_PROGRESS` says
        otherwise. A block within another's has one that shows nothing.
    """
    kind = _kind(progress)
    if kind is Bar or not _open.acquire(blocking=False):
        yield Bar()
        return
    found = kind()
    try:
        yield found
    finally:
        found.close()
        _open.release()


def _kind(progress: bool | None) -> type[Bar]:
    switch = os.environ.get(SWITCH, "")
    if progress is False or switch == "0":
        return Bar
    if _is_watched():
        return _Widget
    return _Line if progress or switch == "1" or sys.stderr.isatty() else Bar


def _is_watched() -> bool:
    """Tell whether this is a notebook's cell that somebody runs in a browser.

    JupyterLab, Notebook, VS Code and Colab say more of a cell than its code (which cell, whether to time it); headless
    runs, all of nbclient's or jupyter_client's making, do not.
    """
    if "IPython" not in sys.modules or "ipykernel" not in sys.modules:
        return False
    from IPython import get_ipython

    kernel = getattr(get_ipython(), "kernel", None)
    asked = kernel.get_parent() if kernel is not None and hasattr(kernel, "get_parent") else None
    return bool((asked or {}).get("metadata"))


def left(seconds: float, share: float, waited: float = 0.0) -> str:
    """Say how long the rest takes at the pace so far; "" before there is one.

    Parameters
    ----------
    seconds, share
        What was done in how long.
    waited
        Seconds since then, in which nothing was told.
    """
    if not 0.02 <= share < 1 or seconds < 2:
        return ""
    rest = max(1.0, seconds * (1 - share) / share - waited)
    return f"{rest / 60:.0f} min left" if rest >= 90 else f"{rest:.0f} s left"
