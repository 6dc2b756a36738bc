"""The local stack as a whole: Airflow, MLflow, prediction services, all on the loopback address."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

from edgewright.cli.stack import airflow, mlflow, services
from edgewright.cli.stack.health import PartFailed, wait_until_healthy
from edgewright.cli.stack.ports import HOST, PortClaims, is_free
from edgewright.cli.stack.processes import start, stop
from edgewright.cli.stack.secrets import Secrets, write_private
from edgewright.cli.stack.signals import uninterrupted
from edgewright.cli.stack.state import Running, StackState
from edgewright.errors import Busy, ConfigError, SystemFault
from edgewright.installation import Installation, Service

PREFERRED = {"airflow": 8080, "mlflow": 5000, "service": 8500}
START_TIMEOUT = 240.0
#: Seconds in which parts that live must answer before the stack is taken for broken.
_ANSWER_TIMEOUT = 60.0
_TRIES = 3
_DISTRIBUTIONS = ("edgewright", "apache-airflow-core", "mlflow")
Say = Callable[[str], None]


@dataclass
class Started:
    """What ``up`` came to.

    Attributes:
        state: The stack.
        new: Whether it was started now; otherwise it ran before.
    """

    state: StackState
    new: bool


class LocalStack:
    """The stack of one home folder.

    Args:
        home: Where everything is kept.
        say: Told what is going on, one line at a time.
    """

    def __init__(self, home: Path, say: Say) -> None:
        self.home = home.resolve()
        self.say = say

    # -- for commands ------------------------------------------------------------------------------------------

    def up(
        self,
        dags: Path,
        *,
        asked: Iterable[str] = (),
        parallelism: int = 4,
        schedules: bool = True,
        owner: Running | None = None,
    ) -> Started:
        """Start the stack, or return the one that runs already.

        Args:
            dags: Folder of the pipelines.
            asked: Prediction services beside those that the pipelines deploy to.
            parallelism: Tasks that run at the same time.
            schedules: Whether runs start by their schedules.
            owner: The process that will stop it; a stack whose owner has gone is stopped and started anew.

        Raises:
            ConfigError: there is no such folder, or a stack runs with another one.
            Busy: somebody else is starting or stopping it right now.
            SystemFault: a part did not become healthy; everything that was started is stopped again.
        """
        if not dags.is_dir():
            raise ConfigError("no such folder of pipelines", where=str(dags), hint="name it: --dags FOLDER")
        names = services.service_names(dags, asked)
        with self.lock():
            running = self._running(dags.resolve())
            if running is not None:
                self._add_services(running, names)
                return Started(running, new=False)
            new = StackState(home=str(self.home), dags=str(dags.resolve()), owner=owner)
            return Started(self._start_on_free_ports(new, names, parallelism, schedules), new=True)

    def down(self) -> bool:
        """Stop the stack; return whether there was one."""
        if not self.home.is_dir():
            return False
        with self.lock():
            state = StackState.load(self.home) or StackState(home=str(self.home), dags="")
            found = bool(state.parts or state.members())
            self._clear(state)
            return found

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Let one process at a time start or stop the stack.

        Raises:
            Busy: somebody else does; says who.
        """
        hint = "wait for it, or give this one a home of its own: --home FOLDER"
        with exclusive(self.home / "stack.lock", f"is starting or stopping the stack of {self.home}", hint):
            yield

    # -- what is there already ---------------------------------------------------------------------------------

    def _running(self, dags: Path) -> StackState | None:
        """Return a healthy stack; clear away what is left of a broken or abandoned one."""
        state = StackState.load(self.home) or StackState(home=str(self.home), dags="")
        members = len(state.members())
        if not members:
            return None
        whole = state.complete and len(state.running()) == len(state.parts)
        if not whole or state.is_orphaned():
            self.say(f"clearing away an earlier stack ({members} processes of it are left)")
            self._clear(state)
            return None
        if Path(state.dags) != dags:
            raise ConfigError(
                f"the stack of {self.home} runs with the pipelines of {state.dags}",
                hint="edgewright down stops it; or use another home: --home FOLDER",
            )
        try:
            wait_until_healthy(state, lambda line: None, _ANSWER_TIMEOUT)
        except PartFailed as error:
            self.say(f"{error.part.name} of the running stack does not answer: starting everything anew")
            self._clear(state)
            return None
        if state.versions != versions():
            self.say(
                "this environment has changed since the stack was started: edgewright down, then up, to use the new one"
            )
        return state

    def _clear(self, state: StackState) -> None:
        with uninterrupted(self.say):
            if state.members():
                self.say("stopping the stack")
                # whoever watches it knows then that nothing broke
                state.stopping = True
                state.save()
                stop(state, say=self.say)
            self._forget_addresses(state)
            state.forget()

    def _forget_addresses(self, state: StackState) -> None:
        """Let what runs here from now on use its own registry, not the server that is gone."""
        if not (self.home / "installation.yaml").is_file():
            return
        written = Installation.load({"EDGEWRIGHT_HOME": str(self.home)})
        gone = set(state.urls.values())
        if written.tracking_uri in gone:
            written.tracking_uri = f"sqlite:///{self.home / 'mlflow.db'}"
        written.services = {name: service for name, service in written.services.items() if service.url not in gone}
        written.urls = {name: url for name, url in written.urls.items() if url not in gone}
        written.save()

    # -- starting ----------------------------------------------------------------------------------------------

    def _start_on_free_ports(
        self, wanted: StackState, names: list[str], parallelism: int, schedules: bool
    ) -> StackState:
        """Start everything; once more on other ports if another program took one between choosing and listening."""
        for attempt in range(1, _TRIES + 1):
            state = replace(wanted, parts=[], urls={}, started=time.time())
            try:
                self._start(state, names, parallelism, schedules)
            except BaseException as error:
                self._clear(state)
                if attempt == _TRIES or not _lost_its_port(error):
                    raise
                self.say("another program took one of the ports meanwhile; starting again on others")
            else:
                return state
        raise AssertionError("the last try returns or raises")

    def _start(self, state: StackState, names: list[str], parallelism: int, schedules: bool) -> None:
        secrets = Secrets.of(self.home)
        claims = PortClaims()
        with claims.held():
            port = self._port(claims, "airflow", PREFERRED["airflow"])
            variables = airflow.environment(
                self.home, Path(state.dags), port, secrets, parallelism=parallelism, schedules=schedules
            )
            airflow.prepare(self.home, secrets)
            write_private(self._token_file, secrets.service_token)
            state.login_file = str(airflow.login_file(self.home))
            state.versions = versions()
            state.urls["airflow"] = f"http://{HOST}:{port}"
            state.save()
            self._start_mlflow(state, claims, variables)
            self._start_services(state, names, claims, variables)
            self._write_installation(state)
            self._start_airflow(state, port, variables)
            state.complete = True
            state.save()
            wait_until_healthy(state, self.say, START_TIMEOUT)

    def _port(self, claims: PortClaims, name: str, preferred: int) -> int:
        port = claims.take(preferred)
        if port != preferred:
            self.say(f"port {preferred} is taken: {name} uses {port}")
        return port

    def _start_part(
        self, state: StackState, name: str, command: list[str], variables: dict[str, str], port: int | None = None
    ) -> None:
        log = self.home / "logs" / f"{name}.log"
        state.parts.append(start(name, command, variables, log, port=port))
        state.save()

    def _start_mlflow(self, state: StackState, claims: PortClaims, variables: dict[str, str]) -> None:
        port = self._port(claims, "mlflow", PREFERRED["mlflow"])
        self._start_part(state, "mlflow", mlflow.command(self.home, port), mlflow.environment(variables), port)
        state.urls["mlflow"] = f"http://{HOST}:{port}"

    def _start_services(
        self, state: StackState, names: Iterable[str], claims: PortClaims, variables: dict[str, str]
    ) -> None:
        feature_log = Installation.load({**os.environ, "EDGEWRIGHT_HOME": str(self.home)}).feature_log
        for number, name in enumerate(names):
            port = self._port(claims, f"service {name}", PREFERRED["service"] + number)
            command = services.command(self.home, name, port, state.urls["mlflow"], self._token_file, feature_log)
            self._start_part(state, services.part_name(name), command, variables, port)
            state.urls[f"{services.PREFIX}{name}"] = f"http://{HOST}:{port}"

    def _start_airflow(self, state: StackState, port: int, variables: dict[str, str]) -> None:
        airflow.migrate(self.home, variables, self.say)
        for name, arguments in airflow.COMPONENTS.items():
            command = [airflow.executable(), *arguments]
            self._start_part(state, name, command, variables, port if name == "api-server" else None)

    def _add_services(self, state: StackState, names: Iterable[str]) -> None:
        """Start the services of pipelines that came after the stack was started."""
        missing = [name for name in names if f"{services.PREFIX}{name}" not in state.urls]
        if not missing or missing == [services.DEFAULT]:
            return
        secrets = Secrets.of(self.home)
        port = int(state.urls["airflow"].rpartition(":")[2])
        variables = airflow.environment(self.home, Path(state.dags), port, secrets)
        claims = PortClaims()
        with claims.held():
            self._start_services(state, missing, claims, variables)
            state.save()
            self._write_installation(state)
            wait_until_healthy(state, self.say, START_TIMEOUT)

    @property
    def _token_file(self) -> Path:
        return self.home / "serving" / "token"

    def _write_installation(self, state: StackState) -> None:
        """Say where everything is; what an administrator wrote beside it stays."""
        ours = {
            name.removeprefix(services.PREFIX): Service(url=url, token_file=str(self._token_file))
            for name, url in state.urls.items()
            if name.startswith(services.PREFIX)
        }
        written = Installation.load({"EDGEWRIGHT_HOME": str(self.home)})
        written.tracking_uri = state.urls["mlflow"]
        written.services = {**written.services, **ours}
        written.urls = {**written.urls, **state.urls}
        written.save()


def versions() -> dict[str, str]:
    """Return the versions of what a stack runs."""
    return {name: version(name) for name in _DISTRIBUTIONS}


def _lost_its_port(error: BaseException) -> bool:
    """Return whether a part failed because somebody else listens on its port (asked after the part was stopped)."""
    return isinstance(error, PartFailed) and error.part.port is not None and not is_free(error.part.port)


@contextlib.contextmanager
def exclusive(file: Path, doing: str, hint: str) -> Iterator[None]:
    """Hold a file's lock, which the kernel gives back when this process ends, however it ends.

    Raises:
        Busy: another process holds it; names its PID.
        SystemFault: the folder cannot be written.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        lock = file.open("a+")
    except OSError as error:
        raise SystemFault(f"the home folder cannot be written: {error}", where=str(file.parent)) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.seek(0)
            holder = lock.read().strip() or "unknown"
            raise Busy(f"another command (PID {holder}) {doing}", hint=hint) from error
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield
