"""docker-compose.yml by the real Docker Compose, and the .env that it asks for."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from support.tools import call

from edgewright.cli.init import SECRETS
from edgewright.cli.main import cli

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "docker-compose.yml"
OURS = ("edgewright/",)
Json = dict[str, Any]


def make_env(folder: Path) -> Path:
    done = CliRunner().invoke(cli, ["init", "compose", str(folder)])
    assert done.exit_code == 0, done.output
    return folder / ".env"


def read_env(file: Path) -> dict[str, str]:
    return dict(line.split("=", 1) for line in file.read_text().splitlines() if line)


@pytest.fixture
def stack(tmp_path: Path) -> Json:
    """Return the file as Compose reads it, with all profiles."""
    done = call("docker-compose", "--file", FILE, "--env-file", make_env(tmp_path), "--profile", "*", "config",
                env={"EDGEWRIGHT_FEATURE_LOG": "kafka://kafka:9092/requests"})  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not done.stderr, "Compose has something to say"
    found: Json = yaml.safe_load(done.stdout)
    return found


def test_the_passwords_are_made_once_and_are_the_users_alone(tmp_path: Path):
    file = make_env(tmp_path)
    first = read_env(file)
    assert set(first) == set(SECRETS)
    assert len(set(first.values())) == len(first)
    assert file.stat().st_mode & 0o777 == 0o600
    make_env(tmp_path)
    assert read_env(file) == first
    file.write_text("# mine\nAIRFLOW_PORT=8090\nPOSTGRES_PASSWORD=\nMINIO_PASSWORD=kept\n")
    make_env(tmp_path)
    text, again = file.read_text(), read_env(Path(_without_comments(file, tmp_path)))
    assert text.startswith("# mine\n")
    assert (again["AIRFLOW_PORT"], again["MINIO_PASSWORD"]) == ("8090", "kept")
    assert again["POSTGRES_PASSWORD"]


def _without_comments(file: Path, folder: Path) -> Path:
    clean = folder / "clean"
    clean.write_text("".join(line + "\n" for line in file.read_text().splitlines() if not line.startswith("#")))
    return clean


def test_without_passwords_nothing_starts(tmp_path: Path):
    empty = tmp_path / "empty"
    empty.touch()
    environ = dict.fromkeys(SECRETS, "")
    done = call("docker-compose", "--file", FILE, "--env-file", empty, "config", env=environ)
    assert done.returncode != 0
    assert 'run "edgewright init compose" first' in done.stderr


def test_no_password_stands_in_the_file():
    text = FILE.read_text()
    for line in text.splitlines():
        found = re.search(r"(PASSWORD|SECRET|TOKEN|FERNET_KEY)[A-Z_]*: (\S.*)", line)
        if found and "environment:" not in line:
            assert re.match(r"\$\{|\S*/", found[2]), line


def test_everything_listens_on_this_machine_alone(stack: Json):
    ports = [port for service in stack["services"].values() for port in service.get("ports", [])]
    assert len(ports) >= 4  # all pages by one proxy; Kafka, Cassandra and the schema registry for programs
    assert {port["host_ip"] for port in ports} == {"127.0.0.1"}


def test_images_are_pinned_and_bounded(stack: Json):
    for name, service in stack["services"].items():
        assert re.search(r":[^/]*\d", service["image"]), name
        assert service["deploy"]["resources"]["limits"]["memory"], name
        if service["image"].startswith(OURS):
            assert service["cap_drop"] == ["ALL"], name
            assert service["security_opt"] == ["no-new-privileges:true"], name
        assert not service.get("privileged"), name


def test_who_is_waited_for_can_say_that_it_is_healthy(stack: Json):
    services = stack["services"]
    for name, service in services.items():
        for other, how in (service.get("depends_on") or {}).items():
            if how["condition"] == "service_healthy":
                target = (services[other].get("build") or {}).get("target")
                assert services[other].get("healthcheck") or target == "mlflow", f"{name} waits for {other}"
            if how["condition"] == "service_completed_successfully":
                assert services[other]["restart"] == "no"


def test_profiles(stack: Json):
    by = {name: service.get("profiles", ["core"]) for name, service in stack["services"].items()}
    assert {one for some in by.values() for one in some} == {
        "core", "streaming", "monitoring", "notebook", "views", "spark",
    }  # fmt: skip
    core = {name for name, some in by.items() if some == ["core"]}
    for name in core:
        assert set(stack["services"][name].get("depends_on") or {}) <= core


def test_the_targets_are_those_of_the_dockerfile(stack: Json):
    stages = set(re.findall(r"^FROM \S+ AS (\S+)", (ROOT / "images" / "Dockerfile").read_text(), re.M))
    builds = [service["build"] for service in stack["services"].values() if service.get("build")]
    assert {build["target"] for build in builds} <= stages
    assert {os.path.realpath(build["context"]) for build in builds} == {str(ROOT)}


def test_what_containers_run_are_commands_of_ours(stack: Json):
    from edgewright.serving.__main__ import _parser

    command = shlex.split(stack["services"]["serving"]["command"][0])
    assert command[:4] == ["exec", "python", "-m", "edgewright.serving"]
    options = _parser().parse_args(command[4:])
    assert (options.model, options.feature_log) == (["bracelet"], "kafka://kafka:9092/requests")
    sink = stack["services"]["sink"]["command"]
    done = CliRunner().invoke(cli, [*sink[1:], "--help"])
    assert done.exit_code == 0, done.output
    assert {one for one in sink if one.startswith("--")} <= set(re.findall(r"--[a-z-]+", done.output))


def test_airflows_settings_are_ones_that_it_has(stack: Json):
    import airflow

    settings = yaml.safe_load((Path(airflow.__file__).parent / "config_templates" / "config.yml").read_text())
    names = {f"AIRFLOW__{section}__{option}".upper() for section, one in settings.items() for option in one["options"]}
    names |= {"AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE", "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS"}
    given = {name for name in stack["services"]["airflow-scheduler"]["environment"] if name.startswith("AIRFLOW__")}
    assert given
    assert given <= names


def test_the_installation_is_one_that_we_read(stack: Json, tmp_path: Path):
    from edgewright.installation import Installation

    (tmp_path / "installation.yaml").write_text(stack["configs"]["installation"]["content"])
    environ = stack["services"]["airflow-scheduler"]["environment"]
    found = Installation.load({**environ, "EDGEWRIGHT_HOME": str(tmp_path)})
    assert (found.store, found.tracking_uri) == ("s3://edgewright/store", "http://mlflow:5000")
    assert found.services["bracelet"].token_env == "EDGEWRIGHT_SERVING_TOKEN"


def test_the_proxy_leads_to_services_that_there_are_and_the_landing_page_to_its_paths(stack: Json):
    proxy = (ROOT / "images" / "proxy" / "Caddyfile").read_text()
    backends = dict(re.findall(r"reverse_proxy ([a-z-]+):(\d+)", proxy))
    assert set(backends) <= set(stack["services"])
    paths = set(re.findall(r"redir /([a-z]+) ", proxy))
    page = (ROOT / "images" / "proxy" / "landing" / "index.html").read_text()
    assert set(re.findall(r'<td><a href="/([a-z]+)/', page)) == paths
    profiles = {name: set(service.get("profiles", [])) for name, service in stack["services"].items()}
    for path, profile in re.findall(r'data-path="/([a-z]+)/[^"]*" data-profile="([a-z]+)"', page):
        part = proxy.split(f"/{path}", 1)[1]
        backend = re.search(r"reverse_proxy ([a-z-]+):", part)
        assert backend
        assert profile in profiles[backend[1]], path


def test_the_proxy_takes_its_file():
    file = ROOT / "images" / "proxy" / "Caddyfile"
    done = call("caddy", "validate", "--config", file, "--adapter", "caddyfile")
    assert done.returncode == 0, done.stderr
