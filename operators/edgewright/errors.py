"""Every error that Edgewright raises on purpose.

One root with two branches. A *user fault* is something that the person who wrote the YAML, the data or the user code
can mend; a *system fault* is ours or a service's. The branch decides the exit code, the HTTP status and whether
Airflow should try again, so raise the branch's subclass that fits and never a bare ``Exception``.
"""

from __future__ import annotations

from dataclasses import dataclass, field


class EdgewrightError(Exception):
    """Root of all errors raised on purpose.

    Args:
        message: What is wrong, naming the offending value.
        where: Place of the fault: ``file:line:column``, a field path or a URL.
        hint: How to mend it, or what is allowed.
    """

    exit_code = 70
    retriable = False

    def __init__(self, message: str, *, where: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        text = f"{self.where}: {self.message}" if self.where else self.message
        return f"{text}\n  hint: {self.hint}" if self.hint else text

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), dict(self.__dict__), self.args)


def _rebuild(cls: type[EdgewrightError], state: dict[str, object], args: tuple[object, ...]) -> EdgewrightError:
    """Recreate an error in another process; subclasses may have keyword-only arguments."""
    error = cls.__new__(cls)
    error.args = args
    error.__dict__.update(state)
    return error


class UserFault(EdgewrightError):
    """Root of what the user can mend. Never tried again: the same input gives the same answer."""

    exit_code = 1


class SystemFault(EdgewrightError):
    """Root of what the user cannot mend: a bug of ours, a full disk, a service that is away."""

    exit_code = 70
    retriable = True


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong in a document.

    Attributes:
        file: Path of the document as the user gave it.
        line: First line of the offending text, counted from 1.
        column: First column of the offending text, counted from 1.
        path: Place in the document, such as ``tasks[2].with.split.test``.
        message: What is wrong.
        allowed: What is allowed instead, or how to mend it.
        suggestion: A near name that exists ("did you mean").
        code: Stable short name of the kind of fault, such as ``unknown-key``.
        end_column: Column after the offending text on the same line, 0 if not known.
    """

    file: str
    line: int
    column: int
    path: str
    message: str
    allowed: str | None = None
    suggestion: str | None = None
    code: str = "invalid"
    end_column: int = 0

    def __str__(self) -> str:
        text = f"{self.file}:{self.line}:{self.column}: "
        text += f"{self.path}: {self.message}" if self.path else self.message
        if self.allowed:
            text += f"; {self.allowed}"
        if self.suggestion:
            text += f'; did you mean "{self.suggestion}"?'
        return text


class SpecError(UserFault):
    """A pipeline document has faults. Raised once, with all of them, sorted by position."""

    def __init__(self, faults: list[Fault]) -> None:
        self.faults = sorted(faults, key=lambda f: (f.file, f.line, f.column, f.path, f.message))
        super().__init__("\n".join(str(f) for f in self.faults))


class ConfigError(UserFault):
    """A step's ``with:``, a param, a profile or the installation's settings are wrong."""


class DataError(UserFault):
    """The data do not fit: missing file, empty CSV, no such column, text in a numeric column, leakage."""


class UserCodeError(UserFault):
    """The user's own function failed, returned something unusable, or called ``sys.exit``."""


@dataclass
class GateResult:
    """Verdict of one gate.

    Attributes:
        metric: Name of the measured quantity.
        operator: One of ``>=``, ``>``, ``<=``, ``<``, ``==``.
        limit: What the gate demands.
        value: What was measured; ``None`` when there was nothing to compare with.
        passed: The verdict.
        note: Why the value is missing, or what it was compared with.
    """

    metric: str
    operator: str
    limit: float
    value: float | None
    passed: bool
    note: str = ""

    def __str__(self) -> str:
        value = "not measured" if self.value is None else f"{self.value:.6g}"
        verdict = "passed" if self.passed else "FAILED"
        note = f" ({self.note})" if self.note else ""
        return f"{self.metric} = {value}, gate {self.operator} {self.limit:g}: {verdict}{note}"


class GateFailed(UserFault):
    """At least one gate was not met. Carries every verdict, so that the report can show all of them."""

    def __init__(self, results: list[GateResult]) -> None:
        self.results = results
        failed = [r for r in results if not r.passed]
        super().__init__("; ".join(str(r) for r in failed), hint="the report of this task shows what was measured")


class Skipped(EdgewrightError):
    """A step has nothing to do and says why, such as too few rows in a batch. Not a failure."""

    exit_code = 0


class NotFound(UserFault):
    """Something that was named does not exist: a model, a version, a run, a task, a service."""


class TimedOut(UserFault):
    """What a task waited for did not come in time. Not tried again: the time to wait is the user's choice."""


class DeployRejected(UserFault):
    """A service refused a model after its self-test; the one that it served before stays."""


class DamagedArtifact(SystemFault):
    """Stored bytes do not match their digest."""


class StoreError(SystemFault):
    """The artifact store could not be read or written (full disk, no permission, no network)."""


class Unavailable(SystemFault):
    """A service that is needed does not answer (MLflow, the prediction service, Kafka, Airflow)."""

    exit_code = 69


class Busy(SystemFault):
    """Somebody else holds the lock and did not let go in time."""

    exit_code = 75


@dataclass
class ErrorRecord:
    """An error as it is kept in a result document.

    Attributes:
        type: Class name.
        message: What was wrong, with place and hint.
        user_fault: Whether the user can mend it.
        retriable: Whether trying again can help.
    """

    type: str
    message: str
    user_fault: bool
    retriable: bool
    details: dict[str, object] = field(default_factory=dict)

    @classmethod
    def of(cls, error: BaseException) -> ErrorRecord:
        """Describe any exception; what Edgewright did not raise is a system fault."""
        if isinstance(error, EdgewrightError):
            return cls(type(error).__name__, str(error), isinstance(error, UserFault), error.retriable)
        return cls(type(error).__name__, str(error) or type(error).__name__, user_fault=False, retriable=True)
