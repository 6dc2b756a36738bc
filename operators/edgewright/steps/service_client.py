"""The prediction service as a step sees it: administration and one prediction over HTTP, with bounded patience."""

from __future__ import annotations

import ipaddress
import logging
import time
from types import TracebackType
from typing import Any
from urllib.parse import quote, urlsplit

import httpx

from edgewright.errors import (
    ConfigError,
    DeployRejected,
    EdgewrightError,
    NotFound,
    SystemFault,
    Unavailable,
    UserFault,
)
from edgewright.installation import Service

log = logging.getLogger("edgewright.steps")
#: Seconds between attempts while the service does not answer. More patience is the task's ``retries``.
PAUSES = (0.5, 1.0, 2.0)


class ServiceClient:
    """Talks to one service. A context manager.

    Args:
        name: What the installation calls it.
        service: Its address and token.
        timeout: Seconds that one answer may take.
        pauses: Seconds between attempts.
    """

    def __init__(self, name: str, service: Service, *, timeout: float, pauses: tuple[float, ...] = PAUSES) -> None:
        self.name, self.url = name, service.url.rstrip("/")
        self._pauses, self._timeout = pauses, timeout
        token = service.token()
        try:
            self._client = httpx.Client(
                base_url=self.url,
                timeout=httpx.Timeout(timeout, connect=min(timeout, 5.0)),
                headers={"Authorization": f"Bearer {token}"} if token else {},
                # a proxy of the environment cannot see this machine's loopback
                trust_env=not _is_loopback(self.url),
            )
        except (httpx.InvalidURL, httpx.UnsupportedProtocol, ValueError) as error:
            raise ConfigError(f"not an address: {service.url} ({error})", where=f"services.{name}.url") from error

    def __enter__(self) -> ServiceClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def load(self, model: str, version: str, variant: str | None, digest: str | None) -> dict[str, Any]:
        """Make the service load, test and serve a version; return its answer.

        Raises:
            DeployRejected: it refused the model and serves what it served before.
            NotFound: its registry has no such version.
            Unavailable: it does not answer, or its registry does not.
        """
        wanted = {"version": version, "variant": variant, "digest": digest}
        body = {key: value for key, value in wanted.items() if value}
        return self._call("PUT", f"/admin/models/{quote(model)}", body)

    def serves(self, model: str) -> dict[str, Any] | None:
        """Return what the service serves under a name; ``None`` where nothing."""
        models = self._call("GET", "/admin/models").get("models", [])
        return next((entry for entry in models if entry.get("name") == model), None)

    def rollback(self, model: str) -> dict[str, Any]:
        """Make the service serve what it served before."""
        return self._call("POST", f"/admin/models/{quote(model)}/rollback")

    def remove(self, model: str) -> dict[str, Any]:
        """Make the service serve a model no longer."""
        return self._call("DELETE", f"/admin/models/{quote(model)}")

    def predict(self, model: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the service's answer for some rows."""
        return self._call("POST", f"/models/{quote(model)}/invocations", {"dataframe_records": rows})

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Send a request; every one of them may be sent twice without harm but a rollback, which is sent once."""
        pauses = () if path.endswith("/rollback") else self._pauses
        for pause in (*pauses, None):
            try:
                answer = self._client.request(method, path, json=body)
                break
            except (httpx.ConnectError, httpx.ConnectTimeout, httpx.RemoteProtocolError) as error:
                if pause is None:
                    raise self._away(f"does not answer: {error}") from error
                log.info("%s does not answer, trying again in %g s", self.url, pause)
                time.sleep(pause)
            except httpx.TimeoutException as error:
                raise self._away(f"gave no answer within {self._timeout:g} s") from error
            except httpx.HTTPError as error:
                raise self._away(f"cannot be asked: {error}") from error
        return self._read(answer)

    def _away(self, what: str) -> Unavailable:
        return Unavailable(
            f"the service {self.name} {what}",
            where=self.url,
            hint="start the local one with `edgewright up`; `edgewright status` shows what runs",
        )

    def _read(self, answer: httpx.Response) -> dict[str, Any]:
        try:
            document = answer.json()
        except ValueError:
            document = None
        if not isinstance(document, dict):
            raise self._away(f"answered HTTP {answer.status_code} with something that is no JSON object")
        if answer.is_success:
            return document
        raise self._error(answer.status_code, document)

    def _error(self, status: int, document: dict[str, Any]) -> EdgewrightError:
        fault = document.get("error") or {}
        message, hint = str(fault.get("message") or f"HTTP {status}"), fault.get("hint")
        if status in (401, 403):
            return ConfigError(
                f"the service {self.name} refused the call: {message}", where=self.url,
                hint=f"name its token in installation.yaml: services.{self.name}.token_env or token_file",
            )  # fmt: skip
        if status == 409:
            return DeployRejected(message, where=self.url, hint=hint)
        if status == 404:
            return NotFound(
                f"the service {self.name}: {message}", where=self.url, hint=hint or "does it use the same registry?"
            )
        if status == 503:
            return self._away(f"cannot do it now: {message}")
        kind = UserFault if status < 500 else SystemFault
        return kind(f"the service {self.name} answered HTTP {status}: {message}", where=self.url, hint=hint)


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
