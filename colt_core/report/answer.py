"""The paper's three claims, held against the records of reference runs: what holds, what does not, what is open."""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ..models import in_words
from ..studies.study import Study
from .accuracy import accuracy_table, at_sparsities
from .agreement import overlaps, with_theta0
from .arms import called, scores_by_arm
from .compare import COMPARED, conclusion, differences, half_gains, mean_differences, pairs_of, verdict
from .cost import reach
from .gains import GAINS, gains, ladder, regimes, shares_of
from .records import load
from .statistics import holm, seeds_needed
from .transfer import gains_of, matrix_of, transfer_conclusion
from .trouble import say_warnings
from .words import count_seeds, level, sized, spread

# Claim 1 is about the first three; what COLT is held against beyond it is a family of tests of its own.
CLAIM = ("dense", "imp", "matched")
BESIDE = ("oneshot", "union", "consensus", "random", "reinit")
FAST = ("colt", "imp", "matched")  # claim 2: rounds of these
PAPER = {"network": ("resnet18", "mobilenetv2"), "dataset": ("cifar10", "cifar100", "tinyimagenet")}
RUN = ["study", "network", "scored_on"]  # where claim 1 is asked, each by itself
REACHED = ["study", "network", "dataset", "at"]  # where claim 2 is
COLUMNS = ["claim", "study", "network", "data", "other", "at", "difference", "half_width", "p", "p_holm", "equivalent"]

Levels = dict[tuple[str, str], list[float]]  # a study's own sparsities, by study and network


