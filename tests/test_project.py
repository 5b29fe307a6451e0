"""The promises of the repository itself: set-up files agree, notebooks keep their rules, nothing names a machine."""

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import nbformat
import pytest
import yaml

import colt_core as cc

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def tracked():
    try:
        listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.splitlines() if (ROOT / name).is_file()]


# --- set-up ---


def test_environment_pyproject_and_readme_agree():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    python, pip = environment["dependencies"][0], environment["dependencies"][-1]["pip"]
    assert environment["channels"] == ["conda-forge"]
    assert python == f"python{PROJECT['requires-python']}" and pip == ["-e .[test]"]
    readme = (ROOT / "README.md").read_text()
    for promised in ("make run", "make test", "make lab", "conda env create -f environment.yml"):
        assert promised in readme
    assert f"conda activate {environment['name']}" in readme
    assert PROJECT["requires-python"].removeprefix(">=") in readme
    assert (
        f"Python {PROJECT['requires-python'].removeprefix('>=')} or newer" in (ROOT / "tools" / "setup.sh").read_text()
    )


def test_the_readmes_answer_is_the_one_that_notebook_00_computed():
    cells = lambda text: [[c.strip() for c in line.split("|")[1:-1]] for line in text.splitlines() if line[:1] == "|"]
    shown = cells((ROOT / "README.md").read_text())
    for name in ("00_verdicts.md", "00_said.md"):
        computed = cells((ROOT / "figures" / name).read_text())
        numbers = [row for row in computed if not set(row[0]) <= set(":-")]
        assert len(numbers) > 3 and all(row in shown for row in numbers), f"copy figures/{name} into the README"


def test_the_frame_is_among_the_dependencies():
    names = {re.match(r"[\w-]+", line)[0] for line in PROJECT["dependencies"]}
    assert {"torch", "torchvision", "jupyterlab", "ipywidgets", "matplotlib", "seaborn", "papermill", "nbval"} <= names


def test_make_alone_lists_the_targets():
    listed = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert all(f"  {target} " in listed for target in ("run", "test", "lab", "app", "figures"))


def stand_in(tmp_path, body):
    """A stand-in for python3 that answers as a machine with a certain lack would."""
    path = tmp_path / "python3"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ('case "$2" in *exit*) exit 1;; *) echo 3.9;; esac', "Python 3.11 or newer is needed, .* is 3.9"),
        ('case "$2" in *ensurepip*) exit 1;; *exit*) exit 0;; *) echo 3.12;; esac', "install the package python3-venv"),
    ],
    ids=["old Python", "no venv"],
)
def test_a_machine_that_lacks_something_gets_one_clear_line(tmp_path, body, message):
    command = ["sh", str(ROOT / "tools" / "setup.sh"), stand_in(tmp_path, body), "."]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1 and re.search(message, done.stderr) and len(done.stderr.splitlines()) == 1
    assert not (tmp_path / ".venv").exists()


def test_a_machine_without_python_gets_one_clear_line(tmp_path):
    command = ["sh", str(ROOT / "tools" / "setup.sh"), "no-such-python", "."]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith("error: there is no no-such-python")


FEIGNED = """#!/bin/sh
case "$*" in
    *"pip config list") echo "global.constraint='caps.txt'"; echo "site.index-url='https://mirror'" ;;
    *"-m uv"*) echo "uv $UV_CONSTRAINT $UV_DEFAULT_INDEX" >> asked; exit UV ;;
    *"-m pip"*) echo "pip ${*##* }" >> asked; exit PIP ;;
esac
"""


@pytest.mark.parametrize(
    ("uv", "pip", "asked"),
    [
        (0, 0, ["pip uv", "uv caps.txt https://mirror"]),
        (1, 0, ["pip uv", "uv caps.txt https://mirror", "pip .[app]"]),
        (0, 1, ["pip uv", "pip .[app]"]),
    ],
    ids=["uv installs", "uv fails", "no uv"],
)
def test_what_uv_cannot_install_pip_does_and_uv_is_told_of_pips_mirror_and_caps(tmp_path, uv, pip, asked):
    feigned = FEIGNED.replace("exit UV", f"exit {uv}").replace("exit PIP", f"exit {pip}")
    (tmp_path / "feigned").write_text(feigned)
    body = 'case "$*" in *"-m venv"*) mkdir -p .venv/bin; cp feigned .venv/bin/python; chmod +x .venv/bin/python;; esac'
    command = ["sh", str(ROOT / "tools" / "setup.sh"), stand_in(tmp_path, body), ".[app]"]
    bare = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "UV_"))}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=bare)
    assert (tmp_path / "asked").read_text().splitlines() == asked
    assert done.returncode == pip and ("the installation failed" in done.stderr) == bool(pip)


