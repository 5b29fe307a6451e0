"""Questions that were asked before a study ran, and what its records answer: `decided()`."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
import pandas as pd
from pydantic import Field, model_validator
from scipy import stats

from ..settings import Settings
from ..studies.experiment import Experiment
from ..studies.reading import parsed, read_text
from ..studies.records import scored_by
from ..studies.study import Study
from .accuracy import first_rounds
from .choice import chosen
from .records import LOWER, distinct, metrics
from .statistics import TINY, holm, interval
from .words import ACCURACY, count_seeds, points, spread, unit

COLUMNS = ["said", "estimate", "half_width", "rounds", "seeds", "left_out", "metric"]  # of `described`
DECIDED = ["letter", "prediction", "estimate", "half_width", "margin", "p", "p_holm", "verdict", "seeds", "left_out",
           "metric"]  # fmt: skip
Counts = Literal["levels", "rounds", "chosen"]
Arm = str  # a name: of `Questions.arms`, or else of the study's methods


class Question(Settings):
    """One prediction. Frozen.

    Attributes
    ----------
    says
        The prediction in words.
    of
        The arms that it is about, each with its factor: {"by_class": 1, "matched": -1} is a difference.
    expect
        What was predicted of the sum: "above" or "below" `than`, or "equivalent" to 0 within the margin.
    than
        What the sum is held against, of accuracy in [0, 1], of another metric in its unit.
    sided
        Of the t test of "above" and "below": 2, or 1 where the plan says so.
    metric
        The column of scores that is asked: accuracy, or another measure of the objective's, psnr for example.
    margin
        What its equivalence is held against, where that is not the margin of all; as `Questions.margin`.
    counts
        What an arm counts with in a seed, the dense network with its one score: "levels", the mean over the study's
        sparsities, of the first ticket at or beyond each; "rounds", the mean over the rounds that all arms have
        scored; "chosen", the ticket that validation chose of them (`best_of`).
    """

    says: str
    of: dict[Arm, float] = Field(min_length=1)
    expect: Literal["above", "below", "equivalent"]
    than: float = 0.0
    sided: Literal[1, 2] = 2
    metric: str = "accuracy"
    margin: dict[Arm, float] = Field(default_factory=dict)
    counts: Counts = "levels"


class Questions(Settings):
    """The questions of a study: one family of tests. Frozen.

    Attributes
    ----------
    arms
        For a name, fields of `Study.experiment` that make the arm: {"method": "colt", "by": "class"}, `score_on` too.
        Names of the study's own methods need none.
    margin
        Arms with factors, as in a question: what equivalence is held against, seed by seed.
    questions
        By letter.
    described
        What is reported with its interval and tested by nothing, in words, with its arms and their factors.
    """

    arms: dict[Arm, dict[str, Any]] = Field(default_factory=dict)
    margin: dict[Arm, float] = Field(default_factory=dict)
    questions: dict[str, Question] = Field(default_factory=dict)
    described: dict[str, Annotated[dict[Arm, float], Field(min_length=1)]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _with_a_margin(self) -> Self:
        if not self.questions and not self.described:
            raise ValueError("nothing is asked: give questions, or what is described")
        lacking = [n for n, one in self.questions.items() if one.expect == "equivalent" and not self.margin_of(one)]
        if lacking:
            raise ValueError(f"question {lacking[0]} asks for equivalence: give a margin")
        return self

    @classmethod
    def read(cls, path: str | Path) -> "Questions":
        """Read a YAML file.

        Raises
        ------
        ValueError, OSError
            In one line, for mistakes in it.
        """
        content = parsed(read_text(Path(path)), str(path))
        if not isinstance(content, Mapping):
            raise ValueError(f"{path} holds no questions; its keys are {', '.join(cls.model_fields)}")
        asked = content.get("questions") or {}
        if not isinstance(asked, Mapping) or not all(isinstance(one, Mapping) for one in asked.values()):
            raise ValueError(f"{path}: questions must be a mapping of letters to mappings")
        return cls(**{**content, "questions": {letter: Question(**one) for letter, one in asked.items()}})

    def experiment(self, study: Study, name: Arm, seed: int) -> Experiment:
        """Return an arm's experiment.

        Raises
        ------
        ValueError
            For an arm that neither the questions nor the study know.
        """
        if name not in self.arms and name not in study.methods:
            raise ValueError(f"unknown arm {name!r}; there are: {', '.join({**self.arms, **study.methods})}")
        fields = dict(self.arms.get(name, {}))
        return study.experiment(str(fields.pop("method", name)), seed, **fields)

    def experiments(self, study: Study, name: Arm) -> dict[int, Experiment]:
        """Return an arm's experiments by seed; for an unknown one as `experiment`."""
        return {seed: self.experiment(study, name, seed) for seed in study.seeds}

    def margin_of(self, one: Question) -> dict[Arm, float]:
        """Return the arms, with factors, whose sum a question's equivalence is held against."""
        return one.margin or self.margin

    def metric_for(self, study: Study, experiments: Iterable[str]) -> str | None:
        """Return the metric that is asked of some of a study's experiments, given by their hashes; None: nothing is."""
        there = set(experiments)
        for one in self.questions.values():
            if any(self.experiment(study, name, seed).hash in there for name in one.of for seed in study.seeds):
                return one.metric
        return None