@dataclass(frozen=True, eq=False)
class Answer:
    """What reference runs say to the paper's claims: tables, and the sentences that read them.

    Attributes
    ----------
    records
        Everything that the studies' stores hold, with a column `study`.
    levels
        The sparsities of each study and network.
    differences
        Claim 1: COLT minus each control, `over_sparsities` (where `whole`) and `compare`; `margin` is that of
        equivalence: over all half of what IMP at COLT's rate gains over a random mask (its mean), at each a point.
    rounds
        Claim 2: mean rounds to each sparsity, a column an arm.
    matrix, gains
        Claim 3: `transfers` and `transfer_gains` of the last study.
    among
        The data sets of claim 3, from few classes to many.
    claims
        Every row of the three claims, with the seeds that would settle what is undecided.
    """

    records: pd.DataFrame
    levels: Levels
    differences: pd.DataFrame
    rounds: pd.DataFrame
    matrix: pd.DataFrame
    gains: pd.DataFrame
    among: tuple[str, ...]
    claims: pd.DataFrame

    @property
    def cycles(self) -> pd.DataFrame:
        """Every cycle of COLT, the data set named with its study."""
        rows = self.records[self.records["method"].eq("colt") & self.records["kind"].eq("round")]
        return rows.assign(dataset=rows["study"] + ": " + rows["dataset"])

    @property
    def agreement(self) -> pd.DataFrame:
        """`overlaps` of every cycle of COLT."""
        return overlaps(self.cycles)

    @property
    def seeds(self) -> pd.DataFrame:
        """The evidence: how many seeds each method has, by the data it was found and scored on."""
        where = ["study", "network", "dataset", "scored_on", "train_images"]
        scores = self.records[self.records["kind"] == "score"]
        counts = scores.pivot_table(index=where, columns="method", values="seed", aggfunc="nunique", sort=False)
        return counts.fillna(0).astype(int)

    @property
    def recovered(self) -> pd.DataFrame:
        """`report.gains` of every reference run on the data it was found on; `run` says which, in a line."""
        found = []
        for (study, network, _), rows in self._own_runs():
            table = gains(rows, self.levels[study, network])
            how = json.loads(rows["recipe"].iloc[0])
            named = in_words(network, json.loads(rows["network_args"].iloc[0]))
            for dataset, own in table.groupby("scored_on", sort=False):
                about = f"{study}: {dataset}, {named}, {how['epochs']} epochs, {count_seeds(own['seed'].nunique())}"
                found.append(own.assign(study=study, run=about))
        return pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=["study", "run", *GAINS])

    @property
    def regimes(self) -> pd.DataFrame:
        """`report.regimes` of every study, the study first."""
        several = [regimes(rows, self.levels[key[:2]]).assign(study=key[0]) for key, rows in self._own_runs()]
        whole = pd.concat(several, ignore_index=True)
        return whole[["study", *(name for name in whole if name != "study")]]

    def ladder(self, study: str, network: str, dataset: str) -> pd.DataFrame:
        """Return `report.ladder` of one run."""
        rows = next(rows for key, rows in self._own_runs() if key[:2] == (study, network))
        return ladder(rows[rows["dataset"] == dataset], self.levels[study, network])

    def _own_runs(self) -> list[tuple[tuple[str, str, str], pd.DataFrame]]:
        """Return the records of each study, network and recipe, scored on the data they were found on."""
        own = self.records[self.records["scored_on"].isna() | self.records["scored_on"].eq(self.records["dataset"])]
        groups = own.groupby(["study", "network", "recipe"], sort=False)
        scored = [(key, rows) for key, rows in groups if (rows["kind"] == "score").any()]
        return [(key, rows) for key, rows in scored if key[:2] in self.levels]  # type: ignore[misc]

    @property
    def table(self) -> pd.DataFrame:
        """The answers in short: COLT minus each control, over all sparsities, and moved to another data set."""
        return _in_short(self.claims)

    def accuracy(self, study: str, network: str, dataset: str, methods: Iterable[str]) -> pd.DataFrame:
        """Return `accuracy_table` of some methods' tickets on the data set that they were found on."""
        rows = self.records[self.records["study"].eq(study) & self.records["network"].eq(network)]
        rows = rows[rows["dataset"].eq(dataset) & rows["scored_on"].fillna(dataset).eq(dataset)]
        table = accuracy_table(rows, self.levels[study, network])
        return table[table["method"].isin(list(methods))]

    def by_sparsity(self, study: str, network: str, dataset: str) -> pd.DataFrame:
        """Return claim 1's differences of one run, sparsity by sparsity."""
        rows = self.differences[(self.differences[RUN] == [study, network, dataset]).all(axis=1)]
        return rows[~rows["whole"]]

    # --- in sentences ---

    def say_agreement(self) -> list[str]:
        """Say, for every run, how far COLT's copies agree beyond chance, and beyond what theta0 explains."""
        lines = []
        for (dataset, network), rows in self.agreement.groupby(["dataset", "network"], sort=False):
            told = rows[rows["gap"].notna()]
            if not len(told):
                lines.append(f"{dataset}, {network}: in every cycle a copy ended at chance")
                continue
            row = told.iloc[0]
            half, own = (f" ± {row[name]:.3f}" if row["seeds"] > 2 else "" for name in ("half_width", "learnt_half"))
            about = f"{sized(str(dataset), row['train_images'])}, {network}, cycle {row['round']}"
            found = f"{row['gap']:+.3f}{half} beyond chance within layers, {row['learnt']:+.3f}{own} given theta0"
            every = f"{told['gap'].mean():+.3f} and {told['learnt'].mean():+.3f}"
            lines.append(f"{about}: {found}; means of all cycles {every}")
        return lines + say_warnings(self.cycles)

    def say_recovered(self, arm: str = "colt") -> list[str]:
        """Say, for every run, what share of IMP's gain over a random mask an arm recovers."""
        found = self.recovered
        found = found[found["method"] == arm]
        lines = []
        for row in shares_of(found.assign(study=found["run"])).itertuples():
            ends = "" if math.isnan(row.low) else f", 95 % interval {100 * row.low:.0f} to {100 * row.high:.0f} %"
            full = spread(row.full, row.full_half)
            lines.append(f"{row.study}: {100 * row.share:.0f} % of IMP's {full} points{ends}")
        return lines

    def say_accuracy(self) -> list[str]:
        """Say claim 1's differences over all sparsities."""
        lines = []
        whole = self.differences[self.differences["whole"]].sort_values(RUN, kind="stable")
        for _, row in whole.groupby(level=0, sort=False):
            network, study, other = row[["network", "study", "other"]].iloc[0]
            lines += conclusion(row, f"COLT of {network} ({study}), all sparsities", called(other))
        return lines

    def say_rounds(self) -> list[str]:
        """Say how many rounds COLT and the two IMPs take to each sparsity."""
        lines, names = [], _sized(self.records)
        for (study, network, dataset, at), row in self.rounds.iterrows():  # type: ignore[misc]
            told = [f"{called(name)} {row[name]:.1f}" for name in FAST if not pd.isna(row.get(name))]
            about = f"{network} on {names[study, dataset]}, {study}"
            lines.append(f"{about}: rounds to {level(at)}: {', '.join(told)}")
        return lines

    def say_transfer(self) -> list[str]:
        """Say what tickets gained on average, and from more classes to fewer against the target's own ticket."""
        own = self.gains[self.gains["against"].eq("own") & self.gains["source"].ne("all")]
        down = own[own["source"].map(self.among.index) > own["target"].map(self.among.index)]
        told = pd.concat([self.gains[self.gains["source"] == "all"], down])
        return transfer_conclusion(told) or ["no reference run has transferred a ticket yet"]

    def say_evidence(self) -> list[str]:
        """Say which networks and trainings are behind all this, and what the paper shows that is not."""
        scores = self.records[self.records["kind"] == "score"]
        epochs = {}
        for (network, study), recipes in scores.groupby(["network", "study"], sort=False)["recipe"]:
            epochs[f"{network} {study}"] = {json.loads(recipe)["epochs"] for recipe in recipes.unique()}
        shown = {kind: set(scores[kind]) for kind in PAPER}
        lacking = [name for kind, names in PAPER.items() for name in names if name not in shown[kind]]
        return [
            f"Networks: {', '.join(scores['network'].unique())}. Epochs a training: {epochs}.",
            f"Of what the paper shows, not in results/ yet: {', '.join(lacking) or 'nothing'}",
        ]


