"""Where data come from: a file of the pipeline's folder, ``file://``, ``http(s)://``, ``s3://`` and other addresses.

Remote data are downloaded once into the step's scratch folder (in blocks, with retries), so that the two passes of
``ingest`` see the same bytes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from edgewright.artifacts import erasures
from edgewright.artifacts.digest import digest_json, sha256_file
from edgewright.errors import DataError, EdgewrightError, Unavailable
from edgewright.spec.steps.ingest import KAFKA, IngestConfig
from edgewright.steps.addresses import shown
from edgewright.steps.connections import object_store_options
from edgewright.steps.context import StepContext
from edgewright.steps.event_rows import Events
from edgewright.streams.pseudonyms import Pseudonyms

_BLOCK = 1 << 20
_TRIES = 4
#: Seconds that a server may take.
TIMEOUT = 30.0
#: Bytes as they are stored: a server that packs them on the way would change their number.
_AS_IT_IS = {"Accept-Encoding": "identity"}
#: Answers after which the same question may succeed: request timeout, too early, too many requests.
LATER = (408, 425, 429)


def state(config: IngestConfig, context: StepContext) -> dict[str, Any] | None:
    """Return what identifies the sources' contents; ``None`` if one of them cannot be identified without reading it.

    Who was erased belongs to it: a result from before must not bring them back.
    """
    found = _contents(config, context)
    left_out = erasures.subjects(context.store) if found is not None else ()
    return {**found, "erased": digest_json(sorted(left_out))} if found is not None and left_out else found


def _contents(config: IngestConfig, context: StepContext) -> dict[str, Any] | None:
    if config.kind == "images":
        from edgewright.steps.row_source_images import folder_state

        return folder_state(config, context)
    if config.gives_rows:
        return None  # what a database holds is not known before it was read
    found: dict[str, Any] = {}
    for name, address in (("source", config.address), ("holdout", config.holdout)):
        if not address or address.startswith(KAFKA):  # messages are events, below
            continue
        try:
            identity = _identity(address, context)
        except Unavailable:  # the step itself tries again, and says what is wrong
            return None
        if identity is None:
            return None
        found[name] = identity
    events = Events.of(config, context)
    if events.batches:
        found["events"] = events.state()
    if "token" in config.personal.values():
        found["pseudonyms"] = Pseudonyms.load().key_id
    return found


def _identity(address: str, context: StepContext) -> dict[str, Any] | None:
    local = local_path(address, context)
    if local is not None:
        return {"sha256": sha256_file(local)}
    if address.startswith(("http://", "https://")):
        return _http_identity(address)
    return _object_identity(address, context)


def local_path(address: str, context: StepContext) -> Path | None:
    """Return the path of a source on this machine, or ``None`` for a remote one.

    Raises:
        DataError: there is no such file.
        ConfigError: a relative path leads out of the pipeline's folder.
    """
    if "://" not in address:
        path = context.path(address)
    elif address.startswith("file://"):
        path = Path(unquote(urlparse(address).path))
        if not path.exists():
            raise DataError("no such file", where=address)
    else:
        return None
    if path.is_dir():
        raise DataError("this is a folder, not a file", where=address)
    return path


def local_folder(address: str, context: StepContext) -> Path:
    """Return the path of a folder on this machine.

    Raises:
        DataError: there is no such folder.
        ConfigError: a relative path leads out of the pipeline's folder.
    """
    path = Path(unquote(urlparse(address).path)) if address.startswith("file://") else context.path(address)
    if not path.is_dir():
        raise DataError("no such folder", where=address)
    return path


def version_of(address: str, context: StepContext) -> str | None:
    """Return the version of an object as event sources name it: its ETag, for a file its time; ``None`` if it is gone.

    Raises:
        Unavailable: the object store does not answer.
    """
    if address.startswith("file://"):
        try:
            return str(Path(address.removeprefix("file://")).stat().st_mtime_ns)
        except FileNotFoundError:
            return None
    try:
        info = _with_object_store(address, context, lambda system, path: system.info(path))
    except DataError:
        return None
    return str(info.get("ETag", "")).strip('"')


def obtain(address: str, context: StepContext, name: str) -> Path:
    """Return a local file with a source's bytes.

    Args:
        address: Where the data are.
        context: The step; downloads go into its scratch folder.
        name: What the downloaded file is called there.

    Raises:
        DataError: the source is not there, or may not be read.
        Unavailable: the server does not answer, after a few tries.
    """
    local = local_path(address, context)
    if local is not None:
        return local
    target = context.scratch / f"{name}-{Path(urlparse(address).path).name or 'download'}"
    download = _download_http if address.startswith(("http://", "https://")) else _download_object
    for attempt in range(1, _TRIES + 1):
        try:
            download(address, target, context)
        except Unavailable as error:
            if attempt == _TRIES:
                raise
            context.note("try %d of %d failed, trying again: %s", attempt, _TRIES, error)
            time.sleep(0.5 * 2**attempt)
        else:
            return target
    raise AssertionError("the loop returns or raises")


# -- http ------------------------------------------------------------------------------------------------------


def _http_identity(address: str) -> dict[str, Any] | None:
    import httpx

    try:
        answer = httpx.head(address, timeout=TIMEOUT, follow_redirects=True, headers=_AS_IT_IS)
    except httpx.HTTPError:
        return None
    tag = answer.headers.get("etag")
    changed = answer.headers.get("last-modified")
    length = answer.headers.get("content-length")
    if answer.is_success and tag and not tag.startswith("W/"):
        return {"etag": tag}
    if answer.is_success and changed and length:
        return {"last_modified": changed, "length": length}
    return None


def _download_http(address: str, target: Path, context: StepContext) -> None:
    import httpx

    where = shown(address)
    try:
        with httpx.stream("GET", address, timeout=TIMEOUT, follow_redirects=True, headers=_AS_IT_IS) as answer:
            check_status(answer.status_code, answer.reason_phrase, where)
            total = int(answer.headers["content-length"]) if "content-length" in answer.headers else None
            done = 0
            with target.open("wb") as file:
                for block in answer.iter_raw(_BLOCK):
                    done += len(block)
                    file.write(block)
                    context.progress("download", done, total, "bytes")
    except httpx.UnsupportedProtocol as error:
        raise DataError(str(error), where=where) from error
    except httpx.RemoteProtocolError as error:
        raise Unavailable(f"the download broke off: {error}", where=where) from error
    except httpx.HTTPError as error:
        raise Unavailable(f"the server does not answer: {error or type(error).__name__}", where=where) from error
    if total is not None and done != total:
        raise Unavailable(f"the download broke off after {done:,} of {total:,} bytes", where=where)


def check_status(status: int, reason: str, where: str) -> None:
    """Refuse an answer that is none.

    Raises:
        DataError: the address or who asks is wrong.
        Unavailable: asking again may help.
    """
    if status >= 500 or status in LATER:
        raise Unavailable(f"the server answered {status} {reason}", where=where)
    if status >= 400:
        hint = "check the address" if status in (404, 410) else None
        hint = (
            "the server wants to know who asks: give credentials in the environment" if status in (401, 403) else hint
        )
        raise DataError(f"the server answered {status} {reason}", where=where, hint=hint)


# -- object stores ---------------------------------------------------------------------------------------------


def _object_identity(address: str, context: StepContext) -> dict[str, Any] | None:
    info = _with_object_store(address, context, lambda system, path: system.info(path))
    for key in ("VersionId", "ETag", "etag"):
        if info.get(key) not in (None, "null"):
            return {key.lower(): str(info[key]).strip('"'), "size": info.get("size")}
    return None


def _download_object(address: str, target: Path, context: StepContext) -> None:
    def copy(system: Any, path: str) -> None:
        info = system.info(path)
        if info.get("type") == "directory":
            raise DataError("this is a folder, not a file", where=shown(address))
        total, done = info.get("size"), 0
        with system.open(path, "rb", block_size=8 * _BLOCK) as source, target.open("wb") as file:
            while block := source.read(_BLOCK):
                file.write(block)
                done += len(block)
                context.progress("download", done, total, "bytes")
        if total is not None and done != total:
            raise Unavailable(f"the download broke off after {done:,} of {total:,} bytes", where=shown(address))

    _with_object_store(address, context, copy)


def _with_object_store(address: str, context: StepContext, action: Callable[[Any, str], Any]) -> Any:
    """Call an action with the file system of an address; its errors become ours."""
    import fsspec

    where = shown(address)
    try:
        given = context.request.config
        connection = None if str(given.get("source")).startswith(KAFKA) else given.get("connection")
        options = object_store_options(connection)
        system, path = fsspec.core.url_to_fs(address, **options)
        system.invalidate_cache()  # a listing from before would hide that the object changed
        return action(system, path)
    except EdgewrightError:
        raise
    except FileNotFoundError as error:
        raise DataError("no such object or bucket", where=where) from error
    except PermissionError as error:
        raise DataError(
            "access was refused", where=where, hint="give credentials: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        ) from error
    except (ValueError, ImportError) as error:
        raise DataError(f"not an address that can be read here: {error}", where=where) from error
    except Exception as error:
        if type(error).__name__ == "NoCredentialsError":
            hint = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a connection"
            raise DataError("there are no credentials", where=where, hint=hint) from error
        raise Unavailable(f"the object store does not answer: {error}", where=where) from error
