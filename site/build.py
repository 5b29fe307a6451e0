"""`python site/build.py [FOLDER]`: the workbook as a site, into FOLDER/html (build/site without one). Nothing is run.

The pages lie in a copy of the repository's layout, so that the links of notebooks and READMEs lead where they say. What
the code knows is written out from the code: the methods, the API, the figures, the reference runs, how to cite.

The live views: where a view of `cc.widgets` has a method `save(path)`, which writes it as one HTML file that needs no
Python, its file becomes part of the site and the page "Live views" shows it; a view without one shows its picture. See
`LIVE`, the one place that names them.
"""

import ast
import hashlib
import inspect
import json
import os
import sys
import tomllib
import types
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
sys.path = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).resolve().parent]

import colt_core as cc  # noqa: E402
from colt_core.methods.papers import PAPERS  # noqa: E402
from colt_core.workbook import STUDIES  # noqa: E402

TAKEN = ("notebooks/*.ipynb", "figures/*.png", "figures/*.csv", "results/**/*.md", "results/*/*.yaml", "results/*.csv")
TAKEN += ("benchmarks/*", "colt_core/**/*.py", "colt_core/**/*.md", "colt_core/studies/ready/*.yaml", "README.md")
TAKEN += ("CITATION.cff", "LICENSE", "results/*/*.csv")
ARXIV = "https://arxiv.org/abs"

SMALL = ROOT / "results" / "small" / "store"
LIVE = {  # of each view: its title, its picture, and what makes it
    "explorer": (
        "Look into masks",
        "live_explorer",
        lambda: cc.widgets.explorer(explored(), SMALL),
    ),
    "compare": ("Compare tickets", "live_compare", lambda: cc.widgets.compare(store=SMALL)),
    "what_if": ("What if", "02_what_if", lambda: cc.widgets.what_if()),
}


def explored() -> list[cc.Experiment]:
    """Return the runs that the explorer's page holds: COLT's and matched IMP's of one seed."""
    small = cc.Study.named("small").each()
    return [one for piece in small for one in piece.experiments([0]) if one.method in ("colt", "matched")]


def main() -> int:
    """Bring the pages together and let Sphinx make the site; a warning is an error."""
    out = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "build" / "site").resolve()
    assemble(out / "source")
    from sphinx.cmd.build import main as sphinx

    how = ["-b", "html", "-W", "--keep-going", "-q", "-j", "auto", "-c", str(ROOT / "site")]
    how += ["-D", f"html_extra_path={out / 'source' / 'extra'}", "-d", str(out / "doctrees")]
    marks = out / "settings", out / "digest"  # of the settings alone, and of all; written when a site is whole
    how += [] if marks[0].exists() and marks[0].read_text() == digest(ROOT / "site") else ["-E"]  # Sphinx cannot tell
    status = sphinx([*how, str(out / "source"), str(out / "html")])
    for mark, folders in zip(marks, ((ROOT / "site",), (out / "source", ROOT / "site")), strict=True):
        mark.write_text(digest(*folders) if status == 0 else "")
    if status == 0:
        print(f"the site is {os.path.relpath(out / 'html' / 'index.html')}: open it in a browser")
    return status


def assemble(source: Path) -> None:
    """Write all pages below a folder. What is there already and the same is left alone: Sphinx reads it no more."""
    pages = {path.name: path.read_text() for path in (ROOT / "site" / "pages").glob("*.md")}
    pages["index.md"] = pages["index.md"].replace("NOTEBOOKS", "\n".join(notebooks()))
    pages["index.md"] = pages["index.md"].replace("METHODS", str(len(cc.METHODS)))
    pages["reproduce.md"] = pages["reproduce.md"].replace("REFERENCE", reference())
    pages |= methods() | api() | {"cite.md": cite(), "figures.md": figures()}
    files: dict[str, bytes] = {name: text.encode() for name, text in pages.items()}
    for path in sorted({path for pattern in TAKEN for path in ROOT.glob(pattern) if path.is_file()}):
        name = path.relative_to(ROOT).as_posix()
        if "/store/" not in name:
            files[name] = shown(path)
    live = source / "extra" / "live"
    files["live.md"] = pages["live.md"].replace("LIVE", "\n\n".join(views(live))).encode()
    kept = {source / name for name in files} | set(live.glob("*.html"))
    for old in [path for path in source.rglob("*") if path.is_file() and path not in kept]:
        old.unlink()
    for name, content in files.items():
        target = source / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists() or target.read_bytes() != content:
            target.write_bytes(content)
    (source / "extra").mkdir(exist_ok=True)


