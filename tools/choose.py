"""Choose the three variants that are confirmed, by the rule of entry 5 of results/PLAN.md, and write their study.

    python tools/choose.py STORE

Reads the validation accuracies of `results/variants/variants.yaml`, and no test accuracy, once every experiment of it
is over. Writes results/confirmed/confirmed.yaml, results/confirmed/questions.yaml and results/variants/choice.md.
"""

import sys
from pathlib import Path
from typing import Any

import yaml

import colt_core as cc
from colt_core.compute.store import open_store
from colt_core.files import write_text
from colt_core.studies.records import is_over, read_records

RESULTS = Path(__file__).resolve().parent.parent / "results"
METHODS = ("soup", "averaged", "consensus", "bound", "crossfit", "displacement", "colt")
CONTROL = "displacement1"  # IMP with its way doubled: no variant
CLOSE = 0.003  # of accuracy: an arm on 4 or 8 partitions that lies no further below one on 2 goes before it
ROUNDING = 1e-9  # exactly 0.3 points below is "no more than"
SEEDS = [30, 31, 32, 33, 34, 35]


def validation(study: cc.Study, store: Path) -> dict[str, float]:
    """Return each arm's validation accuracy, a mean over its scored tickets and seeds; arms that diverged have none."""
    means = {}
    for arm in study.methods:
        scores = [r for seed in study.seeds for r in read_records(study.experiment(arm, seed), store)]
        scores = [r["validation_accuracy"] for r in scores if r["kind"] == "score"]
        if len(scores) == len(study.seeds) * len(study.levels):
            means[arm] = sum(scores) / len(scores)
    return means


def chosen(study: cc.Study, means: dict[str, float]) -> list[str]:
    """Return three arms of three methods, the best first."""
    best = []
    for method in METHODS:
        arms = [arm for arm in means if study.experiment(arm).method == method and arm != CONTROL]
        if not arms:
            continue
        arms.sort(key=means.__getitem__, reverse=True)
        many = [
            arm for arm in arms if study.experiment(arm).parts > 2 and means[arm] >= means[arms[0]] - CLOSE - ROUNDING
        ]
        best.append([*many, *arms][0])
    return sorted(best, key=means.__getitem__, reverse=True)[:3]


def confirmation(study: cc.Study, arms: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the study that confirms these arms, and its questions."""
    parts = {arm: study.experiment(arm).parts for arm in arms}
    screened = yaml.safe_load((RESULTS / "variants" / "variants.yaml").read_text(encoding="utf-8"))
    beside = [f"{kind}{count}" for count in sorted(set(parts.values())) for kind in ("steps", "batch")]
    methods = {arm: screened["methods"][arm] for arm in ["matched", *arms, *beside]}
    title = "three variants of COLT confirmed on fresh seeds: chosen by tools/choose.py (conv3 width 16, 3 epochs)"
    methods |= {"random": {"by": "class"}}  # the plan's: the layer densities of COLT by class
    asked = []
    for arm, count in parts.items():
        steps, batch = f"steps{count}", f"batch{count}"
        asked.append({"says": f"{arm} is equivalent to matched", "of": {arm: 1, "matched": -1}, "expect": "equivalent"})
        for other, words in ((steps, f"IMP on 1/{count} of the steps"), (batch, f"IMP with {count} workers")):
            asked.append({"says": f"{arm} minus {words} is above 0", "of": {arm: 1, other: -1}, "expect": "above"})
    questions = dict(zip("ABCDEFGHI", asked, strict=True))
    content = {"title": title, "base": screened["base"], "methods": methods, "seeds": SEEDS}
    return content, {"margin": {"matched": 0.5, "random": -0.5}, "questions": questions}


def main(store: Path, results: Path = RESULTS) -> None:
    """Write the choice and what confirms it: the choice last, for it tells others that it has been made.

    Raises
    ------
    ValueError
        In one line, where an experiment is not over, or fewer than three methods are left.
    """
    study = cc.Study.named(str(RESULTS / "variants" / "variants.yaml"))
    experiments = study.experiments()
    lacking = [e for e in experiments if not is_over(e, open_store(store))]
    if lacking:
        raise ValueError(
            f"{len(lacking)} of {len(experiments)} experiments are not over: nothing is chosen before all are"
        )
    means = validation(study, store)
    arms = chosen(study, means)
    if len(arms) < 3:
        raise ValueError(f"only {len(arms)} methods have an arm that did not diverge; three are to be chosen")
    lines = ["# The choice", "", "By `tools/choose.py` (entry 5 of [the plan](../PLAN.md)), on validation accuracies:"]
    lines += ["", "| arm | validation accuracy | chosen |", "| --- | --- | --- |"]
    lines += [
        f"| {arm} | {100 * means[arm]:.2f} | {'yes' if arm in arms else ''} |"
        for arm in sorted(means, key=means.__getitem__, reverse=True)
    ]
    content, asked = confirmation(study, arms)
    for folder in ("confirmed", "variants"):
        (results / folder).mkdir(exist_ok=True)
    write_text(results / "confirmed" / "confirmed.yaml", yaml.safe_dump(content, sort_keys=False))
    write_text(results / "confirmed" / "questions.yaml", yaml.safe_dump(asked, sort_keys=False))
    write_text(results / "variants" / "choice.md", "\n".join(lines) + "\n")
    print("chosen:", ", ".join(arms))


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except ValueError as problem:
        sys.exit(f"error: {problem}")
