"""What a training function may return: one handler a framework. A new framework is one more class in ``FRAMEWORKS``."""

from __future__ import annotations

import pickle
import pickletools
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from edgewright.errors import UserCodeError
from edgewright.steps.environment import version_of
from edgewright.steps.frameworks_qonnx import Qonnx
from edgewright.steps.frameworks_torch import Torch
from edgewright.steps.models import (
    CODE,
    ModelDocument,
    OnnxModel,
    Problem,
    describe_features,
    feed,
    onnx_document,
    plain,
    write_model,
)

if TYPE_CHECKING:
    from edgewright.steps.training_data import TrainingData


class Framework(Protocol):
    """How the models of one framework are recognised and kept."""

    name: str
    takes: str

    def accepts(self, found: Any) -> bool:
        """Return whether an object that a training function returned belongs to this framework."""
        ...

    def save(self, found: Any, folder: Path, data: TrainingData) -> ModelDocument:
        """Check the model and write its folder.

        Raises:
            UserCodeError: the model is not usable (not fitted, of the wrong kind, trained on other columns).
        """
        ...


class ScikitLearn:
    """Fitted estimators; kept as a pickle, exported to ONNX by ``quantize``."""

    name = "scikit-learn"
    takes = "a fitted scikit-learn classifier or regressor (pipelines included)"

    def accepts(self, found: Any) -> bool:
        """Whether it is an estimator instance."""
        sklearn = sys.modules.get("sklearn.base")
        return sklearn is not None and isinstance(found, sklearn.BaseEstimator)

    def save(self, found: Any, folder: Path, data: TrainingData) -> ModelDocument:
        """Pickle the estimator, together with the modules of the pipeline's folder that the pickle names."""
        check_estimator(found, data)
        names = _feature_names(found, data)
        classes = [plain(value) for value in found.classes_] if data.problem == "classification" else []
        pickled = pickle_bytes(found)
        keep_code(pickled, data.source_folder, folder)
        document = ModelDocument(
            format="pickle",
            target="sklearn",
            file="estimator.pkl",
            problem=data.problem,
            label=data.label,
            classes=classes,
            features=describe_features(data.frame, data.feature_types, names),
            libraries={name: version_of(name) for name in ("scikit-learn", "numpy", "scipy")},
            details={"estimator": _describe(found)},
        )
        return write_model(folder, pickled, document)


def check_estimator(found: Any, data: TrainingData) -> None:
    """Refuse an estimator that is not fitted or is of the wrong kind.

    Raises:
        UserCodeError: says what to return instead.
    """
    _check_fitted(found)
    _check_kind(found, data.problem)


def _describe(estimator: Any) -> str:
    steps = getattr(estimator, "steps", None)
    parts = [part for _, part in steps] if steps else [estimator]
    return " + ".join(type(part).__name__ for part in parts)


def pickle_bytes(estimator: Any) -> bytes:
    """Return an object's pickle, or say why it has none."""
    try:
        return pickle.dumps(estimator, protocol=5)
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise UserCodeError(
            f"the returned {type(estimator).__name__} cannot be kept: {error}",
            hint="use functions and classes of a module's top level in it, no lambda and no open file",
        ) from error


def _check_fitted(estimator: Any) -> None:
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    try:
        check_is_fitted(estimator)
    except NotFittedError as error:
        raise UserCodeError(
            f"the returned {type(estimator).__name__} is not fitted", hint="call its fit before you return it"
        ) from error
    except TypeError as error:
        raise UserCodeError(
            f"the returned {type(estimator).__name__} is a class or has no fit", hint="return a fitted instance"
        ) from error


