"""When a task runs: Airflow's trigger rules, for a runner that looks at a task once all that it needs has ended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Literal

State = Literal["success", "failed", "skipped", "upstream_failed"]
Verdict = Literal["run", "skipped", "upstream_failed"]


def _all_success(count: Counter[str], failed: int, total: int) -> Verdict:
    if failed:
        return "upstream_failed"
    return "skipped" if count["skipped"] else "run"


def _one_success(count: Counter[str], failed: int, total: int) -> Verdict:
    if count["success"]:
        return "run"
    return "upstream_failed" if failed else "skipped"


def _none_failed(count: Counter[str], failed: int, total: int) -> Verdict:
    return "upstream_failed" if failed else "run"


def _none_failed_min_one_success(count: Counter[str], failed: int, total: int) -> Verdict:
    if failed:
        return "upstream_failed"
    return "run" if count["success"] else "skipped"


def _skip_unless(wanted: Callable[[Counter[str], int, int], bool]) -> Callable[[Counter[str], int, int], Verdict]:
    return lambda count, failed, total: "run" if wanted(count, failed, total) else "skipped"


_RULES: dict[str, Callable[[Counter[str], int, int], Verdict]] = {
    "all_success": _all_success,
    "one_success": _one_success,
    "none_failed": _none_failed,
    "none_failed_min_one_success": _none_failed_min_one_success,
    "all_done_min_one_success": _one_success,
    "all_done_setup_success": _all_success,
    "all_done": lambda count, failed, total: "run",
    "always": lambda count, failed, total: "run",
    "all_failed": _skip_unless(lambda count, failed, total: failed == total),
    "one_failed": _skip_unless(lambda count, failed, total: failed > 0),
    "one_done": _skip_unless(lambda count, failed, total: count["success"] + count["failed"] > 0),
    "none_skipped": _skip_unless(lambda count, failed, total: not count["skipped"]),
    "all_skipped": _skip_unless(lambda count, failed, total: count["skipped"] == total),
}

#: Names of the rules, for messages.
RULES = tuple(_RULES)


def decide(rule: str, upstream: Iterable[str]) -> Verdict:
    """Return what becomes of a task.

    Args:
        rule: Name of its trigger rule.
        upstream: How the tasks that it needs have ended.

    Raises:
        KeyError: there is no such rule.
    """
    states = list(upstream)
    if not states:
        return "run"
    count = Counter(states)
    return _RULES[rule](count, count["failed"] + count["upstream_failed"], len(states))
