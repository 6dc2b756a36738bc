"""The ASGI application: which path leads where."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from edgewright import __version__
from edgewright.errors import EdgewrightError, NotFound
from edgewright.serving.access import Access
from edgewright.serving.admin import Admin
from edgewright.serving.faults import RequestFault, describe_error
from edgewright.serving.host import ModelHost
from edgewright.serving.invocations import Invocations, Limits, answer_json, request_id
from edgewright.serving.metrics import CONTENT_TYPE, Metrics, render_feature_log
from edgewright.serving.openapi import build_openapi

if TYPE_CHECKING:
    from edgewright.streams.feature_log import FeatureLog

PAGES = Path(__file__).parent / "pages"
Endpoint = Callable[[Request], Awaitable[Response]]
#: Nothing is loaded from elsewhere, and nothing may frame the pages.
_PAGE_HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


@dataclass
class Service:
    """Everything that the application needs.

    Attributes:
        host: The models.
        access: Who may call what.
        limits: What one request may ask for.
        metrics: What is counted.
        feature_log: Where requests and answers are logged; nowhere without one.
        wanted: Models as ``(name, alias)`` that are loaded from the registry after the start.
    """

    host: ModelHost
    access: Access = field(default_factory=Access)
    limits: Limits = field(default_factory=Limits)
    metrics: Metrics = field(default_factory=Metrics)
    wanted: tuple[tuple[str, str], ...] = ()
    feature_log: FeatureLog | None = None
    started: float = field(default_factory=time.time)


def build_app(service: Service) -> Starlette:
    """Return the application of a service."""
    host, access = service.host, service.access
    guard = _Guard(access)
    invocations = guard(Invocations(host, service.metrics, service.limits, service.feature_log))
    admin, pages = Admin(host, access, service.metrics), _Pages(service)
    routes = [
        Route("/invocations", invocations, methods=["POST"]),
        Route("/models/{name}/invocations", invocations, methods=["POST"]),
        Route("/ping", pages.ping),
        Route("/health", guard(pages.health)),
        Route("/version", guard(pages.version)),
        Route("/metrics", guard(pages.metrics)),
        Route("/openapi.json", guard(pages.openapi)),
        Route("/docs", guard(pages.docs)),
        Route("/", guard(pages.index)),
        Route("/admin/models", admin.list_models),
        Route("/admin/models/{name}", admin.put, methods=["PUT"]),
        Route("/admin/models/{name}", admin.delete, methods=["DELETE"]),
        Route("/admin/models/{name}/rollback", admin.rollback, methods=["POST"]),
    ]

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        await host.restore()
        # a registry that is away must not keep the service from serving what it has
        loading = asyncio.create_task(_load_wanted(service))
        if service.feature_log is not None:
            service.feature_log.start()
        yield
        loading.cancel()
        if service.feature_log is not None:
            await asyncio.to_thread(service.feature_log.close)

    handlers: dict[Any, Any] = {HTTPException: _unknown_path, Exception: _bug}
    return Starlette(routes=routes, lifespan=lifespan, exception_handlers=handlers)


async def _load_wanted(service: Service) -> None:
    for name, alias in service.wanted:
        await service.host.ensure(name, alias)


class _Guard:
    """Wraps endpoints that anybody may call on loopback, and only holders of a token elsewhere."""

    def __init__(self, access: Access) -> None:
        self._access = access

    def __call__(self, endpoint: Endpoint) -> Endpoint:
        async def guarded(request: Request) -> Response:
            try:
                self._access.check_predict(request.headers)
            except EdgewrightError as error:
                answer = _error(request, error)
                if request.method == "GET" and answer.status_code == 401:
                    answer.headers["www-authenticate"] = 'Basic realm="edgewright: the token is the password"'
                return answer
            return await endpoint(request)

        return guarded


class _Pages:
    """What is read with ``GET``."""

    def __init__(self, service: Service) -> None:
        self._service, self._host = service, service.host

    async def ping(self, request: Request) -> Response:
        """Whether a model is ready, in the status alone."""
        return Response(status_code=200 if self._host.models else 503)

    async def health(self, request: Request) -> Response:
        models = [self._host.describe(name) for name in sorted(self._host.models)]
        problems = self._host.problems
        status = "unavailable" if not models else "degraded" if problems else "ok"
        document = {
            "status": status,
            "models": models,
            "problems": problems,
            "uptime_seconds": round(time.time() - self._service.started, 1),
            "edgewright": __version__,
        }
        if self._service.feature_log is not None:
            document["feature_log"] = self._service.feature_log.describe()
        return answer_json(document, 200 if models else 503, None, request_id(request))

    async def version(self, request: Request) -> Response:
        import onnxruntime

        document = {"edgewright": __version__, "onnxruntime": onnxruntime.__version__}
        return answer_json(document, 200, None, request_id(request))

    async def metrics(self, request: Request) -> Response:
        models = [(m.name, m.version, m.variant, m.loaded_at) for m in self._host.models.values()]
        text = self._service.metrics.render(models)
        if self._service.feature_log is not None:
            text += render_feature_log(self._service.feature_log)
        return PlainTextResponse(text, media_type=CONTENT_TYPE)

    async def openapi(self, request: Request) -> Response:
        return answer_json(build_openapi(self._host), 200, None, request_id(request))

    async def docs(self, request: Request) -> Response:
        return HTMLResponse((PAGES / "docs.html").read_text(encoding="utf-8"), headers=_PAGE_HEADERS)

    async def index(self, request: Request) -> Response:
        return HTMLResponse((PAGES / "index.html").read_text(encoding="utf-8"), headers=_PAGE_HEADERS)


def _error(request: Request, error: EdgewrightError) -> Response:
    status, document = describe_error(error)
    identifier = request_id(request)
    response = answer_json({**document, "id": identifier}, status, None, identifier)
    if status == 401:
        response.headers["www-authenticate"] = "Bearer"
    return response


async def _unknown_path(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        fault: EdgewrightError = RequestFault(
            f"{request.url.path} does not take {request.method}", code="method-not-allowed", status=405,
            hint=f"it takes {allowed}" if allowed else None,
        )  # fmt: skip
    else:
        fault = NotFound(f"there is no {request.url.path}", hint="/docs shows what there is")
    response = _error(request, fault)
    response.headers.update(error.headers or {})
    return response


async def _bug(request: Request, error: Exception) -> Response:
    return _error(request, EdgewrightError("an internal error; the service's log has the details"))
