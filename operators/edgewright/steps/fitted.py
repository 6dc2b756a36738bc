"""State that ``transform`` fits on ``train``: kept as an artifact, loaded again, and applied if it is scikit-learn's.

The artifact is a folder with ``state.json``::

    {"version": 1, "kind": "sklearn" | "json" | "pickle", "file": "state.pkl", "sha256": "...",
     "fit": "prepare.py:fit", "entry": "prepare.py:apply", "inputs": [...], "outputs": [...], "passthrough": [...],
     "libraries": {"scikit-learn": "1.9.1"}}

State that JSON can say stands under ``value`` and has no file. A pickle is read only from this installation's own
store, after its digest was compared; ``code/`` holds the modules of the pipeline's folder that it names.
"""

from __future__ import annotations

import contextlib
import json
import pickle
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgewright.artifacts import sha256_bytes
from edgewright.errors import DamagedArtifact, UserCodeError, UserFault
from edgewright.steps.code import importable
from edgewright.steps.environment import version_of

if TYPE_CHECKING:
    import pandas as pd

DOCUMENT = "state.json"
FILE = "state.pkl"


def is_sklearn(state: Any) -> bool:
    """Return whether a state is a scikit-learn transformer."""
    base = sys.modules.get("sklearn.base")
    return base is not None and isinstance(state, base.BaseEstimator) and hasattr(state, "transform")


