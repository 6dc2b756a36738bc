"""``edgewright doctor``: what of this installation works, and how to mend what does not."""

from __future__ import annotations

import email.utils
import importlib
import os
import platform
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, entry_points, requires, version
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import click
import httpx

from edgewright.artifacts import ArtifactStore
from edgewright.cli.airflow_api import AirflowApi
from edgewright.cli.options import home_option
from edgewright.cli.output import count, print_json, size
from edgewright.cli.stack.health import WORKING, health
from edgewright.cli.stack.local import PREFERRED
from edgewright.cli.stack.ports import HOST, is_free
from edgewright.cli.stack.processes import listening
from edgewright.cli.stack.state import StackState
from edgewright.errors import EdgewrightError
from edgewright.installation import Installation

_LEAST_DISK = 2 << 30
#: Seconds that clocks may differ: signed requests and leases tell time.
_MOST_SKEW = 30.0
_LOCK = Path("requirements") / "edgewright.txt"
_UP = "edgewright up starts it"

Verdict = Literal["ok", "warn", "fail"]


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
    verdict: Verdict
    text: str
    mend: str = ""


@dataclass
class Patient:
    """What is examined: an installation, and the local stack if one was started."""

    installation: Installation
    state: StackState | None

    def is_of_stopped_stack(self, url: str) -> bool:
        """Return whether an address is that of a local stack which does not run now."""
        return self.state is None and urlsplit(url).hostname == HOST


@click.command("doctor")
@home_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(home: Path | None, as_json: bool) -> None:
    """Look at versions, store, registry, Airflow, pipelines, services, ports, clock and disk.

    Exit code 1 where something that is needed fails; a warning is no failure.
    """
    if home is not None:
        os.environ["EDGEWRIGHT_HOME"] = str(home.resolve())
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
    click.echo(f"{verdict} {finding.name:<10} {finding.text}")
    if finding.mend and finding.verdict != "ok":
        click.echo(f"      {'':<10} mend: {finding.mend}")


def examine() -> list[Finding]:
    """Return all findings; an organ that cannot be looked at is one, and the next is looked at all the same."""
    findings = [_python(), _libraries(), _lock(), _provider()]
    try:
        installation = Installation.load()
    except EdgewrightError as error:
        return [*findings, Finding("settings", "fail", error.message, f"mend or remove {error.where}")]
    patient = Patient(installation, StackState.load(installation.home))
    checks: list[tuple[str, Callable[[Patient], Finding]]] = [
        ("store", _store), ("disk", _disk), ("clock", _clock), ("registry", _registry), ("airflow", _airflow),
        ("pipelines", _pipelines), ("services", _services), ("ports", _ports),
    ]  # fmt: skip
    for name, check in checks:
        try:
            findings.append(check(patient))
        except EdgewrightError as error:
            place = f"{error.where}: " if error.where else ""
            findings.append(Finding(name, "fail", f"{place}{error.message}", error.hint or ""))
        except Exception as error:  # a doctor goes on with the next organ
            findings.append(Finding(name, "fail", f"{type(error).__name__}: {error}"))
    return findings


# -- this environment --------------------------------------------------------------------------------------------------


def _python() -> Finding:
    fits = (3, 11) <= sys.version_info < (3, 14)
    text = f"{platform.python_version()} at {sys.executable}"
    return Finding("python", "ok" if fits else "fail", text, "use Python 3.11 to 3.13")


def _libraries() -> Finding:
    """Hold what is installed against what this distribution asks for."""
    from packaging.requirements import Requirement

    wanted = [Requirement(text) for text in requires("edgewright") or ()]
    wrong: list[str] = []
    found: dict[str, str] = {}
    for requirement in wanted:
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            found[requirement.name] = version(requirement.name)
        except PackageNotFoundError:
            wrong.append(f"{requirement.name} is not installed")
            continue
        if not requirement.specifier.contains(found[requirement.name], prereleases=True):
            wrong.append(f"{requirement.name} {found[requirement.name]} is not {requirement.specifier}")
    if wrong:
        return Finding("libraries", "fail", "; ".join(wrong), "make install, or pip install -e . in the checkout")
    shown = ("apache-airflow", "mlflow", "scikit-learn", "onnx", "onnxruntime")
    named = ", ".join(f"{name} {found[name]}" for name in shown if name in found)
    return Finding("libraries", "ok", f"all {len(found)} that are asked for, such as {named}")


