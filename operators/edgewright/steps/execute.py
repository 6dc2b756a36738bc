"""Run one step: validate, look into the cache, run, keep the result. The same everywhere a step can run."""

from __future__ import annotations

import contextlib
import datetime
import errno
import importlib
import logging
import tempfile
import time
from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError

from edgewright.artifacts import ArtifactStore
from edgewright.errors import ConfigError, EdgewrightError, GateFailed, GateResult, Skipped, StoreError, UserFault
from edgewright.spec.gates import demand
from edgewright.spec.steps import STEPS, StepConfig, StepSpec
from edgewright.steps import cache
from edgewright.steps.context import StepContext
from edgewright.steps.contract import (
    CacheInfo,
    StepOutput,
    StepRequest,
    StepResult,
    Terminated,
    error_model,
    gate_model,
)

log = logging.getLogger("edgewright.steps")


def execute(request: StepRequest, *, store: ArtifactStore | None = None) -> StepResult:
    """Answer a request. The result document is written before this returns or raises.

    Args:
        request: What to do.
        store: An open store at ``request.store``, to save opening it again.

    Returns:
        The result of a step that succeeded, now or (by the cache) before.

    Raises:
        GateFailed: a gate was not met; the result with its report is kept.
        Skipped: the step had nothing to do.
        UserFault: the configuration, the data or the user's code are wrong.
        SystemFault: something else is broken; trying again may help.
        Terminated: this process was asked to end; there is no result document.
    """
    store = store or ArtifactStore(request.store)
    started = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
    clock = time.perf_counter()
    result = StepResult(step=request.step, identity=request.identity, started=started)
    keep = True
    try:
        store.write_json(f"{request.identity.key}/request.json", request.model_dump(mode="json"))
        with _full_disk():
            result = _answer(request, store, result)
        demand([GateResult(**gate.model_dump()) for gate in result.gates])
    except EdgewrightError as error:
        result.state = "skipped" if isinstance(error, Skipped) else "failed"
        result.error = error_model(error)
        raise
    except Terminated:
        keep = False
        raise
    except BaseException as error:
        # an interrupt or a time-out of Airflow's is no Exception, and still no success
        result.state, result.error = "failed", error_model(error)
        raise
    finally:
        result.duration = round(time.perf_counter() - clock, 4)
        if keep:
            _keep(store, request, result)
    if request.config.get("checkpoint"):
        importlib.import_module("edgewright.steps.checkpoints").forget(store, request.identity)
    return result


@contextlib.contextmanager
def _full_disk() -> Iterator[None]:
    """Say plainly that a disk is full, wherever in a step (its scratch folder, say) that came up."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS):
            raise
        raise StoreError(
            f"a file could not be written: {error.strerror or error}",
            where=str(error.filename or tempfile.gettempdir()),
            hint="free some space, or point TMPDIR to a larger disk, then run the task again",
        ) from error


def _keep(store: ArtifactStore, request: StepRequest, result: StepResult) -> None:
    """Write the result document; a store that fails here must not hide why the step failed."""
    try:
        store.write_json(f"{request.identity.key}/result.json", result.model_dump(mode="json"))
    except EdgewrightError:
        if result.state == "success":
            raise
        log.exception("the result could not be kept")


def _answer(request: StepRequest, store: ArtifactStore, result: StepResult) -> StepResult:
    spec = step_spec(request.step)
    config = validate_config(spec, request.config)
    with StepContext(request, store) as context:
        key, result.cache = _cache_key(spec, config, context)
        if key is not None and request.cache == "use":
            earlier, reason = cache.look_up(store, key)
            if earlier is not None:
                return _reuse(result, earlier, key)
            result.cache.reason = reason
        # only now: a cached result costs no import of the libraries that made it
        output: StepOutput = importlib.import_module(spec.module).run(config, context)
    result.outputs, result.metrics, result.tags = output.outputs, output.metrics, output.tags
    result.notes = output.notes
    result.gates = [gate_model(gate) for gate in output.gates]
    if key is not None and request.cache != "off" and all(gate.passed for gate in output.gates):
        cache.remember(store, key, result)
    return result


def _reuse(result: StepResult, earlier: StepResult, key: str) -> StepResult:
    source = earlier.identity
    log.info("cached: reused from run %s, task %s (key %s)", source.run_id, source.task_id, key[:12])
    info = CacheInfo(key=key, hit=True, reused_from=source)
    return earlier.model_copy(update={"identity": result.identity, "started": result.started, "cache": info})


def _state(spec: StepSpec, config: StepConfig, context: StepContext) -> dict[str, Any] | None:
    """Return what the step reads beside its inputs; ``None`` where that cannot be digested."""
    if spec.state == "":
        return {}
    module, _, name = (spec.state or f"{spec.module}:state").partition(":")
    function = getattr(importlib.import_module(module), name, None)
    found: dict[str, Any] | None = {} if function is None else function(config, context)
    return found


def _cache_key(spec: StepSpec, config: StepConfig, context: StepContext) -> tuple[str | None, CacheInfo]:
    if not spec.cached:
        return None, CacheInfo(reason="this step acts on the world, so it always runs")
    if context.request.cache == "off":
        return None, CacheInfo(reason="the run asked for no cache")
    state = _state(spec, config, context)
    if state is None:
        return None, CacheInfo(reason="it reads something that cannot be digested")
    components = cache.key_components(spec, config, context.request, state)
    cache.record_key(context.store, context.request.identity, components)
    key = cache.key_of(components)
    reason = "the run asked for a refresh" if context.request.cache == "refresh" else ""
    return key, CacheInfo(key=key, reason=reason)


def step_spec(name: str) -> StepSpec:
    """Return a step's description.

    Raises:
        ConfigError: there is no such step.
    """
    if name not in STEPS:
        raise ConfigError(f"no such step: {name}", hint=f"there are: {', '.join(STEPS)}")
    return STEPS[name]


def validate_config(spec: StepSpec, config: dict[str, Any]) -> StepConfig:
    """Return a step's typed configuration.

    Raises:
        ConfigError: with every fault at once, by field.
    """
    try:
        return spec.config.model_validate(config)
    except ValidationError as error:
        lines = [
            f"{'.'.join(str(part) for part in fault['loc']) or 'with'}: {fault['msg']}" for fault in error.errors()
        ]
        raise ConfigError("; ".join(lines), where=f"{spec.name}.with") from error


__all__ = ["GateFailed", "UserFault", "execute", "step_spec", "validate_config"]
