"""``transform`` on Apache Spark: an environment and a process of its own, its settings, what became of it.

PySpark is in neither Airflow's environment nor the step's: a hashed lock says what is in its own, which is built once.
The driver is a child process; what it starts (a JVM, Python workers) ends with it. Settings, and with them the logins
of connections, reach Spark by a file that only this user can read, never by a command line.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from edgewright.errors import ConfigError, EdgewrightError, SystemFault, Unavailable, UserCodeError
from edgewright.installation import find_home
from edgewright.spec.steps.spark import SparkConfig
from edgewright.spec.steps.transform import TransformConfig
from edgewright.steps.connections import Credentials, variable_of
from edgewright.steps.context import StepContext
from edgewright.steps.data import GROUP_ROWS, Dataset
from edgewright.steps.frames import CollectedRows, rows_of
from edgewright.steps.java import find_java
from edgewright.steps.programs import Program
from edgewright.steps.spark_environment import SPARK
from edgewright.steps.spark_faults import said, unresolved
from edgewright.targets.environments import environment_python
from edgewright.targets.isolated import child_environ

#: How the child begins a line that is progress: stage, tasks done, tasks in all.
PROGRESS = "edgewright-spark "
_CONNECT_SECONDS = 5.0
_LOG4J = """\
rootLogger.level = warn
rootLogger.appenderRef.stdout.ref = console
appender.console.type = Console
appender.console.name = console
appender.console.target = SYSTEM_ERR
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %p %c{1}: %m%notEmpty{ (%throwable{short.message})}%n%throwable{none}
logger.native.name = org.apache.hadoop.util.NativeCodeLoader
logger.native.level = error
logger.utils.name = org.apache.spark.util.Utils
logger.utils.level = error
# what a failed task says comes once, as the error
logger.tasks.name = org.apache.spark.scheduler.TaskSetManager
logger.tasks.level = off
logger.executor.name = org.apache.spark.executor.Executor
logger.executor.level = off
logger.writer.name = org.apache.spark.sql.execution.datasources
logger.writer.level = off
logger.python.name = org.apache.spark.api.python
logger.python.level = off
logger.kafka.name = org.apache.kafka
logger.kafka.level = error
"""


def apply_spark(
    config: TransformConfig, spark: SparkConfig, context: StepContext, dataset: Dataset, rows: CollectedRows
) -> tuple[Any, str]:
    """Add what functions or a query make of each part on Spark.

    Args:
        config: What to do.
        spark: Where.
        context: The step.
        dataset: The dataset.
        rows: Where the rows go.

    Returns:
        The state that ``fit`` found (``None`` without one), and Spark's version.

    Raises:
        ConfigError: there is no Java, a package does not exist, or workers cannot see the folder.
        UserCodeError: a function or the query failed, or made something that is no dataset.
        Unavailable: the cluster, or what a function reads from, cannot be reached.
    """
    _check_reachable(spark.master)
    java = find_java(lowest=17)
    python = environment_python(SPARK)
    entry = config.entry or config.fit or "sql"
    with _shared(spark, context) as shared:
        inputs = _hand_over(dataset, shared)
        folder = context.folder("spark")
        request = {
            "entry": config.entry, "fit": config.fit, "sql": config.sql, "args": config.args, "parts": inputs,
            "source": None if config.sql else str(context.source_folder), "out": str(shared / "out"),
            "ivy": str(_ivy_folder()) if spark.packages else None, "cluster": spark.master.startswith("spark:"),
        }  # fmt: skip
        (folder / "request.json").write_text(json.dumps(request))
        _write_settings(folder, spark, context.request.identity.key)
        answer = _run(python, java, folder, spark, context)
        for part in dataset.part_names:
            _read_back(part, shared / "out" / part, answer["rows"][part], rows, entry, spark, dataset.rows(part))
    return answer["state"], answer["version"]


# -- before ------------------------------------------------------------------------------------------------------------


def _check_reachable(master: str) -> None:
    """Ask the masters of a cluster before a JVM tries for minutes."""
    if not master.startswith("spark://"):
        return
    reasons = []
    for address in master.removeprefix("spark://").split(","):
        host, _, port = address.rpartition(":")
        try:
            socket.create_connection((host, int(port)), _CONNECT_SECONDS).close()
            return
        except OSError as error:
            reasons.append(f"{address}: {error.strerror or error}")
    raise Unavailable(f"the Spark cluster does not answer: {'; '.join(reasons)}", where=master)


@contextmanager
def _shared(spark: SparkConfig, context: StepContext) -> Iterator[Path]:
    """Yield an empty folder that the driver and all workers see."""
    if spark.folder is None:
        yield context.folder("shared")
        return
    try:
        folder = Path(tempfile.mkdtemp(prefix="edgewright-spark-", dir=spark.folder))
    except OSError as error:
        hint = "one that this machine and all workers have mounted, and may write to"
        where = f"spark.folder: {spark.folder}"
        raise ConfigError(f"the folder cannot be used: {error.strerror}", where=where, hint=hint) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _hand_over(dataset: Dataset, shared: Path) -> dict[str, str]:
    given = shared / "in"
    given.mkdir()
    found = {}
    for part in dataset.part_names:
        file = Path(dataset.folder, dataset.manifest["parts"][part]["file"]).resolve()
        found[part] = str(shutil.copyfile(file, given / f"{part}.parquet"))
    return found


def _ivy_folder() -> Path:
    folder = find_home() / "environments" / "ivy"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _write_settings(folder: Path, spark: SparkConfig, name: str) -> None:
    """Write Spark's settings where only this user can read them."""
    conf = folder / "conf"
    conf.mkdir(mode=0o700)
    (folder / "local").mkdir()
    lines = settings(spark, name, folder)
    text = "".join(
        f"{key} {str(value).lower() if isinstance(value, bool) else value}\n" for key, value in lines.items()
    )
    file = os.open(conf / "spark-defaults.conf", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(file, "w") as opened:
        opened.write(text)
    (conf / "log4j2.properties").write_text(_LOG4J)


def settings(spark: SparkConfig, name: str, folder: Path) -> dict[str, Any]:
    """Return all of Spark's settings; those of the user replace ours.

    Args:
        spark: What the task says.
        name: What the application is called.
        folder: Scratch folder of the driver.
    """
    found: dict[str, Any] = {
        "spark.master": spark.master,
        "spark.app.name": f"edgewright {name}",
        "spark.driver.memory": spark.memory,
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
        "spark.sql.warehouse.dir": str(folder / "warehouse"),
        "spark.local.dir": str(folder / "local"),
        "spark.ui.enabled": False,  # a page without a login
        "spark.ui.showConsoleProgress": False,
    }
    if not spark.master.startswith("spark://") or _is_loopback(spark.master):
        found |= {"spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1"}
    if spark.packages:
        found |= {"spark.jars.packages": ",".join(spark.packages), "spark.jars.ivy": str(_ivy_folder())}
    for connection in spark.connections:
        found |= _object_store(connection)
    return found | spark.conf


def _is_loopback(master: str) -> bool:
    return all(host.rpartition(":")[0] in ("127.0.0.1", "localhost")
               for host in master.removeprefix("spark://").split(","))  # fmt: skip


def _object_store(connection: str) -> dict[str, Any]:
    """Return the settings of ``s3a://`` from a connection of the type ``aws``; none from another."""
    found = Credentials.of(connection, "aws://KEY:SECRET@/?endpoint_url=...")
    if not _is_aws(connection):
        return {}
    extra, prefix = found.extra, "spark.hadoop.fs.s3a."
    endpoint = extra.get("endpoint_url")
    provider = "SimpleAWSCredentialsProvider"
    settings: dict[str, Any] = {f"{prefix}access.key": found.login, f"{prefix}secret.key": found.password}
    if extra.get("aws_session_token"):
        settings[f"{prefix}session.token"] = extra["aws_session_token"]
        provider = "TemporaryAWSCredentialsProvider"
    if found.login:
        settings[f"{prefix}aws.credentials.provider"] = f"org.apache.hadoop.fs.s3a.{provider}"
    settings[f"{prefix}endpoint.region"] = extra.get("region_name")
    if endpoint:
        settings |= {f"{prefix}endpoint": endpoint, f"{prefix}path.style.access": True}
        settings[f"{prefix}endpoint.region"] = extra.get("region_name") or "us-east-1"
    return {name: value for name, value in settings.items() if value}


def _is_aws(connection: str) -> bool:
    text = os.environ[variable_of(connection)].lstrip()
    kind = json.loads(text).get("conn_type") if text.startswith("{") else text.partition("://")[0]
    return kind in ("aws", "s3")


# -- the child ---------------------------------------------------------------------------------------------------------


def _environ(python: Path, java: str, folder: Path, spark: SparkConfig) -> dict[str, str]:
    kept = ("JAVA_HOME", "JAVA_TOOL_OPTIONS", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
    found = {name: os.environ[name] for name in kept if name in os.environ}
    found |= {variable_of(name): os.environ[variable_of(name)] for name in spark.connections}
    found |= child_environ(python, folder)
    found["PATH"] = os.pathsep.join([str(Path(java).parent), found["PATH"]])
    home = str(folder / "conf")
    return found | {"SPARK_CONF_DIR": home, "PYSPARK_PYTHON": str(python), "PYTHONUNBUFFERED": "1"}


def _run(python: Path, java: str, folder: Path, spark: SparkConfig, context: StepContext) -> dict[str, Any]:
    from edgewright.steps.train_program import Lines

    lines = Lines("spark")
    kept: list[str] = []

    def on_line(line: str) -> None:
        if line.startswith(PROGRESS):
            stage, done, total = line.removeprefix(PROGRESS).split()
            context.progress(f"spark stage {stage}:", float(done), float(total), "tasks")
            return
        kept.append(line)
        del kept[:-400]
        if said(line):
            lines(line)

    command = [str(python), "-m", "edgewright.steps.spark_child", str(folder)]
    code = Program(command, _environ(python, java, folder, spark), folder).run(on_line)
    lines.close()
    return _answer(folder, code, kept, spark)


def _answer(folder: Path, code: int, lines: list[str], spark: SparkConfig) -> dict[str, Any]:
    file = folder / "answer.json"
    absent = unresolved(lines)
    if absent:
        raise ConfigError(f"there is no package {absent}", where="spark.packages",
                          hint="packages come from Maven Central, or where conf: {spark.jars.repositories: ...} says; "
                          "a connector has Spark's own version")  # fmt: skip
    if not file.is_file():
        tail = " | ".join([line.strip() for line in lines if said(line)][-3:]) or "it wrote nothing"
        memory = any("OutOfMemoryError" in line for line in lines) or code == -9
        if memory:
            raise ConfigError(f"Spark ran out of memory ({spark.memory})", where="spark.memory",
                              hint="more, or fewer rows at a time: repartition")  # fmt: skip
        raise SystemFault(f"Spark ended with {code} and no answer: {tail}", hint="the task's log has what it printed")
    answer: dict[str, Any] = json.loads(file.read_bytes())
    if "fault" in answer:
        _raise(answer["fault"])
    return answer


def _raise(fault: Mapping[str, Any]) -> None:
    kinds: dict[str, type[EdgewrightError]] = {
        kind.__name__: kind for kind in (ConfigError, UserCodeError, Unavailable)
    }
    raise kinds.get(fault["type"], SystemFault)(fault["message"], where=fault["where"], hint=fault["hint"])


# -- after -------------------------------------------------------------------------------------------------------------


def _read_back(
    part: str, folder: Path, wanted: int, rows: CollectedRows, entry: str, spark: SparkConfig, given: int
) -> None:
    done = 0
    for file in sorted(folder.glob("part-*.parquet"), key=_place):
        with pq.ParquetFile(file) as opened:
            for batch in opened.iter_batches(batch_size=GROUP_ROWS):
                rows.add(part, rows_of(batch, entry), entry)
                done += batch.num_rows
    if done != wanted:
        raise ConfigError(
            f"the workers wrote {wanted:,} rows of {part}, and {done:,} arrived here", where="spark.folder",
            hint=f"name a folder that this machine and the workers of {spark.master} both see",
        )  # fmt: skip
    if done == 0:
        raise UserCodeError(f"{entry} left no rows of {part}", hint=f"it was given {given:,}")


def _place(file: Path) -> int:
    found = re.match(r"part-(\d+)", file.name)
    return int(found.group(1)) if found else 0
