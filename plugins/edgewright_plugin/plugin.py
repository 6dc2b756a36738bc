"""The Airflow plugin: Edgewright's pages in Airflow's web UI.

Every Airflow process loads this module (tasks too), so the pages themselves are built at the first request, in the API
server only.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from airflow.configuration import conf
from airflow.plugins_manager import AirflowPlugin

PREFIX = "/edgewright"


def site_path() -> str:
    """Return Airflow's path on its site, without a slash at its end: behind a proxy it may not be the root."""
    return urlsplit(conf.get("api", "base_url", fallback="")).path.rstrip("/")


_Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
_Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class LazyPages:
    """An ASGI application that imports the real one when the first request comes."""

    def __init__(self) -> None:
        self._app: Callable[[Any, _Receive, _Send], Awaitable[None]] | None = None

    async def __call__(self, scope: MutableMapping[str, Any], receive: _Receive, send: _Send) -> None:
        """Answer one request, as ASGI has it."""
        if self._app is None:
            from edgewright_plugin.app import build_app

            self._app = build_app()
        await self._app(scope, receive, send)


class EdgewrightPlugin(AirflowPlugin):
    """An "Edgewright" entry in the navigation, and the pages behind the operators' links."""

    name = "edgewright"
    fastapi_apps = [{"app": LazyPages(), "url_prefix": PREFIX, "name": "edgewright"}]
    external_views = [
        {
            "name": "Edgewright",
            "href": f"{site_path()}{PREFIX}/",
            "destination": "nav",
            "url_route": "edgewright",
            "category": "browse",
        }
    ]
