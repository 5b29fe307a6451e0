"""Every interactive view the notebooks show, over the figures of `plots`. Each is one call; none blocks the kernel.

    cc.widgets.cockpit(experiment)    start a run, watch it, pause, continue and stop it
    cc.widgets.explorer()             look into the masks of the store's runs, layer by layer, weight by weight
    cc.widgets.compare()              accuracy against sparsity, similarity of tickets, layer densities
    cc.widgets.what_if()              rounds to a target from rate, partitions and expected overlap
    cc.widgets.app()                  all four on one page (`make app`)

Each control works by mouse and keyboard; pictures and tables take the arrow keys. In a notebook that is read without a
kernel each shows its picture. `save(path)` of explorer, compare and what_if writes a page that answers without Python.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import ipywidgets

from ..studies.experiment import Experiment
from ..studies.records import Place
from ..studies.study import Study
from .cockpit import Cockpit
from .compare import Compare
from .explorer import Explorer
from .parts import Still
from .what_if import WhatIf

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["app", "cockpit", "compare", "explorer", "what_if"]


def cockpit(experiment: Experiment | None = None, store: Place = None, device: str = "auto") -> Cockpit:
    """Show a cockpit: a form that describes a run, and Start, Pause, Continue and Stop.

    The run goes on in processes of its own and finds the same tickets as `run`, bit for bit. Finished rounds are in the
    store whatever happens; after a stop, a crash or a restart of the kernel the same call finds the run there.

    Parameters
    ----------
    experiment
        What the form begins with; by default COLT as in the preset `mini`. Settings that have no control stay as given.
    store, device
        As for `run`.

    Returns
    -------
    Cockpit
        `rounds` are the rounds found so far, at any moment; `live` the run (see `live.Live`).
    """
    return Cockpit(experiment or Study.named("mini").experiment("colt"), store, device)


def explorer(runs: Iterable[Experiment | str] | None = None, store: Place = None) -> Explorer:
    """Show masks of saved runs: what two copies or all, two rounds or two methods keep of each layer, beside chance.

    The browser draws them: zoom by + and - or the wheel, pan by dragging, point at a weight for its theta0, the round
    in which it went and the copies that kept it.

    Parameters
    ----------
    runs
        Experiments or their hashes, in this order; by default every run of the store.
    store
        As for `run`. Only its files are read; nothing is computed by training.

    Returns
    -------
    Explorer
        `masks()` gives the two masks shown; `save("explorer.html")` writes it as a page without Python.
    """
    return Explorer(runs, store)


def compare(records: "pd.DataFrame | None" = None, store: Place = None) -> Compare:
    """Show tickets side by side: accuracy against sparsity with verdicts beside, settings, similarity, layer densities.

    It opens on one data set and COLT with its controls; seeds are a line with a band, single runs come on demand. Each
    filter narrows those after it, and a query takes comparisons of columns: `rate < 0.2 and method == "colt"`.

    Parameters
    ----------
    records
        Rows of `run`, `study` or `report.load`; by default everything in the store.
    store
        Where the tickets' files are; as for `run`.

    Returns
    -------
    Compare
        `ticket` is the ticket that was clicked last; `table()` gives the numbers of the picture.
    """
    return Compare(records, store)


def what_if(rate: float = 0.15, parts: int = 2, imp_rate: float = 0.2, target: float = 0.991) -> WhatIf:
    """Show what arithmetic says about rounds, before anyone trains: COLT, IMP, and IMP at COLT's rate.

    Parameters
    ----------
    rate, parts, imp_rate, target
        Where the sliders begin: the paper's settings. The overlap begins at that of independent masks.
    """
    return WhatIf(rate, parts, imp_rate, target)


class App(Still, ipywidgets.Tab):
    """All four views, a tab each; see `app`."""

    def __init__(self, store: Place) -> None:
        self.title = "The COLT workbook, live"
        self.views: dict[str, Cockpit | Explorer | Compare | WhatIf] = {
            "Cockpit": cockpit(store=store),
            "Masks": explorer(store=store),
            "Tickets": compare(store=store),
            "What if": what_if(),
        }
        self.picture = self.views["What if"].picture
        super().__init__(list(self.views.values()), titles=list(self.views))
        self.add_class("colt-app")


def app(store: Place = None) -> App:
    """Show all four views on one page; `views` has them by their tabs' names."""
    return App(store)
