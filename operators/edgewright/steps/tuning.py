"""A search that learns from trial to trial: Optuna chooses arguments, the user's function trains, folds measure.

The trials of a task are kept beside its result as they end, so a try after a crash goes on with the next one. A trial
depends on the seed, its number and what those before it scored, on nothing else: a search that was cut off ends as it
would have without.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgewright.errors import ConfigError, DataError, UserCodeError
from edgewright.spec.steps.train import SearchConfig, TrainConfig
from edgewright.steps import metrics
from edgewright.steps.checkpoints import belongs_to
from edgewright.steps.code import user_code
from edgewright.steps.context import StepContext
from edgewright.steps.data import Dataset
from edgewright.steps.frameworks import framework_of
from edgewright.steps.models import Problem, load_model
from edgewright.steps.tracking import TrackedRun
from edgewright.steps.training_data import TrainingData
from edgewright.steps.tuning_runs import TrialRuns

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger("edgewright.steps")

_LOSSES = frozenset({"log_loss", "brier", "mae", "rmse"})
#: So many trials may fail at the start before the search gives up.
_HOPELESS = 3
_VERSION = 1

#: Trains on some rows with the arguments of a trial.
Fit = Callable[[TrainConfig, TrainingData], Any]


@dataclass
class Trial:
    """One trial that has ended.

    Attributes:
        number: From 0.
        values: Of the arguments that are searched.
        metrics: Means over the folds; empty where it failed.
        seconds: How long it took.
        error: Why it failed; empty where it did not.
        same_as: An earlier trial with the same values, which was not trained again.
    """

    number: int
    values: dict[str, Any]
    metrics: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    error: str = ""
    same_as: int | None = None


@dataclass
class Found:
    """What a search found.

    Attributes:
        metric: What was made better.
        trials: All that were trained, in their order.
        best: The best of them.
        total: How many were asked for; the others repeated values.
        resumed: How many an earlier try of the task had done.
    """

    metric: str
    trials: list[Trial]
    best: Trial
    total: int
    resumed: int

    @property
    def note(self) -> str:
        """A sentence about it."""
        failed = sum(bool(trial.error) for trial in self.trials)
        return (
            f"best of {self.total} trials: {self.metric} {self.best.metrics[self.metric]:.4g} with "
            + _shown(self.best.values) + (f"; {failed} failed" if failed else "")
            + (f"; {self.resumed} done by an earlier try" if self.resumed else "")
        )  # fmt: skip


class _Rows(Dataset):
    """Some rows of a dataset's part ``train``."""

    def __init__(self, dataset: Dataset, rows: pd.DataFrame) -> None:
        super().__init__(dataset.folder, dataset.manifest)
        self._rows = rows

    def frame(self, part: str) -> pd.DataFrame:
        """Return the rows, whatever the part."""
        return self._rows


def search(
    config: TrainConfig, context: StepContext, dataset: Dataset, problem: Problem, fit: Fit, runs: TrialRuns
) -> Found:
    """Try arguments until there are as many trials as wanted.

    Args:
        config: One with ``search:``.
        context: The train step.
        dataset: Only its part ``train`` is used.
        problem: What is learnt.
        fit: Trains; raises what the user's code raises.
        runs: Where trials are tracked.

    Raises:
        ConfigError: there is no Optuna, or the metric is none of this problem.
        DataError: too few rows for the folds.
        UserCodeError: the first trials all failed.
    """
    assert config.search is not None
    wanted = config.search
    metric = _metric(wanted, problem)
    trainer = _Trainer(config, context, dataset, problem, fit, metric)
    kept = _Kept(context, config)
    trials = kept.read()
    resumed = len(trials)
    if resumed:
        log.info("the search goes on after %d trials of an earlier try", resumed)
    with _quiet():
        study = _Study(wanted, metric)
        for trial in trials:
            study.replay(trial, metric)
        while len(trials) < wanted.trials:
            trials.append(trainer.run(study.ask(len(trials)), trials))
            study.tell(trials[-1], metric)
            kept.write(trials)
            runs.try_to_add(trials)
            _give_up(trials, metric)
        runs.add(trials)
    return Found(metric, [trial for trial in trials if trial.same_as is None], _best(trials, metric), len(trials),
                 resumed)  # fmt: skip


