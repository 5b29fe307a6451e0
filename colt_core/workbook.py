"""`python -m colt_core.workbook`: run the notebooks headless with papermill, and bring what they wrote together."""

import argparse
import ast
import json
import logging
import os
import re
import shutil
import sys
import time
import warnings
from pathlib import Path
from typing import Any

from .compute.store import open_store
from .data import check_name, is_built_in
from .files import NotWritten, part_of, scratch, write_text
from .settings import one_line
from .studies.plan import Plan, between, duration, plan
from .studies.reading import STUDIES
from .studies.run import check
from .studies.study import Study

SPINE = ("01_data_splitting", "02_cycles", "03_mask_overlap", "04_transfer", "05_tables", "06_controls")
START, AUDIT = "00_start_here", "13_paper_and_code"  # what the reference runs say: these train nothing
RELATED = ("07_kd_ticket", "08_dual_ticket", "09_structured", "10_super_tickets", "11_elastic", "12_generative")
BEYOND, OWN = "14_beyond_colt", "15_your_own"
APP = "app"  # the page of all interactive views
TAKEN = {
    "notebooks": ("*.ipynb",),
    "figures": ("*.png", "*.csv"),
    "studies": ("*.yaml",),
    "results": ("*.md", "*/*.md", "*/*.yaml", "*/*.py"),
}  # by `write_out`


def check_parameters(*allowed: str) -> None:
    """Refuse parameters that papermill injected and the notebook does not know (papermill itself only warns).

    Call it in the cell after the parameters. Of other seeds than the usual ones it lets figures go to a folder of their
    own, `$COLT_OUT/seed-1`: they would overwrite those of the usual ones.

    Raises
    ------
    ValueError
        Naming the unknown parameters and the allowed ones.
    """
    from IPython import get_ipython

    shell = get_ipython()
    cells = shell.user_ns.get("In", []) if shell else []
    injected = [cell for cell in cells if cell.lstrip().startswith("# Parameters\n")]
    nodes = [node for cell in injected for node in ast.parse(cell).body if isinstance(node, ast.Assign)]
    names = {target.id for node in nodes for target in node.targets if isinstance(target, ast.Name)}
    if unknown := sorted(names - set(allowed)):
        raise ValueError(f"unknown parameter {', '.join(unknown)}; allowed: {', '.join(allowed)}")
    if shell and not os.environ.get(PLACED):
        os.environ["COLT_OUT"] = str(Path(_OUT) / _seeds_named({n: shell.user_ns.get(n) for n in allowed}))


PLACED = "COLT_OUT_PLACED"  # whoever runs several notebooks has chosen their folder with the seeds in mind
_OUT = os.environ.get("COLT_OUT") or "runs/out"


def _seeds_named(parameters: dict[str, Any]) -> str:
    """Return a folder's name for other seeds than a notebook's usual ones; "" for those."""
    if parameters.get("seed"):
        return f"seed-{parameters['seed']}"
    several = parameters.get("seeds")
    return f"seeds-{'-'.join(map(str, several))}" if several else ""


def home() -> Path:
    """Return the folder of `notebooks`, `figures` and `results`: the repository, or what the package brought."""
    package = Path(__file__).parent
    return package / "book" if (package / "book" / "notebooks").is_dir() else package.parent


def reference(given: str | Path = "") -> Path:
    """Return the folder of the reference runs, `<folder>/<study>/store`: the one given, or the workbook's own.

    Raises
    ------
    ValueError
        If there is no such folder.
    """
    folder = Path(given) if str(given) else home() / "results"
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}: give the one that holds <study>/store")
    return folder


