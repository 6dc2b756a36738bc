"""What became of a request that was answered elsewhere: its result document, or the error that it tells of."""

from __future__ import annotations

from edgewright import errors
from edgewright.artifacts import ArtifactStore
from edgewright.errors import EdgewrightError, GateFailed, GateResult, Skipped, SystemFault, UserFault
from edgewright.steps.contract import StepRequest, StepResult

#: Errors that are made by other arguments than a message.
_OTHERS = ("SpecError", "GateFailed")


def forget(store: ArtifactStore, request: StepRequest) -> None:
    """Remove what an earlier try left, so that whatever is there later was made by this one."""
    store.delete(f"{request.identity.key}/result.json")


def find(store: ArtifactStore, request: StepRequest) -> StepResult | None:
    """Return the result document of a request, if there is one."""
    document = store.read_json(f"{request.identity.key}/result.json")
    return None if document is None else StepResult.model_validate(document)


def collect(store: ArtifactStore, request: StepRequest, ended: str) -> StepResult:
    """Return the result of a request, or raise as the step did.

    Args:
        store: The artifact store.
        request: What was asked.
        ended: How the place ended, in words: the reason where there is no result.

    Raises:
        Skipped: the step had nothing to do.
        UserFault: the user can mend it.
        SystemFault: something else is broken, or nothing was left behind.
    """
    result = find(store, request)
    if result is None:
        raise SystemFault(f"the step left no result: {ended}")
    if result.state == "success":
        return result
    raise _error(result)


def _error(result: StepResult) -> EdgewrightError:
    gates = [GateResult(**gate.model_dump()) for gate in result.gates]
    if gates and not all(gate.passed for gate in gates):
        return GateFailed(gates)
    if result.error is None:
        return SystemFault(f"the step ended {result.state} and does not say why")
    kind = getattr(errors, result.error.type, None)
    if isinstance(kind, type) and issubclass(kind, EdgewrightError) and kind.__name__ not in _OTHERS:
        return kind(result.error.message)
    if result.state == "skipped":
        return Skipped(result.error.message)
    return (UserFault if result.error.user_fault else SystemFault)(f"{result.error.type}: {result.error.message}")
