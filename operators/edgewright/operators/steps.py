"""One operator a step, with the step's ``with:`` as keyword arguments.

Arguments that are left out have the step's own defaults. An argument that takes an artifact takes another task or its
``.output``; ``task.output["float"]`` takes an output by name. Further keyword arguments are those of
:class:`~edgewright.operators.base.StepOperator` and of Airflow's ``BaseOperator``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from edgewright.operators.base import UNSET, StepOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

    from edgewright.steps.contract import StepRequest


def _given(**arguments: Any) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if value is not UNSET}


class IngestOperator(StepOperator):
    """Reads data from anywhere into a versioned dataset with the parts ``train``, ``test`` and ``holdout``.

    Args:
        source: A path relative to the pipeline's folder, file://, http(s)://, s3:// or another fsspec address;
            kafka://TOPIC with since_last_run.
        sql: Of a database, which rows: ``{"table": "vitals.day", "watermark": "updated_at"}`` or ``{"query": ...}``.
        cassandra: Of a table of Cassandra, how it is read: ``{"parts": 64}``.
        http: Of a web service that answers in JSON: ``{"records": "items", "pages": {"by": "link"}}``.
        images: Of a folder of images, how they become rows: ``{"size": [28, 28], "labels": "folders"}``.
        format: ``auto``, ``csv``, ``parquet`` or ``jsonl``.
        compression: ``auto``, ``none`` or ``gzip``.
        label: Column that is to be predicted.
        columns: Columns to keep, in this order. Default: all.
        types: Types of columns where inference would guess wrong.
        missing: Texts in a CSV that mean a missing value.
        delimiter: Between the fields of a CSV.
        encoding: Of a CSV or JSON lines.
        split: How rows are divided, such as ``{"test": 0.25, "seed": 7, "stratify": True}``.
        on_event: What a batch of events does to the source: ``ignore``, ``replace`` or ``append``.
        since_last_run: Of kafka://TOPIC: take what came since the last run that ended well.
        max_messages: Of kafka://TOPIC: messages that a run takes at most.
        start: Of kafka://TOPIC: where the first run begins.
        holdout: Second source whose rows become the part holdout.
        minimum: Fewer rows than this skip the run: ``{"rows": 100, "per_class": 10}``.
        max_bad_rows: Share of unreadable rows that is still let through (they are counted).
        personal: Columns that identify people, by name: ``token``, ``drop`` or ``{"mask": ["email"]}``.
        retention: How long versions stay: ``"90d"``, or ``{"after": "90d", "champions": "keep"}``.
        connection: Airflow connection with the credentials of the source.
    """

    step: ClassVar[str] = "ingest"

    def __init__(
        self,
        *,
        source: Any = UNSET,
        sql: Any = UNSET,
        cassandra: Any = UNSET,
        http: Any = UNSET,
        images: Any = UNSET,
        format: Any = UNSET,  # noqa: A002
        compression: Any = UNSET,
        label: Any = UNSET,
        columns: Any = UNSET,
        types: Any = UNSET,
        missing: Any = UNSET,
        delimiter: Any = UNSET,
        encoding: Any = UNSET,
        split: Any = UNSET,
        on_event: Any = UNSET,
        since_last_run: Any = UNSET,
        max_messages: Any = UNSET,
        start: Any = UNSET,
        holdout: Any = UNSET,
        minimum: Any = UNSET,
        max_bad_rows: Any = UNSET,
        personal: Any = UNSET,
        retention: Any = UNSET,
        connection: Any = UNSET,
        config: Any = None,
        **kwargs: Any,
    ) -> None:
        given = _given(
            source=source,
            sql=sql,
            cassandra=cassandra,
            http=http,
            images=images,
            format=format,
            compression=compression,
            label=label,
            columns=columns,
            types=types,
            missing=missing,
            delimiter=delimiter,
            encoding=encoding,
            split=split,
            on_event=on_event,
            since_last_run=since_last_run,
            max_messages=max_messages,
            start=start,
            holdout=holdout,
            minimum=minimum,
            max_bad_rows=max_bad_rows,
            personal=personal,
            retention=retention,
            connection=connection,
        )
        super().__init__(config={**(config or {}), **given}, **kwargs)

    def request(self, context: Context) -> StepRequest:
        """Return what this task asks of the step, after asking what became of the runs that pulled before it."""
        request = super().request(context)
        if request.config.get("since_last_run"):
            from edgewright.operators.events import settle_before

            settle_before(request, context)
        return request


class ValidateOperator(StepOperator):
    """Keeps right rows, puts the others aside with the reason, passes or fails by a threshold.

    Args:
        data: The task that makes the dataset.
        schema: pandera schema, such as schema.py:Bracelet.
        columns: Rules by column, such as ``{"age": {"minimum": 0}}``.
        max_rejected: Largest share of rejected rows that still passes.
        min_class_share: Smallest share that a value of the label may have.
        leakage: Refuse rows that occur in two parts.
        retention: How long versions stay: ``"90d"``, or ``{"after": "90d", "champions": "keep"}``.
    """

    step: ClassVar[str] = "validate"

    def __init__(
        self,
        *,
        data: Any = UNSET,
        schema: Any = UNSET,
        columns: Any = UNSET,
        max_rejected: Any = UNSET,
        min_class_share: Any = UNSET,
        leakage: Any = UNSET,
        retention: Any = UNSET,
        config: Any = None,
        **kwargs: Any,
    ) -> None:
        given = _given(
            data=data,
            schema=schema,
            columns=columns,
            max_rejected=max_rejected,
            min_class_share=min_class_share,
            leakage=leakage,
            retention=retention,
        )
        super().__init__(config={**(config or {}), **given}, **kwargs)


class TransformOperator(StepOperator):
    """Changes a dataset by a function of yours; what it fits, it fits on ``train`` only.

    Args:
        data: The task that makes the dataset.
        entry: A function of yours as ``file.py:function``.
        fit: A function of yours that learns from ``train``.
        sql: A SELECT over ``data`` and ``train`` instead, by DuckDB or Spark.
        args: Keyword arguments of the functions, parameters of the query.
        frame: What the function gets: a pandas DataFrame of a whole part, or Arrow batches.
        retention: How long versions stay: ``"90d"``, or ``{"after": "90d", "champions": "keep"}``.
        spark: Run the functions or the query on Apache Spark, with these settings.
    """

    step: ClassVar[str] = "transform"

    def __init__(
        self,
        *,
        data: Any = UNSET,
        entry: Any = UNSET,
        fit: Any = UNSET,
        sql: Any = UNSET,
        args: Any = UNSET,
        frame: Any = UNSET,
        retention: Any = UNSET,
        spark: Any = UNSET,
        config: Any = None,
        **kwargs: Any,
    ) -> None:
        given = _given(
            data=data,
            entry=entry,
            fit=fit,
            sql=sql,
            args=args,
            frame=frame,
            retention=retention,
            spark=spark,
        )
        super().__init__(config={**(config or {}), **given}, **kwargs)


class TrainOperator(StepOperator):
    """Runs a function or a program of yours on the part ``train`` and keeps the model that it makes.

    Args:
        data: The task that makes the dataset.
        entry: A function of yours as file.py:function, relative to the pipeline's folder.
        notebook: A notebook instead, relative to the pipeline's folder.
        script: A program in any language instead.
        project: An MLflow Project instead: a folder with a file MLproject.
        entry_point: The project's entry point.
        environment: Where the project runs: ``local``, or an environment that MLflow builds: ``virtualenv``, ``uv``.
        args: Keyword arguments of the function, parameters of the notebook or project, options of the script.
        inputs: Parameters of a program that get the path of a file with the rows: ``{"path": "a.csv"}``.
        returns: The notebook's variable that holds the model.
        interpreter: What runs the script. Default: by the file's ending.
        warm_start: Alias of the registered model that training goes on from, such as ``champion``.
        checkpoint: How often the folder of checkpoints is saved while it trains, such as ``5m``.
        search: A search by Optuna for values of the function's arguments: ``{"method": "optuna", "space": ...}``.
        problem: auto: by the label's type.
        seed: Seeds random and numpy before the function is called.
        experiment: MLflow experiment. Default: the dag_id.
    """

    step: ClassVar[str] = "train"

    def __init__(
        self,
        *,
        data: Any = UNSET,
        entry: Any = UNSET,
        notebook: Any = UNSET,
        script: Any = UNSET,
        project: Any = UNSET,
        entry_point: Any = UNSET,
        environment: Any = UNSET,
        args: Any = UNSET,
        inputs: Any = UNSET,
        returns: Any = UNSET,
        interpreter: Any = UNSET,
        warm_start: Any = UNSET,
        checkpoint: Any = UNSET,
        search: Any = UNSET,
        problem: Any = UNSET,
        seed: Any = UNSET,
        experiment: Any = UNSET,
        config: Any = None,
        **kwargs: Any,
    ) -> None:
        given = _given(
            data=data,
            entry=entry,
            notebook=notebook,
            script=script,
            project=project,
            entry_point=entry_point,
            environment=environment,
            args=args,
            inputs=inputs,
            returns=returns,
            interpreter=interpreter,
            warm_start=warm_start,
            checkpoint=checkpoint,
            search=search,
            problem=problem,
            seed=seed,
            experiment=experiment,
        )
        super().__init__(config={**(config or {}), **given}, **kwargs)


class EvaluateOperator(StepOperator):
    """Measures a model on held-out rows and holds it against gates and the champion.

    Args:
        model: The task that makes the model.
        data: The task that makes the dataset.
        gates: Limits by metric, such as {accuracy: ">= 0.75"}. One that fails fails the task.
        slices: Columns; every metric is also measured for each of their values (numbers by quartile).
        positive: The label's value that counts as positive. Default: the larger one.
        champion: Registered model to compare with. Default: the name that this pipeline publishes.
    """

    step: ClassVar[str] = "evaluate"

    def __init__(
        self,
        *,
        model: Any = UNSET,
        data: Any = UNSET,
        gates: Any = UNSET,
        slices: Any = UNSET,
        positive: Any = UNSET,
        champion: Any = UNSET,
        config: Any = None,
        **kwargs: Any,
    ) -> None:
        given = _given(
            model=model,
            data=data,
            gates=gates,
            slices=slices,
            positive=positive,
            champion=champion,
        )
        super().__init__(config={**(config or {}), **given}, **kwargs)


class QuantizeOperator(StepOperator):
    """Compiles a model for its target and proves on held-out rows that it still works.

    Args:
        model: The task that makes the model.
        data: The task that makes the dataset.
        target: onnx, onnx-int8, or the name of another installed target.
        options: Options of the target, such as ``{"format": "qoperator"}``.
        method: static measures ranges on calibration rows; dynamic at run time.
        per_channel: One scale for each output channel of a weight.
        calibration: Rows for static quantization: ``{"rows": 256}``.
        tolerance: Largest allowed difference between the source model's and the exported model's scores.
        gates: Limits by metric, such as {accuracy: ">= 0.75"}. One that fails fails the task.
    """

    step: ClassVar[str] = "quantize"

    def __init__(
        self,
        *,
        model: Any = UNSET,
        data: Any = UNSET,
        target: Any = UNSET,
        options: Any = UNSET,
        method: Any = UNSET,
        per_channel: Any = UNSET,
        calibration: Any = UNSET,
        tolerance: Any = UNSET,
        gates: Any = UNSET,
        config: Any = None,
        **kwargs: Any,
    ) -> None:
        given = _given(
            model=model,
            data=data,
            target=target,
            options=options,
            method=method,
            per_channel=per_channel,
            calibration=calibration,
            tolerance=tolerance,
            gates=gates,
        )
        super().__init__(config={**(config or {}), **given}, **kwargs)


class FetchOperator(StepOperator):
    """Takes a registered version out of the registry, with the dataset that it was made from, to go on from it.

    Args:
        registered: ``NAME`` (its champion), ``NAME@ALIAS`` or ``NAME/VERSION``. Default: the version that started the
            run.
        tag: Tag of the version that lists targets.
        targets: Targets in place of those that the tag lists.
    """

    step: ClassVar[str] = "fetch"

    def __init__(
        self,
        *,
        registered: Any = UNSET,
        tag: Any = UNSET,
        targets: Any = UNSET,
        config: Any = None,
        **kwargs: Any,
    ) -> None:
        given = _given(registered=registered, tag=tag, targets=targets)
        super().__init__(config={**(config or {}), **given}, **kwargs)


class PublishOperator(StepOperator):
    """Registers a model's variants as one version, once, and moves the alias last; or adds them to a version.

    Args:
        models: The variants of one model, each another task's output.
        name: Name of the registered model.
        release: In place of ``name``: the task that fetched the version to which the models are added.
        alias: Alias that moves to the new version; the old one gets the alias previous.
        description: Text for the registered version.
        tags: Tags of the registered version.
        bundle: Offers the variants to nodes: ``{"to": "s3://edge/bundles", "targets": ["onnx-int8"], "sign": True}``.
        announce: Says so on a topic of Kafka: ``{"topic": "models", "connection": "kafka_default"}``.
    """

    step: ClassVar[str] = "publish"

    def __init__(
        self,
        *,
        models: Any = UNSET,
        name: Any = UNSET,
        release: Any = UNSET,
        alias: Any = UNSET,
        description: Any = UNSET,
        tags: Any = UNSET,
        bundle: Any = UNSET,
        announce: Any = UNSET,
        config: Any = None,
        **kwargs: Any,
    ) -> None:
        given = _given(
            models=models,
            name=name,
            release=release,
            alias=alias,
            description=description,
            tags=tags,
            bundle=bundle,
            announce=announce,
        )
        super().__init__(config={**(config or {}), **given}, **kwargs)


class DeployOperator(StepOperator):
    """Makes a published version answer requests, or leaves everything as it was.

    Args:
        release: The task that publishes.
        to: Where to: ``{"service": "bracelet"}``.
        variant: Which variant is served. Default: the last one that was published.
        timeout: Seconds that the service may take to load and test the model.
    """

    step: ClassVar[str] = "deploy"

    def __init__(
        self,
        *,
        release: Any = UNSET,
        to: Any = UNSET,
        variant: Any = UNSET,
        timeout: Any = UNSET,
        config: Any = None,
        **kwargs: Any,
    ) -> None:
        given = _given(
            release=release,
            to=to,
            variant=variant,
            timeout=timeout,
        )
        super().__init__(config={**(config or {}), **given}, **kwargs)


class ScoreOperator(StepOperator):
    """Asks a model about every row of files of any size, shard by shard; rows that cannot be scored go aside.

    Args:
        model: The task that makes the model.
        registered: A registered model instead: NAME, NAME@ALIAS or NAME/VERSION.
        variant: Variant of a registered model. Default: onnx, else the one that is served.
        source: Files: relative paths, file://, s3:// or another fsspec address; or one table of a database.
        sql: Of a database: which rows, such as ``{"table": "vitals.day", "split_by": "id"}``.
        cassandra: Of a table of Cassandra: how it is read.
        key: Columns that tell a row from all others. Default: a table's primary key.
        to: Folder for predictions: file:// or s3://; or a table. Default: scores/DAG/TASK in the store.
        into: Of an SQL database: the table that predictions go into, such as ``{"table": "vitals.risk"}``.
        to_connection: Airflow connection of the table in to.
        start: Of a topic: where the first run begins: ``earliest``, ``latest``, or a date.
        dead_letters: Of a topic: topic for messages that cannot be scored.
        format: ``auto``, ``csv``, ``parquet`` or ``jsonl``.
        output: ``parquet``, ``csv`` or ``jsonl``.
        keep: Columns of the input that stand beside the predictions.
        types: Types of kept columns of a CSV. Default: string.
        probabilities: One column a class, with its probability.
        missing: Texts in a CSV that mean a missing value.
        delimiter: Between the fields of a CSV.
        encoding: Of a CSV.
        quotes: Whether a CSV's values may stand in double quotes.
        max_rejected: Share of rows that may go aside before the task fails.
        shard_mib: MiB of input in a shard.
        processes: Default: one a core.
        engine: ``auto``, ``onnx`` or ``native``.
        allow_pickle: Let engine native load the pickled variant of a registered model.
        slice: Which share of the shards this task takes, such as ``{"index": 0, "of": 4}``.
        connection: Airflow connection with the credentials of s3://.
    """

    step: ClassVar[str] = "score"

    def __init__(
        self,
        *,
        model: Any = UNSET,
        registered: Any = UNSET,
        variant: Any = UNSET,
        source: Any = UNSET,
        sql: Any = UNSET,
        cassandra: Any = UNSET,
        key: Any = UNSET,
        to: Any = UNSET,
        into: Any = UNSET,
        to_connection: Any = UNSET,
        start: Any = UNSET,
        dead_letters: Any = UNSET,
        format: Any = UNSET,  # noqa: A002
        output: Any = UNSET,
        keep: Any = UNSET,
        types: Any = UNSET,
        probabilities: Any = UNSET,
        missing: Any = UNSET,
        delimiter: Any = UNSET,
        encoding: Any = UNSET,
        quotes: Any = UNSET,
        max_rejected: Any = UNSET,
        shard_mib: Any = UNSET,
        processes: Any = UNSET,
        engine: Any = UNSET,
        allow_pickle: Any = UNSET,
        slice: Any = UNSET,  # noqa: A002
        connection: Any = UNSET,
        config: Any = None,
        **kwargs: Any,
    ) -> None:
        given = _given(
            model=model,
            registered=registered,
            variant=variant,
            source=source,
            sql=sql,
            cassandra=cassandra,
            key=key,
            to=to,
            into=into,
            to_connection=to_connection,
            start=start,
            dead_letters=dead_letters,
            format=format,
            output=output,
            keep=keep,
            types=types,
            probabilities=probabilities,
            missing=missing,
            delimiter=delimiter,
            encoding=encoding,
            quotes=quotes,
            max_rejected=max_rejected,
            shard_mib=shard_mib,
            processes=processes,
            engine=engine,
            allow_pickle=allow_pickle,
            slice=slice,
            connection=connection,
        )
        super().__init__(config={**(config or {}), **given}, **kwargs)
