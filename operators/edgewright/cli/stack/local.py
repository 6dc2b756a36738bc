"""The local stack as a whole: Airflow, MLflow, prediction services, all on the loopback address."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from edgewright.cli.stack import airflow
from edgewright.cli.stack.health import health, wait_until_healthy
from edgewright.cli.stack.ports import HOST, free_port
from edgewright.cli.stack.processes import start, stop
from edgewright.cli.stack.secrets import Secrets, write_private
from edgewright.cli.stack.state import StackState
from edgewright.errors import Busy, ConfigError
from edgewright.installation import Installation, Service

PREFERRED = {"airflow": 8080, "mlflow": 5000, "service": 8500}
START_TIMEOUT = 240.0
Say = Callable[[str], None]


class LocalStack:
    """The stack of one home folder.

    Args:
        home: Where everything is kept.
        say: Told what is going on, one line at a time.
    """

    def __init__(self, home: Path, say: Say) -> None:
        self.home = home
        self.say = say
        home.mkdir(parents=True, exist_ok=True)

    # -- for commands ------------------------------------------------------------------------------------------

    def up(self, dags: Path, *, parallelism: int = 4, owner: int | None = None) -> StackState:
        """Start the stack, or return the one that runs already.

        Args:
            dags: Folder of the pipelines.
            parallelism: Tasks that run at the same time.
            owner: PID of the process that will stop it.

        Raises:
            ConfigError: there is no such folder.
            Busy: somebody else is starting or stopping it right now.
            SystemFault: a part did not become healthy; everything that was started is stopped again.
        """
        if not dags.is_dir():
            raise ConfigError("no such folder of pipelines", where=str(dags), hint="name it: --dags FOLDER")
        with self.lock():
            running = self._running(dags)
            if running is not None:
                return running
            state = StackState(dags=str(dags.resolve()), owner=owner)
            try:
                self._start(state, dags.resolve(), parallelism)
                wait_until_healthy(state, self._say_health, START_TIMEOUT)
            except BaseException:
                self.say("stopping what was started")
                stop(state)
                state.forget(self.home)
                raise
            return state

    def down(self) -> bool:
        """Stop the stack; return whether there was one."""
        with self.lock():
            state = StackState.load(self.home)
            if state is None:
                return False
            killed = stop(state)
            if killed:
                self.say(f"had to be killed: {', '.join(map(str, killed))}")
            state.forget(self.home)
            return True

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Let one process at a time start or stop the stack.

        Raises:
            Busy: somebody else does.
        """
        file = (self.home / "stack.lock").open("a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            file.close()
            raise Busy(
                f"another command (PID {holder}) is starting or stopping the stack of {self.home}",
                hint="wait for it, or use another EDGEWRIGHT_HOME",
            ) from error
        try:
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield
        finally:
            file.close()

    # -- starting ----------------------------------------------------------------------------------------------

    def _running(self, dags: Path) -> StackState | None:
        """Return a healthy stack; clear away what is left of a broken one."""
        state = StackState.load(self.home)
        if state is None:
            return None
        if len(state.running()) == len(state.parts) and "gone" not in health(state).values():
            if Path(state.dags) != dags.resolve():
                raise ConfigError(
                    f"the stack of {self.home} runs with the pipelines of {state.dags}",
                    hint="edgewright down stops it; or use another EDGEWRIGHT_HOME",
                )
            return state
        self.say(f"clearing away an earlier stack ({len(state.members())} processes of it are left)")
        stop(state)
        state.forget(self.home)
        return None

    def _start(self, state: StackState, dags: Path, parallelism: int) -> None:
        secrets = Secrets.of(self.home)
        taken: set[int] = set()
        ports = {name: self._port(name, preferred, taken) for name, preferred in PREFERRED.items()}
        variables = airflow.environment(self.home, dags, ports["airflow"], secrets, parallelism)
        airflow.prepare(self.home, secrets)
        tracking = f"http://{HOST}:{ports['mlflow']}"
        state.urls = {"airflow": f"http://{HOST}:{ports['airflow']}", "mlflow": tracking}
        state.login_file = str(airflow.login_file(self.home))
        self._start_mlflow(state, ports["mlflow"], variables)
        token = self.home / "serving" / "token"
        write_private(token, secrets.service_token)
        services = self._start_services(state, dags, ports["service"], taken, tracking, token, variables)
        Installation(home=self.home, tracking_uri=tracking, services=services, urls=state.urls).save()
        self.say("preparing Airflow's database")
        airflow.migrate(self.home, variables)
        for name, arguments in airflow.COMPONENTS.items():
            port = ports["airflow"] if name == "api-server" else None
            log = self.home / "logs" / f"{name}.log"
            state.parts.append(start(name, [airflow.executable(), *arguments], variables, log, port=port))
            state.save(self.home)

    def _port(self, name: str, preferred: int, taken: set[int]) -> int:
        port = free_port(preferred, taken)
        if port != preferred:
            self.say(f"port {preferred} is taken: {name} uses {port}")
        return port

    def _start_mlflow(self, state: StackState, port: int, variables: dict[str, str]) -> None:
        command = [
            str(Path(sys.executable).parent / "mlflow"), "server",
            "--host", HOST, "--port", str(port), "--workers", "1",
            "--backend-store-uri", f"sqlite:///{self.home / 'mlflow.db'}",
            "--artifacts-destination", str(self.home / "mlartifacts"), "--serve-artifacts",
            "--uvicorn-opts", "--timeout-worker-healthcheck 60",
        ]  # fmt: skip
        extra = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        log = self.home / "logs" / "mlflow.log"
        state.parts.append(start("mlflow", command, {**variables, **extra}, log, port=port))
        state.save(self.home)

    def _start_services(
        self,
        state: StackState,
        dags: Path,
        port: int,
        taken: set[int],
        tracking: str,
        token: Path,
        variables: dict[str, str],
    ) -> dict[str, Service]:
        services: dict[str, Service] = {}
        for name in service_names(dags):
            number = port if not services else self._port(name, port + len(services), taken)
            command = [
                sys.executable, "-m", "edgewright.serving", "--host", HOST, "--port", str(number),
                "--home", str(self.home / "serving" / name), "--tracking-uri", tracking, "--token-file", str(token),
            ]  # fmt: skip
            log = self.home / "logs" / f"service-{name}.log"
            part = start(f"service-{name}", command, variables, log, port=number)
            state.parts.append(part)
            state.save(self.home)
            services[name] = Service(url=f"http://{HOST}:{number}", token_file=str(token))
            state.urls[f"service {name}"] = services[name].url
        return services

    def _say_health(self, parts: dict[str, str]) -> None:
        waiting = [name for name, value in parts.items() if value != "healthy"]
        done = len(parts) - len(waiting)
        self.say(
            f"{done} of {len(parts)} parts are healthy" + (f", waiting for {', '.join(waiting)}" if waiting else "")
        )


def service_names(dags: Path) -> list[str]:
    """Return the prediction services that the pipelines deploy to; ``default`` where none does."""
    from edgewright.spec import Pipeline, check_tree

    names: dict[str, None] = {}
    for _, pipeline in check_tree([dags]):
        for task in pipeline.tasks if isinstance(pipeline, Pipeline) else ():
            to = task.config.get("to") if task.uses == "deploy" else None
            if isinstance(to, dict) and isinstance(to.get("service"), str):
                names[to["service"]] = None
    return list(names) or ["default"]