def decided(study: Study, records: pd.DataFrame, asked: Questions) -> pd.DataFrame:
    """Return what a study's records say to the questions that were asked beforehand, a row each.

    A seed without one of a question's arms is left out of it. All questions are one family: Holm at 5 %.

    Returns
    -------
    pandas.DataFrame
        Columns letter, prediction, estimate (the mean sum over seeds), half_width (95 %), margin (its mean; NaN but for
        equivalence), p (paired t, or the larger of two one-sided ones), p_holm, verdict ("holds", "the opposite",
        "undecided", or "too few seeds" below three), seeds, left_out (seeds of the study without all arms), metric (of
        estimate, half_width and margin).

    Raises
    ------
    ValueError
        For an arm that neither the questions nor the study know.
    """
    known = records if not len(records) else distinct(records)
    rows = []
    for letter, one in asked.questions.items():
        margin = asked.margin_of(one) if one.expect == "equivalent" else {}
        arms = {name: asked.experiments(study, name) for name in dict.fromkeys([*margin, *one.of])}
        there, _ = _told(known, arms, one.metric, one.counts, study.levels)
        sums, margins = (_sum(there, factors) for factors in (one.of, margin))
        mean, half = interval(sums)
        row: dict[str, Any] = {"letter": letter, "prediction": one.says, "estimate": mean, "half_width": half}
        row |= {"margin": margins.mean() if margin and len(there) else math.nan}
        row |= {"p": _p(sums, margins, one), "expect": one.expect, "than": one.than, "seeds": len(there)}
        row |= {"left_out": " ".join(str(seed) for seed in study.seeds if seed not in there.index)}
        rows.append(row | {"metric": one.metric})
    if not rows:
        return pd.DataFrame(columns=DECIDED)
    table = pd.DataFrame(rows)
    # A question without an answer stays one of the family that was fixed beforehand.
    table["p_holm"] = np.where(table["p"].isna(), math.nan, holm(table["p"].fillna(1.0)))
    table["verdict"] = [_verdict(row) for row in table.itertuples()]
    return table[DECIDED]


