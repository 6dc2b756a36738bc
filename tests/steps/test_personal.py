"""personal: columns that identify people, which nobody finds again in the store, in logs or in results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner

from edgewright.cli.main import cli
from edgewright.errors import ConfigError, DataError
from edgewright.steps.data import Dataset
from edgewright.streams.pseudonyms import Pseudonyms

KEY = "0123456789abcdef0123456789abcdef"
PEOPLE = ["007-Agatha", "007-Bertram", "007-Cecilia", "007-Agatha"]
PLANTED = ("Agatha", "Bertram", "Cecilia", "agatha@example.org", "+49 170 1234567")


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEWRIGHT_PSEUDONYM_KEY", KEY)


def rows(repeat: int = 10) -> pd.DataFrame:
    notes = ["write to agatha@example.org", "call +49 170 1234567 soon", None, "well"]
    frame = pd.DataFrame({"person": PEOPLE, "age": [61, 50, 47, 61], "notes": notes, "name": PEOPLE, "y": [0, 1, 0, 1]})
    return pd.concat([frame.assign(age=frame.age + n) for n in range(repeat)], ignore_index=True)


PERSONAL = {"person": "token", "name": "drop", "notes": {"mask": ["email", "phone"]}}


def opened(result: Any) -> Dataset:
    return Dataset.open(Path(result.outputs["dataset"].uri.removeprefix("file://")))


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_nothing_of_a_person_is_left(
    run_step: Any, pipeline_folder: Path, tmp_path: Path, form: str, caplog: pytest.LogCaptureFixture
) -> None:
    place = pipeline_folder / f"people.{form}"
    frame = rows()
    writers = {
        "csv": lambda: frame.to_csv(place, index=False),
        "jsonl": lambda: frame.to_json(place, orient="records", lines=True),
        "parquet": lambda: frame.to_parquet(place),
    }
    writers[form]()
    with caplog.at_level("DEBUG"):
        config = {"source": place.name, "label": "y", "personal": PERSONAL, "split": {"test": 0.25, "seed": 1}}
        result = run_step("ingest", config)
    dataset = opened(result)
    found = pd.concat([dataset.frame(part) for part in dataset.part_names])
    assert set(found.person) == {Pseudonyms(KEY).of(one) for one in PEOPLE}
    assert "name" not in found
    assert set(found.notes.dropna()) == {"write to ***", "call *** soon", "well"}
    assert dataset.features == ["age", "notes"]
    assert dataset.manifest["source"]["personal"] == {"person": "token", "name": "drop", "notes": "mask"}
    place.unlink()
    stored = b"".join(file.read_bytes() for file in (tmp_path / "store").rglob("*") if file.is_file())
    for text in PLANTED:
        assert text.encode() not in stored
        assert text not in caplog.text
        assert text not in result.model_dump_json()
    for name in dataset.part_names:
        assert not any(text in dataset.frame(name).to_csv() for text in PLANTED)


def test_the_same_person_is_the_same_everywhere_and_another_key_gives_another_dataset(
    run_step: Any, pipeline_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows().to_csv(pipeline_folder / "a.csv", index=False)
    config = {"source": "a.csv", "label": "y", "personal": {"person": "token", "name": "drop"}}
    first = run_step("ingest", config)
    assert run_step("ingest", config, run="again").cache.hit
    monkeypatch.setenv("EDGEWRIGHT_PSEUDONYM_KEY", KEY[::-1])
    other = run_step("ingest", config, run="other")
    assert not other.cache.hit
    assert not set(opened(first).frame("train").person) & set(opened(other).frame("train").person)
    monkeypatch.delenv("EDGEWRIGHT_PSEUDONYM_KEY")
    with pytest.raises(ConfigError, match="personal columns need a key"):
        run_step("ingest", config, run="none")


def test_checked_data_keep_their_marks(run_step: Any, pipeline_folder: Path) -> None:
    rows().to_csv(pipeline_folder / "a.csv", index=False)
    data = run_step("ingest", {"source": "a.csv", "label": "y", "personal": {"person": "token", "name": "drop"}})
    checked = run_step("validate", {"data": data.outputs["dataset"].model_dump(mode="json"), "leakage": False})
    assert opened(checked).pseudonyms == ["person"]
    assert "person" not in opened(checked).features


def test_a_misspelt_column_is_a_fault_and_damaged_lines_are_not_quoted(
    run_step: Any, pipeline_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows(1).to_csv(pipeline_folder / "a.csv", index=False)
    with pytest.raises(DataError, match="there is no column 'persn'"):
        run_step("ingest", {"source": "a.csv", "label": "y", "personal": {"persn": "token"}})
    text = (pipeline_folder / "a.csv").read_text() + "007-Agatha,1\n"
    (pipeline_folder / "b.csv").write_text(text)
    with pytest.raises(DataError) as raised:
        run_step("ingest", {"source": "b.csv", "label": "y", "personal": {"person": "token", "name": "drop"}})
    assert "1 rows cannot be read, such as line 6" in raised.value.message
    lines = [json.dumps({"person": "a", "y": 1}), json.dumps({"person": {"Agatha": 1}, "y": 0})]
    (pipeline_folder / "c.jsonl").write_text("\n".join(lines))
    with pytest.raises(DataError, match="column person holds a value, no plain value"):
        run_step("ingest", {"source": "c.jsonl", "label": "y", "personal": {"person": "token"}})
    assert "Agatha" not in caplog.text + raised.value.message


def test_the_key_is_made_once_and_kept_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDGEWRIGHT_PSEUDONYM_KEY")
    file = tmp_path / "key"
    made = CliRunner().invoke(cli, ["privacy", "key", str(file)])
    assert made.exit_code == 0, made.output
    assert file.stat().st_mode & 0o777 == 0o600
    assert CliRunner().invoke(cli, ["privacy", "key", str(file)]).exit_code == 1
    monkeypatch.setenv("EDGEWRIGHT_PSEUDONYM_KEY_FILE", str(file))
    shown = CliRunner().invoke(cli, ["privacy", "token"], input="patient 17\n")
    assert shown.output.strip() == Pseudonyms(file.read_text()).of("patient 17")
    assert Pseudonyms(file.read_text()).of(shown.output.strip()) == shown.output.strip()
    with pytest.raises(ConfigError, match="less than 32 characters"):
        Pseudonyms("short")
