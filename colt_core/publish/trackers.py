"""Callbacks that report a run to a tracker while it runs: `cc.run(experiment, callback=trackers.tensorboard("logs"))`.

Each is called with every new record and keeps one run of its tracker open, that of the last record's experiment;
`close()`, or a `with` block, ends it. A run is named "<dataset>/<network>/<method>/seed <n>", its configuration is the
experiment's settings, and its steps are COLT's rounds.
"""

from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ..studies.experiment import method_in_words, settings_in

SCALARS = ("density", "density_all", "image_epochs")
OVERLAP = ("jaccard", "chance")


class Tracker:
    """A callback for `run`: hands each record's numbers to a tracker's run, and begins one for each experiment.

    Parameters
    ----------
    begin
        Called with a run's name and configuration; returns the tracker's own run.
    write
        Called with that run and a record.
    end
        Called with that run when it is over.
    """

    def __init__(
        self,
        begin: Callable[[str, dict[str, Any]], Any],
        write: Callable[[Any, dict[str, Any]], None],
        end: Callable[[Any], None],
    ) -> None:
        self._begin, self._write, self._end = begin, write, end
        self._experiment: str | None = None
        self._run: Any = None

    def __call__(self, record: dict[str, Any]) -> None:
        """Report one record."""
        if self._run is None or record["experiment"] != self._experiment:
            self.close()
            self._run = self._begin(run_name(record), {"experiment": record["experiment"], **settings_in(record)})
            self._experiment = record["experiment"]
        self._write(self._run, record)

    def close(self) -> None:
        """End the run that is open, if any."""
        run, self._run = self._run, None
        if run is not None:
            self._end(run)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def run_name(record: dict[str, Any]) -> str:
    """Return "<dataset>/<network>/<method>/seed <n>"; of a folder of your own, its last name."""
    dataset = Path(record["dataset"]).name
    return f"{dataset}/{record['network']}/{method_in_words(settings_in(record))}/seed {record['seed']}"


def scalars(record: dict[str, Any]) -> dict[str, float]:
    """Return a record's numbers by name; what was scored on other data is named after it."""
    away = record.get("scored_on") not in (None, record["dataset"])
    suffix = f" on {Path(record['scored_on']).name}" if away else ""
    metric = record.get("metric") or "accuracy"
    numbers = {f"{name}{suffix}": record.get(name) for name in (metric, f"validation_{metric}")}
    numbers |= {name: record.get(name) for name in SCALARS}
    numbers |= {f"overlap/{name}": (record.get("overlap") or {}).get(name) for name in OVERLAP}
    return {name: value for name, value in numbers.items() if value is not None}


def losses(record: dict[str, Any]) -> dict[str, list[float]]:
    """Return the loss of each epoch, "copy <i>/loss", of the copies whose training decided the round's mask."""
    return {f"copy {i}/loss": [epoch["loss"] for epoch in curve] for i, curve in enumerate(record.get("curves") or ())}


def tensorboard(folder: str | Path) -> Tracker:
    """Report to TensorBoard's event files in a folder (`tensorboard --logdir <folder>`).

    Scalars have the round as step; a round's loss curves, "round 03/copy 0/loss", the epoch.

    Raises
    ------
    ValueError
        If the library is missing.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ValueError("TensorBoard is missing: pip install tensorboard") from None

    def begin(name: str, settings: dict[str, Any]) -> Any:
        writer = SummaryWriter(Path(folder) / name)
        writer.add_text("settings", "\n".join(f"- {k}: `{v}`" for k, v in settings.items()))
        return writer

    def write(writer: Any, record: dict[str, Any]) -> None:
        for name, value in scalars(record).items():
            writer.add_scalar(name, value, record["round"])
        for name, values in losses(record).items():
            for epoch, value in enumerate(values):
                writer.add_scalar(f"round {record['round']:02d}/{name}", value, epoch)
        writer.flush()

    return Tracker(begin, write, lambda writer: writer.close())


def wandb(project: str, **how: Any) -> Tracker:
    """Report to Weights & Biases; `how` goes to `wandb.init` (entity, mode="offline", ...).

    Of each copy's loss curve the last epoch is logged, "copy 0/loss"; the whole curve is a list in the run's summary,
    "round 03/copy 0/loss".

    Raises
    ------
    ValueError
        If the library is missing.
    """
    try:
        import wandb as library
    except ImportError:
        raise ValueError("Weights & Biases is missing: pip install wandb") from None

    def write(run: Any, record: dict[str, Any]) -> None:
        run.log(_of_round(record), step=record["round"])
        for name, values in losses(record).items():
            run.summary[f"round {record['round']:02d}/{name}"] = values

    return Tracker(lambda name, about: library.init(project=project, name=name, config=about, **how), write, _finish)


def trackio(project: str, **how: Any) -> Tracker:
    """Report to Trackio, which keeps runs on this machine; `how` goes to `trackio.init` (space_id, ...).

    Of each copy's loss curve the last epoch is logged, "copy 0/loss".

    Raises
    ------
    ValueError
        If the library is missing.
    """
    try:
        import trackio as library
    except ImportError:
        raise ValueError("Trackio is missing: pip install trackio") from None

    def write(run: Any, record: dict[str, Any]) -> None:
        run.log(_of_round(record), step=record["round"])

    return Tracker(lambda name, about: library.init(project=project, name=name, config=about, **how), write, _finish)


def _of_round(record: dict[str, Any]) -> dict[str, float]:
    return scalars(record) | {name: values[-1] for name, values in losses(record).items() if values}


def _finish(run: Any) -> None:
    run.finish()