def write_out(folder: Path) -> Path:
    """Write the notebooks, their figures, the studies and what is said of the results into a new folder.

    The records and answers that notebooks read stay where they are: `reference` finds them.

    Raises
    ------
    ValueError
        If the folder is there and not empty: nothing that somebody has edited is written over.
    NotWritten
        If it cannot be written; nothing is left of it.
    """
    folder = Path(os.path.abspath(folder))
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} is there already and not empty: name a new folder")
    part = part_of(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        for name, patterns in TAKEN.items():
            source = STUDIES if name == "studies" else home() / name
            for path in sorted(path for pattern in patterns for path in source.glob(pattern)):
                target = part / name / path.relative_to(source)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)
        part.replace(folder)
    except OSError as problem:
        raise NotWritten(folder, problem) from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def execute(source: Path, target: Path, parameters: dict[str, Any], timeout: int) -> str | None:
    """Run one notebook; return None, or what went wrong in one line. The executed notebook is kept in both cases."""
    import papermill

    for name in ("papermill", "traitlets", "nbclient"):
        logging.getLogger(name).setLevel(logging.ERROR)
    target.parent.mkdir(parents=True, exist_ok=True)
    quiet = {"progress_bar": False, "execution_timeout": timeout, "extra_arguments": ["--log-level=40"]}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            known = set(papermill.inspect_notebook(str(source)))
            chosen = {name: value for name, value in parameters.items() if name in known}
            place = {"cwd": str(source.parent), "kernel_name": "python3"}
            papermill.execute_notebook(str(source), str(target), chosen, **place, **quiet)
    except papermill.PapermillExecutionError as problem:
        return f"cell {problem.exec_count}: {problem.ename}: {problem.evalue}"
    except Exception as problem:  # a cell time-out, a dead kernel, a full disk: each is one line, not a traceback
        return f"{type(problem).__name__}: {' '.join(str(problem).split())}"
    return None


def run(preset: str, seeds: list[int], data: list[str], notebooks: Path, out: Path) -> int:
    """Run the spine for each data set, then print one summary with the main table; return the exit status."""
    for name in data:
        check_name(name)
    studies = {name: Study.named(_absolute(preset), _absolute(name)) for name in data or [""]}
    first = next(iter(studies.values()))
    given = [] if seeds == list(first.seeds) else seeds
    seeds, out = seeds or list(first.seeds), out / first.name / _seeds_named({"seeds": given})
    for study in studies.values():
        for experiment in study.experiments(seeds[:1]):
            check(experiment)
    planned = plan([e for study in studies.values() for e in study.experiments(seeds)])
    print(f"{planned}\n", flush=True)
    os.environ.pop("MPLBACKEND", None)  # with another backend than its own a notebook shows no figures
    written: list[Path] = []
    begin = time.time()
    started = time.perf_counter()
    for name, study in studies.items():
        folder = out / re.sub(r"[^\w,.-]+", "_", name) if name else out
        os.environ |= {"COLT_OUT": str(folder.resolve()), PLACED: "1"}
        os.environ["COLT_STORE"] = open_store().url
        parameters = {"preset": _absolute(preset), "data": _absolute(name), "seed": seeds[0], "seeds": seeds}
        for number, notebook in enumerate(SPINE, 1):
            print(f"[{number}/{len(SPINE)}] {notebook} {name}".rstrip(), end=" ", flush=True)
            if notebook == "04_transfer" and (lack := _no_transfer(study)):
                print(f"skipped: {lack}", flush=True)
                continue
            begun = time.perf_counter()
            target = folder / f"{notebook}.ipynb"
            problem = execute(notebooks / f"{notebook}.ipynb", target, parameters, study.cell_timeout)
            print(f"{'failed' if problem else 'done'} in {time.perf_counter() - begun:.0f} s", flush=True)
            if problem:
                print(f"{notebook}: {problem}\nThe notebook up to there: {_short(target)}", file=sys.stderr)
                return 1
        written += sorted(path for path in folder.iterdir() if path.is_file() and path.stat().st_mtime >= begin)
    _summary(list(studies.values()), seeds, written, out, planned, time.perf_counter() - started)
    return 0


def _no_transfer(study: Study) -> str:
    """Say why a study has no transfer, if so: its data set has too few classes to be halved."""
    try:
        study.carried_among()
    except ValueError as problem:
        return str(problem)
    return ""


def _summary(
    studies: list[Study], seeds: list[int], written: list[Path], folder: Path, planned: Plan, seconds: float
) -> None:
    from . import report

    experiments = [e for study in studies for e in study.experiments(seeds)]
    records = report.load(None, (e.hash for e in experiments))
    table = report.paper_table(records, studies[0].levels)
    written += report.save(table, folder, "main_table")
    endings = {"Executed notebooks": (".ipynb",), "Figures": (".png",), "Tables and numbers": (".csv", ".md", ".tex")}
    for title, kinds in endings.items():
        print(f"\n{title}:")
        for path in (p for p in dict.fromkeys(written) if p.suffix in kinds):
            print(f"  {_short(path)}")
    print(f"\nTest accuracy in %, mean over seeds {seeds}, with 95 % intervals from three seeds on;", end=" ")
    print("in brackets the sparsity reached:\n")
    print(table.to_markdown(index=False))
    study = f" (its study alone was planned {between(planned.seconds, duration)})" if planned.experiments else ""
    print(f"\nAll in {seconds:.0f} s{study}. The tickets and records are in {open_store().url}.")


