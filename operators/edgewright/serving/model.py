"""One loaded model: an onnxruntime session, what it takes, and the self-test that it passed."""

from __future__ import annotations

import datetime
import time
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from edgewright.errors import DeployRejected
from edgewright.serving.faults import RequestFault
from edgewright.serving.features import Arrays, FeatureTable
from edgewright.serving.graph_safety import check_model
from edgewright.serving.release import Golden, Release, Variant

#: How far a score may be from the published one (absolute plus relative). Floats differ in the last digits between
#: processors; 8-bit kernels round differently with and without VNNI, by a few steps of 1/256.
TOLERANCE = {"float": 1e-3, "integer": 3e-2}
WARM_UP_CALLS = 5

Scores = npt.NDArray[Any]


@dataclass
class ServedModel:
    """A model that can answer.

    Attributes:
        name: Registered name.
        version: Registered version.
        variant: Which of the release's variants.
        digest: The release's digest.
        document: The variant's description.
        table: Its columns.
        session: onnxruntime's session.
        since: When it was loaded, ISO time in UTC.
        self_test: What the self-test found.
        seconds: Time of one call with one row.
    """

    name: str
    version: str
    variant: str
    digest: str
    document: Variant
    table: FeatureTable
    session: Any
    since: str = ""
    loaded_at: float = 0.0
    self_test: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    example: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        classification = self.document.problem == "classification"
        self._outputs = ["label", "probabilities"] if classification else ["prediction"]

    @property
    def label(self) -> dict[str, str]:
        """The three words that say which model answered."""
        return {"name": self.name, "version": self.version, "variant": self.variant}

    def run(self, arrays: Arrays) -> tuple[list[Any], Scores]:
        """Return the predictions (label values or numbers) and the scores ``[rows, classes]`` or ``[rows, 1]``."""
        found = self.session.run(self._outputs, arrays)
        if len(found) == 1:
            return found[0].reshape(-1).tolist(), found[0]
        classes = self.document.classes
        return [classes[index] for index in found[0].tolist()], found[1]

    def describe(self) -> dict[str, Any]:
        """Return what people and the deploy step want to know."""
        return {
            **self.label,
            "digest": self.digest,
            "problem": self.document.problem,
            "label": self.document.label,
            "classes": self.document.classes,
            "features": self.table.names,
            "since": self.since,
            "self_test": self.self_test,
            "latency_ms": round(self.seconds * 1e3, 4),
        }


def load_model(release: Release, name: str, version: str) -> ServedModel:
    """Open a verified release's variant, warm it up and test it on its golden rows.

    Raises:
        DeployRejected: it is not safe, does not fit its description, or does not answer as it did when published.
    """
    if release.manifest.name != name:
        raise DeployRejected(f"the release is of the model {release.manifest.name}, not {name}")
    check_model(release.model)
    session = open_session(release.model)
    table = FeatureTable(release.variant.features)
    check_signature(session, release.variant, table)
    now = time.time()
    model = ServedModel(
        name=name,
        version=version,
        variant=release.variant.target,
        digest=release.manifest.digest,
        document=release.variant,
        table=table,
        session=session,
        since=datetime.datetime.fromtimestamp(now, datetime.UTC).isoformat(timespec="seconds"),
        loaded_at=now,
    )
    model.self_test = self_test(model, release.golden)
    model.example = dict(release.golden.inputs[0])
    model.seconds = warm_up(model)
    return model


def open_session(data: bytes) -> Any:
    """Return an onnxruntime session on one thread.

    Raises:
        DeployRejected: onnxruntime cannot load the model.
    """
    import onnxruntime  # only a process that serves pays for it

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    # spinning threads burn a core between calls
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no common class
        raise DeployRejected(f"onnxruntime cannot load the model: {error}") from error


def check_signature(session: Any, document: Variant, table: FeatureTable) -> None:
    """Compare the model's inputs and outputs with its description.

    Raises:
        DeployRejected: they do not fit.
    """
    inputs = {item.name: item.type for item in session.get_inputs()}
    if table.numeric:
        expected = {"X": "tensor(float)"}
    else:
        expected = {f.name: "tensor(float)" if f.numeric else "tensor(string)" for f in table.features}
    if inputs != expected:
        raise DeployRejected(f"the model's inputs are {inputs}, its features need {expected}")
    needed = {"label", "probabilities"} if document.problem == "classification" else {"prediction"}
    outputs = {item.name for item in session.get_outputs()}
    if not needed <= outputs:
        raise DeployRejected(f"the model's outputs are {', '.join(sorted(outputs))}; needed: {', '.join(needed)}")


def self_test(model: ServedModel, golden: Golden) -> dict[str, Any]:
    """Compare the model's scores on the golden rows with those that were published.

    Raises:
        DeployRejected: there are none for this variant, or a score differs by more than the tolerance.
    """
    published = golden.outputs.get(model.variant)
    if not golden.inputs or not published:
        raise DeployRejected(f"golden.json has no rows for the variant {model.variant}, so nothing can be tested")
    try:
        scores = model.run(golden_arrays(model, golden.inputs))[1].astype(np.float64)
    except RequestFault as error:
        raise DeployRejected(f"self-test failed: the golden rows do not fit the model: {error.message}") from error
    except Exception as error:  # onnxruntime's errors have no common class; a class index may be out of range
        raise DeployRejected(f"self-test failed: the model cannot answer: {error}") from error
    try:
        expected = np.array(published, dtype=np.float64)
    except (ValueError, TypeError) as error:
        raise DeployRejected(f"golden.json has no usable scores for the variant {model.variant}") from error
    if scores.shape != expected.shape:
        raise DeployRejected(f"self-test failed: scores of shape {scores.shape}, published were {expected.shape}")
    tolerance = TOLERANCE["integer" if "int8" in model.variant else "float"]
    off = np.abs(scores - expected) / (1.0 + np.abs(expected))
    worst = float(np.max(np.where(np.isfinite(off), off, np.inf)))
    if not worst <= tolerance:
        row = int(np.argmax(np.where(np.isfinite(off), off, np.inf).max(axis=1)))
        raise DeployRejected(
            f"self-test failed: row {row} scores {_short(scores[row])}, published was {_short(expected[row])} "
            f"(off by {worst:.3g}, allowed {tolerance:g})",
            hint="the files are those that were published, so the runtime or the processor answers differently",
        )
    return {"rows": len(golden.inputs), "largest_difference": float(f"{worst:.3g}"), "tolerance": tolerance}


def golden_arrays(model: ServedModel, inputs: list[dict[str, Any]]) -> Arrays:
    """Return the golden rows as arrays; a held-out row may miss a value that no training row missed."""
    table = FeatureTable([msgspec.structs.replace(feature, missing=True) for feature in model.table.features])
    return table.arrays(table.rows_of(inputs))[0]


def _short(values: npt.NDArray[np.float64]) -> str:
    return "[" + ", ".join(f"{value:.6g}" for value in values[:8]) + "]"


def warm_up(model: ServedModel) -> float:
    """Return the median seconds of a call with one row, after the first calls have filled caches and arenas."""
    arrays = golden_arrays(model, [model.example])
    times = []
    for _ in range(WARM_UP_CALLS):
        start = time.perf_counter()
        model.run(arrays)
        times.append(time.perf_counter() - start)
    return sorted(times)[len(times) // 2]
