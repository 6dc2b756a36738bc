"""``POST /invocations`` and ``POST /models/{name}/invocations``: rows in, predictions out."""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from edgewright.errors import EdgewrightError, StoreError, SystemFault, Unavailable
from edgewright.serving.faults import RequestFault, describe_error
from edgewright.serving.host import ModelHost
from edgewright.serving.metrics import Metrics
from edgewright.serving.model import ServedModel
from edgewright.serving.protocol import read_rows

if TYPE_CHECKING:
    from edgewright.streams.feature_log import Entry, FeatureLog

#: Smaller bodies for fast models are answered in the event loop: handing over to a thread costs more than they do.
INLINE_BYTES = 32 << 10
INLINE_SECONDS = 0.002

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True)
class Limits:
    """What one request may ask for.

    Attributes:
        body: Bytes of its body.
        rows: Rows.
    """

    body: int = 10 << 20
    rows: int = 10_000


@dataclass(frozen=True)
class Answer:
    """Predictions for one request, and what they cost."""

    body: dict[str, Any]
    rows: int
    inference: float
    cells: list[list[Any]] = field(default_factory=list)


def predict(model: ServedModel, body: bytes, content_type: str, max_rows: int) -> Answer:
    """Answer one request body with one model.

    Raises:
        RequestFault: the body does not fit the model.
        SystemFault: the model failed on rows that fit it.
    """
    rows = read_rows(body, content_type, model.table, max_rows)
    arrays, numbers = model.table.arrays(rows)
    start = time.perf_counter()
    try:
        predictions, scores = model.run(arrays)
    except Exception as error:  # onnxruntime's errors have no common class
        raise SystemFault(f"the model failed: {error}") from error
    seconds = time.perf_counter() - start
    answer: dict[str, Any] = {"predictions": predictions}
    if model.document.problem == "classification":
        answer["probabilities"] = scores.tolist()
    answer["model"] = model.label
    warnings = model.table.warnings(numbers)
    if not np.isfinite(scores).all():
        warnings.append({"message": "some scores are not numbers (null): the model cannot handle these rows"})
    if warnings:
        answer["warnings"] = warnings
    return Answer(answer, len(rows), seconds, rows)


class Invocations:
    """The endpoint.

    Args:
        host: The models.
        metrics: Where requests are counted.
        limits: What one request may ask for.
        feature_log: Where requests and their answers are logged.
    """

    def __init__(
        self, host: ModelHost, metrics: Metrics, limits: Limits, feature_log: FeatureLog | None = None
    ) -> None:
        self._host, self._metrics, self._limits, self._log = host, metrics, limits, feature_log

    async def __call__(self, request: Request) -> Response:
        """Answer a request; errors have the one body that all errors of the service have."""
        identifier = request_id(request)
        name = request.path_params.get("name")
        model: ServedModel | None = None
        self._metrics.in_flight.add()
        start = time.perf_counter()
        try:
            body = await read_body(request, self._limits.body)
            start = time.perf_counter()
            model = self._host.get(name)
            answer = await self._predict(model, body, request.headers.get("content-type", ""), identifier)
            status, document = 200, {**answer.body, "id": identifier}
            self._metrics.inference.observe(answer.inference, (model.name, model.version))
            self._metrics.batch.observe(answer.rows, (model.name,))
        except EdgewrightError as error:
            status, document = describe_error(error)
            document["id"] = identifier
        finally:
            self._metrics.in_flight.add(amount=-1)
        self._count(model, status, time.perf_counter() - start)
        return answer_json(document, status, model, identifier)

    async def _predict(self, model: ServedModel, body: bytes, content_type: str, identifier: str) -> Answer:
        arguments = (model, body, content_type, identifier)
        if len(body) <= INLINE_BYTES and model.seconds <= INLINE_SECONDS:
            answer, logged = self._predict_and_log(*arguments)
        else:
            answer, logged = await asyncio.to_thread(self._predict_and_log, *arguments)
        if logged is not None:
            await _written(logged)
        return answer

    def _predict_and_log(
        self, model: ServedModel, body: bytes, content_type: str, identifier: str
    ) -> tuple[Answer, Future[None] | None]:
        asked = time.time()
        answer = predict(model, body, content_type, self._limits.rows)
        if self._log is None:
            return answer, None
        try:
            return answer, self._log.append(log_entries(model, answer, identifier, asked))
        except StoreError as error:
            raise _not_logged(error) from error

    def _count(self, model: ServedModel | None, status: int, seconds: float) -> None:
        # a name that is not served is not a label: anybody could make endless ones
        name, version = (model.name, model.version) if model else ("", "")
        self._metrics.requests.add((name, version, str(status)))
        self._metrics.duration.observe(seconds, (name,))


def log_entries(model: ServedModel, answer: Answer, identifier: str, asked: float) -> list[Entry]:
    """Return a request's rows as the feature log has them."""
    from edgewright.streams.feature_log import Entry
    from edgewright.streams.spool import timestamp

    names, when, name = model.table.names, timestamp(asked), model.label
    probabilities = answer.body.get("probabilities") or [None] * answer.rows
    return [
        Entry(
            identifier, number, when, name["name"], name["version"], name["variant"],
            dict(zip(names, cells, strict=True)), answer.body["predictions"][number], probabilities[number],
        )
        for number, cells in enumerate(answer.cells)
    ]  # fmt: skip


async def _written(logged: Future[None]) -> None:
    """Wait until a request's entries are on the disk."""
    try:
        await asyncio.wrap_future(logged)
    except StoreError as error:
        raise _not_logged(error) from error


def _not_logged(error: StoreError) -> Unavailable:
    return Unavailable(
        f"the request could not be logged: {error.message}", hint="this service answers nothing unlogged"
    )


def answer_json(document: dict[str, Any], status: int, model: ServedModel | None, identifier: str) -> Response:
    """Return an answer with the headers that say which model gave it and to which request."""
    headers = {"x-request-id": identifier}
    if model is not None:
        headers["x-model-version"] = model.version
        headers["x-model-name"] = model.name
    return Response(_encode(document), status, headers, "application/json")


def request_id(request: Request) -> str:
    """Return the caller's ``x-request-id`` where it is short and plain, else a new one."""
    given = request.headers.get("x-request-id")
    return given if given and _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex


async def read_body(request: Request, limit: int) -> bytes:
    """Return the body.

    Raises:
        RequestFault: it is longer than the limit (what comes after is not kept), or did not come whole.
    """
    declared = request.headers.get("content-length", "")
    too_large = RequestFault(
        f"the body is larger than {limit:,} bytes", code="too-large", status=413, hint="send fewer rows at once"
    )
    if declared.isdigit() and int(declared) > limit:
        raise too_large
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > limit:
                raise too_large
    except ClientDisconnect as error:
        raise RequestFault("the caller went away before the whole body came", code="disconnected") from error
    return bytes(body)
