"""The target ``tensorrt``: an engine for the GPU at hand, built by TensorRT from the portable INT8 graph.

Runs in the target's own environment, on a machine with a GPU; ``steps/compiling_gpu.py`` makes the graph before and
says what there is without one. Since TensorRT 11 a network's types are those of its graph, so QuantizeLinear and
DequantizeLinear say what is computed in integers; on 10 that is asked for. An engine is timed while it is built, so two
builds of one graph differ in their bytes, and it fits this TensorRT and this compute capability only.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgewright.errors import SystemFault, UserFault
from edgewright.targets.base import Compiled, Job

_WORKSPACE = 1 << 30


def compile_model(job: Job) -> Compiled:
    """Build an engine of a graph with QuantizeLinear and DequantizeLinear.

    Raises:
        UserFault: TensorRT does not know an operator, or finds no way to compute the graph.
    """
    import tensorrt

    logger = tensorrt.Logger(tensorrt.Logger.WARNING)
    builder = tensorrt.Builder(logger)
    network = builder.create_network(_typed(tensorrt))
    parser = tensorrt.OnnxParser(network, logger)
    if not parser.parse(job.model):
        faults = "; ".join(str(parser.get_error(index)) for index in range(parser.num_errors))
        raise UserFault(f"TensorRT cannot read this model: {faults[:500]}", hint="use target: onnx-int8")
    config = builder.create_builder_config()
    config.set_memory_pool_limit(tensorrt.MemoryPoolType.WORKSPACE, _WORKSPACE)
    batch = int(job.options["batch"])
    given = network.get_input(0)
    rest = tuple(given.shape)[1:]
    profile = builder.create_optimization_profile()
    profile.set_shape(given.name, (1, *rest), (batch, *rest), (batch, *rest))
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise UserFault("TensorRT found no way to compute this model on this GPU", hint="its log says at which layer")
    engine = {"tensorrt": tensorrt.__version__, "largest_batch": batch, **_device()}
    tools = {"tensorrt": str(tensorrt.__version__)}
    return Compiled(bytes(plan), details={"engine": engine}, tools=tools)


def _typed(tensorrt: Any) -> int:
    """Return the flag that makes types follow the graph, where that is not so by itself."""
    flag = getattr(tensorrt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None or int(str(tensorrt.__version__).split(".")[0]) >= 11 else 1 << int(flag)


def _device() -> dict[str, Any]:
    from cuda.bindings import runtime

    found = _done(runtime.cudaGetDeviceProperties(0))
    name = found.name.decode() if isinstance(found.name, bytes) else str(found.name)
    return {"device": name.strip("\x00"), "compute_capability": f"{found.major}.{found.minor}"}


def _done(answer: Any) -> Any:
    """Return what a call to CUDA answered.

    Raises:
        SystemFault: it failed.
    """
    code, *values = answer
    if int(code):
        raise SystemFault(f"CUDA: {code}", hint="does the driver fit the toolkit of this environment?")
    return values[0] if values else None


def open_model(folder: Path, job: Job) -> Callable[[dict[str, Any]], Any]:
    """Return a function from input arrays to the engine's output; many rows go through in batches."""
    import numpy as np

    engine = _Engine((folder / "model.engine").read_bytes())
    largest = int(job.options["batch"])

    def call(arrays: dict[str, Any]) -> Any:
        (rows,) = arrays.values()
        parts = [engine.run(rows[start : start + largest]) for start in range(0, len(rows), largest)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    return call


class _Engine:
    """An engine of one input and one output, and memory of the GPU for both."""

    def __init__(self, data: bytes) -> None:
        import tensorrt
        from cuda.bindings import runtime

        self._tensorrt, self._cuda = tensorrt, runtime
        self._logger = tensorrt.Logger(tensorrt.Logger.WARNING)
        self._runtime = tensorrt.Runtime(self._logger)
        self._engine = self._runtime.deserialize_cuda_engine(data)
        if self._engine is None:
            raise SystemFault("TensorRT cannot load the engine that it has just built")
        self._context = self._engine.create_execution_context()
        self._stream = _done(runtime.cudaStreamCreate())
        names = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        modes = {self._engine.get_tensor_mode(name): name for name in names}
        self._source, self._result = modes[tensorrt.TensorIOMode.INPUT], modes[tensorrt.TensorIOMode.OUTPUT]
        self._memory: dict[str, tuple[int, Any]] = {}

    def run(self, rows: Any) -> Any:
        """Return the output for some rows, at most a batch."""
        import numpy as np

        cuda, context = self._cuda, self._context
        rows = np.ascontiguousarray(rows, dtype=np.float32)
        if not context.set_input_shape(self._source, rows.shape):
            raise SystemFault(f"the engine does not take {list(rows.shape)}")
        found = np.empty(tuple(context.get_tensor_shape(self._result)), dtype=np.float32)
        given, made = self._room(self._source, rows.nbytes), self._room(self._result, found.nbytes)
        kinds = cuda.cudaMemcpyKind
        _done(cuda.cudaMemcpyAsync(given, rows.ctypes.data, rows.nbytes, kinds.cudaMemcpyHostToDevice, self._stream))
        if not context.execute_async_v3(int(self._stream)):
            raise SystemFault("TensorRT could not run the engine")
        _done(cuda.cudaMemcpyAsync(found.ctypes.data, made, found.nbytes, kinds.cudaMemcpyDeviceToHost, self._stream))
        _done(cuda.cudaStreamSynchronize(self._stream))
        return found

    def _room(self, name: str, size: int) -> Any:
        """Return memory of the GPU for a tensor; it is kept for the next call."""
        kept = self._memory.get(name)
        if kept is None or kept[0] < size:
            if kept is not None:
                _done(self._cuda.cudaFree(kept[1]))
            kept = (size, _done(self._cuda.cudaMalloc(size)))
            self._memory[name] = kept
            self._context.set_tensor_address(name, int(kept[1]))
        return kept[1]
