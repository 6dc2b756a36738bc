"""Model artifacts: a folder with ``model.json`` and one model file, written and read here only."""

from __future__ import annotations

import contextlib
import json
import pickle
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgewright.artifacts import sha256_bytes
from edgewright.errors import DamagedArtifact, DataError, UserFault
from edgewright.steps.environment import version_of

if TYPE_CHECKING:
    import pandas as pd

    from edgewright.steps.training_data import TrainingData

DOCUMENT = "model.json"
CODE = "code"
#: A quantization-aware trained model with the bits of each number, beside the one that runs anywhere.
QONNX = "model.qonnx"
NUMERIC = ("integer", "number", "boolean")

Problem = Literal["classification", "regression"]


class Feature(BaseModel):
    """A column that a model takes.

    Attributes:
        name: Its name in the dataset.
        type: ``integer``, ``number``, ``boolean``, ``string``, ``timestamp`` or ``date``.
        minimum: Smallest value in the part ``train`` (numbers only).
        maximum: Largest value in the part ``train`` (numbers only).
        missing: Whether values were missing in the part ``train``.
    """

    name: str
    type: str
    minimum: float | None = None
    maximum: float | None = None
    missing: bool = False


class ModelDocument(BaseModel):
    """``model.json``. Equal models have equal documents: no times, no run identifiers, no measured speed.

    Attributes:
        format: How the file is to be read: ``pickle``, ``onnx``, or what its target says.
        target: What it was compiled for; ``sklearn`` for an estimator as it was trained.
        file: Name of the model file.
        sha256: Its digest.
        classes: The label's values; column ``i`` of the scores belongs to ``classes[i]``.
        features: Columns, in the order that the model takes them.
        metrics: What was measured on held-out rows (quality and size).
        libraries: Versions of what made it.
        verified: How it was proven that the file works, and on which rows.
        details: Facts of the compiler.
    """

    model_config = ConfigDict(extra="allow")

    version: Literal[1] = 1
    format: str
    target: str
    file: str
    sha256: str = ""
    problem: Problem
    label: str
    classes: list[Any] = Field(default_factory=list)
    features: list[Feature]
    metrics: dict[str, float] = Field(default_factory=dict)
    libraries: dict[str, str] = Field(default_factory=dict)
    verified: dict[str, Any] = Field(default_factory=dict)
    details: dict[str, Any] = Field(default_factory=dict)

    @property
    def feature_names(self) -> list[str]:
        """Names of the columns, in order."""
        return [feature.name for feature in self.features]

    @property
    def numeric(self) -> bool:
        """Whether all features are numbers, so that an ONNX model takes one input ``X``."""
        return all(feature.type in NUMERIC for feature in self.features)


class LoadedModel(Protocol):
    """A model that can be asked, whatever its format."""

    document: ModelDocument

    def scores(self, frame: pd.DataFrame) -> np.ndarray[Any, Any]:
        """Return class probabilities ``[rows, classes]`` or predictions ``[rows, 1]`` for rows of a frame."""
        ...


def write_model(folder: Path, data: bytes, document: ModelDocument) -> ModelDocument:
    """Write the model file and ``model.json``; return the document with its digest."""
    document = document.model_copy(update={"sha256": sha256_bytes(data)})
    (folder / document.file).write_bytes(data)
    text = json.dumps(document.model_dump(mode="json"), indent=1, sort_keys=True, ensure_ascii=False)
    (folder / DOCUMENT).write_text(text + "\n", encoding="utf-8")
    return document


def read_document(folder: Path) -> ModelDocument:
    """Return a model folder's document.

    Raises:
        DamagedArtifact: there is none, or it cannot be read.
    """
    try:
        return ModelDocument.model_validate_json((folder / DOCUMENT).read_bytes())
    except FileNotFoundError as error:
        raise DamagedArtifact(f"not a model: {DOCUMENT} is missing", where=str(folder)) from error
    except ValidationError as error:
        raise DamagedArtifact(f"{DOCUMENT} cannot be read: {error}", where=str(folder)) from error


def load_model(folder: Path, *, threads: int = 1) -> LoadedModel:
    """Load a model folder.

    Args:
        folder: What the artifact store's ``fetch`` returned, or a variant's folder of a release.
        threads: Threads of the ONNX runtime; one is fastest for single rows.

    Raises:
        DamagedArtifact: the file does not match the digest in ``model.json``.
        UserFault: the model cannot be loaded here.
    """
    document = read_document(folder)
    data = (folder / document.file).read_bytes()
    if sha256_bytes(data) != document.sha256:
        raise DamagedArtifact(f"{document.file} does not match the sha256 in {DOCUMENT}", where=str(folder))
    if document.format == "onnx":
        return OnnxModel(data, document, threads=threads)
    if document.format != "pickle":
        raise UserFault(f"a model in the format {document.format} does not load in this process")
    return PickledModel(data, document, folder)


