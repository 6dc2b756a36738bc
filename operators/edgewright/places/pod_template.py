"""``pod:`` of a profile: a mapping or a file of the pipeline's folder, held against Kubernetes' own types.

The types are those of the Kubernetes client that is installed; it is imported only where a profile has a ``pod:``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from edgewright.errors import ConfigError
from edgewright.spec.faults import listing, near
from edgewright.spec.profiles import POD_KEYS, Profile

_GENERIC = re.compile(r"^(list|dict)[\[(](?:str, )?(.+)[\])]$")
_PLAIN: dict[str, tuple[type, ...]] = {
    "str": (str, int, float), "int": (int,), "bool": (bool,), "float": (int, float), "datetime": (str,),
}  # fmt: skip


def with_pod(profile: Profile, folder: Path | None) -> Profile:
    """Return a profile whose ``pod:`` is a mapping that Kubernetes knows; a file is read.

    Args:
        profile: Any profile.
        folder: The pipeline's folder, where a file is looked for.

    Raises:
        ConfigError: there is no such file, or it is no pod; with everything that is wrong.
    """
    if profile.pod is None:
        return profile
    where = "profile.pod"
    if isinstance(profile.pod, str):
        where = profile.pod
        profile = profile.model_copy(update={"pod": read_template(profile.pod, folder)})
    assert isinstance(profile.pod, dict)
    found = list(faults(profile.pod))
    if found:
        raise ConfigError("; ".join(found), where=where)
    return profile


def read_template(name: str, folder: Path | None) -> dict[str, Any]:
    """Read a pod template file.

    Raises:
        ConfigError: it is not there, or is no mapping.
    """
    file = ((folder or Path()) / name).resolve()
    if folder is None or not file.is_relative_to(folder.resolve()) or not file.is_file():
        raise ConfigError(f"there is no file {name}", where="profile.pod", hint="a path in the pipeline's folder")
    try:
        document = yaml.safe_load(file.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot be read: {error}", where=name) from error
    if not isinstance(document, dict):
        raise ConfigError("must be a pod: metadata and spec", where=name)
    return document


def faults(pod: dict[str, Any]) -> Iterator[str]:
    """Yield everything in a pod that Kubernetes would refuse by its form: unknown keys, wrong types."""
    from kubernetes.client import models

    if pod.get("kind", "Pod") != "Pod":
        yield f"kind: {pod['kind']} is no Pod"
    for key in pod:
        if key not in POD_KEYS:
            yield _unknown(key, "", POD_KEYS)
    yield from _walk(pod.get("metadata", {}), "V1ObjectMeta", "metadata", models)
    yield from _walk(pod.get("spec", {}), "V1PodSpec", "spec", models)


def _walk(value: Any, kind: str, path: str, models: Any) -> Iterator[str]:
    if value is None or kind == "object":
        return
    generic = _GENERIC.match(kind)
    if generic:
        yield from _walk_many(value, generic[1], generic[2], path, models)
    elif kind in _PLAIN:
        if not isinstance(value, _PLAIN[kind]) or (isinstance(value, bool) and kind != "bool"):
            yield f"{path}: {value!r} is no {kind}"
    else:
        yield from _walk_model(value, getattr(models, kind), path, models)


def _walk_many(value: Any, outer: str, inner: str, path: str, models: Any) -> Iterator[str]:
    if outer == "list" and isinstance(value, list):
        for number, one in enumerate(value):
            yield from _walk(one, inner, f"{path}[{number}]", models)
    elif outer == "dict" and isinstance(value, dict):
        for key, one in value.items():
            yield from _walk(one, inner, f"{path}.{key}", models)
    else:
        yield f"{path}: must be a {'list' if outer == 'list' else 'mapping'}"


def _walk_model(value: Any, model: Any, path: str, models: Any) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{path}: must be a mapping"
        return
    known = {name: model.openapi_types[attribute] for attribute, name in model.attribute_map.items()}
    for key, one in value.items():
        if key in known:
            yield from _walk(one, known[key], f"{path}.{key}", models)
        else:
            yield _unknown(key, path, known)


def _unknown(key: object, path: str, known: Any) -> str:
    guess = near(key, known)
    hint = f'did you mean "{guess}"?' if guess else f"there are: {listing(known)}"
    return f"{f'{path}.' if path else ''}{key}: Kubernetes knows no such key; {hint}"