def _lock() -> Finding:
    """Hold what is installed against the lock, where there is one: equal digests need equal versions."""
    file = next((folder / _LOCK for folder in Path(__file__).resolve().parents if (folder / _LOCK).is_file()), None)
    if file is None:
        return Finding("lock", "ok", "not a checkout: no lock to compare with")
    locked = locked_versions(file.read_text())
    other = []
    for name, wanted in locked.items():
        try:
            found = version(name)
        except PackageNotFoundError:
            continue  # of another platform
        if found != wanted:
            other.append(f"{name} {found} (locked: {wanted})")
    if other:
        more = f" and {len(other) - 5} more" if len(other) > 5 else ""
        text = f"{count(len(other), 'version')} other than locked: {', '.join(other[:5])}{more}"
        return Finding("lock", "warn", text, "make install")
    return Finding("lock", "ok", f"{count(len(locked), 'version')} as locked")


def locked_versions(lock: str) -> dict[str, str]:
    """Return the version that a lock asks for here, by distribution; it is made for several platforms at once."""
    from packaging.markers import Marker

    lines = re.findall(r"^([\w.-]+)==([^\s;\\]+)(?: *; *([^\\\n]+))?", lock, re.MULTILINE)
    return {name: wanted for name, wanted, marker in lines if not marker or Marker(marker.strip()).evaluate()}


def _provider() -> Finding:
    for entry in entry_points(group="apache_airflow_provider"):
        if entry.value.startswith("edgewright."):
            importlib.import_module(entry.module)
            return Finding("provider", "ok", "Airflow finds Edgewright's provider")
    mend = "pip install -e . in the checkout"
    return Finding("provider", "fail", "Airflow does not find Edgewright's provider", mend)


# -- this installation -------------------------------------------------------------------------------------------------


def _store(patient: Patient) -> Finding:
    store = ArtifactStore(patient.installation.store)
    key = f"doctor/{time.time_ns()}.json"
    store.write_json(key, {"ok": True})
    works = store.read_json(key) == {"ok": True}
    store.delete(key)
    return Finding("store", "ok" if works else "fail", f"{patient.installation.store}: written, read, removed")


def _disk(patient: Patient) -> Finding:
    home = patient.installation.home
    place = next(folder for folder in (home, *home.parents) if folder.exists())
    free = shutil.disk_usage(place).free
    verdict: Verdict = "ok" if free > _LEAST_DISK else "warn"
    return Finding("disk", verdict, f"{size(free)} free at {place}", "edgewright gc --dry-run shows what could go")


def _clock(patient: Patient) -> Finding:
    """Compare this machine's clock with those of the file system and of the servers that answer."""
    differences: dict[str, float] = {}
    home = patient.installation.home
    if home.is_dir():
        with tempfile.NamedTemporaryFile(dir=home) as file:
            differences["the home folder"] = os.stat(file.name).st_mtime - time.time()
    for url in (patient.installation.tracking_uri, os.environ.get("EDGEWRIGHT_AIRFLOW_URL", "")):
        if url.startswith("http") and not patient.is_of_stopped_stack(url):
            differences |= _difference(url)
    off = {where: seconds for where, seconds in differences.items() if abs(seconds) > _MOST_SKEW}
    if off:
        text = ", ".join(f"{seconds:+.0f} s at {where}" for where, seconds in off.items())
        return Finding("clock", "warn", f"clocks differ: {text}", "set them by NTP; leases and S3 signatures need it")
    return Finding("clock", "ok", f"agrees with {', '.join(differences) or 'itself (nothing to compare with)'}")


