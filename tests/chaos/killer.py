"""Carries experiments out in children that are killed at random: `python killer.py STORE JOBS KILLS SEED WORKERS`.

Forks children that have everything imported, and kills them: a moment after a step chosen at random, or around the
n-th time that a file is brought to the disk or to the bucket (a checkpoint, a ticket, a score, a record). Both count
what has been done, so a fast machine gets no further between two kills than a slow one; a moment is less than two
steps' time. When so many have been killed, the last child ends in peace. Prints how many were killed.
"""

import json
import os
import random
import signal
import sys
import threading
import time

import buckets

import colt_core as cc
from colt_core.training import Trainer


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def die_around(number, after):
    """Die before or after the n-th file is brought to its place."""
    count = [0]

    def counting(real):
        def work(*arguments, **named):
            count[0] += 1
            if count[0] == number and not after:
                die()
            done = real(*arguments, **named)
            if count[0] == number:
                die()
            return done

        return work

    os.fsync = counting(os.fsync)
    buckets.Bucket.place = counting(buckets.Bucket.place)


def die_after(number, later):
    """Die so many steps' times after the n-th step."""
    real, count = Trainer._step, [0]

    def step(*arguments):
        count[0] += 1
        begun = time.perf_counter()
        done = real(*arguments)
        if count[0] == number:
            threading.Timer(later * (time.perf_counter() - begun), die).start()
        return done

    Trainer._step = step


def main(store, jobs, kills, seed, workers):
    """See above."""
    chance, killed, moment = random.Random(seed), 0, 0
    while True:
        moment += 1
        by_file, number = moment % 2 == 0, chance.randint(1, 6) if moment % 2 == 0 else chance.randint(1, 24)
        after, later = chance.random() < 0.5, 2 * chance.random()
        child = os.fork()
        if not child:
            if killed < kills:
                die_around(number, after) if by_file else die_after(number, later)
            os.environ["COLT_WORKERS"] = workers if moment == 8 else "1"  # copies in processes of their own, or not
            for job in jobs:
                cc.run(job, store, device="cpu")
            os._exit(0)
        _, status = os.waitpid(child, 0)
        killed += os.WIFSIGNALED(status)
        if not os.WIFSIGNALED(status):
            assert os.WEXITSTATUS(status) == 0, status
            return killed


if __name__ == "__main__":
    described = [cc.Experiment(**job) for job in json.loads(sys.argv[2])]
    print(main(sys.argv[1], described, int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]))