def _absolute(name: str) -> str:
    """Return the absolute path where a name is one (a notebook has a working folder of its own), else the name."""
    ready = is_built_in(name) or (STUDIES / f"{name}.yaml").exists()
    return str(Path(name).resolve()) if name and not ready and Path(name).exists() else name


def _short(path: Path) -> str:
    return os.path.relpath(path)


def renew(notebooks: Path, figures: Path) -> int:
    """Run the spine at its defaults, write the outputs into the notebooks themselves and the figures into a folder."""
    os.environ["COLT_OUT"] = str(figures.resolve())
    os.environ.pop("MPLBACKEND", None)
    os.environ["COLT_STORE"] = open_store().url
    for name in (START, *SPINE, *RELATED, AUDIT, BEYOND, OWN, APP):
        source, target = notebooks / f"{name}.ipynb", scratch() / f"{name}.ipynb"
        print(name, end=" ", flush=True)
        if problem := execute(source, target, {}, Study.named("mini").cell_timeout):
            print(f"failed: {problem}", file=sys.stderr)
            return 1
        write_text(source, clean(target.read_text()))
        print("done", flush=True)
    return 0


def clean(text: str) -> str:
    """Return an executed notebook's text without what belongs to one run: papermill's metadata, times, paths.

    Of widgets, which belong to a kernel that is gone, their picture stays.
    """
    notebook = json.loads(text)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    accelerator = {"accelerator": "GPU"}  # which Colab is asked for; elsewhere it says nothing
    notebook["metadata"] = accelerator | {"kernelspec": kernel, "language_info": {"name": "python"}}
    for cell in notebook["cells"]:
        cell["metadata"] = {k: v for k, v in cell["metadata"].items() if k == "tags" and v}
        for output in cell.get("outputs", []):
            output.get("data", {}).pop("application/vnd.jupyter.widget-view+json", None)
    return json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """Read the command line and run; mistakes are one line on standard error."""
    parser = argparse.ArgumentParser(prog="python -m colt_core.workbook", description=__doc__)
    parser.add_argument("--preset", default="mini", help="a ready study: mini, small, paper; or a YAML file")
    parser.add_argument("--seeds", default="", help="for example 0,1,2; default: the preset's own")
    parser.add_argument("--data", default="", help="other data sets than the preset's, separated by spaces or ';'")
    parser.add_argument("--notebooks", type=Path, default=Path("notebooks"))
    parser.add_argument("--out", type=Path, default=Path("runs/out"))
    parser.add_argument("--renew", type=Path, metavar="FIGURES", help="renew notebook outputs and this figures folder")
    chosen = parser.parse_args(arguments)
    try:
        if chosen.renew:
            return renew(chosen.notebooks, chosen.renew)
        seeds = numbers(chosen.seeds)
        return run(chosen.preset, seeds, data_sets(chosen.data), chosen.notebooks, chosen.out)
    except (ValueError, OSError) as problem:
        print(f"error: {one_line(problem)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; what was finished is kept: the same command goes on from there", file=sys.stderr)
        return 130


def data_sets(text: str) -> list[str]:
    """Return the data sets of "cifar10 cifar100" or "cifar10; cifar100"; a folder's name may hold spaces."""
    pieces = [piece.strip() for piece in text.split(";") if piece.strip()]
    return [name for piece in pieces for name in ([piece] if Path(piece).is_dir() else piece.split())]


def numbers(text: str) -> list[int]:
    """Return the whole numbers of "0,1,2" or "0 1 2"."""
    pieces = text.replace(",", " ").split()
    if bad := [p for p in pieces if not (p.isascii() and p.isdigit())]:
        raise ValueError(f"seeds must be whole numbers from 0, for example 0,1,2, not {bad[0]!r}")
    return [int(p) for p in pieces]


if __name__ == "__main__":
    sys.exit(main())