def _metric(wanted: SearchConfig, problem: Problem) -> str:
    from edgewright.spec.steps.evaluate import CLASSIFICATION_METRICS, REGRESSION_METRICS

    known = CLASSIFICATION_METRICS if problem == "classification" else REGRESSION_METRICS
    metric = wanted.metric or ("roc_auc" if problem == "classification" else "r2")
    if metric not in known:
        raise ConfigError(f"search: {metric} is no metric of {problem}", hint=f"allowed are: {', '.join(known)}")
    return metric


def is_loss(metric: str) -> bool:
    """Whether less of a metric is better."""
    return metric in _LOSSES


def _best(trials: list[Trial], metric: str) -> Trial:
    sign = 1 if is_loss(metric) else -1
    return min((trial for trial in trials if metric in trial.metrics and trial.same_as is None),
               key=lambda trial: (sign * trial.metrics[metric], trial.number))  # fmt: skip


def _give_up(trials: list[Trial], metric: str) -> None:
    trained = [trial for trial in trials if trial.same_as is None]
    if any(metric in trial.metrics for trial in trained):
        return
    if len(trained) >= _HOPELESS or len(trials) >= 10 * _HOPELESS:
        raise UserCodeError(f"the first {len(trained)} trials all failed: {trained[0].error}",
                            hint=f"the first one had {_shown(trained[0].values)}")  # fmt: skip


def _shown(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value:.6g}" if isinstance(value, float) else f"{name}={value}"
                     for name, value in values.items())  # fmt: skip


class _Kept:
    """The trials of a task, kept beside its result."""

    def __init__(self, context: StepContext, config: TrainConfig) -> None:
        self._store = context.store
        self._place = f"{context.request.identity.key}/trials.json"
        self._key = belongs_to(config, context.request, None)

    def read(self) -> list[Trial]:
        """Return what an earlier try has done with the same code, data and arguments."""
        document = self._store.read_json(self._place)
        if not isinstance(document, dict) or document.get("version") != _VERSION or document.get("key") != self._key:
            return []
        return [Trial(**entry) for entry in document["trials"]]

    def write(self, trials: list[Trial]) -> None:
        """Keep the trials so far."""
        entries = [asdict(trial) for trial in trials]
        self._store.write_json(self._place, {"version": _VERSION, "key": self._key, "trials": entries})


class _Study:
    """Optuna's study, in memory; each trial has a sampler of its own, seeded by its number."""

    def __init__(self, wanted: SearchConfig, metric: str) -> None:
        self._optuna = _optuna()
        self._seed = wanted.seed
        self._axes = {name: self._distribution(axis) for name, axis in wanted.space.items()}
        self._study = self._optuna.create_study(direction="minimize" if is_loss(metric) else "maximize")
        self._open: Any = None

    def _distribution(self, axis: Any) -> Any:
        kinds = self._optuna.distributions
        if isinstance(axis, list):
            return kinds.CategoricalDistribution(axis)
        low, high, step = axis["from"], axis["to"], axis.get("step")
        if all(isinstance(value, int) for value in (low, high, step or 1)):
            step = step or 1
            return kinds.IntDistribution(low, high - (high - low) % step, log=axis.get("log", False), step=step)
        if step is not None:
            high = low + step * int((high - low) / step + 1e-9)
        return kinds.FloatDistribution(float(low), float(high), log=axis.get("log", False), step=step)

    def ask(self, number: int) -> dict[str, Any]:
        """Return the arguments of the next trial."""
        words = np.random.SeedSequence([self._seed, number]).generate_state(1)
        self._study.sampler = self._optuna.samplers.TPESampler(seed=int(words[0]))
        self._open = self._study.ask(self._axes)
        return {name: self._open.params[name] for name in self._axes}

    def tell(self, trial: Trial, metric: str) -> None:
        """Take what the trial that was asked for last scored."""
        value = trial.metrics.get(metric)
        state = self._optuna.trial.TrialState
        self._study.tell(self._open, value, state=state.COMPLETE if value is not None else state.FAIL)

    def replay(self, trial: Trial, metric: str) -> None:
        """Take a trial of an earlier try."""
        value = trial.metrics.get(metric)
        state = self._optuna.trial.TrialState
        self._study.add_trial(self._optuna.trial.create_trial(
            params=trial.values, distributions=self._axes, value=value,
            state=state.COMPLETE if value is not None else state.FAIL,
        ))  # fmt: skip


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise ConfigError("search: {method: optuna} needs Optuna", hint="pip install 'edgewright[optuna]'") from None
    return optuna


