"""`python tools/repository.py [URL]`: renew what carries the repository's address; pyproject.toml is its home.

Each notebook has a badge that opens it on Colab, and a badge cannot look anything up. With a URL, it becomes the home's
first.
"""

import json
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
BADGE = re.compile(r"\[!\[Open in Colab\]\([^)]*\)\]\([^)]*\)")
COLAB = "https://colab.research.google.com"


def badge(repository: str, name: str) -> str:
    """Return the line of Markdown that opens a notebook on Colab."""
    where = f"{repository.removeprefix('https://')}/blob/main/notebooks/{name}.ipynb".replace("github.com/", "github/")
    return f"[![Open in Colab]({COLAB}/assets/colab-badge.svg)]({COLAB}/{where})"


def renew(repository: str) -> None:
    """Write every notebook's badge: below its title, in a paragraph of its own."""
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        notebook = json.loads(path.read_text())
        first = notebook["cells"][0]
        title, _, rest = BADGE.sub("", "".join(first["source"])).partition("\n")
        text = f"{title}\n\n{badge(repository, path.stem)}\n\n{rest.strip()}"
        first["source"] = text.splitlines(keepends=True)
        path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n")


def main() -> None:
    """Read the address, a new one from the command line, and write it wherever it stands."""
    home = ROOT / "pyproject.toml"
    if len(sys.argv) > 1:
        url = sys.argv[1].rstrip("/").removesuffix(".git")
        if not re.fullmatch(r"https://github\.com/[\w.-]+/[\w.-]+", url):
            sys.exit(f"error: the address must be like https://github.com/name/colt-workbook, not {sys.argv[1]}")
        home.write_text(re.sub(r'^Repository = "[^"]*"', f'Repository = "{url}"', home.read_text(), flags=re.MULTILINE))
    renew(tomllib.loads(home.read_text())["project"]["urls"]["Repository"])


if __name__ == "__main__":
    main()