def answer(results: str | Path, studies: Iterable[str]) -> Answer:
    """Return what the records of reference runs say to the paper's claims.

    Parameters
    ----------
    results
        A folder with the reference runs: `<study>/store`.
    studies
        The studies that count as evidence; those without a store are passed over. Transfers are taken from the last.

    Raises
    ------
    ValueError
        If none of them has a store here.
    """
    names = list(studies)
    stores = {name: Path(results) / name / "store" for name in names}
    stores = {name: path for name, path in stores.items() if path.is_dir()}
    if not stores:
        raise ValueError(f"no store of {', '.join(names) or 'any study'} in {results}")
    records = pd.concat([with_theta0(load(path), path).assign(study=name) for name, path in stores.items()])
    pieces = [(name, piece) for name in stores for piece in Study.named(name).each()]
    levels = {(name, piece.experiment("colt").network): piece.levels for name, piece in pieces}
    last = Study.named(names[-1])
    carried = records[records["study"] == last.name]
    matrix = matrix_of(carried, last.carried_scores)
    own = carried[carried["scored_on"].isna() | carried["scored_on"].eq(carried["dataset"])]
    margin = half_gains(at_sparsities(own, last.carried_scores)) if len(own) else 0.01
    gains = gains_of(carried, last.carried_scores, margin)
    differences, rounds = _differences(records, levels), _rounds(records, levels)
    claims = _claims(differences, rounds, gains, last.name, _sized(records))
    return Answer(records, levels, differences, rounds, matrix, gains, last.carried_among(), claims)


# --- the claims --------------------------------------------------------------------------------------------------


