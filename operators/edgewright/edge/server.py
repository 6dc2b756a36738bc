"""The node's HTTP endpoints: the requests and answers are those of the prediction service."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from edgewright.edge.node import Node
from edgewright.errors import EdgewrightError
from edgewright.serving.access import Access
from edgewright.serving.faults import describe_error
from edgewright.serving.invocations import answer_json, read_body, request_id

MAX_BODY = 1 << 20
Endpoint = Callable[[Request], Awaitable[Response]]


def build_app(node: Node, access: Access) -> Starlette:
    """Return the application of a node."""

    async def invocations(request: Request) -> Response:
        access.check_predict(request.headers)
        identifier = request_id(request)
        body = await read_body(request, MAX_BODY)
        answer = await asyncio.to_thread(node.predict, body, request.headers.get("content-type", ""))
        return answer_json({**answer.body, "id": identifier}, 200, None, identifier)

    async def ping(request: Request) -> Response:
        asked = request.query_params
        return Response(status_code=200 if node.runs(asked.get("version"), asked.get("target")) else 503)

    async def health(request: Request) -> Response:
        access.check_predict(request.headers)
        return answer_json(node.describe(), 200 if node.runs() else 503, None, request_id(request))

    return Starlette(
        routes=[
            Route("/invocations", _telling_faults(invocations), methods=["POST"]),
            Route("/health", _telling_faults(health)),
            Route("/ping", ping),
        ]
    )


def _telling_faults(endpoint: Endpoint) -> Endpoint:
    async def told(request: Request) -> Response:
        try:
            return await endpoint(request)
        except EdgewrightError as error:
            status, document = describe_error(error)
            identifier = request_id(request)
            return answer_json({**document, "id": identifier}, status, None, identifier)

    return told


def error_document(error: EdgewrightError) -> bytes:
    """Return the body of an error, for lines that have no status."""
    status, document = describe_error(error)
    return json.dumps({**document, "status": status}).encode()
