"""Rows of a web service that answers in JSON, page by page; nested objects become columns with dotted names."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urljoin, urlsplit

import pyarrow as pa

from edgewright.errors import DataError, Unavailable
from edgewright.spec.steps.ingest import IngestConfig
from edgewright.spec.steps.row_sources import HttpPages
from edgewright.steps.addresses import shown
from edgewright.steps.connections import Credentials
from edgewright.steps.context import StepContext
from edgewright.steps.row_sources import Part, RowSource, TryLater, retried
from edgewright.steps.row_values import batch_of
from edgewright.steps.sources import LATER, TIMEOUT, check_status

#: Pages of one part: so many are asked again at most when a task is tried again.
_BLOCK = 20
#: The longest wait that a server may ask for, in seconds.
_LONGEST = 120.0
_PARAMS = {"cursor": "cursor", "number": "page", "offset": "offset"}


class HttpSource(RowSource):
    """Rows of a web service.

    Args:
        config: The step's configuration, with ``http``.
        context: The step.

    Raises:
        ConfigError: the connection is not there.
    """

    tries_itself = True

    def __init__(self, config: IngestConfig, context: StepContext) -> None:
        import httpx

        assert config.http is not None
        self.how = config.http
        self._address, self._context = config.address, context
        self.shown = shown(config.address)
        headers, auth = dict(self.how.headers), None
        if config.connection is not None:
            found = Credentials.of(config.connection, "https://USER:PASSWORD@HOST, or https://:TOKEN@HOST")
            if found.login:
                auth = httpx.BasicAuth(found.login, found.password)
            elif found.password:
                headers["Authorization"] = f"Bearer {found.password}"
        self._client = httpx.Client(timeout=TIMEOUT, follow_redirects=True, headers=headers, auth=auth)
        self._following: dict[str, Part | None] = {}
        self._columns = set(config.columns) | set(config.personal) if config.columns else None

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def parts(self) -> list[Part]:
        """Return the first pages; each part tells the next."""
        pages, params = self.how.pages, {}
        if pages is not None and pages.by in ("number", "offset"):
            params[_param(pages)] = pages.first if pages.first is not None else int(pages.by == "number")
        return [Part("000000", {"url": self._address, "params": params, "page": 0})]

    def following(self, part: Part) -> Part | None:
        """Return the pages after those of a part."""
        return self._following.get(part.name)

    def read(self, part: Part) -> Iterator[pa.RecordBatch]:
        """Yield the rows of some pages, a batch a page."""
        at: dict[str, Any] | None = part.at
        for _ in range(_BLOCK):
            assert at is not None
            rows, at = self._page(at)
            yield self._batch(rows)
            if at is None:
                self._following[part.name] = None
                return
        self._following[part.name] = Part(f"{int(part.name) + 1:06}", at or {})

    # -- one page ----------------------------------------------------------------------------------------------

    def _page(self, at: dict[str, Any]) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
        """Return a page's rows, and where the next one is."""
        where = f"{self.shown} (page {at['page'] + 1})"
        document, link = retried(lambda: self._ask(at, where), self._context)
        rows = _records(document, self.how.records, where)
        following = self._next(at, document, link, len(rows), where)
        if following is not None and self.how.pages and following["page"] >= self.how.pages.at_most:
            raise DataError(f"there are more than {self.how.pages.at_most:,} pages", where=where, hint="raise at_most:")
        return rows, following

    def _ask(self, at: dict[str, Any], where: str) -> tuple[Any, str | None]:
        import httpx

        params = dict(at["params"])
        if self.how.pages and self.how.pages.size_param:
            params[self.how.pages.size_param] = self.how.pages.size
        try:
            # an address with a query of its own loses it where params are given
            answer = self._client.get(httpx.URL(at["url"]).copy_merge_params(params))
        except httpx.UnsupportedProtocol as error:
            raise DataError(str(error), where=where) from error
        except httpx.HTTPError as error:
            raise Unavailable(f"the server does not answer: {error or type(error).__name__}", where=where) from error
        after = answer.headers.get("retry-after", "")
        if (answer.status_code == 503 or answer.status_code in LATER) and after.isdigit():
            text = f"the server answered {answer.status_code} and asks for {after} seconds"
            raise TryLater(text, where=where, after=min(float(after), _LONGEST))
        check_status(answer.status_code, answer.reason_phrase, where)
        try:
            return answer.json(), answer.links.get("next", {}).get("url")
        except (ValueError, json.JSONDecodeError) as error:
            hint = "is this the address of a service that answers in JSON? A file needs no http:"
            raise DataError("the answer is no JSON", where=where, hint=hint) from error

    def _next(
        self, at: dict[str, Any], document: Any, link: str | None, rows: int, where: str
    ) -> dict[str, Any] | None:
        pages = self.how.pages
        if pages is None:
            return None
        if pages.by in ("link", "next"):
            found = link if pages.by == "link" else _field(document, str(pages.field))
            return self._next_address(at, found, where) if found else None
        param = _param(pages)
        if pages.by == "cursor":
            cursor = _field(document, str(pages.field))
            if cursor in (None, ""):
                return None
            if cursor == at["params"].get(param):
                raise DataError(f"the cursor {cursor!r} leads to itself", where=where)
            return {"url": at["url"], "params": {param: cursor}, "page": at["page"] + 1}
        if rows == 0 or (pages.size and rows < pages.size):
            return None
        step = 1 if pages.by == "number" else rows
        return {"url": at["url"], "params": {param: at["params"][param] + step}, "page": at["page"] + 1}

    def _next_address(self, at: dict[str, Any], found: Any, where: str) -> dict[str, Any]:
        address = urljoin(at["url"], str(found))
        if address == at["url"]:
            raise DataError("the page names itself as the next one", where=where)
        if urlsplit(address)[:2] != urlsplit(self._address)[:2]:  # who asks is nobody else's business
            raise DataError(f"the next page is at another server: {shown(address)}", where=where)
        return {"url": address, "params": {}, "page": at["page"] + 1}

    def _batch(self, rows: list[dict[str, Any]]) -> pa.RecordBatch:
        flat = [flattened(row) for row in rows]
        names = list(dict.fromkeys(name for row in flat for name in row))
        if self._columns is not None:
            names = [name for name in names if name in self._columns]
        return batch_of(names, [[row.get(name) for name in names] for row in flat], self.shown)


def _param(pages: HttpPages) -> str:
    return pages.param or _PARAMS[pages.by]


def _field(document: Any, path: str) -> Any:
    """Return what stands at a dotted path; ``None`` where there is nothing."""
    for name in path.split("."):
        document = document.get(name) if isinstance(document, dict) else None
    return document


def _records(document: Any, path: str | None, where: str) -> list[dict[str, Any]]:
    found = document if path is None else _field(document, path)
    if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
        what = "the answer" if path is None else f"{path} of the answer"
        hint = f"it has: {', '.join(document)[:200]}; say records:" if isinstance(document, dict) else None
        raise DataError(f"{what} is no list of objects", where=where, hint=hint)
    return found


def flattened(row: dict[str, Any], before: str = "") -> dict[str, Any]:
    """Return an object whose nested objects became keys with dotted names; lists stay."""
    found: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, dict):
            found |= flattened(value, f"{before}{name}.")
        else:
            found[f"{before}{name}"] = value
    return found
