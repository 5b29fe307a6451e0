"""Views as pages: one file each, which opens from a disk, without Python and without a network."""

import gzip
import json
import struct
from base64 import b64encode
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
import pandas as pd

from ..files import write_text, write_whole
from ..plots.charts import vega
from .parts import asset


def binary(book: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> bytes:
    """Return a view's file, as `page.js` reads it.

    gzip of: the JSON's length (uint32, little-endian), the JSON, then the arrays' bytes, each at a multiple of four.
    The JSON is `book` and "arrays": {name: [first byte, bytes]}.
    """
    sizes = {name: array.nbytes for name, array in arrays.items()}

    def written(start: int) -> bytes:
        places, at = {}, start
        for name, size in sizes.items():
            places[name] = [at, size]
            at += -(-size // 4) * 4
        return json.dumps({**book, "arrays": places}, separators=(",", ":")).encode()

    room = -(-(len(written(10**9)) + 4) // 4) * 4  # as long as the places could make it
    text = written(room).ljust(room - 4)
    body = b"".join(array.tobytes().ljust(-(-array.nbytes // 4) * 4, b"\0") for array in arrays.values())
    return gzip.compress(struct.pack("<I", len(text)) + text + body, 6, mtime=0)


def write_page(
    path: str | Path,
    title: str,
    scripts: Iterable[str],
    view: str,
    data: bytes,
    still: bytes = b"",
    alt: str = "",
    beside: bool = False,
) -> Path:
    """Write a page with a view that scripts of `assets/` draw from a file's bytes, and a picture until they have.

    Parameters
    ----------
    title
        As HTML.
    scripts, view
        Names of files, and of the function that draws.
    data
        What `binary` returns.
    still, alt
        A PNG file's bytes, and what it shows.
    beside
        Write `data` into a file of its own beside the page.
    """
    path = Path(path)
    place, told = "", b64encode(data).decode()
    if beside:
        place, told = f' data-file="{escape(path.stem)}.bin"', ""
        write_whole(path.with_suffix(".bin"), lambda part: part.write_bytes(data))
    code = f"{asset(*scripts, 'page.js')}\nopenView('data', {view});"
    body = f'<script type="text/plain" id="data"{place}>{told}</script>\n<script type="module">\n{code}\n</script>'
    return write_html(path, title, body, picture(still, alt))


def write_html(path: str | Path, title: str, body: str, inside: str) -> Path:
    """Write a page in the workbook's style: title, what is inside the view, then what draws it; all HTML."""
    path = Path(path)
    parts = {"title": title, "style": asset("style.css"), "still": inside, "body": body}
    write_text(path, Template(asset("page.html")).substitute(parts))
    return path


def write_chart(
    path: str | Path,
    title: str,
    chart: Any,
    still: bytes,
    alt: str,
    numbers: pd.DataFrame | None = None,
    below: str = "",
) -> Path:
    """Write a page with a chart of `plots.charts`; Vega lies in it. `numbers` can be taken from it as CSV.

    `below` stands under the chart, as HTML.

    Raises
    ------
    ImportError
        In one line, where the extra `charts` is not installed.
    """
    link = ""
    if numbers is not None:
        told = b64encode(numbers.to_csv(index=False).encode()).decode()
        place = f'download="{escape(Path(path).stem)}.csv" href="data:text/csv;base64,{told}"'
        link = f"<p><a {place}>The numbers (CSV)</a></p>"
    spec = chart.to_json(indent=None).replace("</", "<\\/")
    scripts = f"<script>\n{vega()}\n</script>\n<script>\n{asset('chart.js')}\nchart('view', {spec});\n</script>"
    return write_html(path, title, f"{below}\n{link}\n{scripts}", picture(still, alt))


def picture(png: bytes, alt: str) -> str:
    """Return a picture as HTML, or nothing."""
    return f'<img src="data:image/png;base64,{b64encode(png).decode()}" alt="{escape(alt)}">' if png else ""
