"""What-if: the arithmetic of rounds under three sliders, before anyone trains."""

from html import escape
from pathlib import Path

import ipywidgets

from .. import plots
from ..studies import arithmetic
from .page import write_chart
from .parts import View, form, panels


class WhatIf(View):
    """Sliders for rate, partitions and expected overlap; see `what_if`."""

    def __init__(self, rate: float, parts: int, imp_rate: float, target: float) -> None:
        super().__init__("What if: how many rounds to the target?")
        slide = {"step": 0.01, "continuous_update": True, "readout_format": ".2f"}
        self.rate = ipywidgets.FloatSlider(rate, min=0.05, max=0.6, description="COLT's rate", **slide)
        self.parts = ipywidgets.IntSlider(parts, min=2, max=10, description="Partitions")
        self.overlap = ipywidgets.FloatSlider(1 - rate, min=0, max=1, description="Overlap", **slide | {"step": 0.005})
        self.imp_rate = ipywidgets.FloatSlider(imp_rate, min=0.05, max=0.6, description="IMP's rate", **slide)
        self.target = ipywidgets.FloatSlider(
            target, min=0.5, max=0.999, step=0.001, readout_format=".1%", description="Target"
        )
        self.overlap.tooltip = "share of one copy's kept weights that each further copy keeps too"
        sliders = form(self.rate, self.parts, self.overlap, self.imp_rate, self.target)
        self.lay_out(panels([sliders, self.words], self.picture))
        self.listen(self.rate, self.parts, self.overlap, self.imp_rate, self.target, to=self._draw)
        self._draw()

    def _draw(self) -> None:
        rate, parts = self.rate.value, self.parts.value
        least = arithmetic.keep_factor(rate, parts, None)
        keep = max(arithmetic.keep_factor(rate, parts, self.overlap.value), least)
        if keep <= 0:
            self.say(f"{parts} copies that lose {rate:.0%} each may leave nothing: raise the overlap", bad=True)
            self.picture.show(None)
            return
        if keep < 1 - self.target.value:
            self.say(
                f"Warning: at these settings a single round leaves {_percent(keep)} of the weights, less than the "
                f"target's {_percent(1 - self.target.value)}: no cycle follows, and layers may be left without a "
                "weight (collapse). Take a lower rate, fewer partitions, or copies that overlap more.",
                bad=True,
            )
            self.picture.show(None)
            return
        overlap = (keep / (1 - rate)) ** (1 / (parts - 1))
        table = arithmetic.what_if(rate, parts, overlap, self.imp_rate.value, self.target.value)
        rounds = table.groupby("method")["round"].max()
        bound = "" if overlap <= self.overlap.value + 1e-9 else f" (less than {overlap:.3f} is impossible at this rate)"
        text = (
            f"COLT keeps {_percent(keep)} of its weights a round{bound}: {rounds['colt']} rounds to "
            f"{self.target.value:.1%}. Independent masks share {1 - rate:.3f}, identical ones 1.\n"
            f"IMP at {self.imp_rate.value:.0%} a round: {rounds['imp']} rounds; at COLT's own rate "
            f"({1 - keep:.1%}) as many as COLT, at the same cost a round."
        )
        self.say(text)
        self.picture.show(plots.what_if(table, self.target.value), f"density over rounds: {text}")

    def save(self, path: str | Path) -> Path:
        """Write the sliders as they are, and the chart, as a page that needs no Python and no network.

        Raises
        ------
        ImportError
            In one line, where the extra `charts` is not installed.
        """
        given = (self.rate.value, self.parts.value, self.overlap.value, self.imp_rate.value, self.target.value)
        chart = plots.what_if_chart(*given)
        return write_chart(path, escape(self.title), chart, self.still(), self.picture.alt)


def _percent(share: float) -> str:
    """Write a share in percent: three digits, and never as nothing where there is something."""
    return f"{100 * share:.3g} %"
