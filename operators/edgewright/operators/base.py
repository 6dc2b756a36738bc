"""What the operators of all steps have in common: from a task of a Dag to a request, and from a result to XCom.

Delivery: a step's result document is in the artifact store before the task ends, and in XCom also when a gate failed,
so links and later tasks can look at it. Faults of the user (configuration, data, code, gates) fail the task for good;
faults of the system are tried again as the task's ``retries`` say.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

from edgewright.artifacts.digest import digest_json, sha256_file
from edgewright.errors import ConfigError, EdgewrightError, Fault, GateFailed, Skipped, UserFault
from edgewright.operators.compat import RETURN_KEY, StepPartial, dag_of, is_unmapped, operator_class_of
from edgewright.operators.connections import connections_in_environment
from edgewright.operators.links import ArtifactsLink, MlflowLink, ReportLink
from edgewright.operators.mapping import Items
from edgewright.operators.values import pull, returned, to_markers
from edgewright.spec.code import EntryPoints
from edgewright.spec.faults import Faults
from edgewright.spec.markers import decode
from edgewright.spec.pipeline import Constant, Reference
from edgewright.spec.profiles import LOCAL, Profile
from edgewright.spec.step_config import check_with, known_names
from edgewright.spec.steps import STEPS
from edgewright.steps.connections import connections_of

if TYPE_CHECKING:
    from airflow.sdk import Context

    from edgewright.steps.contract import Source, StepRequest, StepResult

log = logging.getLogger("edgewright.operators")
_CACHE = ("use", "refresh", "off")
#: Key of a run's conf that is ours: ``{"edgewright": {"cache": "off"}}``.
CONF_KEY = "edgewright"


class _Unset:
    """An argument that was not given, so that the step's own default holds."""

    def __repr__(self) -> str:
        return "the step's default"


UNSET: Any = _Unset()


@dataclass(frozen=True)
class PipelineSource:
    """Where a YAML pipeline's task comes from.

    Attributes:
        folder: The pipeline's folder on this machine.
        document: Name of its file in it.
        digest: sha256 of its text.
    """

    folder: Path
    document: str
    digest: str


