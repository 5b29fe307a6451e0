"""Code that text names, "package.module:name": who may have it imported, and which version of it is meant.

Networks, methods, objectives and data sets of users travel as text: through study files, stores, tickets, worker
processes. What a caller names is imported. What only a *file* names, a ticket or a store that may be a stranger's, is
imported where the caller has allowed it: `trust`, or the environment variable COLT_TRUST.
"""

import ast
import hashlib
import importlib
import importlib.metadata
import importlib.util
import os
import re
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

from .settings import first_line

TRUST = "COLT_TRUST"  # names modules, packages or "module:name", separated by commas or spaces
INSTALLED = tuple({sysconfig.get_path(place) for place in ("purelib", "platlib", "stdlib", "platstdlib")})


class Untrusted(ValueError):
    """Code that only a file names, and that its reader has not allowed."""


_trusted: set[str] = set()
_loaded: dict[str, dict[Path, tuple[int, int]]] = {}  # the sources of a module as they were when it was imported
_from_file: ContextVar[bool] = ContextVar("from_file", default=False)


# --- trust -------------------------------------------------------------------------------------------------------


def trust(*names: str) -> None:
    """Allow files to name this code: modules ("nets"), packages ("mypackage") or single names ("mypackage.nets:tiny").

    It holds for this process. Worker processes need none: what they are given, their caller has named.
    """
    for name in names:
        if not isinstance(name, str) or not name:
            raise ValueError(f"trust takes names of modules, not {name!r}")
    _trusted.update(names)


@contextmanager
def named_by_a_file() -> Iterator[None]:
    """Within it, names come from a file: only trusted code is imported."""
    token = _from_file.set(True)
    try:
        yield
    finally:
        _from_file.reset(token)


def is_trusted(name: str) -> bool:
    """Tell whether a file may name this code: the caller has named it already, or has allowed it."""
    module = name.partition(":")[0]
    parents = [module.rsplit(".", cut)[0] for cut in range(module.count(".") + 1)]
    allowed = {*_trusted, *os.environ.get(TRUST, "").replace(",", " ").split()}
    return not allowed.isdisjoint({name, *parents})


def check_trusted(name: str, what: str) -> None:
    """Raise `Untrusted`, a `ValueError`, in one line, where a file may not name this code."""
    if not is_trusted(name):
        module = name.partition(":")[0]
        allow = f"trust=True, colt_core.trust({module!r}) or {TRUST}={module}"
        raise Untrusted(f"{what} {name!r} is named by a file and is not imported unless you allow it: {allow}")


def imported(name: str, what: str) -> Any:
    """Return what "package.module:name" names: how users' own networks, methods and objectives travel as text.

    A module whose sources have changed since it was imported here is imported anew.

    Raises
    ------
    ValueError
        In one line, where there is no such module, nothing of that name in it, or it may not be imported.
    """
    module, _, attribute = name.partition(":")
    if module == "__main__":
        raise ValueError(f"{what} {name!r} lies in no module: write it to a file (%%writefile), and name that")
    if _from_file.get():
        check_trusted(name, what)
    try:
        found: Any = _import(module)
    except Exception as problem:  # of the name, or of whatever the module does when it is imported
        raise ValueError(f"{what} {name!r} cannot be imported: {first_line(problem)}") from problem
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise ValueError(f"{what} {name!r} cannot be imported: {module} has no {attribute}")
        found = getattr(found, part)
    if not _from_file.get():
        _trusted.add(name)
    return found


def where_in(problem: BaseException) -> str:
    """Return where in a user's code an error was raised, " (in make, line 7)"; "" where it was in ours."""
    trace = problem.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None or trace.tb_frame.f_globals.get("__name__", "").partition(".")[0] in ("colt_core", "torch"):
        return ""
    return f" (in {trace.tb_frame.f_code.co_name}, line {trace.tb_lineno})"


def find_beside(folder: Path, content: Any) -> None:
    """Make importable what a study's content names ("module:name") and what lies beside its file, in `folder`.

    The folder is looked in last: it hides nothing. It joins `sys.path`, which workers take over.

    Raises
    ------
    ValueError
        In one line, where another module of that name would be imported in its place.
    """
    for name in sorted(_modules_in(content)):
        beside = {path.resolve() for path in (folder / f"{name}.py", folder / name / "__init__.py") if path.is_file()}
        if not beside or _place_of(name) in beside:
            continue
        sys.path.append(str(folder.resolve()))
        importlib.invalidate_caches()
        if (other := _place_of(name)) not in beside:
            sys.path.pop()
            here = beside.pop()
            raise ValueError(f"{name} would be imported from {other or 'Python itself'}, not from {here}: rename this")


def _modules_in(content: Any) -> set[str]:
    """Return the outermost modules that text in a study's content may name, values and keys."""
    if isinstance(content, str):
        named = re.fullmatch(r"([A-Za-z_]\w*)(\.\w+)*:[A-Za-z_][\w.]*", content)
        return {named[1]} if named else set()
    if isinstance(content, Mapping):
        return _modules_in([*content, *content.values()])
    return set().union(*map(_modules_in, content)) if isinstance(content, list) else set()


