"""An object that is as large as one likes and needs no disk: a server of S3's protocol that makes its bytes when asked.

    python bench/generated.py GIGABYTES

It prints its port, and serves ``s3://bench/patients.csv`` and ``http://127.0.0.1:PORT/bench/patients.csv``: a header,
and one block of 8 MB of rows again and again; any range of it. ``patients.csv.gz`` is the same, packed (one small
block of it again and again, so that it is quick to send).
"""

from __future__ import annotations

import argparse
import gzip
import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ROOT = Path(__file__).parents[1]
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


class Repeated:
    """A head and one block, so often that a size is reached."""

    def __init__(self, head: bytes, block: bytes, size: float) -> None:
        self.head, self.block = head, block
        self.times = max(1, round((size - len(head)) / len(block)))
        self.size = len(head) + self.times * len(block)

    def pieces(self, start: int, stop: int):
        """Yield the bytes of a range."""
        if start < len(self.head):
            yield self.head[start : min(stop, len(self.head))]
            start = len(self.head)
        while start < stop:
            at = (start - len(self.head)) % len(self.block)
            piece = memoryview(self.block)[at : at + stop - start]
            yield piece
            start += len(piece)


def rows(megabytes: float) -> tuple[bytes, bytes]:
    """Return the header and a block of whole rows."""
    import numpy as np
    import pandas as pd

    real = pd.read_csv(ROOT / "dags" / "bracelet" / "cleveland.csv")
    random = np.random.default_rng(1)
    count = int(megabytes * 1_000_000 / 95)
    frame = pd.DataFrame({"patient": [f"p{10_000_000 + n}" for n in range(count)]})
    for name in real.columns.drop("num"):
        values = real[name].dropna().to_numpy(dtype=float)
        frame[name] = (random.choice(values, count) + random.normal(0, 0.01, count)).round(3)
    frame["num"] = random.integers(0, 2, count)
    head, _, block = frame.to_csv(index=False).encode().partition(b"\n")
    return head + b"\n", block


class Handler(BaseHTTPRequestHandler):
    """Answers HEAD and GET of the objects."""

    protocol_version = "HTTP/1.1"
    objects: dict[str, Repeated] = {}

    def do_HEAD(self) -> None:
        """Say how large it is."""
        self._answer(body=False)

    def do_GET(self) -> None:
        """Send a range of it."""
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        found = self.objects.get(self.path.partition("?")[0])
        if found is None:
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        match = _RANGE.match(self.headers.get("Range", ""))
        start = int(match[1]) if match else 0
        stop = min(found.size, int(match[2]) + 1) if match and match[2] else found.size
        self.send_response(206 if match else 200)
        self.send_header("Content-Length", str(stop - start))
        self.send_header("ETag", f'"{found.size:x}"')
        self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
        self.send_header("Accept-Ranges", "bytes")
        if match:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{found.size}")
        self.end_headers()
        if body:
            for piece in found.pieces(start, stop):
                self.wfile.write(piece)

    def log_message(self, *args: object) -> None:
        """Say nothing."""


def main() -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("gigabytes", type=float)
    options = parser.parse_args()
    head, block = rows(8)
    plain = Repeated(head, block, options.gigabytes * 1e9)
    packed = gzip.compress(block, 1)
    # members of gzip may follow each other
    small = Repeated(gzip.compress(head), packed, len(packed) * plain.times)
    Handler.objects = {"/bench/patients.csv": plain, "/bench/patients.csv.gz": small}
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_address[1], plain.size, flush=True)
    sys.stdin.read()  # ends with whoever started it


if __name__ == "__main__":
    main()