class StepOperator(BaseOperator):
    """Runs one step. Use the operator of the step (``TrainOperator``, ...) rather than this.

    Args:
        step: Short name of the step; the operators of the steps have it already.
        config: The step's ``with:`` as a mapping; keyword arguments of the operators of the steps are put over it.
            Values may hold other tasks' outputs; texts are Jinja templates, ``airflow.sdk.literal()`` keeps one as
            it is.
        folder: Folder of the user's code and small data, relative to the Dag's file. Default: the Dag file's folder.
        cache: ``use`` results of earlier runs, ``refresh`` them, or leave the cache ``off``. A run may ask for another
            one with its conf ``{"edgewright": {"cache": "off"}}``.
        profile: Where to run: ``local``, or the name of a profile.
        preferred: A better place that is taken where the installation has it; ``profile`` is the fall-back then.
        profiles: Definitions of profiles by name, before those of the installation.
        deferrable: Whether the triggerer waits for a pod, so that no worker is held.
        origin: Set by the factory for tasks of a YAML pipeline: ``config`` then holds markers and texts are literal.
        items: Set by the factory for tasks with ``for_each:``: what they run once for each of.

    Raises:
        ConfigError: at construction, with every fault of the configuration that can be known before a run.
    """

    step: ClassVar[str] = ""
    template_fields = ("config",)
    template_fields_renderers = {"config": "json"}
    template_ext = ()
    operator_extra_links = (MlflowLink(), ReportLink(), ArtifactsLink())
    ui_color = "#e4f0fb"
    folder: str | None
    cache: str
    profile: str | None
    preferred: str | None
    result: dict[str, Any] | None = None
    profiles: dict[str, dict[str, Any]]
    profiles_sha256: str
    deferrable: bool
    _running: Any = None
    _items: Items | None
    _origin: PipelineSource | None
    _resolved: dict[str, Any] | None = None
    _fault: EdgewrightError | None = None

    def __init__(
        self,
        *,
        config: Mapping[str, Any] | None = None,
        folder: str | None = None,
        cache: str = "use",
        profile: str | None = None,
        preferred: str | None = None,
        profiles: Mapping[str, Any] | None = None,
        deferrable: bool = True,
        origin: PipelineSource | None = None,
        items: Items | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        kept = {name: dict(one) for name, one in profiles.items() if name in (profile, preferred)} if profiles else {}
        # setting an attribute of an operator costs Airflow microseconds, at every parse of every task
        vars(self).update(
            _items=items, folder=folder, cache=cache, profile=profile, preferred=preferred, _origin=origin,
            profiles=kept, profiles_sha256=digest_json(kept) if kept else "", deferrable=deferrable,
        )  # fmt: skip
        sources: list[Any] = []
        given = dict(config or {})
        self.config = given if origin else {key: to_markers(value, sources, key) for key, value in given.items()}
        # a template field is cut off at 4096 characters when a Dag is serialized; a digest is never cut, so that a
        # change of any value makes a new version of the Dag
        self.config_sha256 = digest_json(self.config)
        self._check(literal=origin is not None)
        if not is_unmapped(self):
            for operator in sources:
                if operator.task_id not in self.upstream_task_ids:
                    self.set_upstream(operator)

    @classmethod
    def partial(cls, **kwargs: Any) -> StepPartial:
        """Begin a mapped task: what is the same for all; ``expand()`` follows."""
        return StepPartial.of(super().partial(**kwargs))

    @classmethod
    def get_serialized_fields(cls) -> frozenset[str]:
        """Return the names of what a serialized Dag holds of this operator."""
        base: frozenset[str] = super().get_serialized_fields()  # type: ignore[no-untyped-call]
        return frozenset(base | {"config_sha256", "folder", "cache", "profile", "preferred", "profiles_sha256"})

    # -- parse time --------------------------------------------------------------------------------------------

    def _check(self, *, literal: bool) -> None:
        where = f"{self.dag_id}.{self.task_id}" if dag_of(self) else self.task_id
        if self.cache not in _CACHE:
            raise ConfigError(f"cache: {self.cache!r} is not allowed", where=where, hint=f"one of {', '.join(_CACHE)}")
        if literal:
            return  # the document was validated as a whole
        faults = Faults(where)
        config = decode(self.config)
        check_with(STEPS[self.step], config, known_names(self._param_defaults()), (), faults)
        folder = self._folder()
        if folder is not None and folder.is_dir():
            entries = EntryPoints(folder, faults)
            for name in ("entry", "fit", "schema"):
                if isinstance(config.get(name), str) and ".py:" in config[name]:
                    entries.check(config[name], (name,))
        if faults.found:
            raise ConfigError(f"\n{where}: ".join(_words(fault) for fault in faults.found), where=where)

    def _param_defaults(self) -> dict[str, Any]:
        """Return the defaults of the Dag's params: what a template that is nothing but a param must fit with."""
        dag = dag_of(self)
        if dag is None:
            return {}
        params = {name: dag.params.get_param(name) for name in dag.params}
        return {name: param.value for name, param in params.items() if param.has_value}

    def _folder(self) -> Path | None:
        """Return the folder of the user's code as far as it is known before a run."""
        if self._origin is not None:
            return self._origin.folder
        dag = dag_of(self)
        if dag is None or not dag.fileloc:
            return Path(self.folder).resolve() if self.folder else None
        return (Path(dag.fileloc).parent / (self.folder or ".")).resolve()

    # -- rendering ---------------------------------------------------------------------------------------------

    def render_template(
        self, content: Any, context: Context, jinja_env: Any = None, seen_oids: set[int] | None = None
    ) -> Any:
        """Render a value; the step's configuration has rules of its own."""
        if content is not self.config:
            return super().render_template(content, context, jinja_env, seen_oids)
        try:
            self._resolved = self._resolve(context, jinja_env)
        except EdgewrightError as error:
            # execute() says it in one line; Airflow would print two tracebacks here and try again
            self._fault = error
            return content
        return self._resolved

    def _resolve(self, context: Context, jinja_env: Any = None) -> dict[str, Any]:
        from edgewright.steps.request import resolve_config

        env = jinja_env or self.get_template_env()
        item = self._items.enter(context) if self._items is not None else None
        return resolve_config(
            self.step,
            self._with_pulled_keys(decode(self.config), context),
            result_of=lambda reference: returned(context, reference),
            render=lambda text: self._render_text(text, context, env),
            params=_params(context, self),
            item=item,
        )

    def _render_text(self, text: str, context: Context, env: Any) -> Any:
        import jinja2

        try:
            return self._render(env.from_string(text), context)
        except jinja2.TemplateError as error:
            raise ConfigError(f"template {text!r}: {error.message or error}") from error
        except (TypeError, ValueError, ArithmeticError, LookupError) as error:
            raise ConfigError(f"template {text!r}: {type(error).__name__}: {error}") from error

    def _with_pulled_keys(self, value: Any, context: Context) -> Any:
        """Replace references to a key of an operator that is no step; results of steps know their keys themselves."""
        if isinstance(value, Reference) and value.key is not None and not self._is_step(value.task):
            return Constant(pull(context, value))
        if isinstance(value, Mapping):
            return {key: self._with_pulled_keys(item, context) for key, item in value.items()}
        if isinstance(value, list):
            return [self._with_pulled_keys(item, context) for item in value]
        return value

    def _is_step(self, task_id: str) -> bool:
        kind = operator_class_of(self.dag.task_dict.get(task_id))
        return kind is not None and issubclass(kind, StepOperator)

    # -- execution ---------------------------------------------------------------------------------------------

    def execute(self, context: Context) -> dict[str, Any]:
        """Run the step and return its result document (references, digests and metrics, never data)."""
        return self._run(context, None)

    def trigger_reentry(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Go on after the triggerer has waited for a pod; Airflow's own operator of pods calls it so."""
        return self._run(context, event)

    def _run(self, context: Context, event: dict[str, Any] | None) -> dict[str, Any]:
        from edgewright.steps.execute import execute

        try:
            if self._fault is not None:
                raise self._fault
            request = self.request(context)
            place = self._place(request)
        except EdgewrightError as error:
            self._end(error)
        try:
            with heard("edgewright.steps") as lines, connections_in_environment(connections_of(request.config)):
                result = execute(request) if place == LOCAL else self._elsewhere(place, request, context, event)
        except EdgewrightError as error:
            self._keep_failed(request, context)
            self._end(error)
        except SystemExit as error:
            raise AirflowFailException(f"the step called sys.exit({error.code!r})") from None
        self.result = result.model_dump(mode="json")
        _tell(result, lines)
        return self.result

    def _place(self, request: StepRequest) -> Profile:
        if self.profile in (None, "local") and self.preferred in (None, "local"):
            return LOCAL
        from edgewright.installation import Installation
        from edgewright.places.choose import choose

        return choose(self.profile, self.preferred, self.profiles, Installation.load(), request)

    def _elsewhere(
        self, place: Profile, request: StepRequest, context: Context, event: dict[str, Any] | None
    ) -> StepResult:
        """Have a request answered in a process, a container or a pod."""
        if place.on == "kubernetes":
            from edgewright.operators.jobs import StepJob
            from edgewright.operators.pods import StepPod

            kind = StepJob if place.nodes > 1 else StepPod
            self._running = pod = kind(profile=place, request=request, deferrable=self.deferrable,
                                          execution_timeout=self.execution_timeout)  # fmt: skip
            return pod.answer(context) if event is None else pod.resume(context, event)
        from edgewright.artifacts import ArtifactStore
        from edgewright.places.child import Child
        from edgewright.places.containers import Container

        self._running = runner = Container(place) if place.on == "docker" else Child(place)
        return runner.run(request, ArtifactStore(request.store))

    def on_kill(self) -> None:
        """End what this task has started elsewhere."""
        if self._running is not None:
            end = getattr(self._running, "cancel", None) or self._running.on_kill
            end()

    def request(self, context: Context) -> StepRequest:
        """Return what this task of this run asks of the step."""
        from edgewright.installation import Installation
        from edgewright.steps.contract import Identity, StepRequest

        instance, run = context["ti"], context["dag_run"]
        installation = Installation.load()
        identity = Identity(
            dag_id=instance.dag_id,
            run_id=instance.run_id,
            task_id=instance.task_id,
            map_index=-1 if instance.map_index is None else instance.map_index,
            try_number=instance.try_number,
        )
        # a run by hand reads the data as they are now, whatever interval its Dag's schedule would give it
        moment = (None if run.run_type == "manual" else run.data_interval_end) or run.logical_date or run.run_after
        return StepRequest(
            step=self.step,
            config=self._resolved if self._resolved is not None else self._resolve(context),
            identity=identity,
            source=self._code(),
            store=installation.store,
            tracking_uri=installation.tracking_uri,
            params=_params(context, self),
            data_time=moment.isoformat() if moment else None,
            registered_model=self._registered_model(),
            cache=self._cache_of_run(run.conf),
            batch=batch_of(run.conf),
        )

    def _code(self) -> Source:
        from edgewright.steps.contract import Source
        from edgewright.steps.revision import revision_of

        folder = self._folder()
        if folder is None or not folder.is_dir():
            raise ConfigError(f"there is no folder {folder}", where=f"{self.task_id}.folder",
                              hint="folder: is relative to the Dag's file")  # fmt: skip
        commit, dirty = revision_of(folder)
        if self._origin is not None:
            document, digest = self._origin.document, self._origin.digest
        else:
            file = Path(self.dag.fileloc)
            document, digest = file.name, sha256_file(file) if file.is_file() else ""
        return Source(folder=str(folder), document=document, pipeline_digest=digest, commit=commit, dirty=dirty)

    def _registered_model(self) -> str | None:
        """Return the name that the Dag publishes under: what a model is compared with unless it says another."""
        for task in self.dag.tasks:
            name = task.config.get("name") if isinstance(task, StepOperator) and task.step == "publish" else None
            if isinstance(name, str):
                return name
        return None

    def _cache_of_run(self, conf: Mapping[str, Any] | None) -> str:
        asked = (conf or {}).get(CONF_KEY) or {}
        cache = asked.get("cache", self.cache) if isinstance(asked, Mapping) else None
        if cache not in _CACHE:
            raise ConfigError(f"the run's conf asks for {asked!r}", where=CONF_KEY,
                              hint='such as {"edgewright": {"cache": "off"}}; use, refresh or off')  # fmt: skip
        return str(cache)

    def _keep_failed(self, request: StepRequest, context: Context) -> None:
        """Push the document that a failed step left: its gates and its report are worth looking at."""
        from edgewright.artifacts import ArtifactStore

        try:
            document = ArtifactStore(request.store).read_json(f"{request.identity.key}/result.json")
        except EdgewrightError:
            return
        if isinstance(document, dict) and document["state"] != "success":
            self.result = document
            context["ti"].xcom_push(key=RETURN_KEY, value=document)

    def _end(self, error: EdgewrightError) -> NoReturn:
        """End the task as Airflow understands it: skipped, failed for good, or to be tried again."""
        if isinstance(error, Skipped):
            raise AirflowSkipException(error.message) from None
        if isinstance(error, GateFailed):
            for gate in error.results:
                log.log(logging.INFO if gate.passed else logging.ERROR, "gate: %s", gate)
        if isinstance(error, UserFault):
            raise AirflowFailException(str(error)) from None
        raise AirflowException(f"{type(error).__name__}: {error}") from None


def batch_of(conf: Mapping[str, Any] | None) -> str | None:
    """Return which document of the store says what batches of events started a run; ``None`` where none did."""
    asked = (conf or {}).get(CONF_KEY)
    batch = asked.get("batch") if isinstance(asked, Mapping) else None
    return batch if isinstance(batch, str) else None


def _params(context: Context, operator: BaseOperator) -> dict[str, Any]:
    """Return the run's params; a key of its conf that is ours is no param."""
    params = dict(context["params"])
    if CONF_KEY in params and CONF_KEY not in operator.dag.params:
        del params[CONF_KEY]
    return params


def _words(fault: Fault) -> str:
    text = f"{fault.path}: {fault.message}" if fault.path else fault.message
    text += f"; {fault.allowed}" if fault.allowed else ""
    return f'{text}; did you mean "{fault.suggestion}"?' if fault.suggestion else text


@contextlib.contextmanager
def heard(name: str) -> Iterator[set[str]]:
    """Collect what is logged under a name, so that nothing is said twice."""
    lines: set[str] = set()

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.add(record.getMessage())

    ear, logger = Ear(), logging.getLogger(name)
    logger.addHandler(ear)
    try:
        yield lines
    finally:
        logger.removeHandler(ear)


def _tell(result: StepResult, said: set[str]) -> None:
    """Write what people look for into the task's log."""
    for note in result.notes:
        if note not in said:
            log.info("%s", note)
    for gate in result.gates:
        value = "not measured" if gate.value is None else f"{gate.value:.6g}"
        note = f" ({gate.note})" if gate.note else ""
        log.info("gate passed: %s = %s %s %g%s", gate.metric, value, gate.operator, gate.limit, note)
    for name, ref in result.outputs.items():
        log.info("output %s: %s, %d bytes, sha256 %s", name, ref.kind, ref.size, ref.sha256[:12])
