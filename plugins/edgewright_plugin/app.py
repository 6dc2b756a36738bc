"""The pages' routes. Each asks for Airflow's own login, and a task's pages also for the right to see its Dag."""

from __future__ import annotations

import mimetypes
from pathlib import Path
from typing import Annotated, Any

from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.core_api.security import GetUserDep, requires_access_dag
from fastapi import Depends, FastAPI, HTTPException
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse, Response
from starlette.concurrency import run_in_threadpool

from edgewright.artifacts.digest import list_files
from edgewright.errors import EdgewrightError, NotFound
from edgewright_plugin import overview, pages, results
from edgewright_plugin.plugin import site_path

#: What a stored file may do in the browser: be looked at. Reports are made by pipelines, so they get no scripts, no
#: network and no access to Airflow's session.
_FILE_HEADERS = {
    "Content-Security-Policy": "sandbox; default-src 'none'; img-src data: 'self'; style-src 'unsafe-inline'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "private, max-age=0",
}
_PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data: 'self'; "
    "script-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'",
    "X-Content-Type-Options": "nosniff",
}

_may_see_task = Depends(requires_access_dag("GET", DagAccessEntity.TASK_INSTANCE))


def build_app() -> FastAPI:
    """Return the application that is mounted below ``/edgewright``."""
    app = FastAPI(title="Edgewright", docs_url=None, redoc_url=None, openapi_url=None)
    app.get("/", response_class=HTMLResponse)(index)
    app.get("/links.js")(links)
    app.get("/api/overview")(overview_document)
    task = "/runs/{dag_id}/{run_id}/{task_id}"
    app.get(task, response_class=HTMLResponse, dependencies=[_may_see_task])(task_page)
    app.get(task + "/outputs/{output}", dependencies=[_may_see_task])(output_folder)
    app.get(task + "/outputs/{output}/{path:path}", dependencies=[_may_see_task])(output_file)
    return app


async def index(user: GetUserDep) -> HTMLResponse:
    """Pipelines with their last run; models with versions, aliases, metrics and variants; what serves where."""
    document = {**await run_in_threadpool(overview.collect, user), "site": site_path()}
    return HTMLResponse(pages.render("index.html", document), headers=_PAGE_HEADERS)


async def links() -> FileResponse:
    """What follows the overview's links out of Airflow's frame."""
    return FileResponse(Path(__file__).parent / "links.js", media_type="text/javascript")


async def overview_document(user: GetUserDep) -> dict[str, Any]:
    """The same as JSON."""
    return await run_in_threadpool(overview.collect, user)


MapIndex = Annotated[int, "map index of a mapped task, -1 otherwise"]


async def task_page(dag_id: str, run_id: str, task_id: str, map_index: MapIndex = -1) -> HTMLResponse:
    """One task's result: metrics, gates, artifacts, how the cache answered."""
    result = await _guarded(results.load, dag_id, run_id, task_id, map_index)
    document = {"result": result.model_dump(mode="json"), "base": f"./{task_id}/outputs", "map_index": map_index}
    return HTMLResponse(pages.render("task.html", document), headers=_PAGE_HEADERS)


async def output_folder(dag_id: str, run_id: str, task_id: str, output: str, map_index: MapIndex = -1) -> Response:
    """The files of one artifact; a report opens at once."""
    folder = await _guarded(results.output_folder, dag_id, run_id, task_id, map_index, output)
    if (folder / "report.html").is_file():
        return RedirectResponse(f"./{output}/report.html?map_index={map_index}")
    files = [{"name": name, "size": (folder / name).stat().st_size} for name in list_files(folder)]
    files = [file for file in files if not str(file["name"]).startswith(".")]
    document = {"title": f"{task_id}: {output}", "files": files, "output": output, "map_index": map_index}
    return HTMLResponse(pages.render("files.html", document), headers=_PAGE_HEADERS)


async def output_file(
    dag_id: str, run_id: str, task_id: str, output: str, path: str, map_index: MapIndex = -1
) -> FileResponse:
    """One file of an artifact."""
    folder: Path = await _guarded(results.output_folder, dag_id, run_id, task_id, map_index, output)
    file = (folder / path).resolve()
    if not file.is_relative_to(folder.resolve()) or not file.is_file():
        raise HTTPException(404, f"no such file: {path}")
    kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
    shown = kind in {"text/html", "image/png", "image/svg+xml", "application/json", "text/plain", "text/markdown"}
    return FileResponse(
        file,
        media_type=kind,
        filename=None if shown else file.name,
        headers=_FILE_HEADERS,
    )


async def _guarded(function: Any, *arguments: Any) -> Any:
    """Call a blocking function in a thread; errors of ours become answers."""
    try:
        return await run_in_threadpool(function, *arguments)
    except NotFound as error:
        raise HTTPException(404, str(error)) from error
    except EdgewrightError as error:
        raise HTTPException(502, str(error)) from error
