"""Rows about nodes in the model registry: whoever looks at a version there sees which nodes run it.

Tags of a version, written from the states that the sink keeps::

    nodes           how many nodes run this version
    node.<name>     "onnx-int8 since 2026-11-21T09:45Z, last report 2026-11-21T10:05Z", then what went wrong

They are a copy: the states in the artifact store count, and each writing brings the rows in line with them. A node that
runs another version now has no row here any more.
"""

from __future__ import annotations

import datetime
import hashlib
import re
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from edgewright.errors import EdgewrightError
from edgewright.registry.client import Registry
from edgewright.registry.versions import NODE, NODES, RegisteredVersion
from edgewright.streams.fleet import Fleet

#: Rows a version has at most; ``nodes`` counts all.
MOST = 200
#: Seconds between two writings, and how much older than the last report a row may be where nothing else changed.
_EVERY = 30.0
_OLD = datetime.timedelta(minutes=10)
_LAST = re.compile(r", last report (\S+?Z)")
_PROBLEM = 200


class RegistryRows:
    """Brings the rows of a registry in line with the states of the nodes.

    Args:
        registry: Where the rows are.
        fleet: The states.
        say: Told what goes wrong; the next writing tries again.
    """

    def __init__(self, registry: Registry, fleet: Fleet, say: Callable[[str], None]) -> None:
        self._registry, self._fleet, self._say = registry, fleet, say
        self._news, self._next = True, 0.0

    def note(self) -> None:
        """Remember that a state changed."""
        self._news = True

    def write(self, *, now: bool = False) -> int:
        """Write the rows if a state changed and the last writing is long enough ago.

        Args:
            now: However long ago it is.

        Returns:
            How many rows were written or removed.
        """
        if not self._news or not (now or time.monotonic() >= self._next):
            return 0
        self._next = time.monotonic() + _EVERY
        try:
            changed = self._bring_in_line()
        except EdgewrightError as error:
            self._say(f"the registry has no rows about nodes: {error.message}")
            return 0
        self._news = False
        return changed

    def _bring_in_line(self) -> int:
        nodes = self._fleet.nodes()
        changed = 0
        for name in sorted({str(model["name"]) for node in nodes for model in _models(node)}):
            running = [node for node in nodes if (node.get("model") or {}).get("name") == name]
            for version in self._registry.versions(name):
                mine = [node for node in running if str(node["model"].get("version")) == version.version]
                changed += self._version(version, mine)
        return changed

    def _version(self, version: RegisteredVersion, nodes: list[dict[str, Any]]) -> int:
        before = {name: text for name, text in version.tags.items() if name == NODES or name.startswith(NODE)}
        after = _rows(nodes)
        new = {name: text for name, text in after.items() if _is_news(before.get(name), text)}
        gone = sorted(before.keys() - after.keys())
        self._registry.set_tags(version, new)
        self._registry.drop_tags(version, gone)
        return len(new) + len(gone)


def _models(node: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    """Yield what a node runs and what it ran before."""
    for key in ("model", "previous"):
        if isinstance(node.get(key), dict) and node[key].get("name"):
            yield node[key]


def _rows(nodes: list[dict[str, Any]]) -> dict[str, str]:
    if not nodes:
        return {}
    newest = sorted(nodes, key=lambda node: str(node["last_report"]), reverse=True)[:MOST]
    return {NODES: str(len(nodes)), **{NODE + _name(str(node["node"])): _text(node) for node in newest}}


def _name(node: str) -> str:
    """Return a node's name with what MLflow lets stand in a tag's; two nodes never share one."""
    plain = re.sub(r"[^\w.-]", "_", node, flags=re.ASCII)[:100]
    return plain if plain == node else f"{plain}-{hashlib.sha256(node.encode()).hexdigest()[:8]}"


def _text(node: Mapping[str, Any]) -> str:
    model = node["model"]
    problem = " ".join(str(node.get("problem") or "").split())[:_PROBLEM]
    since, last = _minute(model.get("since")) or _minute(node["seen"]), _minute(node["last_report"])
    return f"{model.get('target')} since {since}, last report {last}" + (f"; {problem}" if problem else "")


def _minute(said: Any) -> str:
    try:
        found = datetime.datetime.fromisoformat(str(said))
    except ValueError:
        return ""
    return found.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%MZ")


def _is_news(before: str | None, after: str) -> bool:
    """Tell whether a row is to be written: a later report alone is not, until the row is old."""
    if before is None or _LAST.sub("", before) != _LAST.sub("", after):
        return True
    then, now = _LAST.search(before), _LAST.search(after)
    if then is None or now is None:
        return before != after
    return datetime.datetime.fromisoformat(now[1]) - datetime.datetime.fromisoformat(then[1]) >= _OLD
