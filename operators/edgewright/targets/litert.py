"""The target ``litert``: runs a ``.tflite`` file of yours in LiteRT, and measures it beside the trained model.

Runs in the target's own environment. Converting is not done here: the converters pull gigabytes and pin old libraries
(docs/targets.md says how to do it in a container). What they wrote is proven like any other variant.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgewright.errors import UserFault
from edgewright.targets.base import Compiled, Job

_INTEGERS = ("int8", "uint8", "int16")


def compile_model(job: Job) -> Compiled:
    """Take the file as it is, and say what it holds.

    Raises:
        UserFault: LiteRT cannot load it, or it takes another number of features.
    """
    data = Path(job.options["file"]).read_bytes()
    interpreter = _interpreter(data)
    given, taken = interpreter.get_input_details(), interpreter.get_output_details()
    if len(given) != 1 or len(taken) != 1:
        raise UserFault(f"the .tflite file has {len(given)} inputs and {len(taken)} outputs; one of each is wanted")
    (rows,) = job.calibration.values()
    size = _size(given[0]["shape"])
    if size != rows.shape[1]:
        raise UserFault(f"the .tflite file takes {size} numbers a row, the model {rows.shape[1]} features")
    tensors = interpreter.get_tensor_details()
    details = {
        "input": {"shape": [int(n) for n in given[0]["shape"]], "type": given[0]["dtype"].__name__},
        "output": {"shape": [int(n) for n in taken[0]["shape"]], "type": taken[0]["dtype"].__name__},
        "integer_nodes": sum(tensor["dtype"].__name__ in _INTEGERS for tensor in tensors),
    }
    return Compiled(data, details=details, tools={"ai-edge-litert": _version("ai-edge-litert")})


def _size(shape: Any) -> int:
    size = 1
    for number in shape[1:]:
        size *= int(number)
    return size


def _interpreter(data: bytes) -> Any:
    from ai_edge_litert.interpreter import Interpreter

    try:
        interpreter = Interpreter(model_content=data, num_threads=1)
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise UserFault(f"LiteRT cannot load the .tflite file: {lines[0]}") from error
    return interpreter


def open_model(folder: Path, job: Job) -> Callable[[dict[str, Any]], Any]:
    """Return a function from input arrays to scores; rows go through one by one, integers by the file's own scales."""
    import numpy as np

    interpreter = _interpreter((folder / "model.tflite").read_bytes())
    given, taken = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    logits = job.options["output"] == "logits"

    def call(arrays: dict[str, Any]) -> Any:
        (rows,) = arrays.values()
        answers = []
        for row in rows:
            interpreter.set_tensor(given["index"], _to(given, row.reshape([1, *given["shape"][1:]])))
            interpreter.invoke()
            answers.append(_from(taken, interpreter.get_tensor(taken["index"])).reshape(1, -1))
        found = np.concatenate(answers)
        return _softmax(found) if logits and found.shape[1] > 1 else found

    return call


def _to(tensor: dict[str, Any], values: Any) -> Any:
    import numpy as np

    scale, zero = tensor["quantization"]
    if not scale:
        return values.astype(tensor["dtype"])
    limits = np.iinfo(tensor["dtype"])
    return np.clip(np.round(values / scale) + zero, limits.min, limits.max).astype(tensor["dtype"])


def _from(tensor: dict[str, Any], values: Any) -> Any:
    scale, zero = tensor["quantization"]
    found = values.astype("float32")
    return (found - zero) * scale if scale else found


def _softmax(values: Any) -> Any:
    import numpy as np

    powers = np.exp(values - values.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def _version(name: str) -> str:
    from importlib.metadata import version

    return version(name)