def described(study: Study, records: pd.DataFrame, asked: Questions) -> pd.DataFrame:
    """Return what is told of a study's arms without a test: each sum with its interval, a row each.

    For each seed an arm counts with the mean over the rounds that all of a row's arms have scored, the dense network
    with its one score: accuracy, on the test set. Of a study in pieces ask each piece.

    Returns
    -------
    pandas.DataFrame
        Columns said (in words), estimate (the mean sum over seeds), half_width (95 %; NaN below three seeds), rounds
        (their numbers), seeds, left_out (seeds of the study without all arms), metric.

    Raises
    ------
    ValueError
        For an arm that neither the questions nor the study know.
    """
    known = records if not len(records) else distinct(records)
    rows = []
    for said, factors in asked.described.items():
        arms = {name: asked.experiments(study, name) for name in factors}
        there, rounds = _told(known, arms, ACCURACY, "rounds", study.levels)
        mean, half = interval(_sum(there, factors))
        left = " ".join(str(seed) for seed in study.seeds if seed not in there.index)
        rows.append((said, mean, half, " ".join(map(str, rounds)), len(there), left, ACCURACY))
    return pd.DataFrame(rows, columns=COLUMNS)


def _told(
    records: pd.DataFrame, arms: Mapping[Arm, Mapping[int, Experiment]], metric: str, counts: Counts,
    levels: list[float],
) -> tuple[pd.DataFrame, list[float]]:  # fmt: skip
    """Return what each arm counts with, a seed a row, and what that is the mean of; seeds that lack some are left out.

    Means are of sparsities, of rounds, or of 0 alone, the ticket that was chosen.
    """
    found = {
        name: {seed: _values(one, records, metric, counts, levels) for seed, one in own.items()}
        for name, own in arms.items()
    }
    several = {name: own for name, own in found.items() if any(one.method != "dense" for one in arms[name].values())}
    known = [{key for values in own.values() for key in values} for own in several.values()]
    keys = sorted(set(levels) if counts == "levels" else set.intersection(*known) if known else ())
    columns = {}
    for name, own in found.items():
        wanted = keys if name in several else [0]
        whole = {seed: values for seed, values in own.items() if wanted and set(wanted) <= values.keys()}
        means = {seed: float(np.mean([values[key] for key in wanted])) for seed, values in whole.items()}
        columns[name] = pd.Series(means, dtype=float)
    return pd.DataFrame(columns).dropna(), keys


def _values(
    experiment: Experiment, records: pd.DataFrame, metric: str, counts: Counts, levels: list[float]
) -> dict[float, float]:
    """Return an experiment's test scores by sparsity asked for or by round; of a dense or a chosen ticket by 0."""
    if not len(records) or metric not in records:
        return {}
    mine = records[records["experiment"] == experiment.hash]
    scores = mine[(mine["kind"] == "score") & (mine["scored_on"] == (experiment.score_on or experiment.dataset))]
    if "scored_by" in scores:
        way = scored_by(experiment).get("scored_by")
        scores = scores[scores["scored_by"].isna() if way is None else scores["scored_by"] == way]
    scores = scores[scores[metric].notna()]
    if experiment.method == "dense":
        return dict(enumerate(scores[metric][:1].astype(float)))
    if counts == "chosen":
        own = scores.loc[metrics(scores).eq(metric), "higher_is_better"] if "higher_is_better" in scores else scores[:0]
        higher = bool(own.iloc[0]) if len(own) and metric != ACCURACY else metric not in LOWER
        best = chosen(scores, metric, higher) if f"validation_{metric}" in scores else scores[:0]
        return dict(enumerate(best[metric].astype(float)))
    if counts == "rounds":
        first = scores[scores["round"] > 0].drop_duplicates("round")
        return {int(number): float(value) for number, value in zip(first["round"], first[metric], strict=True)}
    by_level = {at: scores[scores["round"].isin(first_rounds(mine, at)["round"])] for at in levels}
    return {at: float(there[metric].iloc[0]) for at, there in by_level.items() if len(there)}


def _sum(values: pd.DataFrame, factors: Mapping[Arm, float]) -> pd.Series:
    total = pd.Series(0.0, index=values.index)
    for name, factor in factors.items():
        if name in values:
            total = total + factor * values[name]
    return total


