"""Where data come from: files, web servers that misbehave, object stores."""

from __future__ import annotations

import gzip
import http.server
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgewright.errors import ConfigError, DataError, Unavailable
from edgewright.steps.addresses import shown
from edgewright.steps.contract import StepResult
from edgewright.steps.data import Dataset

ROWS = b"a,y\n" + b"".join(b"%d,%d\n" % (n, n % 2) for n in range(100))
Answer = Callable[[http.server.BaseHTTPRequestHandler], None]


def opened(result: StepResult) -> Dataset:
    return Dataset.open(Path(result.outputs["dataset"].uri.removeprefix("file://")))


class Web:
    """A web server on loopback that answers as a test says, request by request."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.asked: list[tuple[str, str]] = []
        web = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                web.asked.append((self.command, self.path))
                answer = web.answers.pop(0) if len(web.answers) > 1 else web.answers[0]
                answer(self)

            do_HEAD = do_GET

            def log_message(self, *values: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def sends(body: bytes, length: int | None = None, **headers: str) -> Answer:
    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(body) if length is None else length))
        handler.end_headers()
        if handler.command == "GET":
            handler.wfile.write(body)

    return answer


def fails(status: int) -> Answer:
    return lambda handler: handler.send_error(status)


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    server = Web()
    yield server
    server.close()


# -- files -----------------------------------------------------------------------------------------------------


def test_a_file_url_may_be_anywhere(run_step: Any, tmp_path: Path) -> None:
    place = tmp_path / "some where.csv"
    place.write_bytes(ROWS)
    result = run_step("ingest", {"source": place.as_uri(), "label": "y"})
    assert opened(result).manifest["source"]["uri"] == place.as_uri()


def test_an_absolute_path_without_file_is_refused(run_step: Any, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(ROWS)
    with pytest.raises(ConfigError, match="leads out of the pipeline's folder"):
        run_step("ingest", {"source": str(tmp_path / "x.csv")})


def test_a_link_out_of_the_folder_is_refused(run_step: Any, tmp_path: Path, pipeline_folder: Path) -> None:
    (tmp_path / "x.csv").write_bytes(ROWS)
    (pipeline_folder / "link.csv").symlink_to(tmp_path / "x.csv")
    with pytest.raises(ConfigError, match="leads out of the pipeline's folder"):
        run_step("ingest", {"source": "link.csv"})


def test_a_folder_is_no_file(run_step: Any, tmp_path: Path, pipeline_folder: Path) -> None:
    (pipeline_folder / "data.csv").mkdir()
    for address in ("data.csv", (pipeline_folder / "data.csv").as_uri()):
        with pytest.raises(DataError, match="a folder, not a file"):
            run_step("ingest", {"source": address})


def test_a_missing_file_url(run_step: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        run_step("ingest", {"source": (tmp_path / "none.csv").as_uri()})


def test_an_unknown_kind_of_address(run_step: Any) -> None:
    with pytest.raises(DataError, match="not an address that can be read here"):
        run_step("ingest", {"source": "ftpx://host/data.csv"})


# -- http ------------------------------------------------------------------------------------------------------


def test_a_server_that_stumbles_is_asked_again(run_step: Any, web: Web) -> None:
    web.answers = [fails(404), fails(503), fails(429), sends(ROWS, length=5000), sends(ROWS)]
    result = run_step("ingest", {"source": f"{web.url}/data.csv"})
    assert opened(result).manifest["rows"] == 100
    assert [method for method, _ in web.asked] == ["HEAD", "GET", "GET", "GET", "GET"]


def test_a_download_that_breaks_off_is_never_taken_for_whole(run_step: Any, web: Web) -> None:
    web.answers = [sends(ROWS[: len(ROWS) // 2], length=len(ROWS))]
    with pytest.raises(Unavailable, match="the download broke off"):
        run_step("ingest", {"source": f"{web.url}/data.csv"})
    assert len(web.asked) == 5


def test_refusals_are_not_tried_again_and_no_password_is_shown(run_step: Any, web: Web) -> None:
    web.answers = [fails(401)]
    address = f"{web.url}/data.csv?token=secret"
    with pytest.raises(DataError, match="the server answered 401") as caught:
        run_step("ingest", {"source": address})
    assert "secret" not in str(caught.value)
    assert [method for method, _ in web.asked] == ["HEAD", "GET"]


def test_no_secret_of_an_address_is_kept(run_step: Any, web: Web) -> None:
    web.answers = [sends(ROWS)]
    result = run_step("ingest", {"source": f"{web.url}/data.csv?sig=secret"})
    assert opened(result).manifest["source"]["uri"] == f"{web.url}/data.csv"
    assert not any("secret" in note for note in result.notes)


def test_an_address_with_a_password_is_refused(run_step: Any) -> None:
    with pytest.raises(ConfigError, match="an address must not hold a password"):
        run_step("ingest", {"source": "http://me:secret@127.0.0.1/data.csv"})


@pytest.mark.parametrize(
    ("headers", "cached"),
    [({}, False), ({"ETag": 'W/"weak"'}, False), ({"ETag": '"1"'}, True),
     ({"Last_Modified": "Sat, 01 Aug 2026 10:00:00 GMT"}, True)],
)  # fmt: skip
def test_only_what_the_server_identifies_is_cached(
    run_step: Any, web: Web, headers: dict[str, str], cached: bool
) -> None:
    web.answers = [sends(ROWS, **headers)]
    config = {"source": f"{web.url}/data.csv"}
    run_step("ingest", config)
    result = run_step("ingest", config, run="r2")
    assert result.cache.hit is cached
    assert cached or result.cache.reason == "it reads something that cannot be digested"


def test_compressed_files_come_as_they_are(run_step: Any, web: Web) -> None:
    web.answers = [sends(gzip.compress(ROWS))]
    assert opened(run_step("ingest", {"source": f"{web.url}/data.csv.gz"})).manifest["rows"] == 100


def test_addresses_are_shown_without_secrets() -> None:
    assert shown("data.csv") == "data.csv"
    assert shown("s3://raw/2026/data.csv") == "s3://raw/2026/data.csv"
    assert shown("https://u:p@host:8443/d.csv?X-Amz-Signature=1#x") == "https://host:8443/d.csv"


# -- object stores ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def s3_server() -> Iterator[str]:
    """A real S3 server."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A client of that server, with the bucket ``lake``."""
    import boto3
    import s3fs

    environment = {
        "AWS_ENDPOINT_URL": s3_server, "AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s",
        "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true",
    }  # fmt: skip
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3")
    client.create_bucket(Bucket="lake")
    s3fs.S3FileSystem.clear_instance_cache()
    yield client
    s3fs.S3FileSystem.clear_instance_cache()


