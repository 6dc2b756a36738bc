"""Where this installation keeps things: the one place that turns names into addresses.

Sources, later ones win: the defaults (everything below one home folder), ``installation.yaml`` of the home folder
(``edgewright up`` writes one; an administrator may), environment variables:

==============================  ==========================================================================
``EDGEWRIGHT_HOME``             home folder; default: the nearest ``.edgewright`` folder upwards, else ``./.edgewright``
``EDGEWRIGHT_STORE``            artifact store, such as ``s3://bucket/prefix``
``EDGEWRIGHT_TRACKING_URI``     MLflow: ``http(s)://...`` or ``sqlite:///...``
``EDGEWRIGHT_ENVIRONMENT``      which of the pipelines' ``environments:`` this installation is, such as ``prod``
``EDGEWRIGHT_FEATURE_LOG``      where prediction services log requests, such as ``kafka://127.0.0.1:9092/requests``
``EDGEWRIGHT_SERVICE_<NAME>``   address of a prediction service, such as ``http://127.0.0.1:8500``
==============================  ==========================================================================

Secrets are never kept here: a service names the environment variable or file that holds its token.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgewright.errors import ConfigError

FILE = "installation.yaml"


class Service(BaseModel):
    """A prediction service by name.

    Attributes:
        url: Its address.
        token_env: Environment variable with the bearer token for its administration calls.
        token_file: File with that token (readable by its owner only).
    """

    model_config = ConfigDict(extra="forbid")

    url: str
    token_env: str | None = None
    token_file: str | None = None

    def token(self) -> str | None:
        """Return the administration token, or ``None`` where the service needs none (loopback without one)."""
        if self.token_env and os.environ.get(self.token_env):
            return os.environ[self.token_env]
        if self.token_file and Path(self.token_file).is_file():
            return Path(self.token_file).read_text().strip()
        return None


class FeatureLog(BaseModel):
    """Where the prediction services log requests and answers.

    Attributes:
        to: Brokers and topic: ``kafka://HOST:PORT/TOPIC``, or ``kafka://CONNECTION/TOPIC``.
        durable: Whether only what is logged on the disk is answered.
        spool_mib: MiB that may wait on disk while Kafka is away.
        personal: Features that identify people: ``token`` (a pseudonym) or ``drop`` by name.
    """

    model_config = ConfigDict(extra="forbid")

    to: str
    durable: bool = False
    spool_mib: int = Field(default=256, ge=1)
    personal: dict[str, Literal["token", "drop"]] = {}

    def options(self) -> list[str]:
        """Return it as options of the prediction service."""
        options = ["--feature-log", self.to, "--feature-log-spool", str(self.spool_mib)]
        for name, how in self.personal.items():
            options += ["--feature-log-personal", f"{name}={how}"]
        return [*options, "--feature-log-durable"] if self.durable else options


class Installation(BaseModel):
    """Addresses of one installation."""

    model_config = ConfigDict(extra="forbid")

    home: Path
    store: str = ""
    tracking_uri: str = ""
    services: dict[str, Service] = Field(default_factory=dict)
    feature_log: FeatureLog | None = None
    environment: str | None = Field(None, description="Which of a pipeline's environments: this installation is.")
    profiles: dict[str, dict[str, Any]] = Field(default_factory=dict, description="Places to run, as in a pipeline.")
    urls: dict[str, str] = Field(default_factory=dict, description="Pages for people: airflow, mlflow, ...")

    def model_post_init(self, context: Any) -> None:
        """Fill what was not said with places below the home folder."""
        self.store = self.store or f"file://{self.home / 'store'}"
        self.tracking_uri = self.tracking_uri or f"sqlite:///{self.home / 'mlflow.db'}"

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None) -> Installation:
        """Read the installation that the environment and the working directory point to.

        Raises:
            ConfigError: ``installation.yaml`` is not valid.
        """
        environ = os.environ if environ is None else environ
        home = find_home(environ)
        file = home / FILE
        document: dict[str, Any] = {}
        if file.is_file():
            document = _read(file)
        document.pop("home", None)
        document["profiles"] = _profiles(document.get("profiles") or {})
        for key, variable in (
            ("store", "EDGEWRIGHT_STORE"),
            ("tracking_uri", "EDGEWRIGHT_TRACKING_URI"),
            ("environment", "EDGEWRIGHT_ENVIRONMENT"),
        ):
            if environ.get(variable):
                document[key] = environ[variable]
        if environ.get("EDGEWRIGHT_FEATURE_LOG"):
            document["feature_log"] = {**(document.get("feature_log") or {}), "to": environ["EDGEWRIGHT_FEATURE_LOG"]}
        services = document.setdefault("services", {})
        prefix = "EDGEWRIGHT_SERVICE_"
        for variable, value in environ.items():
            if variable.startswith(prefix):
                name = variable.removeprefix(prefix).lower().replace("_", "-")
                services[name] = {**services.get(name, {}), "url": value}
        try:
            return cls(home=home, **document)
        except (ValidationError, TypeError) as error:
            raise ConfigError(f"not a valid installation: {error}", where=str(file)) from error

    def save(self) -> None:
        """Write ``installation.yaml`` in one step."""
        self.home.mkdir(parents=True, exist_ok=True)
        temporary = self.home / f".tmp-{FILE}-{os.getpid()}"
        temporary.write_text(yaml.safe_dump(self.model_dump(mode="json", exclude={"home"}), sort_keys=True))
        temporary.replace(self.home / FILE)


def _profiles(profiles: Any) -> Any:
    """Return profiles with their key ``on``, which YAML 1.1 reads as true."""
    if not isinstance(profiles, dict):
        return profiles
    return {
        name: {"on" if key is True else key: value for key, value in one.items()} if isinstance(one, dict) else one
        for name, one in profiles.items()
    }


def _read(file: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(file.read_text()) or {}
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot be read: {error}", where=str(file)) from error
    if not isinstance(document, dict):
        raise ConfigError("must be a mapping", where=str(file))
    return document


def find_home(environ: Mapping[str, str] | None = None) -> Path:
    """Return the home folder (which may not exist yet)."""
    environ = os.environ if environ is None else environ
    if environ.get("EDGEWRIGHT_HOME"):
        return Path(environ["EDGEWRIGHT_HOME"]).expanduser().resolve()
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / ".edgewright").is_dir():
            return folder / ".edgewright"
    return here / ".edgewright"