def digest(*folders: Path) -> str:
    """Return the SHA-256 of all files of some folders, and of their names."""
    found = hashlib.sha256()
    for folder in folders:
        for path in sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts):
            found.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return found.hexdigest()


# --- what is there ---


def notebooks() -> list[str]:
    """Return the notebooks' pages, in reading order."""
    return [f"notebooks/{path.stem}" for path in sorted((ROOT / "notebooks").glob("*.ipynb"))]


def shown(path: Path) -> bytes:
    """Return a file as the site shows it."""
    content = path.read_bytes()
    if path.suffix == ".ipynb":
        notebook = json.loads(content)
        first = notebook["cells"][0]  # the badge is a picture from the web; the page has a button of its own
        first["source"] = [line for line in first["source"] if not line.startswith("[![Open in Colab]")]
        for cell in [cell for cell in notebook["cells"] if cell["cell_type"] == "code"][:2]:  # settings, imports
            cell["metadata"].setdefault("tags", []).append("hide-input")
        return json.dumps(notebook).encode()
    if path.suffix == ".md" and "results" in path.parts and path.name != "README.md":
        text, table = content.decode(), path.parent != ROOT / "results"  # of one run: linked to, not in the navigation
        name = f"{path.parent.name}: {path.stem}" if table else path.stem.capitalize()
        title = "" if text.startswith("# ") else f"# {name}\n\n"
        return (("---\norphan: true\n---\n" if table else "") + title + text).encode()
    return content.replace(b"](site/pages/", b"](") if path == ROOT / "README.md" else content


def views(folder: Path) -> Iterator[str]:
    """Yield a section for each live view: the view itself where it can be saved as a page, else its picture."""
    for name, (title, picture, make) in LIVE.items():
        about = inspect.getdoc(getattr(cc.widgets, name)).partition("\n\n")[0].replace("\n", " ")
        if saves(make):
            folder.mkdir(parents=True, exist_ok=True)
            page, fresh = folder / f"{name}.html", folder / f".{name}.html"
            make().save(fresh)
            fresh.unlink() if page.exists() and page.read_bytes() == fresh.read_bytes() else fresh.replace(page)
            frame = f'<iframe class="live" src="live/{name}.html" title="{title}" loading="lazy"></iframe>'
            alone = f'<p><a href="live/{name}.html">Alone on a page</a></p>'
            yield f"## {title}\n\n{about}\n\n```{{raw}} html\n{frame}\n{alone}\n```"
        else:
            again = f"in a notebook by `cc.widgets.{name}()`, or all on one page by `make app`"
            yield f"## {title}\n\n{about}\n\n![{title}: {about}](figures/{picture}.png)\n\nLive: {again}."


def saves(make: Callable[[], object]) -> bool:
    """Return whether what a view's function gives can be saved as a page, without making one."""
    name = next(name for name, (_, _, known) in LIVE.items() if known is make)
    return callable(getattr(inspect.signature(getattr(cc.widgets, name)).return_annotation, "save", None))


# --- the methods ---


def methods() -> dict[str, str]:
    """Return a page for each method, and their index: all of it from the records and their modules."""
    held = Counter()
    for path in ROOT.glob("results/*/store/*/experiment.json"):
        held[json.loads(path.read_text())["method"], path.parts[-4]] += 1
    pages = {f"methods/{name}.md": page(method, held) for name, method in cc.METHODS.items()}
    rows = [f"| {swatch(m)} [{m.look.name}]({n}.md) | {cell(m.about)} | {short(m)} |" for n, m in cc.METHODS.items()]
    text = "# Methods\n\nEach is one record in `colt_core/methods/`; these pages are written from it.\n\n"
    text += "| method | what it does | paper |\n| --- | --- | --- |\n" + "\n".join(rows)
    toc = "\n".join(cc.METHODS)
    pages["methods/index.md"] = f"{text}\n\n```{{toctree}}\n:hidden:\n\n{toc}\n```\n"
    return pages