def _p(sums: pd.Series, margins: pd.Series, one: Question) -> float:
    """Return the p value of one question; NaN below three seeds."""
    if len(sums) < 3:
        return math.nan
    if one.expect == "equivalent":
        return max(_t_test(sums + margins, 0, "greater"), _t_test(sums - margins, 0, "less"))
    side = "two-sided" if one.sided == 2 else {"above": "greater", "below": "less"}[one.expect]
    return _t_test(sums, one.than, side)


def _t_test(values: pd.Series, than: float, side: str) -> float:
    """Return the p value of a t test; without any spread it is no accident: 0, or 1 where there is no difference."""
    if np.ptp(values) > TINY:
        return float(stats.ttest_1samp(values, than, alternative=side).pvalue)
    off = float(values.mean()) - than
    sign = {"greater": off > TINY, "less": off < -TINY, "two-sided": abs(off) > TINY}[side]
    return 0.0 if sign else 1.0


def _verdict(row: Any) -> str:
    if row.seeds < 3:
        return "too few seeds"
    if row.p_holm >= 0.05:
        return "undecided"
    if row.expect == "equivalent":
        return "holds"
    return "holds" if (row.estimate > row.than) == (row.expect == "above") else "the opposite"


def predictions(results: str | Path) -> pd.DataFrame:
    """Return every prediction that a reference study in a folder has answered: `decided`, with the study beside.

    Parameters
    ----------
    results
        Where the studies lie, each with a folder of its name that has `decided.csv` (written by `tools/keep_results.py`
        when all of a study is over); its file lies there, or in another one's folder.

    Returns
    -------
    pandas.DataFrame
        The columns of `decided` after `study`, its name, and `about`, its title; without rows if none is answered.
    """
    found = [
        pd.read_csv(folder / "decided.csv").assign(study=folder.name, about=study.title)
        for folder, study in answered(results)
    ]
    if not found:
        return pd.DataFrame(columns=["study", "about", *DECIDED])
    table = pd.concat(found, ignore_index=True).reindex(columns=["study", "about", *DECIDED])
    return table.fillna({"metric": ACCURACY})  # files that are older than other metrics


def told(results: str | Path, study: str) -> pd.DataFrame:
    """Return what a reference study describes with an interval and tests by nothing, in the columns of `predictions`.

    Without rows where the study is not over: `described.csv` is written with its other tables.
    """
    file = Path(results) / study / "described.csv"
    rows = pd.read_csv(file).rename(columns={"said": "prediction"}) if file.is_file() else pd.DataFrame()
    named = {
        piece.name: piece.title for piece in Study.named(str(sorted(Path(results).glob(f"*/{study}.yaml"))[0])).each()
    }
    rows = rows.assign(about=rows["study"].map(named), verdict="") if len(rows) else rows
    return rows.reindex(columns=["study", "about", *DECIDED])


def answered(results: str | Path) -> list[tuple[Path, Study]]:
    """Return the folder of each reference study that has answers, and the study; as `predictions` reads them."""
    folders = sorted(path.parent for path in Path(results).glob("*/decided.csv"))
    files = [sorted(Path(results).glob(f"*/{folder.name}.yaml"))[0] for folder in folders]
    return [(folder, Study.named(str(file))) for folder, file in zip(folders, files, strict=True)]


def answers(found: pd.DataFrame) -> pd.DataFrame:
    """Return `predictions` in words: columns asked, verdict, number, scope."""
    rows = []
    for row in found.itertuples():
        plain = row.metric == ACCURACY
        margin = points(round(row.margin, 4)) if plain else f"{row.margin:.3g} {unit(row.metric)}"
        within = "" if math.isnan(row.margin) else f", within {margin}"
        p = "p < 0.001" if row.p_holm < 0.001 else f"p = {row.p_holm:.3f}"
        scope = f"`{row.study}`: {count_seeds(row.seeds)}, {p} after Holm"
        number = f"{spread(row.estimate, row.half_width, row.metric)} {unit(row.metric)}"
        rows.append((row.prediction + within, row.verdict, number, scope))
    return pd.DataFrame(rows, columns=["said beforehand", "verdict", "number", "scope"])
