"""Names in a source of people: after a run nobody finds them in logs, MLflow, XCom or the store."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from airflow.sdk import DAG
from support import airflow_env
from support.people import KEY, MODEL

from edgewright.operators import EvaluateOperator, IngestOperator, TrainOperator, ValidateOperator

pytestmark = pytest.mark.airflow
# backwards, because Airflow keeps the text of the file that a Dag stands in
PLANTED = tuple(
    text[::-1] for text in ("niamretrauQ nolubeZ", "shcO animlehliW", "elpmaxe.niamretrauq@qz", "1234567 071 94+")
)


@pytest.fixture
def folder(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGEWRIGHT_PSEUDONYM_KEY", KEY)
    place = tmp_path / "pipeline"
    place.mkdir()
    (place / "model.py").write_text(MODEL)
    notes = [f"write to {PLANTED[2]}", f"call {PLANTED[3]}"]
    lines = [f"{PLANTED[n % 2]},{PLANTED[n % 2]},{notes[n % 2]},{20 + n},{int(n > 40)}" for n in range(80)]
    (place / "people.csv").write_text("\n".join(["person,name,notes,age,y", *lines]) + "\n")
    (place / "damaged.csv").write_text((place / "people.csv").read_text() + f"{PLANTED[0]},1\n")
    return place


def files(*roots: Path) -> Iterator[tuple[Path, bytes]]:
    """Yield what lies below some folders; tables as text."""
    for root in roots:
        for file in root.rglob("*"):
            if file.suffix == ".parquet":
                yield file, str(pq.read_table(file).to_pylist()).encode()
            elif file.is_file():
                yield file, file.read_bytes()


def test_no_name_is_left_anywhere(
    folder: Path, home: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    personal = {"person": "token", "name": "drop", "notes": {"mask": ["email", "phone"]}}
    ingest = {"label": "y", "personal": personal, "split": {"test": 0.25, "seed": 1}, "folder": str(folder)}
    with caplog.at_level("DEBUG"):
        with DAG("people", schedule=None) as dag:
            data = IngestOperator(task_id="data", source="people.csv", columns=["person", "name", "age", "y"], **ingest)
            texts = IngestOperator(task_id="texts", source="people.csv", **ingest)
            ValidateOperator(task_id="looked", data=texts.output, leakage=False, folder=str(folder))
            checks = ValidateOperator(task_id="checks", data=data.output, leakage=False, folder=str(folder))
            model = TrainOperator(task_id="model", data=checks.output, entry="model.py:fit", folder=str(folder))
            EvaluateOperator(task_id="quality", model=model.output, data=checks.output, folder=str(folder))
            # faults quote what is wrong, so they are where a name would get out
            IngestOperator(task_id="damaged", source="damaged.csv", **ingest)
        run = airflow_env.run(dag)
    states = airflow_env.states(run)
    assert states == {**dict.fromkeys(("data", "texts", "looked", "checks", "model", "quality"), "success"),
                      "damaged": "failed"}  # fmt: skip
    shown = capfd.readouterr()
    everything = {"log": (caplog.text + shown.out + shown.err).encode()}
    everything |= {str(file): content for file, content in files(home, Path(os.environ["AIRFLOW_HOME"]))}
    assert any(name.endswith("airflow.db") for name in everything), "XCom and the log's table"
    assert any(name.endswith("mlflow.db") for name in everything)
    found = [(name, text) for name, content in everything.items() for text in PLANTED if text.encode() in content]
    assert found == []
