"""Digests: the same contents always have the same one."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgewright.artifacts import canonical_json, digest_json, sha256_bytes, sha256_file
from edgewright.artifacts.digest import describe_tree, digest_tree, list_files


def test_a_file_and_its_bytes_agree(tmp_path: Path) -> None:
    data = b"x" * (3 << 20) + b"end"
    (tmp_path / "file").write_bytes(data)
    assert sha256_file(tmp_path / "file") == sha256_bytes(data)


def test_the_order_of_keys_does_not_matter_and_that_of_lists_does() -> None:
    assert digest_json({"a": 1, "b": [1, 2]}) == digest_json({"b": [1, 2], "a": 1})
    assert digest_json([1, 2]) != digest_json([2, 1])
    assert canonical_json({"ä": "ö"}) == '{"ä":"ö"}'


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_json_cannot_say_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="Out of range"):
        digest_json({"a": value})


def test_a_folder_is_its_names_and_contents(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b/c").write_text("1")
    (tmp_path / "a").write_text("2")
    before = digest_tree(describe_tree(tmp_path))
    assert list_files(tmp_path) == ["a", "b/c"]
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__/x.pyc").write_text("")
    (tmp_path / ".tmp-half").write_text("")
    assert digest_tree(describe_tree(tmp_path)) == before
    (tmp_path / "a").rename(tmp_path / "d")
    assert digest_tree(describe_tree(tmp_path)) != before