def swatch(method: cc.Method) -> str:
    """Return a square of the colour that a method has in figures."""
    return f'<span class="swatch" style="background:{method.look.colour}" aria-hidden="true"></span>'


def short(method: cc.Method) -> str:
    """Return links to a method's papers, by number."""
    return ", ".join(f"[{number}]({ARXIV}/{number})" for number in method.papers) or (
        "ours" if is_ours(method) else "-"
    )


def is_ours(method: cc.Method) -> bool:
    """Return whether a method goes back to no paper, and is no plain control."""
    return not method.papers and method.trains != "never"


ONE_HEAD = ("soup", "crossfit")  # what their copies share before they part: refused for partitions by class


def page(method: cc.Method, held: Counter) -> str:
    """Return the page of a method: law, paper, record, reference runs, code."""
    module = sys.modules[method.find.__module__]
    file = Path(module.__file__).relative_to(ROOT).as_posix()
    law = "\n".join(f"```{{math}}\n{piece.strip()}\n```" for piece in method.law.split(r"\qquad"))
    papers = [f"- {PAPERS[number]}. [arXiv {number}]({ARXIV}/{number})" for number in method.papers]
    runs = [f"[{study}](../results/README.md): {n}" for (name, study), n in sorted(held.items()) if name == method.name]
    found = [*used(method.find, module), *record(method, module)]
    code = [f"```{{literalinclude}} ../{file}\n:lines: {first}-{last}\n:lineno-match:\n```" for first, last in found]
    about = module.__doc__.partition("\n\n")[0].replace("\n", " ")
    by = " --by random" if method.name in ONE_HEAD else ""
    return "\n\n".join(
        [
            f"# {method.look.name}",
            f"{swatch(method)} `{method.name}`: {method.about}.",
            "## The law",
            law,
            "top<sub>k</sub>(s; m): the share k of what the mask m keeps with the largest scores s. w: trained. D: the "
            "training set, D<sub>i</sub> one of its P partitions. q: the rate. d<sub>t</sub>: the density of COLT's "
            "cycle t. Products with a mask are weight by weight. Words: [glossary](../glossary.md).",
            "## The paper",
            "\n".join(papers) or ("None: this one is ours." if is_ours(method) else "None."),
            "## What the record says",
            table(method),
            "## In the reference runs",
            "Experiments: " + ", ".join(runs) + "." if runs else "Not yet.",
            f"    colt run --method {method.name}{by} --target 0.9",
            f"## The code\n\n{about} [All of {Path(file).name}](../{file})",
            *code,
        ]
    )


def table(method: cc.Method) -> str:
    """Return what plans, tables and figures know of a method."""
    costs = {"copies": "a copy on each partition, in every round", "once": "one network, once", "never": "nothing"}
    costs |= {"rounds": "one network on all images, in every round"}
    followed = method.follows if isinstance(method.follows, str) else "the method that its options name"
    rows = [("trains", costs[method.trains])]
    rows += [("follows", f"{followed}: takes its {method.takes}" if method.follows else "no other method")]
    rows += [("default rate", f"{method.rate:g}")] if method.by_rounds and not method.follows else []
    rows += [("in tables", "a contender, held against the controls")] if method.contender else []
    rows += [("in tables", "one of the controls")] if method.control else []
    if method.options is not None:
        rows += options(method.options)
        rows.append(("options", inspect.getdoc(method.options).partition("\n\n")[0].replace("\n", " ")))
    return "| field | value |\n| --- | --- |\n" + "\n".join(f"| {name} | {value} |" for name, value in rows)


def options(model: type) -> Iterator[tuple[str, str]]:
    """Yield the name of each option with its type, as it stands in the code, and its default; inherited ones first."""
    own = [
        one
        for one in reversed(model.__mro__)
        if vars(one).get("__annotations__") and getattr(one, "model_fields", None)
    ]
    for node in (node for one in own for node in ast.parse(inspect.getsource(one)).body[0].body):
        if isinstance(node, ast.AnnAssign) and node.target.id in model.model_fields:
            kind, default = ast.unparse(node.annotation).replace("|", r"\|"), model.model_fields[node.target.id].default
            yield f"option `{node.target.id}`", f"`{kind}`, default `{default!r}`"