# --- the package ---


@pytest.fixture(scope="module")
def imported():
    """The modules that a new process has after importing the core, and after a training as well."""
    code = """
import colt_core as cc, sys
print(*sys.modules)
import torch
few = cc.load("cifar10-mini").train.take(torch.arange(64))
network = cc.build("conv3", width=4)
cc.train(network, few, cc.Recipe.named("mini"), device="cpu", validation=few)
cc.models.forward_flops(network)
print(*sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return [set(line.split()) for line in done.stdout.splitlines()]


def test_importing_the_core_is_light(imported):
    heavy = {"torchvision", "matplotlib", "pandas", "seaborn", "scipy", "papermill", "IPython", "ipywidgets", "yaml"}
    assert "colt_core.studies" in imported[0] and not heavy & imported[0]


def test_a_training_does_not_import_the_compiler(imported):
    """Two seconds in every process that trains, kernels and workers alike."""
    assert "colt_core.training.loop" in imported[1] and "torch._dynamo" not in imported[1]


ROOMS = [
    "version",
    "settings",
    "seeding",
    "files",
    "progress",
    "foreign",
    "data",
    "models",
    "masks",
    "training",
    "tickets",
    "compute",
    "methods",
]
ROOMS += ["studies", "report", "text", "plots", "widgets", "publish", "workbook", "commands", "cli"]


def modules():
    """Every module of the package by its dotted name, with its tree; a package goes by its folder's name."""
    found = {}
    for path in sorted((ROOT / "colt_core").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path, ast.parse(path.read_text())
    return found


def imports(name, path, tree, known):
    """All modules of the package that one imports, wherever: in its body, in functions, for type checkers, by name."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = ".".join(package.split(".")[: len(package.split(".")) + 1 - node.level])
            base = f"{base}.{node.module}" if node.module else base
            for alias in node.names:
                yield f"{base}.{alias.name}" if f"{base}.{alias.name}" in known else base
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            yield from (n for n in names if n.split(".")[0] == "colt_core")


def test_modules_import_only_from_rooms_above_theirs():
    """Imports inside functions count too; the public names of `colt_core` itself are for users, not for its rooms."""
    known = modules()
    for name, (path, tree) in known.items():
        if name == "colt_core":
            continue
        own = name.split(".")[1]
        for other in imports(name, path, tree, known):
            room = [*other.split("."), ""][1]
            assert room in ROOMS, f"{name} imports {other}"
            assert ROOMS.index(room) <= ROOMS.index(own), f"{name} imports {other}, which lies below"


def test_no_modules_import_each_other_in_a_circle():
    known = modules()
    left = {n: {o for o in imports(n, p, t, known) if o != n} for n, (p, t) in known.items()}
    for name in left:  # a package's own names come from its modules, which may use another package but not their own
        path, _ = known[name]
        if path.name != "__init__.py":
            assert name.rpartition(".")[0] not in left[name], f"{name} imports its own package"
    while free := [name for name, needed in left.items() if not needed & set(left)]:
        left = {name: needed for name, needed in left.items() if name not in free}
    assert not left, f"these import each other in a circle: {', '.join(sorted(left))}"


def test_methods_share_only_what_a_method_is_and_the_loop():
    for path in (ROOT / "colt_core" / "methods").glob("[!_]*.py"):
        imported = set(re.findall(r"^from \.(\w+) import", path.read_text(), re.MULTILINE))
        assert imported <= {"cycles", "choices", "method", "options", "checks"}, path.name


STORED = sorted((ROOT / "results").glob("*/store/*/experiment.json"))


@pytest.fixture
def few_trusted(monkeypatch):
    """The data set of study `super` is a function beside it: found, and allowed, as its command in the README does."""
    monkeypatch.syspath_prepend(str(ROOT / "results" / "super"))
    monkeypatch.setenv("COLT_TRUST", "few")


def test_every_hash_in_results_is_found_again(few_trusted):
    assert len(STORED) > 200
    for path in STORED:
        assert cc.Experiment.from_description(json.loads(path.read_text())).hash == path.parent.name, path


def test_what_stands_in_results_is_done_and_computes_nothing(monkeypatch):
    monkeypatch.setattr("colt_core.training.loop.Trainer._step", lambda *_: pytest.fail("a training was begun"))
    done = [path for path in STORED if (path.parent / "complete").exists()]
    done = [path for path in done if "few:images" not in path.read_text()]  # made of CIFAR-10, which may not be here
    for path in done[:: max(1, len(done) // 12)]:
        store = path.parent.parent
        experiment = cc.Experiment.from_description(json.loads(path.read_text()) | {"scores": None})
        before = sorted(p.name for p in path.parent.iterdir())
        frame = cc.run(experiment, store, device="cpu")
        assert len(frame) and set(frame["experiment"]) == {experiment.hash}
        assert sorted(p.name for p in path.parent.iterdir()) == before


# --- the notebooks ---


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_keeps_the_rules(path):
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    tags = [cell.metadata.get("tags", []) for cell in code]
    assert len(notebook.cells) <= 30
    written = [cell.source.startswith("%%writefile") for cell in code]  # a module: twenty lines, in its own form
    assert all(
        len(cell.source.splitlines()) <= (25 if module else 15) for cell, module in zip(code, written, strict=True)
    )
    assert sum("parameters" in t for t in tags) == 1 and "parameters" in tags[0]
    assert notebook.cells[0].cell_type == "markdown" and notebook.cells[0].source.startswith("# ")
    assert sum("nbval-check-output" in t for t in tags) >= 2
    assert path.stem == "app" or any("**Try it" in c.source for c in notebook.cells if c.cell_type == "markdown")
    assert not any("injected-parameters" in t for t in tags) and "papermill" not in notebook.metadata
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1)), "renew with: make figures"
    assert any("image/png" in o.get("data", {}) for cell in code for o in cell.outputs), "no picture in the outputs"
    for cell, own in zip(code, tags, strict=True):
        shows = [o for o in cell.outputs if o.output_type in ("display_data", "execute_result")]
        assert not (shows and "nbval-ignore-output" not in own), "figures and tables differ between machines"
        assert not any("widget" in kind for o in shows for kind in o.data)
        assert not any(o.output_type == "error" or o.get("name") == "stderr" for o in cell.outputs)
        for node in ast.walk(ast.parse(cell.source if not cell.source.startswith("%%") else "")):
            assert not (isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno >= 8)


def test_the_spine_is_there_and_its_figures_are_committed():
    from colt_core.workbook import APP, AUDIT, BEYOND, OWN, RELATED, SPINE, START

    assert [p.stem for p in NOTEBOOKS] == [START, *SPINE, *RELATED, AUDIT, BEYOND, OWN, APP]
    for name in (START, *SPINE, *RELATED, AUDIT, BEYOND, OWN):
        saved = re.findall(r'"(\d\d_\w+)"\s*,', (ROOT / "notebooks" / f"{name}.ipynb").read_text().replace('\\"', '"'))
        figures = [n for n in saved if (ROOT / "figures" / f"{n}.png").exists()]
        assert figures, f"{name} has no committed figure"
        assert all((ROOT / "figures" / f"{n}.csv").exists() for n in figures)


# --- what is committed ---


def test_nothing_committed_names_a_machine():
    here = re.compile(
        "|".join([r"/root/\w", r"/home/\w", r"/Users/\w", r"\.\./tmp/", "files" + r"\.pythonhosted", r"pypi\." + "org"])
    )
    for path in tracked():
        if path.suffix in (".webp", ".png", ".safetensors") or path == Path(__file__):
            continue
        found = here.search(path.read_text(encoding="utf-8"))
        assert not found, f"{path.relative_to(ROOT)}: {found[0]}"


def test_the_repository_stays_small():
    sizes = {path: path.stat().st_size for path in tracked()}
    assert sum(s for p, s in sizes.items() if "assets" in p.parts) < 10e6
    assert max(s for p, s in sizes.items() if "assets" not in p.parts) < 3e6


def test_temporary_files_are_ignored():
    for name in ("runs/x.jsonl", ".venv/x", "colt_core/.t.safetensors.1.part"):
        done = subprocess.run(["git", "check-ignore", "-q", name], cwd=ROOT)
        if done.returncode == 128:
            pytest.skip("not a git checkout")
        assert done.returncode == 0, name


def test_each_sparsity_of_the_reference_runs_is_scored_on_another_ticket():
    """A mean over sparsities would count one ticket twice."""
    store = ROOT / "results" / "world" / "store"
    table = cc.report.at_sparsities(cc.report.load(store), cc.Study.named("world").levels)
    tickets = table[(table["finder"] == "colt") & (table["dataset"] == table["scored_on"])]
    found = tickets.groupby(["dataset", "seed"])["sparsity"].nunique()
    assert len(found) == 9 and (found == 3).all()