def write_state(folder: Path, state: Any, facts: dict[str, Any], source: Path, kind: str | None = None) -> None:
    """Write a state's folder.

    Args:
        folder: Empty folder.
        state: What ``fit`` returned.
        facts: What else ``state.json`` says.
        source: The pipeline's folder; modules of it that a pickle names are kept with it.
        kind: ``sklearn``, or ``None`` for any other state.

    Raises:
        UserCodeError: the state can be neither JSON nor a pickle.
    """
    document: dict[str, Any] = {"version": 1, **facts}
    if kind is None and _is_json(state):
        document |= {"kind": "json", "value": state}
    else:
        from edgewright.steps.frameworks import keep_code, pickle_bytes

        data = pickle_bytes(state)
        keep_code(data, source, folder)
        (folder / FILE).write_bytes(data)
        document |= {"kind": kind or "pickle", "file": FILE, "sha256": sha256_bytes(data)}
    (folder / DOCUMENT).write_text(json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


def _is_json(state: Any) -> bool:
    """Whether JSON gives the same state back, so that anybody can read it."""
    try:
        return bool(json.loads(json.dumps(state, allow_nan=False)) == state) and type(state) in (dict, list, str)
    except (TypeError, ValueError, RecursionError):
        return False


def read_state(folder: Path) -> tuple[Any, dict[str, Any]]:
    """Return a state and its document.

    Raises:
        DamagedArtifact: the folder holds no state, or its file does not match its digest.
        UserFault: the state cannot be loaded where other libraries are installed.
    """
    try:
        document: dict[str, Any] = json.loads((folder / DOCUMENT).read_text())
        data = (folder / document["file"]).read_bytes() if "file" in document else b""
    except (OSError, ValueError, KeyError) as error:
        raise DamagedArtifact("this is no state of a transform", where=str(folder)) from error
    if document["kind"] == "json":
        return document["value"], document
    if sha256_bytes(data) != document["sha256"]:
        raise DamagedArtifact(f"{document['file']} does not match the sha256 in {DOCUMENT}", where=str(folder))
    code = folder / "code"
    with importable(code) if code.is_dir() else contextlib.nullcontext():
        try:
            return pickle.loads(data), document  # noqa: S301 (our own store, digest compared)
        except (ImportError, AttributeError) as error:
            hint = "it was fitted where other libraries were installed; run the transform again here"
            raise UserFault(f"the state cannot be loaded: {error}", hint=hint) from error


def libraries_of(kind: str | None) -> dict[str, str]:
    """Return the versions that a state's file depends on."""
    return {name: version_of(name) for name in ("scikit-learn", "numpy", "scipy")} if kind == "sklearn" else {}


@dataclass(frozen=True)
class SklearnTransform:
    """A fitted transformer and the columns that it takes.

    Attributes:
        transformer: The fitted transformer.
        inputs: Features that it takes, in its order.
        passthrough: Features that it does not take; they stay as they are, behind its own.
        entry: The function that fitted it, for messages.
    """

    transformer: Any
    inputs: list[str]
    passthrough: list[str]
    entry: str

    @classmethod
    def of(cls, transformer: Any, features: list[str], label: str | None, entry: str) -> SklearnTransform:
        """Find the columns that a transformer was fitted on.

        Raises:
            UserCodeError: it is not fitted, was fitted on the label, or on columns that are not there.
        """
        from sklearn.exceptions import NotFittedError
        from sklearn.utils.validation import check_is_fitted

        kind = type(transformer).__name__
        try:
            check_is_fitted(transformer)
        except NotFittedError as error:
            raise UserCodeError(f"{entry} returned a {kind} that is not fitted", hint="call its fit first") from error
        names = getattr(transformer, "feature_names_in_", None)
        if names is None:
            names = features
            width = getattr(transformer, "n_features_in_", len(features))
            if width != len(features):
                raise UserCodeError(
                    f"{entry} returned a {kind} that takes {width} columns without names; there are {len(features)}",
                    hint="fit it on columns of the frame (a DataFrame), so that it knows their names",
                )
        inputs = [str(name) for name in names]
        if label in inputs:
            raise UserCodeError(
                f"{entry} fitted the {kind} on the label {label} too",
                hint=f"fit it on train.drop(columns={label!r}): at serving there is no label",
            )
        unknown = [name for name in inputs if name not in features]
        if unknown:
            raise UserCodeError(
                f"{entry} fitted the {kind} on {', '.join(unknown)}, which the dataset does not have",
                hint="make new columns in a transform of their own before",
            )
        return cls(transformer, inputs, [name for name in features if name not in inputs], entry)

    def apply(self, frame: pd.DataFrame, label: str | None) -> pd.DataFrame:
        """Return the transformer's columns, then those that it does not take, then the label.

        Raises:
            UserCodeError: the transformer fails, changes the number of rows, or its columns cannot be named.
        """
        import pandas as pd

        inputs = frame[self.inputs]
        taken = inputs if hasattr(self.transformer, "feature_names_in_") else inputs.to_numpy()
        found = self.transformer.transform(taken)
        if not isinstance(found, pd.DataFrame):
            found = self._frame(found)
        if len(found) != len(frame):
            raise UserCodeError(
                f"{self._kind} made {len(found)} rows of {len(frame)}", hint="a transformer keeps the rows as they are"
            )
        found.index = frame.index
        rest = [*self.passthrough, *([label] if label else [])]
        both = sorted(set(map(str, found.columns)) & set(rest))
        if both:
            raise UserCodeError(
                f"{self._kind} makes columns that are there already: {', '.join(both)}",
                hint="ColumnTransformer with verbose_feature_names_out gives them names of their own",
            )
        return pd.concat([found, frame[rest]], axis=1)

    @property
    def _kind(self) -> str:
        return f"the {type(self.transformer).__name__} of {self.entry}"

    def _frame(self, values: Any) -> pd.DataFrame:
        import pandas as pd

        array = values.toarray() if hasattr(values, "toarray") else values
        if getattr(array, "ndim", 0) != 2:
            raise UserCodeError(f"{self._kind} gives no table", hint="its transform returns [rows, columns]")
        try:
            names = [str(name) for name in self.transformer.get_feature_names_out()]
        except (AttributeError, ValueError, TypeError) as error:
            if array.shape[1] != len(self.inputs):
                raise UserCodeError(
                    f"{self._kind} cannot name its {array.shape[1]} columns: {error}",
                    hint="give it get_feature_names_out, or return a DataFrame from transform",
                ) from error
            names = self.inputs
        frame = pd.DataFrame(array, columns=names)
        return frame.infer_objects() if array.dtype == object else frame
