"""Digests: of files, folders and JSON documents. Everything that is compared or cached goes through here."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

BLOCK = 1 << 20


def sha256_bytes(data: bytes) -> str:
    """Return the SHA-256 of bytes as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file, read in blocks of 1 MiB."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def canonical_json(document: Any) -> str:
    """Return the one JSON text of a document: sorted keys, no spaces, no NaN.

    Raises:
        ValueError: the document holds NaN or infinity, which JSON cannot say.
        TypeError: the document holds something that is not JSON.
    """
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest_json(document: Any) -> str:
    """Return the SHA-256 of a document's canonical JSON text."""
    return sha256_bytes(canonical_json(document).encode())


def list_files(folder: Path) -> list[str]:
    """Return the files below a folder as sorted relative POSIX paths, byte code and hidden temporary files left out."""
    return sorted(
        p.relative_to(folder).as_posix()
        for p in folder.rglob("*")
        if p.is_file() and "__pycache__" not in p.parts and not p.name.startswith(".tmp-")
    )


def describe_tree(folder: Path) -> dict[str, dict[str, Any]]:
    """Return ``{relative path: {"sha256": ..., "size": bytes}}`` of a folder's files."""
    return {
        name: {"sha256": sha256_file(folder / name), "size": (folder / name).stat().st_size}
        for name in list_files(folder)
    }


def digest_tree(files: dict[str, dict[str, Any]]) -> str:
    """Return the digest of a folder from what :func:`describe_tree` found: names and contents, nothing else."""
    return digest_json({name: entry["sha256"] for name, entry in files.items()})
