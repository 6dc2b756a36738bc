"""Which model scores, and by which engine: found once a job, measured on a sample, and written down.

Whoever goes on with a job later uses the engine that was written down: two engines differ in the last digits, and the
parts of one output must not.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from edgewright.errors import ConfigError, DataError, NotFound, UserFault
from edgewright.steps.models import LoadedModel, ModelDocument, OnnxModel, load_model, read_document, write_model

if TYPE_CHECKING:
    from edgewright.spec.steps.score import ScoreConfig
    from edgewright.steps.context import StepContext

BATCHES = (4_096, 65_536)
#: Fewer rows than this cost less than finding out what is faster.
WORTH_MEASURING = 2_000
#: Two engines that differ more than this on the sample are not the same model.
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Candidates:
    """A model in the forms in which it can be asked.

    Attributes:
        name: For people and for the output: ``bracelet/3``, or the beginning of an artifact's digest.
        digest: Digest of release or artifact.
        folders: Model folders by engine (``onnx``, ``native``).
    """

    name: str
    digest: str
    folders: dict[str, Path]

    def document(self) -> ModelDocument:
        """Return the model's document (they agree in features and classes)."""
        return read_document(next(iter(self.folders.values())))


@dataclass(frozen=True)
class Engine:
    """How the model is asked.

    Attributes:
        name: ``onnx`` or ``native``.
        batch: Rows at once.
        rows: Rows of the sample; 0: nothing was measured.
        measured: Microseconds a row by engine and batch.
        difference: Largest difference between the engines' scores on the sample.
        note: Why it was chosen.
    """

    name: str
    batch: int
    rows: int = 0
    measured: list[dict[str, Any]] = field(default_factory=list)
    difference: float = 0.0
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return it as it is written down."""
        return asdict(self)


def candidates(config: ScoreConfig, context: StepContext) -> Candidates:
    """Find the model, in every form that may be loaded here.

    Raises:
        NotFound: there is no such registered model.
        ConfigError: the engine that was asked for cannot load it.
    """
    found = _of_artifact(config, context) if config.model is not None else _of_registry(config, context)
    if config.engine != "auto":
        if config.engine not in found.folders:
            raise ConfigError(
                f"the model {found.name} has no form for the engine {config.engine}",
                where="engine",
                hint=_HINTS[config.engine],
            )
        return Candidates(found.name, found.digest, {config.engine: found.folders[config.engine]})
    return found


_HINTS = {
    "onnx": "publish an ONNX variant (quantize with target: onnx), or let engine: auto choose",
    "native": "a registered model needs a variant for sklearn and allow_pickle: true",
}


def _of_artifact(config: ScoreConfig, context: StepContext) -> Candidates:
    assert config.model is not None
    folder = context.fetch(config.model)
    document = read_document(folder)
    name = config.model.sha256[:12]
    if document.format == "onnx":
        return Candidates(name, config.model.sha256, {"onnx": folder})
    folders = {"native": folder}
    exported = _export(folder, document, context) if document.format == "pickle" and config.engine != "native" else None
    return Candidates(name, config.model.sha256, {**folders, **({"onnx": exported} if exported else {})})


def _export(folder: Path, document: ModelDocument, context: StepContext) -> Path | None:
    """Return the model as ONNX, or ``None`` where it has no such form."""
    from edgewright.targets.export import export_sklearn

    model: Any = load_model(folder)
    features = [(feature.name, feature.type) for feature in document.features]
    try:
        exported = export_sklearn(model.estimator, features, problem=document.problem, classes=len(document.classes))
    except UserFault as error:
        context.note("no ONNX form: %s", error.message)
        return None
    target = context.folder("onnx")
    update = {"format": "onnx", "target": "onnx", "file": "model.onnx"}
    write_model(target, exported.SerializeToString(deterministic=True), document.model_copy(update=update))
    return target


def _of_registry(config: ScoreConfig, context: StepContext) -> Candidates:
    from edgewright.registry import Registry

    assert config.registered is not None
    registry = Registry(context.request.tracking_uri)
    name, slash, number = config.registered.partition("/")
    name, _, alias = name.partition("@")
    found = registry.version(name, number) if slash else registry.champion(name, alias or "champion")
    if found is None:
        raise NotFound(f"the model {name} has no {alias or 'champion'}", hint=f"name a version: {name}/1")
    release = registry.download(found, context.folder("release"))
    manifest = json.loads((release / "manifest.json").read_text())
    shown = f"{found.name}/{found.version}"
    variants = release / "variants"
    wanted = [config.variant] if config.variant else ["onnx", manifest.get("default_variant"), "onnx-int8"]
    folders: dict[str, Path] = {}
    for variant in wanted:
        if variant and (variants / variant / "model.onnx").is_file():
            folders["onnx"] = variants / variant
            break
    if config.allow_pickle and (variants / "sklearn" / "model.json").is_file():
        folders["native"] = variants / "sklearn"
    if not folders:
        there = ", ".join(sorted(path.name for path in variants.iterdir())) if variants.is_dir() else "none"
        raise DataError(f"{shown} has no variant that runs here; it has: {there}", hint=_HINTS["onnx"])
    return Candidates(shown, found.digest or shown, folders)


# -- asking ----------------------------------------------------------------------------------------------------------


class Scorer:
    """A loaded model that is asked in batches.

    Args:
        model: What :func:`~edgewright.steps.models.load_model` returned.
        batch: Rows at once.
    """

    def __init__(self, model: LoadedModel, batch: int) -> None:
        self.model = model
        self.document = model.document
        self.batch = batch

    @property
    def plain(self) -> bool:
        """Whether numbers go into ONNX Runtime as they are, without a frame of pandas."""
        return isinstance(self.model, OnnxModel) and self.document.numeric

    @property
    def number(self) -> pa.DataType:
        """The Arrow type that numbers are read as."""
        return pa.float32() if isinstance(self.model, OnnxModel) else pa.float64()

    def scores(self, table: pa.Table) -> np.ndarray[Any, Any]:
        """Return class probabilities ``[rows, classes]`` or predictions ``[rows, 1]``."""
        if not table.num_rows:
            return np.empty((0, max(1, len(self.document.classes))))
        if isinstance(self.model, OnnxModel) and self.plain:
            array = self._matrix(table)
            parts = [self.model.run({"X": array[at : at + self.batch]}) for at in range(0, len(array), self.batch)]
        else:
            frame = table.select(self.document.feature_names).to_pandas()
            parts = [self.model.scores(frame.iloc[at : at + self.batch]) for at in range(0, len(frame), self.batch)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _matrix(self, table: pa.Table) -> np.ndarray[Any, Any]:
        array = np.empty((table.num_rows, len(self.document.features)), dtype=np.float32)
        for index, name in enumerate(self.document.feature_names):
            array[:, index] = table.column(name).to_numpy()
        return array


def choose(found: Candidates, samples: dict[str, pa.Table]) -> Engine:
    """Measure every candidate on the sample and return the quickest.

    Args:
        found: The candidates.
        samples: By engine: some of the rows, with numbers of that engine's type.

    Raises:
        DataError: the engines' answers differ.
    """
    names = list(found.folders)
    first = "native" if "native" in found.folders else names[0]
    rows = min((table.num_rows for table in samples.values()), default=0)
    if rows < WORTH_MEASURING:
        return Engine(first, BATCHES[0], rows, note="too few rows to be worth measuring")
    measured: list[dict[str, Any]] = []
    answers = []
    for name in names:
        model = load_model(found.folders[name])
        for batch in BATCHES:
            seconds, scores = _time(Scorer(model, batch), samples[name])
            measured.append({"engine": name, "batch": batch, "us_per_row": round(1e6 * seconds / rows, 4)})
        answers.append(scores)
    difference = max(
        (float(np.nanmax(np.abs(answers[0] - other) / (1 + np.abs(answers[0])))) for other in answers[1:]), default=0.0
    )
    if difference > TOLERANCE:
        return Engine("native", BATCHES[-1], rows, measured, difference, "the ONNX form answers differently")
    best = min(measured, key=lambda entry: float(entry["us_per_row"]))
    return Engine(best["engine"], best["batch"], rows, measured, difference, "quickest on the sample")


def _time(scorer: Scorer, table: pa.Table, tries: Sequence[int] = (0, 1)) -> tuple[float, np.ndarray[Any, Any]]:
    """Return the CPU seconds of the best of some tries (others share the machine), and the scores."""
    scorer.scores(table.slice(0, 256))
    best = float("inf")
    for _ in tries:
        started = time.process_time()
        scores = scorer.scores(table)
        best = min(best, time.process_time() - started)
    return best, scores
