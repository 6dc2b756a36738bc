"""A Kubernetes cluster by an Airflow connection, without Airflow: workloads, their pods, nodes."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from typing import Any

from edgewright.errors import Busy, ConfigError, Unavailable, UserFault
from edgewright.steps.connections import Credentials, variable_of

Json = dict[str, Any]
_SECONDS = 15
_EXAMPLE = '{"conn_type": "kubernetes", "extra": {"kube_config_path": "/path", "namespace": "edge"}}'
_DEFAULT = "kubernetes_default"


class Kubernetes:
    """What is asked of a cluster.

    Args:
        connection: Airflow connection; without ``kubernetes_default`` it is that of the pod around us, or KUBECONFIG's.
        namespace: Where workloads are; ``None``: the connection's.

    Raises:
        ConfigError: the connection is not there, or the client is not.
    """

    def __init__(self, connection: str, namespace: str | None) -> None:
        try:
            from kubernetes import client
        except ModuleNotFoundError as error:
            raise ConfigError("nodes of a cluster need the kubernetes client", hint="pip install kubernetes") from error
        settings = client.Configuration()
        given = _configure(connection, settings)
        settings.retries = 1
        self.namespace = namespace or given or "default"
        self._api = client.ApiClient(settings)
        self._apps, self._core = client.AppsV1Api(self._api), client.CoreV1Api(self._api)
        self.host = str(settings.host)

    def read(self, kind: str, name: str) -> Json | None:
        """Return a workload, or ``None``."""
        found = self._call(self._verb("read", kind), name, self.namespace, absent=True)
        return self._plain(found)

    def create(self, document: Json) -> Json:
        """Make a workload."""
        return self._plain(self._call(self._verb("create", document["kind"]), self.namespace, document)) or {}

    def replace(self, document: Json) -> Json:
        """Replace a workload; where somebody changed it since it was read: :class:`Busy`."""
        name = document["metadata"]["name"]
        return self._plain(self._call(self._verb("replace", document["kind"]), name, self.namespace, document)) or {}

    def annotate(self, kind: str, name: str, annotations: dict[str, str | None]) -> None:
        """Set annotations of a workload."""
        self._call(self._verb("patch", kind), name, self.namespace, {"metadata": {"annotations": annotations}})

    def delete(self, kind: str, name: str) -> None:
        """Remove a workload and its pods."""
        self._call(self._verb("delete", kind), name, self.namespace, absent=True)

    def pods(self, selector: str) -> list[Json]:
        """Return pods by labels."""
        found = self._call(self._core.list_namespaced_pod, self.namespace, label_selector=selector)
        listed: list[Json] = self._api.sanitize_for_serialization(found)["items"]
        return listed

    def log(self, pod: str, container: str) -> list[str]:
        """Return the end of a pod's log; nothing where it cannot be had, as from an edge node that is cut off."""
        with contextlib.suppress(Unavailable, UserFault):
            answer = self._call(  # as bytes: the client would return how Python writes them
                self._core.read_namespaced_pod_log, pod, self.namespace, container=container, tail_lines=50,
                _preload_content=False,
            )  # fmt: skip
            return str(answer.data.decode(errors="replace")).splitlines()
        return []

    def nodes(self, labels: dict[str, str]) -> list[Json] | None:
        """Return nodes by labels; ``None`` where they may not be read."""
        selector = ",".join(f"{key}={value}" for key, value in labels.items())
        try:
            found = self._call(self._core.list_node, label_selector=selector)
        except ConfigError:
            return None
        listed: list[Json] = self._api.sanitize_for_serialization(found)["items"]
        return listed

    def _verb(self, verb: str, kind: str) -> Callable[..., Any]:
        method: Callable[..., Any] = getattr(
            self._apps, f"{verb}_namespaced_{'daemon_set' if kind == 'DaemonSet' else 'deployment'}"
        )
        return method

    def _plain(self, found: Any) -> Json | None:
        return None if found is None else self._api.sanitize_for_serialization(found)

    def _call(self, method: Callable[..., Any], *arguments: Any, absent: bool = False, **more: Any) -> Any:
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        try:
            return method(*arguments, **more, _request_timeout=_SECONDS)
        except ApiException as error:
            if error.status == 404 and absent:
                return None
            raise self._fault(error.status, _words(error)) from None
        except (HTTPError, OSError) as error:
            raise Unavailable(f"the cluster does not answer: {_words(error)}", where=self.host) from error

    def _fault(self, status: int, words: str) -> UserFault | Unavailable | Busy:
        if status == 409:
            return Busy(f"somebody else changes it at the same time: {words}", where=self.host)
        if status in (400, 401, 403, 404, 422):
            hint = "the chart's role edgewright-steps has what is needed" if status in (401, 403) else None
            return ConfigError(f"Kubernetes refuses: {words}", where=f"namespace {self.namespace}", hint=hint)
        return Unavailable(f"Kubernetes: {status} {words}", where=self.host)


def _configure(connection: str, settings: Any) -> str | None:
    """Fill the client's settings as Airflow's own hook does; return the namespace that the connection names."""
    from kubernetes import config

    try:
        if not os.environ.get(variable_of(connection)) and connection == _DEFAULT:
            try:
                config.load_incluster_config(settings)
            except config.ConfigException:
                return _load(config, settings, None, None)
            return None
        said = Credentials.of(connection, _EXAMPLE).extra
        extra = {key.removeprefix("extra__kubernetes__"): value for key, value in said.items() if value}
        namespace = extra.get("namespace")
        if str(extra.get("in_cluster")).lower() == "true":
            config.load_incluster_config(settings)
            return namespace
        text = extra.get("kube_config")
        document = json.loads(text) if isinstance(text, str) else text
        if document is not None:
            config.load_kube_config_from_dict(document, extra.get("cluster_context"), settings)
            name = extra.get("cluster_context") or document.get("current-context")
            contexts = {one["name"]: one["context"] for one in document.get("contexts") or ()}
            return str(namespace or contexts.get(name, {}).get("namespace") or "default")
        found = _load(config, settings, extra.get("kube_config_path"), extra.get("cluster_context"))
        return namespace or found
    except (config.ConfigException, OSError, ValueError) as error:
        raise ConfigError(f"the cluster's configuration cannot be read: {error}", where=connection,
                          hint=f"{variable_of(connection)}={_EXAMPLE}") from error  # fmt: skip


def _load(config: Any, settings: Any, path: str | None, context: str | None) -> str | None:
    """Read a kubeconfig; return the namespace of its context."""
    config.load_kube_config(path, context, settings)
    contexts, active = config.list_kube_config_contexts(path)
    chosen = next((one for one in contexts if one["name"] == context), active)
    namespace: str | None = chosen["context"].get("namespace")
    return namespace


def _words(error: Exception) -> str:
    try:
        return str(json.loads(error.body)["message"])  # type: ignore[attr-defined]
    except (AttributeError, TypeError, ValueError, KeyError):
        return str(getattr(error, "reason", None) or error).splitlines()[0]