def _differences(records: pd.DataFrame, levels: Levels) -> pd.DataFrame:
    """Return COLT minus each control: over all sparsities (`whole`), by Holm over the claim's controls, and at each.

    Over all, equivalent is what lies within half of what IMP at COLT's rate gains over a random mask there: a point is
    much on a data set where dense reaches six. At each it is a point, as in every table of a study.
    """
    controls, tables = (*CLAIM, *BESIDE), []
    for (study, network), rows in records.groupby(["study", "network"], sort=False):
        asked = levels[study, network]  # type: ignore[index]
        table = at_sparsities(rows, asked)
        pairs = pairs_of(table, "colt", controls)
        whole = mean_differences(table, pairs, asked, half_gains(table, asked)).assign(whole=True)
        each = differences(table, pairs, scores=scores_by_arm(rows)).assign(margin=0.01)
        both = pd.concat([whole, each.assign(whole=False)])
        both = both.assign(study=study, place=both["other"].map(controls.index))
        tables.append(both.sort_values("place", kind="stable"))
    found = pd.concat(tables, ignore_index=True)[[*COMPARED, "margin", "study", "method", "other", "whole"]]
    family = [found["other"].isin(CLAIM), *(found[name] for name in RUN)]
    corrected = found["p"].where(found["whole"]).groupby(family).transform(holm)
    return found.assign(p_holm=found["p_holm"].mask(found["whole"], corrected))


def _rounds(records: pd.DataFrame, levels: Levels) -> pd.DataFrame:
    """Return the mean rounds to each sparsity: a row a study, network, data set and sparsity, a column an arm."""
    groups = records.groupby(["study", "network"], sort=False)
    spent = [reach(rows, levels[key]).assign(study=key[0]) for key, rows in groups]  # type: ignore[index]
    return pd.concat(spent).pivot_table(index=REACHED, columns="method", values="rounds")


def _claims(
    differences: pd.DataFrame, rounds: pd.DataFrame, gains: pd.DataFrame, last: str, names: dict[tuple[str, str], str]
) -> pd.DataFrame:
    """Return every row of the three claims, with the seeds that would settle what is undecided."""
    one = differences.assign(claim=1, at=differences["at"].astype(object).mask(differences["whole"], "all"))
    one["data"] = [names[row.study, row.scored_on] for row in one.itertuples()]
    two = rounds[[name for name in FAST if name != "colt" and name in rounds]].rsub(rounds["colt"], axis=0)
    two = two.stack().dropna().rename("rounds").rename_axis([*REACHED, "other"]).reset_index().assign(claim=2)
    two["data"] = [names[row.study, row.dataset] for row in two.itertuples()]
    three = pd.concat([gains[gains["source"] == "all"], gains[gains["source"] != gains["target"]]])
    three = three.assign(claim=3, study=last, other=three["against"])
    three["data"] = three["source"] + " to " + [names.get((last, target), target) for target in three["target"]]
    claims = pd.concat([one, two, three], ignore_index=True)
    needed = []
    for row in claims.itertuples():
        needed.append(seeds_needed(row.half_width, row.seeds) if verdict(row) == "undecided" else float("nan"))
    claims["seeds needed"] = needed
    return claims[[*COLUMNS, "rounds", "seeds", "seeds needed"]]


def _sized(records: pd.DataFrame) -> dict[tuple[str, str], str]:
    """Return each data set with the number of images that a study had at hand, by study and data set."""
    scores = records[records["kind"] == "score"]
    images = scores.groupby(["study", "scored_on"])["train_images"].max()
    return {key: sized(key[1], count) for key, count in images.items()}  # type: ignore[index,misc]


def _in_short(claims: pd.DataFrame) -> pd.DataFrame:
    """Return the claims' means in words, a row where they were asked, a column a control."""
    told = claims[claims["at"].eq("all") | claims["data"].str.startswith("all")]
    told = told.sort_values(["claim", "study", "network", "data"], kind="stable")
    found = [f"{spread(row.difference, row.half_width)} {verdict(row)}" for row in told.itertuples()]
    data = told["data"].replace("all to all", "moved, mean of all pairs")
    at = ["" if value == "all" else f", {level(value)}" for value in told["at"]]
    told = told.assign(found=found, where=told["study"] + ": " + told["network"] + ", " + data + at)
    wide = told.pivot_table("found", "where", "other", "first", sort=False, fill_value="-")
    names = {other: "target's own" if other == "own" else called(other) for other in wide}
    return wide.rename(columns=names).rename_axis(index="COLT, in points, minus", columns=None).reset_index()
