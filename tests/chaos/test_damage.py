"""Whatever happens to a file of a store, a run is read or goes on as it was, or one line names what is wrong.

`COLT_CHAOS_FILES` damages (150 unless set; `make chaos`: 10,000), of a seed that is printed and can be set
(COLT_CHAOS_SEED).
"""

import os
import random
import shutil
from pathlib import Path

import pytest
from again import AGAIN, SEED, timeless

import colt_core as cc

CASES = int(os.environ.get("COLT_CHAOS_FILES", "100"))

pytestmark = pytest.mark.chaos


@pytest.fixture(scope="module")
def jobs(folder):
    recipe = cc.Recipe.named("mini").changed(epochs=1, batch_size=12)
    base = {"dataset": str(folder), "network_args": {"width": 2}, "rate": 0.4, "target": 0.6, "recipe": recipe}
    make = lambda **fields: cc.Experiment(**(base | {"scores": (0.3, 0.6)} | fields))
    return [make(), make(method="imp"), make(method="random"), make(method="snip"), make(method="consensus", seed=1)]


@pytest.fixture(scope="module")
def store(jobs, tmp_path_factory):
    place = tmp_path_factory.mktemp("store")
    cc.study(jobs, place, workers=1, device="cpu")
    return place


def left(store, job):
    """A run's tickets, read and verified, and its records without their times."""
    tickets = [found.ticket.hash for found in cc.rounds(job, store, "cpu")]
    return tickets, timeless(job, store)


def flip(chance, path, _):
    content = bytearray(path.read_bytes() or b"\0")
    for _ in range(chance.choice((1, 1, 1, 20))):
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    path.write_bytes(content)


def cut(chance, path, _):
    content = path.read_bytes()
    path.write_bytes(content[: chance.randrange(len(content) + 1)])


def insert(chance, path, _):
    content, at = path.read_bytes(), chance.randrange(path.stat().st_size + 1)
    path.write_bytes(content[:at] + chance.randbytes(chance.randint(1, 40)) + content[at:])


def swap(chance, path, others):
    alike = [other for other in others if other.suffix == path.suffix and other != path]
    path.write_bytes(chance.choice(alike or others).read_bytes())


def drop_line(chance, path, _):
    lines = path.read_bytes().splitlines(keepends=True)
    if lines:
        del lines[chance.randrange(len(lines))]
    path.write_bytes(b"".join(lines))


def replace_text(chance, path, _):
    path.write_text(chance.choice(("", "[]", "null", "{}", "[" * 50_000, "7", '{"kind": "round"}', "\n", "\x00")))


def remove(_, path, __):
    path.unlink()


DAMAGES = (flip, cut, insert, swap, drop_line, replace_text, remove)


def test_damaged_files_are_named_or_change_nothing(jobs, store, tmp_path, monkeypatch, capsys):
    """A run is read as it is, or, its folder gone, is found again from the trainings and scores that are left."""
    monkeypatch.setenv("COLT_CLAIM_SECONDS", "0.05")
    monkeypatch.setenv("COLT_WORKERS", "1")
    chance, before = random.Random(SEED), {job.hash: left(store, job) for job in jobs}
    copy = tmp_path / "store"
    said, same = 0, 0
    for case in range(CASES):
        if case % 50 == 0:  # what was mended by trainings that took place again piles up
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(store, copy)
        job = chance.choice(jobs)
        again = chance.random() < 0.5
        saved = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
        if again:
            shutil.rmtree(copy / job.hash)
        files = sorted(path for path in copy.rglob("*") if path.is_file())
        own = [path for path in files if job.hash in str(path) or path.parent.name in ("trainings", "scores")]
        path, damage = chance.choice(own), chance.choice(DAMAGES)
        about = f"case {case}: {damage.__name__} of {path.relative_to(copy)}, {job.method}; {AGAIN}"
        damage(chance, path, files)
        if chance.random() < 0.1:
            Path(f"{path.with_suffix('')}.claim").write_bytes(chance.randbytes(9))
        try:
            cc.run(job, copy, device="cpu")
            assert left(copy, job) == before[job.hash], about
            same += 1
        except (ValueError, OSError) as problem:
            line = str(problem)
            assert "\n" not in line and (job.hash in line or path.name in line), f"{about}: {line}"
            said += 1
        for other in [path for path in copy.rglob("*") if path.is_file() and path not in saved]:
            other.unlink()
        for other, content in saved.items():
            other.parent.mkdir(exist_ok=True)
            other.write_bytes(content)
    assert said and same, AGAIN
    with capsys.disabled():
        print(f" {CASES} damaged files: {said} named, {same} without effect;", end="")
