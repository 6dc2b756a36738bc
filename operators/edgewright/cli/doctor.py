"""``edgewright doctor``: what of this installation works, and how to mend what does not."""

from __future__ import annotations

import importlib
import platform
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, entry_points, version
from pathlib import Path
from typing import Literal

import click
import httpx

from edgewright.artifacts import ArtifactStore
from edgewright.cli.airflow_api import AirflowApi
from edgewright.cli.output import print_json, size
from edgewright.cli.stack.health import health
from edgewright.cli.stack.state import StackState
from edgewright.errors import EdgewrightError
from edgewright.installation import Installation

#: Distribution -> lowest version that works, and first that does not.
_LIBRARIES: dict[str, tuple[str, str | None]] = {
    "apache-airflow-core": ("3.3.2", "3.4"),
    "mlflow": ("3.17", "3.18"),
    "onnx": ("1.21", "1.23"),
    "onnxruntime": ("1.31", "1.32"),
    "skl2onnx": ("1.20", None),
    "scikit-learn": ("1.9", None),
    "pandas": ("3", None),
    "pyarrow": ("25", None),
    "pandera": ("0.35", None),
    "pydantic": ("2.14", None),
}
_LEAST_DISK = 2 << 30


@dataclass
class Finding:
    """One thing that was looked at.

    Attributes:
        name: What.
        verdict: ``ok``, ``warn`` (works without it) or ``fail``.
        text: What was found.
        mend: What to do about it.
    """

    name: str
    verdict: Literal["ok", "warn", "fail"]
    text: str
    mend: str = ""


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(as_json: bool) -> None:
    """Look at versions, store, registry, Airflow, services and disk. Exit code 1 where something needed fails."""
    findings = examine()
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            _print(finding)
    if any(finding.verdict == "fail" for finding in findings):
        sys.exit(1)


_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


def _print(finding: Finding) -> None:
    verdict = click.style(finding.verdict.ljust(5), fg=_COLOURS[finding.verdict])
    click.echo(f"{verdict} {finding.name:<12} {finding.text}")
    if finding.mend and finding.verdict != "ok":
        click.echo(f"      {'':<12} mend: {finding.mend}")


def examine() -> list[Finding]:
    """Return all findings."""
    findings = [_python(), *_versions(), _provider()]
    try:
        installation = Installation.load()
    except EdgewrightError as error:
        return [*findings, Finding("settings", "fail", str(error), "mend the file, or remove it")]
    checks: list[tuple[str, Callable[[Installation], Finding]]] = [
        ("store", _store), ("disk", _disk), ("registry", _registry), ("airflow", _airflow), ("services", _services),
    ]  # fmt: skip
    for name, check in checks:
        try:
            findings.append(check(installation))
        except EdgewrightError as error:
            findings.append(Finding(name, "fail", error.message, error.hint or ""))
        except Exception as error:  # a doctor goes on with the next organ
            findings.append(Finding(name, "fail", f"{type(error).__name__}: {error}"))
    return findings


def _python() -> Finding:
    fits = (3, 11) <= sys.version_info < (3, 14)
    text = f"{platform.python_version()} at {sys.executable}"
    return Finding("python", "ok" if fits else "fail", text, "use Python 3.11 to 3.13")


def _versions() -> list[Finding]:
    wrong: list[Finding] = []
    for name, (low, high) in _LIBRARIES.items():
        try:
            found = version(name)
        except PackageNotFoundError:
            wrong.append(Finding("libraries", "fail", f"{name} is not installed", "make install"))
            continue
        if _parts(found) < _parts(low) or (high and _parts(found) >= _parts(high)):
            wanted = f">={low}" + (f",<{high}" if high else "")
            wrong.append(Finding("libraries", "fail", f"{name} {found}, needed is {wanted}", "make install"))
    return wrong or [Finding("libraries", "ok", ", ".join(f"{name} {version(name)}" for name in _LIBRARIES))]


def _parts(text: str) -> tuple[int, ...]:
    return tuple(int("".join(c for c in part if c.isdigit()) or 0) for part in text.split(".")[:3])


def _provider() -> Finding:
    for entry in entry_points(group="apache_airflow_provider"):
        if entry.value.startswith("edgewright."):
            importlib.import_module(entry.module)
            return Finding("provider", "ok", "Airflow finds Edgewright's provider")
    return Finding(
        "provider", "fail", "Airflow does not find Edgewright's provider", "pip install -e . in the checkout"
    )


def _store(installation: Installation) -> Finding:
    store = ArtifactStore(installation.store)
    key = f"doctor/{time.time_ns()}.json"
    store.write_json(key, {"ok": True})
    works = store.read_json(key) == {"ok": True}
    store.delete(key)
    return Finding("store", "ok" if works else "fail", f"{installation.store}: written, read, removed")


def _disk(installation: Installation) -> Finding:
    place = installation.home if installation.home.exists() else Path.cwd()
    free = shutil.disk_usage(place).free
    verdict: Literal["ok", "warn"] = "ok" if free > _LEAST_DISK else "warn"
    return Finding("disk", verdict, f"{size(free)} free at {place}", "edgewright gc --dry-run shows what could go")


def _registry(installation: Installation) -> Finding:
    from edgewright.registry import Registry

    if installation.tracking_uri.startswith("sqlite:///") and not Path(installation.tracking_uri[10:]).exists():
        return Finding("registry", "ok", f"{installation.tracking_uri}: made at the first use")
    models = Registry(installation.tracking_uri).models()
    return Finding("registry", "ok", f"{installation.tracking_uri}: {len(models)} registered models")


def _airflow(installation: Installation) -> Finding:
    state = StackState.load(installation.home)
    if state is None:
        return Finding("airflow", "warn", "no local stack runs", "edgewright up starts one")
    sick = {name: value for name, value in health(state).items() if value != "healthy"}
    if sick:
        return Finding("airflow", "fail", f"not healthy: {sick}", "edgewright down, then edgewright up")
    errors = AirflowApi.local(installation.home).import_errors()
    if errors:
        return Finding(
            "airflow", "warn", f"{len(errors)} pipelines have faults: {errors[0]['filename']}", "edgewright check"
        )
    return Finding("airflow", "ok", f"{state.urls['airflow']}: all parts healthy, no import errors")


def _services(installation: Installation) -> Finding:
    if not installation.services:
        return Finding("services", "warn", "this installation names no prediction service", "edgewright up starts one")
    away = []
    for name, service in installation.services.items():
        try:
            httpx.get(f"{service.url}/health", timeout=3)
        except httpx.HTTPError:
            away.append(f"{name} at {service.url}")
    if away:
        return Finding("services", "fail", f"do not answer: {', '.join(away)}", "edgewright up")
    return Finding("services", "ok", ", ".join(f"{n} at {s.url}" for n, s in installation.services.items()))
