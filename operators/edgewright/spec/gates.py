"""Gates: limits on what a step measured, written as ``">= 0.75"``."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from edgewright.errors import ConfigError, GateFailed, GateResult

_COMPARE: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    ">": operator.gt,
    "<=": operator.le,
    "<": operator.lt,
    "==": operator.eq,
}
_GATE = re.compile(r"^\s*(>=|<=|==|>|<)\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*(%?)\s*$")


@dataclass(frozen=True)
class Gate:
    """One limit: ``metric`` compared by ``operator`` with ``limit``."""

    metric: str
    operator: str
    limit: float

    def check(self, value: float | None, note: str = "") -> GateResult:
        """Return the verdict on a measured value; ``None`` (nothing to compare with) passes and says so."""
        if value is None:
            return GateResult(self.metric, self.operator, self.limit, None, True, note or "nothing to compare with")
        passed = _COMPARE[self.operator](value, self.limit)
        return GateResult(self.metric, self.operator, self.limit, value, passed, note)


def parse_gate(metric: str, text: object) -> Gate:
    """Read a gate such as ``">= 0.75"`` or ``"<= 2%"``.

    Raises:
        ValueError: the text is not a comparison with a number.
    """
    match = _GATE.match(text) if isinstance(text, str) else None
    if match is None:
        raise ValueError(f'gate of {metric} must be a comparison and a number, such as ">= 0.75", not {text!r}')
    comparison, number, percent = match.groups()
    return Gate(metric, comparison, float(number) / (100 if percent else 1))


def check_gates(
    gates: Mapping[str, str], measured: Mapping[str, float | None], notes: Mapping[str, str]
) -> list[GateResult]:
    """Judge all gates and return every verdict.

    Args:
        gates: Limits by metric.
        measured: Values by metric; ``None`` where there was nothing to compare with.
        notes: What to say beside a verdict, by metric.

    Raises:
        ConfigError: a gate names a metric that was not measured at all.
    """
    unknown = sorted(set(gates) - set(measured))
    if unknown:
        raise ConfigError(
            f"no such metric: {', '.join(unknown)}", where="gates", hint=f"measured were: {', '.join(sorted(measured))}"
        )
    return [parse_gate(metric, text).check(measured[metric], notes.get(metric, "")) for metric, text in gates.items()]


def demand(results: list[GateResult]) -> None:
    """Raise :class:`~edgewright.errors.GateFailed` with all verdicts if one of them failed."""
    if not all(result.passed for result in results):
        raise GateFailed(results)
