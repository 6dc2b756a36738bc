"""The value grammar: ``$x``, ``$t``, ``$f`` and ``$const`` inside ``with:``."""

from __future__ import annotations

import re
from pathlib import Path as FilePath
from typing import Any

from edgewright.spec.code import locate
from edgewright.spec.faults import Faults, Path, listing, near
from edgewright.spec.jinja import CONTEXT_NAMES, check_template
from edgewright.spec.pipeline import Constant, ForEach, Reference, Template

_ALIASES = {"$xcom": "$x", "$template": "$t", "$file": "$f"}
MARKERS = ("$x", "$t", "$f", "$const", *_ALIASES)
_OPENING = re.compile(r"\{[{%#]")
_EXPRESSION = re.compile(r"\{\{.*?\}\}|\{%.*?%\}", re.DOTALL)
_PARAM = re.compile(r"(?<![\w.'\"])params(?:\.([A-Za-z_]\w*)\b(?!\s*\()|\[\s*['\"]([^'\"]+)['\"]\s*\])")
_ITEM = re.compile(r"(?<![\w.'\"])item\b(?:\.([A-Za-z_]\w*)|\[\s*['\"]([^'\"]+)['\"]\s*\])?")
#: A template that gives the name a meaning of its own.
_OWN_ITEM = re.compile(r"\{%-?\s*(?:for\s[^%]*\bitem\b[^%]*\bin\b|set\s+item\b)")
_CLOSING = {"{{": "}}", "{%": "%}", "{#": "#}"}


#: What templates of tasks know; where there is no item is told by itself.
_NAMES = CONTEXT_NAMES | {"item"}


def _unclosed(template: str) -> str | None:
    """Return the first opening of a Jinja template that nothing closes."""
    place = 0
    while match := _OPENING.search(template, place):
        place = template.find(_CLOSING[match[0]], match.end())
        if place < 0:
            return match[0]
    return None


class Values:
    """Parses the values of one document.

    Args:
        folder: Folder of the document; ``$f`` reads below it.
        params: Names of the document's params.
        faults: Where to note what is wrong.
        thorough: Parse the templates, too.
    """

    def __init__(self, folder: FilePath, params: set[str], faults: Faults, *, thorough: bool = False) -> None:
        self.thorough = thorough
        self.folder = folder
        self.params = params
        self.faults = faults
        self.references: list[tuple[Path, Reference]] = []
        self.mapping: ForEach | None = None  # what the task at hand runs once for each of
        self.is_mapped = False

    def parse(self, value: Any, path: Path) -> Any:
        """Return a value with its markers parsed."""
        if isinstance(value, dict):
            return self._mapping(value, path)
        if isinstance(value, list):
            return [self.parse(item, (*path, index)) for index, item in enumerate(value)]
        return value

    def _mapping(self, value: dict[str, Any], path: Path) -> Any:
        marked = [key for key in value if key.startswith("$")]
        if not marked:
            return {key: self.parse(item, (*path, key)) for key, item in value.items()}
        key = marked[0]
        name = _ALIASES.get(key, key)
        if name == "$env":
            allowed = "env: {NAME: {default: ...}} at the top"
            self.faults.add((*path, key), "no variable is declared", allowed=allowed, code="marker", key=True)
            return Template("")
        if name not in ("$x", "$t", "$f", "$const"):
            self.faults.add(
                (*path, key),
                f"unknown marker {key!r}",
                allowed=f"markers are {listing(MARKERS)}; wrap a literal key with $ in $const",
                suggestion=near(key, MARKERS),
                code="unknown-marker",
                key=True,
            )
            return None
        if len(value) > 1:
            self.faults.add(
                path,
                f"{key} stands alone in its mapping",
                allowed=f"remove {listing(set(value) - {key})}",
                code="marker",
            )
            return None
        return self._marker(name, value[key], (*path, key))

    def _marker(self, name: str, inner: Any, path: Path) -> Any:
        if name == "$const":
            return Constant(inner)
        if name == "$x":
            return self._reference(inner, path)
        if name == "$f":
            return self._file(inner, path)
        return self._template(inner, path)

    def _reference(self, inner: Any, path: Path) -> Reference | None:
        reference = None
        if isinstance(inner, str) and inner:
            reference = Reference(inner)
        elif isinstance(inner, dict) and set(inner) <= {"task", "key"} and isinstance(inner.get("task"), str):
            key = inner.get("key")
            if key is None or isinstance(key, str):
                reference = Reference(inner["task"], key)
        if reference is None:
            self.faults.add(
                path, "not a reference", allowed="{$x: TASK} or {$x: {task: TASK, key: NAME}}", code="marker"
            )
            return None
        self.references.append((path, reference))
        return reference

    def _template(self, inner: Any, path: Path) -> Template | None:
        if isinstance(inner, dict) and set(inner) in ({"$f"}, {"$file"}):
            inner = self._file(next(iter(inner.values())), (*path, next(iter(inner))))
        if not isinstance(inner, str):
            self.faults.add(
                path, "a template is text", allowed='{$t: "{{ params.x }}"}, or {$t: {$f: FILE}}', code="marker"
            )
            return None
        if (opening := _unclosed(inner)) is not None:
            self.faults.add(path, f"{opening} is never closed", allowed="see Jinja's syntax", code="template")
        elif self.thorough and _OPENING.search(inner):
            check_template(inner, path, self.faults, names=_NAMES)
        for attribute, item in (name for part in _EXPRESSION.findall(inner) for name in _PARAM.findall(part)):
            if (attribute or item) not in self.params:
                self.faults.add(
                    path,
                    f"no such param: {attribute or item}",
                    allowed=f"params are: {listing(sorted(self.params))}",
                    suggestion=near(attribute or item, self.params),
                    code="unknown-param",
                )
        self._check_item(inner, path)
        return Template(inner)

    def _check_item(self, template: str, path: Path) -> None:
        """Note an ``item`` where there is none, and a name that no item has."""
        if "item" not in template or _OWN_ITEM.search(template):
            return
        for attribute, item in (found for part in _EXPRESSION.findall(template) for found in _ITEM.findall(part)):
            if not self.is_mapped:
                self.faults.add(
                    path, "there is no item here", allowed="the task (or a group around it) has for_each:",
                    code="unknown-item",
                )  # fmt: skip
                return
            known = self.mapping.names if self.mapping else None
            name = attribute or item
            if known is None or not name or name in known or hasattr({}, name):
                continue
            self.faults.add(
                path,
                f"items have no {name}",
                allowed=f"all of them have: {listing(known)}",
                suggestion=near(name, known),
                code="unknown-item",
            )

    def _file(self, inner: Any, path: Path) -> str | None:
        if not isinstance(inner, str) or not inner:
            self.faults.add(path, "$f takes a path", allowed="a path relative to the pipeline's folder", code="marker")
            return None
        found = locate(self.folder, inner)
        if found is not None and not found[1]:
            self.faults.add(path, f"{inner} leads out of the pipeline's folder", code="path")
            return None
        try:
            return (found[0] if found else self.folder / inner).read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            is_text = isinstance(error, UnicodeDecodeError)
            reason = getattr(error, "strerror", None) or ("not UTF-8 text" if is_text else "no file has such a name")
            here = [p.name for p in self.folder.iterdir() if p.is_file()] if self.folder.is_dir() else []
            self.faults.add(
                path, f"cannot read {inner}: {reason}", suggestion=near(inner, sorted(here)), code="missing-file"
            )
            return None