def _difference(url: str) -> dict[str, float]:
    try:
        answer = httpx.head(url, timeout=5, trust_env=urlsplit(url).hostname != HOST)
        return {url: email.utils.parsedate_to_datetime(answer.headers["date"]).timestamp() - time.time()}
    except (httpx.HTTPError, KeyError, ValueError):
        return {}  # whether it answers at all is another check


def _registry(patient: Patient) -> Finding:
    from edgewright.registry import Registry

    uri = patient.installation.tracking_uri
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).exists():
        return Finding("registry", "ok", f"{uri}: made at the first use")
    if patient.is_of_stopped_stack(uri):
        return Finding("registry", "warn", f"{uri} belongs to the local stack, which does not run", _UP)
    models = Registry(uri).models()
    return Finding("registry", "ok", f"{uri}: {count(len(models), 'registered model')}")


def _airflow(patient: Patient) -> Finding:
    state = patient.state
    if state is None and not os.environ.get("EDGEWRIGHT_AIRFLOW_URL"):
        return Finding("airflow", "warn", "no local stack runs", _UP)
    if state is not None:
        sick = {name: value for name, value in health(state).items() if value not in WORKING}
        if sick:
            text = ", ".join(f"{name} is {value}" for name, value in sick.items())
            return Finding(
                "airflow", "fail", text, "edgewright down, then edgewright up; logs are in logs/ of the home"
            )
    api = AirflowApi.local(patient.installation.home)
    return Finding("airflow", "ok", f"{api.version()} at {api.url}: login works, all parts healthy")


def _pipelines(patient: Patient) -> Finding:
    if patient.state is None and not os.environ.get("EDGEWRIGHT_AIRFLOW_URL"):
        return Finding("pipelines", "ok", "not asked: no Airflow runs (edgewright check looks at files)")
    api = AirflowApi.local(patient.installation.home)
    errors = api.import_errors()
    if errors:
        named = ", ".join(str(error["filename"]) for error in errors[:5])
        return Finding("pipelines", "warn", f"Airflow cannot import {named}", "edgewright check shows every fault")
    return Finding("pipelines", "ok", f"{count(len(api.dags()), 'Dag')}, no import errors")


def _services(patient: Patient) -> Finding:
    services = patient.installation.services
    if not services:
        return Finding("services", "warn", "this installation names no prediction service", "edgewright up starts one")
    if all(patient.is_of_stopped_stack(service.url) for service in services.values()):
        text = f"{', '.join(services)}: of the local stack, which does not run"
        return Finding("services", "warn", text, _UP)
    away, sick = [], []
    for name, service in services.items():
        try:
            answer = httpx.get(f"{service.url}/health", timeout=5, trust_env=urlsplit(service.url).hostname != HOST)
            if answer.status_code == 200 and answer.json().get("status") == "degraded":
                sick.append(f"{name}: {answer.json().get('problems')}")
        except (httpx.HTTPError, ValueError):
            away.append(f"{name} at {service.url}")
    if away:
        return Finding("services", "fail", f"no answer: {', '.join(away)}", _UP)
    if sick:
        return Finding("services", "warn", "; ".join(sick), "edgewright trigger deploys anew")
    return Finding("services", "ok", ", ".join(f"{name} at {service.url}" for name, service in services.items()))


def _ports(patient: Patient) -> Finding:
    """Without a stack: what ``up`` will find. With one: that it can be reached from this machine only."""
    if patient.state is None:
        taken = [f"{name} {port}" for name, port in PREFERRED.items() if not is_free(port)]
        text = (
            f"taken: {', '.join(taken)}; the stack will use the next free ones" if taken else "the usual ones are free"
        )
        return Finding("ports", "ok", text)
    ports = listening(patient.state)
    wide = {address for addresses in ports.values() for address in addresses} - {HOST}
    if wide:
        text = f"the stack listens on {', '.join(sorted(wide))}"
        return Finding("ports", "fail", text, "edgewright down; only 127.0.0.1 is meant: report this")
    return Finding("ports", "ok", f"{', '.join(map(str, sorted(ports)))}, all on {HOST} only")