class PickledModel:
    """A scikit-learn estimator.

    Loading a pickle runs what is in it. It is done only for artifacts of this installation's own store, whose digest
    the store has compared before (``fetch``) and :func:`load_model` compares again: whoever could put code into the
    pickle could as well change the user's own training code, which runs in the same process. A pickle is never taken
    from a release that somebody else may have registered, and never by the prediction service.
    """

    def __init__(self, data: bytes, document: ModelDocument, folder: Path) -> None:
        self.document = document
        self._code = folder / CODE
        with self._own_code():
            try:
                self.estimator: Any = pickle.loads(data)  # noqa: S301 (see the class's docstring)
            except (ImportError, AttributeError) as error:
                raise UserFault(
                    f"the model cannot be loaded: {error}",
                    hint="it was trained where other libraries were installed; train it again here",
                ) from error

    @contextlib.contextmanager
    def _own_code(self) -> Iterator[None]:
        if self._code.is_dir():
            from edgewright.steps.code import importable

            with importable(self._code):
                yield
        else:
            yield

    def scores(self, frame: pd.DataFrame) -> np.ndarray[Any, Any]:
        """Return class probabilities ``[rows, classes]`` or predictions ``[rows, 1]``."""
        columns = select(frame, self.document)
        values = columns if hasattr(self.estimator, "feature_names_in_") else columns.to_numpy()
        with self._own_code():
            if self.document.problem == "classification":
                return np.asarray(self.estimator.predict_proba(values), dtype=np.float64)
            return np.asarray(self.estimator.predict(values), dtype=np.float64).reshape(len(frame), 1)


class OnnxModel:
    """An ONNX graph in onnxruntime, with as many threads as asked for and without spinning."""

    def __init__(self, data: bytes, document: ModelDocument, *, threads: int = 1) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Spinning threads burn a core between calls, which neighbours on the same machine pay for.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        self.data = data
        self.document = document
        try:
            self.session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own errors have no common class
            raise UserFault(f"onnxruntime cannot load the model: {error}") from error
        self._output = "probabilities" if document.problem == "classification" else "prediction"

    def scores(self, frame: pd.DataFrame) -> np.ndarray[Any, Any]:
        """Return class probabilities ``[rows, classes]`` or predictions ``[rows, 1]``."""
        return self.run(feed(frame, self.document))

    def run(self, arrays: dict[str, np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
        """Return the scores of prepared input arrays."""
        (found,) = self.session.run([self._output], arrays)
        return np.asarray(found, dtype=np.float64)


def select(frame: pd.DataFrame, document: ModelDocument) -> pd.DataFrame:
    """Return a model's columns of a frame, in its order.

    Raises:
        DataError: columns are missing, named all at once.
    """
    absent = [name for name in document.feature_names if name not in frame.columns]
    if absent:
        raise DataError(
            f"the data have no {', '.join(absent)}, which the model needs",
            hint=f"they have: {', '.join(map(str, frame.columns))}",
        )
    return frame[document.feature_names]


def feed(frame: pd.DataFrame, document: ModelDocument) -> dict[str, np.ndarray[Any, Any]]:
    """Return the input arrays of an ONNX model for rows of a frame.

    One array ``X`` (float32 ``[rows, features]``, missing values are NaN) where all features are numbers; else one
    ``[rows, 1]`` array a feature, text as objects with missing values as ``""``.

    Raises:
        DataError: a column is missing, or holds text where the model takes numbers.
    """
    columns = select(frame, document)
    if document.numeric:
        array = np.empty((len(columns), len(document.features)), dtype=np.float32)
        for index, name in enumerate(document.feature_names):
            array[:, index] = numbers(columns[name])
        return {"X": array}
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    for feature in document.features:
        column = columns[feature.name]
        if feature.type in NUMERIC:
            arrays[feature.name] = numbers(column).reshape(-1, 1)
        else:
            text = column.astype(object)
            arrays[feature.name] = np.where(text.isna(), "", text.astype(str)).astype(object).reshape(-1, 1)
    return arrays


def numbers(column: pd.Series[Any]) -> np.ndarray[Any, Any]:
    """Return a column as float32, missing values as NaN.

    Raises:
        DataError: it holds something that is no number.
    """
    try:
        found: np.ndarray[Any, Any] = column.to_numpy(dtype=np.float32, na_value=np.nan)
    except (TypeError, ValueError) as error:
        raise DataError(f"column {column.name} holds values that are no numbers: {error}") from error
    return found


def onnx_document(data: TrainingData, libraries: Sequence[str]) -> ModelDocument:
    """Return the document of an ONNX model that was trained on some data.

    Args:
        data: What it was trained on: problem, label, classes and columns.
        libraries: Distributions that made it, whose versions are noted.
    """
    return ModelDocument(
        format="onnx", target="onnx", file="model.onnx", problem=data.problem, label=data.label, classes=data.classes,
        features=describe_features(data.frame, data.feature_types, data.features),
        libraries={name: version_of(name) for name in libraries},
    )  # fmt: skip


def describe_features(frame: pd.DataFrame, types: dict[str, str], names: Sequence[str]) -> list[Feature]:
    """Return the columns as a model's document keeps them, with the ranges of some rows (the part ``train``)."""
    found = []
    for name in names:
        column, kind = frame[name], types[name]
        low = high = None
        if kind in NUMERIC and column.notna().any():
            known = column.dropna()
            low, high = float(known.min()), float(known.max())
        found.append(Feature(name=name, type=kind, minimum=low, maximum=high, missing=bool(column.isna().any())))
    return found


def plain(value: Any) -> Any:
    """Return a class label as JSON has it: numpy's own numbers become Python's."""
    return value.item() if isinstance(value, np.generic) else value