def _check_kind(estimator: Any, problem: Problem) -> None:
    from sklearn.base import is_classifier, is_regressor

    kind = type(estimator).__name__
    fits = is_classifier(estimator) if problem == "classification" else is_regressor(estimator)
    if not fits:
        raise UserCodeError(
            f"the returned {kind} is no {'classifier' if problem == 'classification' else 'regressor'}, "
            f"but the problem is {problem}",
            hint="return another estimator, or say problem: in the task's with:",
        )
    if problem == "classification" and not hasattr(estimator, "predict_proba"):
        raise UserCodeError(
            f"the returned {kind} gives no probabilities (no predict_proba)",
            hint="wrap it: CalibratedClassifierCV(estimator).fit(data.X, data.y)",
        )


def _feature_names(estimator: Any, data: TrainingData) -> list[str]:
    """Return the columns that an estimator takes, in its order; it may use fewer than there are."""
    names = getattr(estimator, "feature_names_in_", None)
    if names is None:
        width = getattr(estimator, "n_features_in_", len(data.features))
        if width != len(data.features):
            raise UserCodeError(
                f"the returned model takes {width} columns without names, the data have {len(data.features)}",
                hint="fit it on columns of data.X (a DataFrame), so that it knows their names",
            )
        return list(data.features)
    if data.label in names:
        raise UserCodeError(
            f"the returned model was fitted on the label {data.label} itself", hint="fit it on data.X, not data.frame"
        )
    unknown = [str(name) for name in names if name not in data.features]
    if unknown:
        raise UserCodeError(
            f"the returned model takes {', '.join(unknown)}, which the dataset does not have",
            hint="make new columns in a transform step, or inside the model by a ColumnTransformer",
        )
    return [str(name) for name in names]


def keep_code(pickled: bytes, source: Path | None, folder: Path) -> None:
    """Copy the user's modules that a pickle names, so that the model loads wherever its folder is.

    They also become part of the model's digest: another version of such a class is another model.
    """
    if source is None:
        return
    tops = {name.split(".")[0] for name in _modules(pickled)}
    for top in sorted(tops):
        module, package = source / f"{top}.py", source / top
        if module.is_file():
            (folder / CODE).mkdir(exist_ok=True)
            # a module of the user may import its neighbours, so all of them come along
            for neighbour in sorted(source.glob("*.py")):
                shutil.copyfile(neighbour, folder / CODE / neighbour.name)
        elif (package / "__init__.py").is_file():
            ignore = shutil.ignore_patterns("__pycache__")
            shutil.copytree(package, folder / CODE / top, ignore=ignore, dirs_exist_ok=True)


def _modules(pickled: bytes) -> set[str]:
    """Return the modules whose classes and functions a pickle names, without running it."""
    found: set[str] = set()
    texts: list[str] = []
    memo: list[str | None] = []
    last: str | None = None
    for opcode, argument, _ in pickletools.genops(pickled):
        if opcode.name == "MEMOIZE":
            memo.append(last)
            continue
        last = None
        if opcode.name in ("SHORT_BINUNICODE", "BINUNICODE"):
            last = str(argument)
        elif opcode.name in ("BINGET", "LONG_BINGET") and isinstance(argument, int):
            last = memo[argument]
        elif opcode.name == "STACK_GLOBAL":
            found.add(texts[-2])
        if last is not None:
            texts.append(last)
    return found


class Onnx:
    """ONNX graphs of any origin, given our names of inputs and outputs."""

    name = "ONNX"
    takes = "an ONNX model (ModelProto, its bytes, or the path of a .onnx file)"

    def accepts(self, found: Any) -> bool:
        """Whether it is a ModelProto, bytes, or a path that ends in ``.onnx``."""
        if isinstance(found, bytes) or (isinstance(found, (str, Path)) and str(found).endswith(".onnx")):
            return True
        onnx = sys.modules.get("onnx")
        return onnx is not None and isinstance(found, onnx.ModelProto)

    def save(self, found: Any, folder: Path, data: TrainingData) -> ModelDocument:
        """Check the graph by running it on some rows, and write it in its canonical form."""
        from edgewright.targets import graph

        document = onnx_document(data, ("onnx", "onnxruntime"))
        model = graph.parse(_onnx_bytes(found, data.source_folder))
        _name_inputs(model, document)
        probe = data.X.head(3)
        output, value = _find_output(model, document, probe)
        if data.problem == "classification":
            _check_probabilities(output, value)
            graph.finish_classifier(model, output, len(data.classes))
        else:
            graph.finish_regressor(model, output)
        written = graph.canonical_bytes(model)
        OnnxModel(written, document).scores(probe)
        return write_model(folder, written, document.model_copy(update={"details": graph.describe(model)}))


