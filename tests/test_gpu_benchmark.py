"""`benchmarks/gpu.py` as far as a machine without a GPU can tell: what it would do, and how it stops and goes on."""

import importlib.util
import json
import sys
import time
from pathlib import Path

import pytest
import torch

from colt_core.data.load import COUNTS

ROOT = Path(__file__).parent.parent
LENGTH = ["length_full", "length_resnet18", "length_tiny"]
SMALL = ["split_resnet20", "elastic", "dual", "floor", "moved"]
NAMES = ["tests", "bench", *SMALL, *LENGTH]


@pytest.fixture(scope="module")
def gpu():
    spec = importlib.util.spec_from_file_location("gpu_benchmark", ROOT / "benchmarks" / "gpu.py")
    module = sys.modules["gpu_benchmark"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules["gpu_benchmark"]


class Machine:
    """Steps that take as long as they are said to by a clock that they alone move on; studies go on, others anew."""

    def __init__(self, needs, codes=()):
        self.now, self.needs, self.codes, self.ran = 0.0, dict(needs), dict(codes), []

    def run(self, step, seconds):
        self.ran.append(step.name)
        took = min(self.needs[step.name], seconds)
        self.now += took
        over = took >= self.needs[step.name]
        if step.resumes:
            self.needs[step.name] -= took
        return self.codes.get(step.name, 0) if over else None


@pytest.fixture
def pieces(gpu):
    step = lambda name, **about: gpu.Step(name, ("-c", "pass"), **about)
    first = gpu.Piece("tests", "", (step("tests"),))
    return [first, gpu.Piece("long", "", (step("long", resumes=True), step("table")))]


# --- the dry run ---


def test_the_dry_run_lists_every_piece_in_order_and_touches_nothing(gpu, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLT_DATA", str(tmp_path / "data"))
    monkeypatch.setattr("colt_core.training.loop.Trainer._step", lambda *_: pytest.fail("a training was begun"))
    assert gpu.main(["--dry-run", "--store", str(tmp_path / "runs"), "--device", "cuda:1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    titles = [line.split(":")[0] for line in lines if line[:1].isdigit()]
    assert titles == [f"{number}. {name}" for number, name in enumerate(NAMES, 1)]
    assert lines[0] == gpu.UNTRIED and lines[-1].endswith(gpu.UNTRIED)
    assert any("tests/test_cuda.py" in line for line in lines)
    assert sum("bench.py --device cuda:1 --only" in line for line in lines) == 9
    ends = [line.split("--device cuda:1 --workers ")[1] for line in lines if "colt_core.cli study results/" in line]
    assert ends == ["8", "8", "16", "16", "16", *("1" for _ in LENGTH)]
    # Each seed: COLT's two copies and IMP in three rounds; dense, COLT, IMP, random and initial scored once.
    assert sum("27 trainings find its tickets" in line for line in lines) == 4, "and elastic's own searches"
    assert sum("15 scores, 74,250,000 image passes" in line for line in lines) == 2
    assert sum("18 scores, 141,750,000 image passes" in line for line in lines) == 1
    assert sum("tinyimagenet is not here" in line for line in lines) == 1
    assert sum("assumed" in line for line in lines) == len(NAMES) and "calls of 9 minutes" in lines[-1]
    assert not list(tmp_path.iterdir())


def test_the_dry_run_counts_what_the_store_has_and_only_what_is_asked_for(gpu, tmp_path, capsys, monkeypatch):
    dense = next(e for e in gpu.experiments_of(ROOT / "results/length/length_full.yaml") if e.method == "dense")
    real = gpu.planning.read_records
    told = {"kind": "round", "round": 0, "density": 1.0, "image_epochs": 0, "seconds": 0.0}
    score = {"kind": "score", "round": 0, "density": 1.0, "scored_on": "cifar10", "scored_by": None}
    records = lambda e, store: [told, score] if e.hash == dense.hash else real(e, store)
    monkeypatch.setattr(gpu.planning, "read_records", records)
    monkeypatch.setattr(gpu.planning, "is_over", lambda e, _: e.hash == dense.hash)
    assert gpu.main(["--dry-run", "--only", "length_full", "--store", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "14 scores, 72,000,000 image passes" in out and "1. length_full" in out and "resnet18" not in out


def test_the_known_sizes_are_those_of_the_data_sets_and_every_network_has_an_assumed_rate(gpu):
    for piece in gpu.all_pieces(Path("runs"), "cuda")[2:]:
        for e in gpu.experiments_of(piece.study):
            for data in {e.dataset, e.score_on or e.dataset}:
                assert (gpu.named(e), gpu.SIZES[data][3]) in gpu.RATES
                assert gpu.SIZES[data][0] == COUNTS[data]
    data = gpu.black("cifar10")
    assert (len(data.train), len(data.validation), data.train.size, len(data.classes)) == (45_000, 5_000, 32, 10)
    assert data.train.pixels.numel() == 3 * 32 * 32, "they take no memory"


# --- mistakes ---


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "tests", "benhc"], f"there is no piece 'benhc'; allowed: {', '.join(NAMES)}"),
        (["--minutes", "0"], "--minutes must be positive, not 0"),
        (["--minutes", "nan"], "--minutes must be positive, not nan"),
        (["--minutes", "x"], "invalid float value: 'x'"),
        (["--device", "cpu"], "--device must be cuda, cuda:0, ..., not 'cpu'"),
        (["--store", "memory://x"], "the store must be a folder, not memory://x"),
    ],
)
def test_a_mistake_is_one_line(gpu, capsys, arguments, message):
    assert gpu.main([*arguments, "--dry-run"]) == 2
    told = capsys.readouterr()
    assert message in told.err and len(told.err.splitlines()) == 1 and not told.out


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_without_a_gpu_there_is_one_line(gpu, tmp_path, capsys):
    assert gpu.main(["--store", str(tmp_path)]) == 2
    told = capsys.readouterr()
    assert "finds no CUDA GPU here; --dry-run tells" in told.err and len(told.err.splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"tests": 3}', '{"tests": {"state": "odd", "seconds": 1}}', "\0"])
def test_a_damaged_state_is_told_in_one_line(gpu, tmp_path, capsys, text):
    (tmp_path / "gpu.json").write_text(text)
    assert gpu.main(["--dry-run", "--store", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{tmp_path / 'gpu.json'} is damaged; delete it" in line
    assert (tmp_path / "gpu.json").read_text() == text


# --- working ---


def test_work_stops_when_its_minutes_are_over_and_goes_on_with_the_next_call(gpu, pieces, tmp_path, capsys):
    machine = Machine({"tests": 60, "long": 600, "table": 1})
    calls = []
    for _ in range(3):
        before = machine.now
        gpu.work(pieces, gpu.State(tmp_path), 5, run=machine.run, clock=lambda: machine.now)
        calls.append((machine.ran, machine.now - before))
        machine.ran = []
    assert calls == [(["tests", "long"], 300), (["long"], 300), (["long", "table"], 61)]
    state = gpu.State(tmp_path)
    assert [state.of(step) for piece in pieces for step in piece.steps] == ["done"] * 3
    assert json.loads((tmp_path / "gpu.json").read_text())["long"] == {"state": "done", "seconds": 600}
    assert all("finished" in line for line in gpu.so_far(pieces, state, tmp_path))
    gpu.work(pieces, state, 5, run=lambda *_: pytest.fail("there is nothing left"))
    assert "long: stopped" in capsys.readouterr().out


def test_nothing_is_begun_for_a_few_seconds_and_what_cannot_resume_says_that_it_starts_anew(
    gpu, pieces, tmp_path, capsys
):
    machine, state = Machine({"tests": 290, "long": 60, "table": 1}), gpu.State(tmp_path)
    gpu.work(pieces, state, 5, run=machine.run, clock=lambda: machine.now)
    assert machine.ran == ["tests"] and state.of(pieces[1].steps[0]) == ""
    machine, state = Machine({"tests": 999}), gpu.State(tmp_path / "other")
    gpu.work(pieces, state, 5, run=machine.run, clock=lambda: machine.now)
    assert state.of(pieces[0].steps[0]) == "stopped"
    assert "starts anew with the next call; it may need more than --minutes 5" in capsys.readouterr().out


def test_what_failed_is_told_and_tried_again_only_when_it_is_asked_for(gpu, pieces, tmp_path):
    machine, state = Machine({"tests": 1, "long": 1, "table": 1}, {"tests": 1}), gpu.State(tmp_path)
    gpu.work(pieces, state, 5, run=machine.run, clock=lambda: machine.now)
    assert machine.ran == ["tests", "long", "table"], "the others are not held up by it"
    first, *_ = gpu.so_far(pieces, state, tmp_path)
    assert "failed" in first and "to try again: --only tests" in first
    gpu.work(pieces, gpu.State(tmp_path), 5, run=machine.run, clock=lambda: machine.now)
    assert len(machine.ran) == 3
    machine.codes = {}
    gpu.work(pieces[:1], gpu.State(tmp_path), 5, again=True, run=machine.run, clock=lambda: machine.now)
    assert machine.ran[3:] == ["tests"] and gpu.State(tmp_path).of(pieces[0].steps[0]) == "done"


def test_a_process_is_ended_in_time_and_its_exit_code_is_told(gpu):
    assert gpu.execute(gpu.Step("x", ("-c", "raise SystemExit(3)")), 60) == 3
    begun = time.perf_counter()
    assert gpu.execute(gpu.Step("x", ("-c", "import time; time.sleep(60)")), 0.3) is None
    assert time.perf_counter() - begun < 20


def test_the_whole_command_on_a_machine_that_says_it_has_a_gpu(gpu, tmp_path, capsys, monkeypatch):
    """Everything but the work itself, and what it says at the end."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "a card")
    monkeypatch.setattr(gpu.signal, "signal", lambda *_: None)
    monkeypatch.setattr(gpu.subprocess, "Popen", lambda *_, **__: Ended())
    assert gpu.main(["--store", str(tmp_path), "--only", "bench", "length_full"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("a card, torch ") and out[-2].startswith("bench           finished  9 of 9 steps done")
    assert "0 of 15 experiments done; 2 of 2 steps done" in out[-1], "the store tells what a study has come to"


class Ended:
    """A process that is over at once."""

    def wait(self, *_):
        return 0

    def poll(self):
        return 0
