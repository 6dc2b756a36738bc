"""Scoring a table and a topic, beside the loop that one writes first.

    python bench/scoring_places.py [--rows 50000] [--messages 20000]

A real PostgreSQL and a real broker run on this machine. Of both ways the rate is rows by CPU second of the process that
scores, without that of the servers; the libraries are imported before the clock starts, and the bracelet's network is
the model. The loops:

- *table*: ``pandas.read_sql`` in chunks of 10,000 rows, ``predict_proba``, ``to_sql``: once by one, nothing is
  resumed, and a second run puts every row in a second time.
- *topic*: ``consume`` 500 messages, ``json.loads``, ``predict_proba``, ``produce``, ``flush``, ``commit``:
  at least once.

The step cuts the table into ranges, upserts by key and keeps markers; of a topic it is exactly once, by transactions.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import scoring

CHUNK, BATCH = 10_000, 500


def patients(count: int) -> Any:
    """Return patients as a frame: an id and the features."""
    import pandas as pd

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "patients.csv"
        scoring.generate(file, 1)
        frame = pd.read_csv(file)
    frame = pd.concat([frame] * (count // len(frame) + 1), ignore_index=True).head(count)
    return frame.drop(columns="patient").assign(id=range(count))


def step(store: Path, config: dict[str, Any]) -> int:
    """Run the step; return how many rows it scored."""
    from edgewright.steps.contract import Identity, StepRequest
    from edgewright.steps.execute import execute

    identity = Identity(dag_id="bench", run_id=uuid.uuid4().hex, task_id="score")
    result = execute(StepRequest(step="score", config=config, identity=identity, store=str(store)))
    return int(result.metrics["rows"])


def measure(what: str, rows: int, way: Callable[[], int], base: float | None = None) -> float:
    """Run one way and print its row of the table; return rows by CPU second."""
    cpu, clock = time.process_time(), time.perf_counter()
    done = way()
    used, wall = time.process_time() - cpu, time.perf_counter() - clock
    assert done == rows, f"{what}: {done} rows instead of {rows}"
    ratio = f"{rows / used / base:6.2f}" if base else ""
    print(
        f"{what:<24} {rows:>8,} rows {used:>7.1f} CPU-s {wall:>7.1f} s {rows / used:>9,.0f} rows/CPU-s {ratio}",
        flush=True,
    )
    return rows / used


# -- a table -----------------------------------------------------------------------------------------------------------


def tables(job: dict[str, Any], model: Any, rows: int, scratch: Path) -> None:
    """Score a table of PostgreSQL into another."""
    import sqlalchemy

    from edgewright.cli.dev.postgres import PostgresServer

    with PostgresServer(scratch / "postgres") as server:
        engine = sqlalchemy.create_engine(server.url.replace("postgresql://", "postgresql+psycopg://"))
        patients(rows).to_sql("patients", engine, index=False)
        with engine.begin() as connection:
            connection.execute(sqlalchemy.text("ALTER TABLE patients ADD PRIMARY KEY (id)"))
        os.environ["AIRFLOW_CONN_BENCH"] = "postgres://postgres:unused@/"
        address = server.url.replace("postgres@", "")

        def loop() -> int:
            import pandas as pd

            done = 0
            for chunk in pd.read_sql("SELECT * FROM patients", engine, chunksize=CHUNK):
                scores = model.estimator.predict_proba(chunk[job["features"]])
                out = chunk[["id"]].assign(prediction=scores.argmax(axis=1), probability=scores[:, 1])
                out.to_sql("risk_by_loop", engine, index=False, if_exists="append", method="multi", chunksize=1000)
                done += len(chunk)
            return done

        config = {"model": job["model"], "source": address, "connection": "bench", "sql": {"table": "patients"},
                  "processes": 1}  # fmt: skip
        base = measure("table: pandas", rows, loop)
        into = {"to": address, "to_connection": "bench", "into": {"table": "risk"}}
        measure("table: score, a table", rows, lambda: step(job["store"], {**config, **into}), base)
        files = {"to": f"file://{scratch}/predictions"}
        measure("table: score, files", rows, lambda: step(job["store"], {**config, **files}), base)
        engine.dispose()


# -- a topic -----------------------------------------------------------------------------------------------------------


def topics(job: dict[str, Any], model: Any, messages: int, scratch: Path) -> None:
    """Score a topic into another."""
    from edgewright.cli.dev.kafka import KafkaServer

    with KafkaServer(scratch / "kafka") as server:
        address = {"bootstrap.servers": server.bootstrap}
        from confluent_kafka import Producer

        producer = Producer(address)
        for row in patients(messages).to_dict("records"):
            producer.produce("readings", json.dumps(row).encode(), str(row["id"]))
            producer.poll(0)
        producer.flush()
        os.environ["AIRFLOW_CONN_BENCH_KAFKA"] = json.dumps({"conn_type": "kafka", "extra": address})
        base = measure("topic: a loop", messages, lambda: _loop(job, model, address, messages))
        config = {"model": job["model"], "source": "kafka://readings", "to": "kafka://scores",
                  "connection": "bench_kafka"}  # fmt: skip
        measure("topic: score", messages, lambda: step(job["store"], config), base)


def _loop(job: dict[str, Any], model: Any, address: dict[str, Any], messages: int) -> int:
    import pandas as pd
    from confluent_kafka import Consumer, Producer

    consumer = Consumer({**address, "group.id": "loop", "auto.offset.reset": "earliest", "enable.auto.commit": False})
    consumer.subscribe(["readings"])
    producer, done = Producer(address), 0
    while done < messages:
        found = consumer.consume(BATCH, 1.0)
        if not found:
            continue
        frame = pd.DataFrame([json.loads(message.value()) for message in found])
        scores = model.estimator.predict_proba(frame[job["features"]])
        for number, score in zip(frame["id"], scores, strict=True):
            document = {"id": int(number), "prediction": int(score.argmax()), "probability_1": float(score[1])}
            producer.produce("scores-by-loop", json.dumps(document).encode())
        producer.flush()
        consumer.commit(asynchronous=False)
        done += len(found)
    consumer.close()
    return done


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--messages", type=int, default=20_000)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    import pandas as pd

    from edgewright.artifacts import ArtifactRef, ArtifactStore
    from edgewright.steps import score, score_tables, score_topic  # noqa: F401 (imported before the clock starts)
    from edgewright.steps.models import load_model

    with tempfile.TemporaryDirectory(prefix="edgewright-scoring-") as place:
        scratch = Path(place)
        scratch.chmod(0o755)  # PostgreSQL runs as another user where this is root's
        reference = scoring.train(scratch, "network")
        model = load_model(ArtifactStore(scratch / "store").fetch(ArtifactRef(**reference)))
        features = [
            name for name in pd.read_csv(scoring.ROOT / "dags/bracelet/cleveland.csv", nrows=1) if name != "num"
        ]
        job = {"model": reference, "store": scratch / "store", "features": features}
        tables(job, model, options.rows, scratch)
        topics(job, model, options.messages, scratch)


if __name__ == "__main__":
    main()
