"""MLflow's webhooks as a hint: whoever watches the registry looks at once, instead of at the end of its interval.

A webhook decides nothing. It may be lost, late, double or forged: what is new is what the registry itself says at the
next look, and that comes anyway. So all that is kept of webhooks is one small document with the last one's id, which
registry triggers with ``webhook: true`` look at each second.

A webhook is taken when it is signed with the shared secret, as MLflow signs (HMAC-SHA256 over delivery id, time and
body), and no older than five minutes. Any number of them in a second are one hint.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
import logging
import time
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING

from edgewright.artifacts import ArtifactStore
from edgewright.errors import StoreError

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

log = logging.getLogger("edgewright.streams")
#: Where the last hint is kept.
HINT = "hints/registry.json"
#: Bytes of a webhook at most: a version's description and tags are in it.
MAX_BODY = 1 << 20
#: Seconds by which a webhook's time may differ from ours.
WINDOW = 300
#: Seconds for which a body may take to arrive, and between two hints that are written down.
_ARRIVES = 10.0
_PAUSE = 1.0
_ID, _TIME, _SIGNATURE = "X-MLflow-Delivery-Id", "X-MLflow-Timestamp", "X-MLflow-Signature"


class Refused(Exception):
    """A webhook that is not taken."""


def check(secret: bytes, headers: Mapping[str, str], body: bytes, now: float) -> str:
    """Return the id of a webhook that was signed with a secret, a short while ago.

    Args:
        secret: The secret that MLflow was given with the webhook.
        headers: Of the request.
        body: Of the request.
        now: Seconds since 1970.

    Raises:
        Refused: it was not.
    """
    delivery, moment, signature = (headers.get(name, "") for name in (_ID, _TIME, _SIGNATURE))
    if not (delivery and moment and signature):
        raise Refused("it is not signed")
    digest = hmac.new(secret, f"{delivery}.{moment}.".encode() + body, hashlib.sha256).digest()
    wanted = f"v1,{base64.b64encode(digest).decode()}"
    if not hmac.compare_digest(wanted.encode(), signature.encode()):
        raise Refused("its signature does not fit")
    # after the signature: what an attacker wrote is not even read
    if not moment.isdigit() or abs(now - int(moment)) > WINDOW:
        raise Refused("its time is not now")
    return delivery


class Hints:
    """Takes webhooks, and writes down that there was one.

    Args:
        store: Where the hint is kept.
        secret: The secret that MLflow was given with the webhook.
    """

    def __init__(self, store: ArtifactStore, secret: str) -> None:
        self._store = store
        self._secret = secret.encode()
        self._last = ""
        self._came = asyncio.Event()
        self.taken = 0
        self.refused = 0

    async def take(self, request: Request) -> Response:
        """Answer a webhook."""
        from starlette.responses import JSONResponse

        try:
            async with asyncio.timeout(_ARRIVES):
                body = await _body(request)
            delivery = check(self._secret, request.headers, body, time.time())
        except TimeoutError:
            return JSONResponse({"error": "the body did not arrive"}, 408)
        except Refused as error:
            self.refused += 1
            log.warning("a webhook is refused: %s", error)
            return JSONResponse({"error": str(error)}, 413 if "larger" in str(error) else 401)
        self.taken += 1
        self._last = delivery
        self._came.set()
        log.info("webhook %s: %s", delivery, _event(body))
        return JSONResponse({"taken": True}, 202)

    async def write(self) -> None:
        """Write hints down until it is cancelled; one that comes while another is written is not forgotten."""
        while True:
            await self._came.wait()
            self._came.clear()
            try:
                await asyncio.to_thread(self._store.write_json, HINT, {"id": self._last, "at": time.time()})
            except (StoreError, OSError) as error:
                log.error("the hint cannot be written, so the registry is looked at when its time comes: %s", error)
            await asyncio.sleep(_PAUSE)


def build_app(hints: Hints) -> Starlette:
    """Return the application: ``POST /`` takes webhooks, ``GET /ping`` answers."""
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        writer = asyncio.create_task(hints.write())
        yield
        writer.cancel()

    async def ping(request: Request) -> Response:
        return JSONResponse({"taken": hints.taken, "refused": hints.refused})

    return Starlette(
        routes=[Route("/", hints.take, methods=["POST"]), Route("/ping", ping, methods=["GET"])], lifespan=lifespan
    )


async def _body(request: Request) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > MAX_BODY:
            raise Refused(f"its body is larger than {MAX_BODY} bytes")
        parts.append(part)
    return b"".join(parts)


def _event(body: bytes) -> str:
    """Return what a webhook that was signed is about."""
    try:
        document = json.loads(body)
        data = document.get("data") or {}
        return f"{document['entity']} {document['action']} {data.get('name', '')} {data.get('version', '')}".rstrip()
    except (ValueError, KeyError, AttributeError, TypeError):
        return "of unknown contents"


class HintWatch:
    """Says whether there was a hint since it was asked last.

    Args:
        store: Where hints are kept.
    """

    def __init__(self, store: ArtifactStore) -> None:
        self._store = store
        self._seen: str | None = None
        self._next = 0.0
        self._began = False

    def hinted(self) -> bool:
        """Look, at most once a second; a store that cannot be read gives no hint."""
        if time.monotonic() < self._next:
            return False
        self._next = time.monotonic() + _PAUSE
        try:
            last = (self._store.read_json(HINT) or {}).get("id")
        except StoreError:
            return False
        is_new = self._began and last != self._seen
        self._began, self._seen = True, last
        return is_new