def _onnx_bytes(found: Any, source: Path | None) -> bytes:
    if isinstance(found, bytes):
        return found
    if isinstance(found, (str, Path)):
        path = (source or Path.cwd()) / found
        if not path.is_file():
            raise UserCodeError(f"the returned path does not exist: {found}", hint=f"looked at {path}")
        return path.read_bytes()
    return bytes(found.SerializeToString(deterministic=True))


def _name_inputs(model: Any, document: ModelDocument) -> None:
    from edgewright.targets import graph

    constants = {value.name for value in model.graph.initializer}
    names = [value.name for value in model.graph.input if value.name not in constants]
    if document.numeric and len(names) == 1:
        graph.rename(model, {names[0]: "X"})
    elif document.numeric or set(names) != set(document.feature_names):
        wanted = "one float32 input [rows, features]" if document.numeric else "one [rows, 1] input a feature"
        raise UserCodeError(f"the returned ONNX model takes {', '.join(names)}", hint=f"it must take {wanted}")


def _find_output(model: Any, document: ModelDocument, probe: Any) -> tuple[str, Any]:
    """Return the name and the value on some rows of the output that holds the scores."""
    import onnxruntime

    width = len(document.classes) if document.problem == "classification" else 1
    try:
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), _quiet_options(), providers=["CPUExecutionProvider"]
        )
        values = session.run(None, feed(probe, document))
    except Exception as error:  # onnxruntime's own errors have no common class
        raise UserCodeError(
            f"the returned ONNX model does not run on {len(probe)} rows: {error}",
            hint="its input must be float32 with a free first dimension, and the features in the dataset's order",
        ) from error
    shown = []
    for output, value in zip(session.get_outputs(), values, strict=True):
        array = np.asarray(value) if isinstance(value, np.ndarray) else None
        if array is not None and array.dtype == np.float32 and array.size == len(probe) * width:
            return output.name, array
        shown.append(f"{output.name} ({type(value).__name__ if array is None else f'{array.dtype} {array.shape}'})")
    raise UserCodeError(
        f"the returned ONNX model has no float32 output [rows, {width}]; it has {', '.join(shown)}",
        hint="one column a class with probabilities (no ZipMap), or one column with predictions",
    )


def _quiet_options() -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    return options


def _check_probabilities(name: str, value: Any) -> None:
    if value.ndim != 2 or value.min() < -1e-4 or np.abs(value.sum(axis=1) - 1).max() > 1e-3:
        raise UserCodeError(
            f"the output {name} of the returned ONNX model holds no probabilities (rows do not add up to 1)",
            hint="end the graph with Softmax, or with 1-p and p for two classes",
        )


FRAMEWORKS: tuple[Framework, ...] = (ScikitLearn(), Qonnx(), Torch(), Onnx())


def framework_of(found: Any, entry: str) -> Framework:
    """Return the handler of what a training function returned.

    Raises:
        UserCodeError: nothing was returned, or nothing that is known here.
    """
    supported = "supported are: " + "; ".join(framework.takes for framework in FRAMEWORKS)
    if found is None:
        raise UserCodeError(f"{entry} returned nothing", hint=f"return the fitted model; {supported}")
    for framework in FRAMEWORKS:
        if framework.accepts(found):
            return framework
    kind = f"the class {found.__name__}" if isinstance(found, type) else f"a {type(found).__name__}"
    raise UserCodeError(f"{entry} returned {kind}", hint=supported)
