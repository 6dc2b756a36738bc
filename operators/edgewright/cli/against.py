"""``edgewright check --against``: what a cluster or a Docker engine says about the profiles, before any run."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import click

from edgewright.errors import ConfigError, Fault
from edgewright.installation import Installation
from edgewright.places.pod_template import with_pod
from edgewright.spec import Pipeline
from edgewright.spec.profiles import Profile, profile_of

#: Between two faults of one pod.
_EACH = re.compile(r"; (?!did you mean|there are)")
Ask = Callable[[Profile], list[str]]


def pod_faults(checked: list[tuple[Path, Pipeline | list[Fault]]]) -> None:
    """Put what Kubernetes would refuse in a ``pod:`` by its form in the stead of pipelines without faults."""
    for number, (path, found) in enumerate(checked):
        if isinstance(found, list):
            continue
        faults: list[Fault] = []
        for name, profile in found.profiles.items():
            if profile.get("pod") is None:
                continue
            try:
                with_pod(profile_of(name, found.profiles), path.parent)
            except ConfigError as error:
                faults += [_fault(path, found, name, words) for words in _lines(error)]
        if faults:
            checked[number] = (path, faults)


def _lines(error: ConfigError) -> list[str]:
    """Return what is wrong with a pod, one line each."""
    file = f"{error.where}: " if error.where and not error.where.startswith("profile") else "pod: "
    return [file + one.replace("; there are", ", there are") for one in _EACH.split(error.message)]


def faults_against(place: str, checked: list[tuple[Path, Pipeline | list[Fault]]]) -> None:
    """Put what a place cannot honour in the stead of pipelines without faults.

    Args:
        place: ``docker``, ``kubernetes``, or a kubeconfig's path.
        checked: As ``check_tree`` has it; changed here.

    Raises:
        ConfigError: there is no such file.
        Unavailable: the place does not answer.
    """
    kind, ask, unread = _asker(place)
    profiles = Installation.load().profiles
    said: dict[str, list[str]] = {}
    for number, (path, found) in enumerate(checked):
        if isinstance(found, list):
            continue
        faults = list(_faults(path, found, profiles, kind, ask, said))
        if faults:
            checked[number] = (path, faults)
    for what in unread:
        click.echo(f"not looked at, for want of permission: {what}", err=True)


def _asker(place: str) -> tuple[str, Ask, list[str]]:
    if place == "docker":
        from edgewright.places.containers import Container

        return "docker", lambda profile: [words] if (words := Container(profile).refusal()) else [], []
    from edgewright.places.cluster import Cluster

    if place != "kubernetes" and not Path(place).is_file():
        raise ConfigError(f"there is no file {place}", where="--against",
                          hint="docker, kubernetes, or the path of a kubeconfig")  # fmt: skip
    cluster = Cluster(None if place == "kubernetes" else Path(place))
    return "kubernetes", cluster.findings, cluster.unread


def _faults(
    path: Path,
    pipeline: Pipeline,
    installed: dict[str, dict[str, object]],
    kind: str,
    ask: Ask,
    said: dict[str, list[str]],
) -> Iterator[Fault]:
    named: dict[str, str] = {}
    for task in pipeline.tasks:
        for name in (task.preferred, task.profile):
            if name not in (None, "local"):
                named.setdefault(str(name), task.id)
    for name, task_id in named.items():
        try:
            profile = with_pod(profile_of(name, pipeline.profiles, installed), path.parent)
        except ConfigError as error:
            for words in _lines(error):
                yield _fault(path, pipeline, name, words, task_id)
            continue
        if profile.on != kind:
            continue
        key = f"{path.parent}{profile.model_dump_json()}"
        if key not in said:
            said[key] = ask(profile)
        for words in said[key]:
            yield _fault(path, pipeline, name, words, task_id)


def _fault(path: Path, pipeline: Pipeline, name: str, words: str, task: str | None = None) -> Fault:
    own = name in pipeline.profiles
    message, _, allowed = words.partition("; ")
    where = f"profiles.{name}" if own else f"tasks.{task}.profile" if task else f"profile {name}"
    line, column = _position(pipeline.text, name, own=own)
    return Fault(str(path), line, column, where, message, allowed or None, code="not-honoured",
                 end_column=column + len(name))  # fmt: skip


def _position(text: str, name: str, *, own: bool) -> tuple[int, int]:
    """Return where a profile is made, or where a task names it."""
    word = re.compile(rf"(?<![\w-]){re.escape(name)}(?=\s*:)" if own else rf"(?<![\w-]){re.escape(name)}(?![\w-])")
    inside = False
    for number, line in enumerate(text.splitlines(), start=1):
        inside = inside or line.lstrip().startswith("profiles:" if own else "tasks:")
        found = word.search(line) if inside and (own or "profile" in line) else None
        if found:
            return number, found.start() + 1
    return 1, 1
