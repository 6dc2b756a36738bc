"""``edgewright data``: versions of datasets in this installation's store."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgewright.cli.main import cli
from edgewright.errors import ConfigError, NotFound
from edgewright.steps.contract import Identity, Source, StepRequest
from edgewright.steps.execute import execute


@pytest.fixture
def versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Two versions of a dataset; their digests."""
    monkeypatch.setenv("EDGEWRIGHT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("EDGEWRIGHT_STORE", str(tmp_path / "store"))
    found = []
    for run, extra in (("r1", 0), ("r2", 40)):
        rows = "".join(f"{n},{n % 7 * 1.5 + extra},{n % 2}\n" for n in range(200 + extra))
        (tmp_path / "data.csv").write_text("id,pulse,y\n" + rows)
        result = execute(StepRequest(
            step="ingest", config={"source": "data.csv", "label": "y"}, store=str(tmp_path / "store"),
            identity=Identity(dag_id="beats", run_id=run, task_id="data"), source=Source(folder=str(tmp_path)),
        ))  # fmt: skip
        found.append(result.outputs["dataset"].sha256)
    return found


def run(*arguments: str) -> str:
    result = CliRunner().invoke(cli, ["data", *arguments], standalone_mode=False)
    if result.exception:
        raise result.exception
    return result.output


def test_show_lists_columns_and_versions(versions: list[str]):
    shown = run("show", "beats")
    assert f"beats/data@{versions[1][:12]}" in shown
    assert "240 (train 240)" in shown
    assert versions[0][:12] in shown
    document = json.loads(run("show", f"beats/data@{versions[0][:10]}", "--json"))
    assert document["manifest"]["rows"] == 200
    assert [entry["digest"] for entry in document["versions"]] == versions


def test_head_prints_rows(versions: list[str]):
    assert len(run("head", "beats@r1", "-n", "3").splitlines()) == 4
    assert json.loads(run("head", "beats@r1", "-n", "2", "--json"))[1] == {"id": 1, "pulse": 1.5, "y": 1}
    with pytest.raises(ConfigError, match="no part test"):
        run("head", "beats", "--part", "test")


def test_profile_prints_writes_a_page_and_json(versions: list[str], tmp_path: Path):
    assert "pulse" in run("profile", "beats")
    assert json.loads(run("profile", "beats", "--json"))["rows"] == 240
    run("profile", "beats", "--output", str(tmp_path / "page.html"))
    assert "<img" in (tmp_path / "page.html").read_text()
    assert json.loads((tmp_path / "page.json").read_text())["columns"][0]["name"] == "id"


def test_diff_says_what_changed(versions: list[str]):
    shown = run("diff", "beats@r1", "beats@r2")
    assert "rows 200 -> 240; 240 new, 200 gone" in shown
    assert "changed much" in shown
    assert json.loads(run("diff", "beats@r1", "beats@r1", "--json"))["rows"]["added"] == 0


def test_a_misspelt_name_is_said(versions: list[str]):
    with pytest.raises(NotFound, match='did you mean "beats"'):
        run("show", "beets")
    with pytest.raises(NotFound, match="no such version"):
        run("head", "beats@deadbeef00")
