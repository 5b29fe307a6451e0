"""What the wheel holds beside the code: the notebooks, their figures, and of the results what the notebooks read.

They lie in folders of their own and become `colt_core/book/...`; all else about this project is in pyproject.toml.
"""

import json
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
TAKEN = ("notebooks/*.ipynb", "figures/*.png", "figures/*.csv", "results/*.md", "results/*/*.md", "results/*/*.yaml")
TAKEN += ("results/*/decided.csv", "results/*/described.csv", "results/*/*.py")
READ = ("small", "world", "official")  # the studies whose records and tickets notebooks 00 and 13 read


def book() -> list[Path]:
    """Return the files, relative to here: of the results the records of studies that are read or decided, and of those
    that are read COLT's tickets.
    """
    found = [path for pattern in TAKEN for path in ROOT.glob(pattern)]
    decided = sorted(path.parent.name for path in ROOT.glob("results/*/decided.csv"))
    stores = [(study, ROOT / "results" / study / "store") for study in dict.fromkeys([*READ, *decided])]
    for study, described in ((name, path) for name, store in stores for path in store.glob("*/experiment.json")):
        found += [described, *described.parent.glob("records.jsonl"), *described.parent.glob("complete")]
        if study in READ and json.loads(described.read_text())["method"] == "colt":
            found += described.parent.glob("round-*.safetensors")
    return sorted(path.relative_to(ROOT) for path in found)


class WithBook(build_py):
    """Copy them into the package, and name them as sources, so that a source distribution has them too."""

    def get_source_files(self) -> list[str]:
        return [*super().get_source_files(), *map(str, book())]

    def run(self) -> None:
        super().run()
        for path in [] if self.editable_mode else book():  # of an editable install, the repository is the book
            target = Path(self.build_lib, "colt_core", "book", path)
            self.mkpath(str(target.parent))
            self.copy_file(str(path), str(target))


setup(cmdclass={"build_py": WithBook})