def _place_of(module: str) -> Path | None:
    """Return the file that an outermost module was imported from, or would be."""
    if module in sys.modules:
        path = _file_of(sys.modules[module])
    else:
        spec = importlib.util.find_spec(module)
        path = Path(spec.origin) if spec is not None and spec.origin and spec.has_location else None
    return path and path.resolve()


# --- versions ----------------------------------------------------------------------------------------------------


def fingerprint(name: str, what: str = "the code") -> str:
    """Return what tells one version of named code from another.

    Of an installed package its name and version. Of any other module a SHA-256 over its source and that of every module
    it imports which is not installed either: edited code has another fingerprint.

    Raises
    ------
    ValueError
        As `imported`, of the module.
    """
    module = name.partition(":")[0]
    if module in ("torchvision", "timm"):
        return _version(module)
    if module not in sys.modules:
        imported(name, what)
    sources = _sources(module)
    if not sources:
        return _version(module.partition(".")[0])
    digest = hashlib.sha256()
    for path in sorted(sources, key=lambda path: (path.name, str(path))):  # no path joins it: a copy is the same code
        digest.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return f"sha256:{digest.hexdigest()[:16]}"


def _version(package: str) -> str:
    """Return "package 1.2.3" of an installed package; of Python's own library Python's version."""
    if package in sys.stdlib_module_names:
        return f"python {sys.version_info.major}.{sys.version_info.minor}"
    with suppress(importlib.metadata.PackageNotFoundError):
        return f"{package} {importlib.metadata.version(package)}"
    project = next(iter(importlib.metadata.packages_distributions().get(package, [])), None)
    return f"{package} {importlib.metadata.version(project) if project else 'of no version'}"


def _import(module: str) -> ModuleType:
    """Import a module; anew, with those of its sources that are the user's, where they have changed since."""
    before = _loaded.get(module)
    if before is not None and before != _stamps(before):
        for path in before:  # a file that is edited twice in a second may look to Python as if it had not been
            with suppress(OSError, NotImplementedError):
                Path(importlib.util.cache_from_source(str(path))).unlink(missing_ok=True)
        for name, one in list(sys.modules.items()):
            if _file_of(one) in before:
                del sys.modules[name]
        importlib.invalidate_caches()
    found = importlib.import_module(module)
    _loaded[module] = _stamps(_sources(module))
    return found


def _stamps(paths: Any) -> dict[Path, tuple[int, int]]:
    """Return when files were written, and how long they are; of one that is gone, zeros."""
    told = {}
    for path in paths:
        try:
            now = path.stat()
            told[path] = now.st_mtime_ns, now.st_size
        except OSError:
            told[path] = 0, 0
    return told


def _sources(module: str) -> set[Path]:
    """Return the source files of a module, of the packages it lies in and of all it imports, but what is installed."""
    found: set[Path] = set()
    open_names = [module.rsplit(".", cut)[0] for cut in range(module.count(".") + 1)]
    while open_names:
        name = open_names.pop()
        path = _source_of(name)
        if path is not None and path not in found:
            found.add(path)
            open_names += _imports(name, path)
    return found


def _imports(module: str, path: Path) -> list[str]:
    """Return the names of the modules that a source file may import; read once for each state that it is in."""
    return _imports_of(module, path, *_stamps([path])[path])


@lru_cache(maxsize=256)
def _imports_of(module: str, path: Path, written: int, size: int) -> list[str]:
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, OSError):
        return []
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [one.name for one in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package.rsplit(".", node.level - 1)[0] if node.level else ""
            whole = ".".join(part for part in (base, node.module or "") if part)
            names += [whole, *(f"{whole}.{one.name}" for one in node.names)]  # what is imported may be a module itself
    return [name for name in names if name]


def _source_of(module: str) -> Path | None:
    """Return the source file of a module that can be imported, if it is neither installed nor Python's own."""
    top = module.partition(".")[0]
    if top in sys.stdlib_module_names or top == "colt_core":
        return None
    if (known := sys.modules.get(module)) is not None:
        return _own(_file_of(known))
    parent = module.rpartition(".")[0]
    if parent and not hasattr(sys.modules.get(parent), "__path__"):
        return None  # no package: nothing lies in it, and nothing is imported to find that out
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError, AttributeError):
        return None
    return _own(Path(spec.origin)) if spec is not None and spec.origin and spec.has_location else None


def _file_of(module: Any) -> Path | None:
    path = getattr(module, "__file__", None)
    return Path(path) if isinstance(path, str) else None


def _own(path: Path | None) -> Path | None:
    """Return a source file, unless it is installed."""
    if path is None or path.suffix != ".py" or not path.is_file():
        return None
    return None if _is_installed(path.absolute()) else path


def _is_installed(path: Path) -> bool:
    """Tell whether a source file is imported from where packages are installed: their metadata lies there, too.

    Of an environment that borrows those of another, for example, that other's folder is such a place.
    """
    roots = {os.path.abspath(place) for place in sys.path}
    root = next((str(parent) for parent in path.parents if str(parent) in roots), None)
    return str(path).startswith(INSTALLED) if root is None else root in INSTALLED or _has_metadata(root)


@lru_cache(maxsize=64)
def _has_metadata(folder: str) -> bool:
    return any(Path(folder).glob("*.dist-info"))