class _Trainer:
    """Trains and measures trials."""

    def __init__(
        self, config: TrainConfig, context: StepContext, dataset: Dataset, problem: Problem, fit: Fit, metric: str
    ) -> None:
        assert config.search is not None
        self._config = config
        self._context = context
        self._dataset = dataset
        self._problem: Problem = problem
        self._fit = fit
        self._metric = metric
        self._whole = self._data(dataset)
        self._folds = folds_of(self._whole, config.search)

    def _data(self, dataset: Dataset, known: tuple[Any, ...] = ()) -> TrainingData:
        return TrainingData(
            dataset, self._problem, seed=self._config.seed, sink=TrackedRun(None, "", ""),
            source_folder=self._context.source_folder, known_classes=known,
        )  # fmt: skip

    def run(self, values: dict[str, Any], before: list[Trial]) -> Trial:
        """Train and measure with some arguments; those that were tried before are not tried again."""
        number = len(before)
        twin = next((trial for trial in before if trial.values == values and trial.same_as is None), None)
        if twin is not None:
            log.info("trial %d of %d has the values of trial %d", number + 1, self._wanted, twin.number + 1)
            return Trial(number, values, dict(twin.metrics), error=twin.error, same_as=twin.number)
        started = time.monotonic()
        found = Trial(number, values)
        try:
            measured = [self._measure(values, *fold) for fold in self._folds]
        except UserCodeError as error:
            found.error = error.message
        else:
            names = set.intersection(*map(set, measured))
            found.metrics = {name: float(np.mean([one[name] for one in measured])) for name in sorted(names)}
            if self._metric not in found.metrics:
                found.metrics, found.error = {}, f"{self._metric} could not be measured: the scores are no numbers"
        found.seconds = round(time.monotonic() - started, 3)
        self._tell(found, before)
        return found

    @property
    def _wanted(self) -> int:
        assert self._config.search is not None
        return self._config.search.trials

    def _tell(self, found: Trial, before: list[Trial]) -> None:
        head = f"trial {found.number + 1} of {self._wanted}: {_shown(found.values)}"
        if found.error:
            log.warning("%s: failed: %s", head, found.error)
            return
        best = _best([*before, found], self._metric)
        log.info("%s: %s %.6g in %.1f s; the best is trial %d with %.6g", head, self._metric,
                 found.metrics[self._metric], found.seconds, best.number + 1, best.metrics[self._metric])  # fmt: skip

    def _measure(self, values: dict[str, Any], train: Any, held: Any) -> dict[str, float]:
        frame = self._whole.frame
        data = self._data(_Rows(self._dataset, frame.iloc[train].reset_index(drop=True)), tuple(self._whole.classes))
        config = self._config.model_copy(update={"args": {**self._config.args, **values}})
        place = tempfile.TemporaryDirectory(prefix="edgewright-trial-")
        with place as folder, user_code(self._context.source_folder, config.code):
            found = self._fit(config, data)
            framework_of(found, config.code).save(found, Path(folder), data)
            rows = frame.iloc[held].reset_index(drop=True)
            return metrics.measure(metrics.compare(load_model(Path(folder)), rows, rows[data.label]))


def folds_of(data: TrainingData, wanted: SearchConfig) -> list[tuple[Any, Any]]:
    """Return the rows to train on and to measure on of each fold; equal rows never stand on both sides.

    Args:
        data: All rows.
        wanted: ``folds: 1`` holds a quarter back, once.

    Raises:
        DataError: there are too few rows of a class.
    """
    from pandas.util import hash_pandas_object
    from sklearn.model_selection import KFold, StratifiedKFold

    hashes = np.asarray(hash_pandas_object(data.frame, index=False))
    _, first, which = np.unique(hashes, return_index=True, return_inverse=True)
    count = wanted.folds if wanted.folds > 1 else 4
    labels = data.y.iloc[first]
    least = int(labels.value_counts().min()) if data.problem == "classification" else len(first)
    if least < count:
        what = f"a value of {data.label} has {least} different rows" if data.problem == "classification" else (
            f"there are {least} different rows")  # fmt: skip
        raise DataError(f"search: {what}, too few for {count} folds", hint="fewer folds, or more rows")
    kind = StratifiedKFold if data.problem == "classification" else KFold
    splits = list(kind(count, shuffle=True, random_state=wanted.seed % 2**32).split(first, labels))
    chosen = splits if wanted.folds > 1 else splits[:1]
    return [(np.flatnonzero(np.isin(which, a)), np.flatnonzero(np.isin(which, b))) for a, b in chosen]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep Optuna's own lines out of the log; ours say the same."""
    _optuna()  # sets the level itself when it is imported
    logger = logging.getLogger("optuna")
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(before)