def used(function: Callable[..., object], module: types.ModuleType) -> list[tuple[int, int]]:
    """Return the lines of the functions of a module by which a method finds, as they call each other."""
    found: dict[str, tuple[int, int]] = {}

    def names(code: types.CodeType) -> Iterator[str]:
        yield from code.co_names
        for inner in code.co_consts:
            if isinstance(inner, types.CodeType):
                yield from names(inner)

    def add(name: str) -> None:
        one = getattr(module, name, None)
        if inspect.isfunction(one) and one.__module__ == module.__name__ and name not in found:
            lines, first = inspect.getsourcelines(one)
            found[name] = first, first + len(lines) - 1
            for other in names(inspect.unwrap(one).__code__):
                add(other)

    if function.__name__ != "<lambda>":
        add(function.__name__)
    for name in names(function.__code__):
        add(name)
    return sorted(found.values())


def record(method: cc.Method, module: types.ModuleType) -> list[tuple[int, int]]:
    """Return the lines of a method's record."""
    constant = next(name for name, value in vars(module).items() if value is method)
    nodes = ast.parse(inspect.getsource(module)).body
    assigned = [n for n in nodes if isinstance(n, ast.Assign) and getattr(n.targets[0], "id", None) == constant]
    return [(node.lineno, node.end_lineno) for node in assigned]


# --- the API ---


def api() -> dict[str, str]:
    """Return the pages of the API: what `import colt_core as cc` offers, and each module it lends when asked."""
    modules = {"masks": "masks"} | cc._LAZY
    pages = {f"api/{name}.md": of_module(name, place) for name, place in sorted(modules.items())}
    names = sorted({*cc.__all__, *cc._FUNCTIONS} - {"masks"}, key=str.lower)
    groups: dict[str, list[str]] = {"Functions": [], "Classes": []}
    for name in names:
        value = getattr(cc, name)
        if inspect.isclass(value):
            groups["Classes"].append(f".. autoclass:: colt_core.{name}")
        elif callable(value):
            groups["Functions"].append(f".. autofunction:: colt_core.{name}")
    text = [
        "# API",
        "    import colt_core as cc",
        "Written from the docstrings. " + inspect.getdoc(cc).splitlines()[-1],
    ]
    rows = [f"| [`cc.{name}`]({name}.md) | {first_line(getattr(cc, name))} |" for name in sorted(modules)]
    text += [
        "| module | what |\n| --- | --- |\n" + "\n".join(rows),
        "`cc.METHODS`: [the methods](../methods/index.md).",
    ]
    for title, lines in groups.items():
        text += [f"## {title}", "```{eval-rst}\n" + "\n".join(lines) + "\n```"]
    toc = "\n".join(sorted(modules))
    pages["api/index.md"] = "\n\n".join([*text, f"```{{toctree}}\n:hidden:\n\n{toc}\n```"]) + "\n"
    return pages


def first_line(module: types.ModuleType) -> str:
    return cell(inspect.getdoc(module).splitlines()[0])


def cell(text: str) -> str:
    """Return text as it can stand in a cell of a table."""
    return text.replace("|", r"\|")


def of_module(name: str, place: str) -> str:
    """Return the page of a module: its public names, wherever in it they are defined."""
    module = getattr(cc, name)
    public = getattr(module, "__all__", None) or [
        n for n, v in vars(module).items() if not n.startswith("_") and getattr(v, "__module__", "") == module.__name__
    ]
    lines = [f".. automodule:: colt_core.{place}", "   :no-members:", ""]
    for one in public:
        value, full = getattr(module, one), f"colt_core.{place}.{one}"
        if inspect.isclass(value) or inspect.isfunction(value):
            again = ["   :no-index:"] if getattr(cc, one, None) is value and one in cc.__all__ else []
            lines += [f".. auto{'class' if inspect.isclass(value) else 'function'}:: {full}", *again, ""]
    return f"# cc.{name}\n\n```{{eval-rst}}\n" + "\n".join(lines) + "\n```\n"


# --- evidence ---


