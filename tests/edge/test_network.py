"""An object store as the source, behind a line that is cut."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.edge import Bundles

from edgewright.cli.dev.s3 import S3Server
from edgewright.edge.node import Node
from edgewright.edge.shelf import Shelf
from edgewright.edge.sources import Folder
from edgewright.edge.updates import Updater, Wanted


class Line:
    """A proxy; while it is cut, a connection ends after so many bytes of the answer."""

    def __init__(self, port: int) -> None:
        self._to, self.cut_after = port, None
        self.cuts = 0
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    cut_after: int | None

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                caller, _ = self._listening.accept()
                server = socket.create_connection(("127.0.0.1", self._to))
                for source, sink, answers in ((caller, server, False), (server, caller, True)):
                    threading.Thread(target=self._carry, args=(source, sink, answers), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket, answers: bool) -> None:
        carried = 0
        with contextlib.suppress(OSError):
            while data := source.recv(1024):
                carried += len(data)
                if answers and self.cut_after is not None and carried > self.cut_after:
                    self.cuts += 1
                    break
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listening.close()


@pytest.fixture
def line(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Line]:
    s3fs = pytest.importorskip("s3fs")
    line = Line(s3_server.port)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{line.port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_server.key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3_server.secret)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    s3fs.S3FileSystem.clear_instance_cache()
    yield line
    line.close()
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.mark.slow
def test_a_line_that_is_cut_leaves_the_node_as_it_was(bundles: Bundles, tmp_path: Path, line: Line) -> None:
    import fsspec

    store, _ = fsspec.core.url_to_fs("s3://edge-line")
    store.mkdir("edge-line")
    store.put_file(str(bundles.write(tmp_path / "made", 1)), "edge-line/pump-1-onnx.tar")
    shelf = Shelf(tmp_path / "home")
    node = Node("n1", shelf, Updater(shelf, Folder("s3://edge-line"), Wanted("onnx", key=bundles.public)))
    assert node.update(), node.problem
    store.put_file(str(bundles.write(tmp_path / "made", 2)), "edge-line/pump-2-onnx.tar")
    line.cut_after = 4000  # lists come through, bundles do not
    for _ in range(2):
        assert not node.update()
        assert node.problem
        assert shelf.state.current is not None
        assert shelf.state.current.version == 1
        assert not shelf.state.refused, "the line's fault is not the bundle's"
        assert len(list((tmp_path / "home/slots").iterdir())) == 1
    assert line.cuts
    line.cut_after = None
    assert node.update(), node.problem
    assert shelf.state.current.version == 2
