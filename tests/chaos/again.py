"""What tests of chance share: their seed, and what a run has left but for its times."""

import os
import random

from colt_core.studies.records import read_records

SEED = int(os.environ.get("COLT_CHAOS_SEED") or random.randrange(10**6))
AGAIN = f"COLT_CHAOS_SEED={SEED} does the same again"


def timeless(job, store):
    """A run's records without how long they took."""
    return [{k: v for k, v in r.items() if k not in ("seconds", "score_seconds")} for r in read_records(job, store)]