def figures() -> str:
    """Return a page of all committed figures, with the numbers behind each and what made it."""
    made = {path.stem[:2]: path.stem for path in (ROOT / "notebooks").glob("[0-9]*.ipynb")}
    text = ["# Figures and their numbers", "A click shows a picture large. The numbers behind it lie beside it."]
    for path in sorted((ROOT / "figures").glob("*.png")):
        note = made.get(path.stem[:2])
        by = f"[notebook {note[:2]}](notebooks/{note}.ipynb)" if note else "[a reference run](reproduce.md)"
        if path.stem.startswith("live_"):  # a picture of a page, and no figure
            by = "`tools/live_pictures.py`: a view of the app page (`make app`) as a browser shows it"
        numbers = f"; {{download}}`its numbers <figures/{path.stem}.csv>`" if path.with_suffix(".csv").exists() else ""
        title = path.stem.replace("_", " ")
        text.append(f"## {title}\n\n![{title}](figures/{path.name})\n\nMade by {by}{numbers}.")
    return "\n\n".join(text) + "\n"


def reference() -> str:
    """Return a list of the reference runs' pages, tables among them, and those pages' places in the navigation."""
    text, pages = [], []
    for folder in sorted(path for path in (ROOT / "results").iterdir() if path.is_dir()):
        files = sorted(folder.glob("*.yaml"))
        ready = STUDIES / f"{folder.name}.yaml"
        links = [f"{{download}}`{f.name} <results/{folder.name}/{f.name}>`" for f in files]
        links += [f"{{download}}`{ready.name} <colt_core/studies/ready/{ready.name}>`"] if ready.exists() else []
        tables = [
            f"[{f.stem}](results/{folder.name}/{f.name})" for f in sorted(folder.glob("*.md")) if f.stem != "README"
        ]
        readme = f"results/{folder.name}/README"
        if (ROOT / f"{readme}.md").exists():
            pages.append(readme)
            name = f"[{folder.name}]({readme}.md)"
        else:
            name = folder.name
        stored = len(list(folder.glob("store/*/complete")))
        text.append(f"| {name} | {stored or '-'} | {', '.join(links)} | {', '.join(tables)} |")
    others = [f"results/{path.stem}" for path in sorted((ROOT / "results").glob("*.md")) if path.stem not in HOME]
    head = "| run | experiments finished | study and questions | tables |\n| --- | --- | --- | --- |\n"
    toc = "\n".join([*pages, *others, "colt_core/assets/README"])
    return head + "\n".join(text) + f"\n\n```{{toctree}}\n:hidden:\n\n{toc}\n```"


HOME = ("README", "PLAN")  # these have places of their own in the navigation


def cite() -> str:
    """Return how to cite the paper and this workbook, from CITATION.cff."""
    about = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    paper = about["preferred-citation"]
    people = [f"{one['given-names']} {one['family-names']}" for one in paper["authors"]]
    number = next(i["value"] for i in paper["identifiers"] if i["value"].startswith("arXiv:")).removeprefix("arXiv:")
    where = f"{paper['journal']} {paper['volume']}({paper['issue']}):{paper['start']}-{paper['end']}, {paper['year']}"
    family = paper["authors"][0]["family-names"].lower()
    entry = {
        "title": f"{{{paper['title']}}}", "author": " and ".join(people), "journal": paper["journal"],
        "volume": paper["volume"], "number": paper["issue"], "pages": f"{paper['start']}--{paper['end']}",
        "year": paper["year"], "eprint": number, "archiveprefix": "arXiv",
    }  # fmt: skip
    software = {
        "title": f"{{{about['title']}}}", "author": f"{{{about['authors'][0]['name']}}}", "version": about["version"],
        "url": tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Repository"],
    }  # fmt: skip
    return "\n\n".join(
        [
            "# Cite",
            about["message"],
            f"{', '.join(people)}. *{paper['title']}.* {where}. [arXiv {number}]({ARXIV}/{number})",
            bibtex("article", f"{family}{paper['year']}colt", entry),
            f"The workbook is version {about['version']}, under the {about['license']} licence.",
            bibtex("software", "coltworkbook", software),
            "The same for programs: {download}`CITATION.cff <CITATION.cff>`. "
            "What the embedded images are: [assets](colt_core/assets/README.md).",
        ]
    )


def bibtex(kind: str, key: str, fields: dict[str, object]) -> str:
    lines = [f"  {name} = {{{value}}}," for name, value in fields.items()]
    return "\n".join(["```bibtex", f"@{kind}{{{key},", *lines, "}", "```"])


if __name__ == "__main__":
    sys.exit(main())