def test_a_changed_object_is_noticed(run_step: Any, bucket: Any) -> None:
    config = {"source": "s3://lake/raw/data.csv", "label": "y"}
    bucket.put_object(Bucket="lake", Key="raw/data.csv", Body=ROWS)
    assert opened(run_step("ingest", config)).manifest["rows"] == 100
    assert run_step("ingest", config, run="r2").cache.hit
    bucket.put_object(Bucket="lake", Key="raw/data.csv", Body=ROWS + b"100,0\n")
    changed = run_step("ingest", config, run="r3")
    assert not changed.cache.hit
    assert opened(changed).manifest["rows"] == 101


@pytest.mark.parametrize("address", ["s3://lake/none.csv", "s3://nobucket/data.csv"])
def test_what_is_not_in_the_store(run_step: Any, bucket: Any, address: str) -> None:
    with pytest.raises(DataError, match="no such object or bucket"):
        run_step("ingest", {"source": address})


def test_a_prefix_is_no_object(run_step: Any, bucket: Any) -> None:
    bucket.put_object(Bucket="lake", Key="raw/data.csv", Body=ROWS)
    with pytest.raises(DataError, match="a folder, not a file"):
        run_step("ingest", {"source": "s3://lake/raw"})


def test_without_credentials(run_step: Any, bucket: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(DataError, match="there are no credentials") as caught:
        run_step("ingest", {"source": "s3://lake/raw/data.csv"})
    assert "AWS_ACCESS_KEY_ID" in str(caught.value)
