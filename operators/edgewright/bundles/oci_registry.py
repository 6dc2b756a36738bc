"""A repository of an OCI registry, by oras-py (its authentication and its calls; our waits and errors).

oras-py waits for ever where nobody answers, tries again for two minutes, and reads only one place of Docker's
credentials. A node polls anyway and must say quickly what is wrong, so requests have a limit of time and are made once.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from edgewright.artifacts.digest import sha256_bytes
from edgewright.bundles.oci import IMAGE_MANIFEST, LARGEST_MANIFEST, SECONDS
from edgewright.errors import ConfigError, DamagedArtifact, EdgewrightError, NotFound, Unavailable

_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")


class RegistryArtifacts:
    """One repository.

    Args:
        host: The registry, with its port.
        name: The repository.
        login: User and password; ``None``: what ``docker login`` keeps.

    Raises:
        ConfigError: oras is not installed.
    """

    def __init__(self, host: str, name: str, login: tuple[str, str] | None = None) -> None:
        self.host, self.name = host, name
        self._login = login
        self._client: Any = None
        try:
            import oras.provider  # noqa: F401
        except ModuleNotFoundError as error:
            raise ConfigError("oci:// needs oras", hint="pip install 'edgewright[oci]', on a node: pip install oras",
                              ) from error  # fmt: skip

    @property
    def _place(self) -> str:
        return f"{self.host}/{self.name}"

    def tags(self) -> list[str]:
        """Return all tags."""
        with self._errors("list the tags") as client:
            return sorted(str(tag) for tag in client.get_tags(client.get_container(self._place)))

    def digest(self, tag: str) -> str | None:
        """Return the digest of a tag's manifest."""
        with self._errors(f"find {tag}") as client:
            answer = self._manifest(client, "HEAD", tag)
        if answer.status_code == 404:
            return None
        self._check(answer, f"find {tag}")
        said = answer.headers.get("Docker-Content-Digest")
        return str(said) if said else f"sha256:{sha256_bytes(self.manifest(tag))}"

    def manifest(self, tag: str) -> bytes:
        """Return a tag's manifest, compared with the digest that the registry names."""
        with self._errors(f"read {tag}") as client:
            answer = self._manifest(client, "GET", tag)
            data = answer.content if int(answer.headers.get("Content-Length") or 0) <= LARGEST_MANIFEST else b""
        self._check(answer, f"read {tag}")
        said = answer.headers.get("Docker-Content-Digest")
        if not data or (said and said != f"sha256:{sha256_bytes(data)}"):
            raise DamagedArtifact("the artifact's manifest does not match its digest", where=f"{self._place}:{tag}")
        return bytes(data)

    @contextlib.contextmanager
    def blob(self, digest: str) -> Iterator[Callable[[int], bytes]]:
        """Open a blob."""
        with self._errors(f"fetch {digest}") as client:
            answer = client.get_blob(client.get_container(self._place), digest, stream=True)
        self._check(answer, f"fetch {digest}")

        def read(size: int) -> bytes:
            with self._errors(f"fetch {digest}"):
                return bytes(answer.raw.read(size))

        with contextlib.closing(answer):
            yield read

    def push(self, tag: str, manifest: bytes, blobs: dict[str, Path | bytes]) -> None:
        """Put blobs, then the manifest under its tag."""
        with self._errors(f"push {tag}") as client, tempfile.TemporaryDirectory(prefix="edgewright-oci-") as scratch:
            container = client.get_container(f"{self._place}:{tag}")
            for digest, blob in blobs.items():
                path = blob if isinstance(blob, Path) else Path(scratch) / digest[7:]
                if isinstance(blob, bytes):
                    path.write_bytes(blob)
                layer = {"digest": digest, "size": path.stat().st_size}
                self._check(client.upload_blob(str(path), container, layer), f"push {digest}")
            url = f"{client.prefix}://{container.manifest_url()}"
            headers = {"Content-Type": IMAGE_MANIFEST}
            self._check(client.do_request(url, "PUT", data=manifest, headers=headers), f"push {tag}")

    # -- the client ----------------------------------------------------------------------------------------------

    def _manifest(self, client: Any, method: str, tag: str) -> Any:
        url = f"{client.prefix}://{client.get_container(f'{self._place}:{tag}').manifest_url()}"
        return client.do_request(url, method, headers={"Accept": IMAGE_MANIFEST})

    def _open(self) -> Any:
        """Return a client that is logged in the way in which the registry asks for it."""
        insecure = self.host.rpartition(":")[0] in _LOOPBACK or self.host in _LOOPBACK
        probe = client_class()(hostname=self.host, insecure=insecure)
        answer = probe.session.get(f"{probe.prefix}://{self.host}/v2/")
        wants_login = answer.status_code in (401, 403)
        basic = answer.headers.get("Www-Authenticate", "").lower().startswith("basic")
        client = client_class()(hostname=self.host, insecure=insecure, auth_backend="basic" if basic else "token")
        container = client.get_container(self._place)
        if self._login is not None:
            client.auth.set_basic_auth(*self._login)
        else:
            client.auth.load_configs(container, configs=_docker_configs())
        if wants_login and basic and not getattr(client.auth, "_basic_auth", None):
            raise ConfigError("the registry asks for a login", where=self.host,
                              hint=f"docker login {self.host}, or name a connection")  # fmt: skip
        return client

    @contextlib.contextmanager
    def _errors(self, action: str) -> Iterator[Any]:
        """Give the client for a few calls, with our errors."""
        import requests
        import urllib3

        try:
            if self._client is None:
                self._client = self._open()
            yield self._client
        except EdgewrightError:
            raise
        except (OSError, requests.RequestException, urllib3.exceptions.HTTPError) as error:
            raise Unavailable(f"cannot {action}: {type(error).__name__}: {error}", where=self._place) from error
        except ValueError as error:  # oras-py's own
            self._client = None
            if "authentication" in str(error):
                raise self._refused(action) from error
            if str(error).endswith("Not Found"):
                raise Unavailable(f"cannot {action}: the repository is not there", where=self._place) from error
            if str(error).endswith(("Unauthorized", "Forbidden")):
                raise self._refused(action) from error
            raise Unavailable(f"cannot {action}: {error}", where=self._place) from error

    def _check(self, answer: Any, action: str) -> None:
        if answer.status_code in (401, 403):
            self._client = None
            raise self._refused(action)
        if answer.status_code == 404:
            raise NotFound(f"cannot {action}: it is not there", where=self._place)
        if not 200 <= answer.status_code < 300:
            raise Unavailable(f"cannot {action}: the registry answers {answer.status_code} {_said(answer)}".rstrip(),
                              where=self._place)  # fmt: skip

    def _refused(self, action: str) -> ConfigError:
        return ConfigError(f"cannot {action}: the registry refuses the login", where=self._place,
                           hint=f"docker login {self.host}, or another connection")  # fmt: skip


def _said(answer: Any) -> str:
    try:
        return "; ".join(
            str(error.get("message") or error.get("code")) for error in json.loads(answer.content)["errors"]
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return ""


def _docker_configs() -> list[str]:
    folder = os.environ.get("DOCKER_CONFIG")
    return [str(Path(folder) / "config.json")] if folder else []


def client_class() -> Any:
    """Return oras-py's client with a limit of time, without its retries."""
    import oras.provider
    import requests
    from requests.adapters import HTTPAdapter

    class Impatient(HTTPAdapter):  # type: ignore[misc]
        def send(self, request: Any, *args: Any, **kwargs: Any) -> requests.Response:
            kwargs["timeout"] = kwargs.get("timeout") or SECONDS
            return super().send(request, *args, **kwargs)

    once = oras.provider.Registry.do_request.__wrapped__

    class Client(oras.provider.Registry):  # type: ignore[misc]
        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            for scheme in ("http://", "https://"):
                self.session.mount(scheme, Impatient())

        def do_request(self, *args: Any, **kwargs: Any) -> requests.Response:
            answer: requests.Response = once(self, *args, **kwargs)
            return answer

    return Client
