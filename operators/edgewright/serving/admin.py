"""``/admin/models``: what is served, and how that changes."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from edgewright.errors import ConfigError, EdgewrightError
from edgewright.serving.access import Access
from edgewright.serving.faults import describe_error
from edgewright.serving.host import ModelHost
from edgewright.serving.invocations import answer_json, read_body, request_id
from edgewright.serving.metrics import Metrics

log = logging.getLogger("edgewright.serving")
MAX_BODY = 64 << 10

Work = Callable[[], Awaitable[dict[str, Any]]]


class LoadRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Body of ``PUT /admin/models/{name}``: a version, or an alias of the registry.

    Attributes:
        version: Which version.
        alias: Or the version that this alias points to.
        variant: Which variant; ``None``: the release's default.
        digest: The release's digest, where the caller knows it: another one is refused.
    """

    version: str | int | None = None
    alias: str | None = None
    variant: str | None = None
    digest: str | None = None


class Admin:
    """The administration endpoints.

    Args:
        host: The models.
        access: Who may call.
        metrics: Where outcomes are counted.
    """

    def __init__(self, host: ModelHost, access: Access, metrics: Metrics) -> None:
        self._host, self._access, self._metrics = host, access, metrics

    async def list_models(self, request: Request) -> Response:
        """``GET /admin/models``."""
        return await self._answer(request, "list", self._list)

    async def _list(self) -> dict[str, Any]:
        models = [self._host.describe(name) for name in sorted(self._host.models)]
        return {"models": models, "problems": self._host.problems}

    async def put(self, request: Request) -> Response:
        """``PUT /admin/models/{name}``."""
        return await self._answer(request, "load", lambda: self._put(request))

    async def _put(self, request: Request) -> dict[str, Any]:
        wanted = _load_request(await read_body(request, MAX_BODY))
        version = None if wanted.version is None else str(wanted.version)
        name = request.path_params["name"]
        return await self._host.load(
            name, version=version, alias=wanted.alias, variant=wanted.variant, digest=wanted.digest
        )

    async def rollback(self, request: Request) -> Response:
        """``POST /admin/models/{name}/rollback``."""
        return await self._answer(request, "rollback", lambda: self._host.rollback(request.path_params["name"]))

    async def delete(self, request: Request) -> Response:
        """``DELETE /admin/models/{name}``."""
        return await self._answer(request, "remove", lambda: self._host.remove(request.path_params["name"]))

    async def _answer(self, request: Request, what: str, work: Work) -> Response:
        identifier, name = request_id(request), request.path_params.get("name", "")
        try:
            self._access.check_admin(request.headers)
            document, status = await work(), 200
        except EdgewrightError as error:
            status, document = describe_error(error)
            if status not in (401, 403):
                log.warning("%s %s: %s", what, name, error.message)
        if name in self._host.models and what != "list":
            self._metrics.loads.add((name, "done" if status == 200 else "refused"))
        return answer_json(document, status, None, identifier)


def _load_request(body: bytes) -> LoadRequest:
    try:
        wanted = msgspec.json.decode(body, type=LoadRequest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"not a valid request: {error}", hint='for example {"version": "3"}') from error
    if (wanted.version is None) == (wanted.alias is None):
        raise ConfigError("a version or an alias is needed, and not both", hint='for example {"version": "3"}')
    return wanted
