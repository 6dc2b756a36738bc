"""What a cluster says about a profile before anything runs: ``edgewright check --against kubernetes``.

Reads only, and asks for a dry run of the pod at the end. What may not be read is said, never guessed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from edgewright.errors import Unavailable
from edgewright.places.containers import amount
from edgewright.places.explain import shortfall
from edgewright.places.pods import build_pod
from edgewright.spec.profiles import Profile
from edgewright.steps.contract import Identity, StepRequest

Json = dict[str, Any]
_SECONDS = 15


class Cluster:
    """A Kubernetes cluster that is asked about profiles.

    Args:
        kubeconfig: File; ``None`` takes ``KUBECONFIG``, ``~/.kube/config``, or the account of the pod around us.

    Raises:
        Unavailable: there is no configuration, or nobody answers.
    """

    def __init__(self, kubeconfig: Path | None = None) -> None:
        from kubernetes import client, config

        settings = client.Configuration()
        try:
            try:
                config.load_kube_config(str(kubeconfig) if kubeconfig else None, client_configuration=settings)
                context = config.list_kube_config_contexts(str(kubeconfig) if kubeconfig else None)[1]
                self.namespace = str(context["context"].get("namespace") or "default")
            except config.ConfigException:
                if kubeconfig:
                    raise
                config.load_incluster_config(settings)
                self.namespace = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace").read_text().strip()
        except (config.ConfigException, OSError) as error:
            raise Unavailable(f"there is no cluster to ask: {error}", hint="--against KUBECONFIG") from error
        self._client = client
        settings.retries = 1
        self._api = client.ApiClient(settings)
        self._core = client.CoreV1Api(self._api)
        self.unread: list[str] = []
        try:
            client.VersionApi(self._api).get_code(_request_timeout=_SECONDS)
        except Exception as error:
            raise Unavailable(f"the cluster at {settings.host} does not answer: {_words(error)}") from error

    def findings(self, profile: Profile) -> list[str]:
        """Return what a profile asks for that this cluster does not have, one line each, with what to do."""
        namespace = profile.namespace or self.namespace
        if not self._there(self._core.read_namespace, f"the namespace {namespace}", namespace):
            return [f"there is no namespace {namespace}; make it, or name another one (namespace:)"]
        found = [*self._objects(profile, namespace), *self._nodes(profile), *self._quotas(profile, namespace)]
        return found or list(self._dry_run(profile, namespace))

    # -- pods --------------------------------------------------------------------------------------------------

    def pods(self, selector: str, namespace: str | None) -> list[Json]:
        """Return the pods with some labels, in one namespace or (``None``) in all.

        Raises:
            Unavailable: they cannot be listed.
        """
        options = {"label_selector": selector, "_request_timeout": _SECONDS}
        try:
            if namespace is None:
                found = self._core.list_pod_for_all_namespaces(**options)
            else:
                found = self._core.list_namespaced_pod(namespace, **options)
        except self._client.ApiException as error:
            raise Unavailable(f"pods cannot be listed: {error.status} {_words(error)}") from None
        listed: list[Json] = self._api.sanitize_for_serialization(found)["items"]
        return listed

    def remove_pod(self, name: str, namespace: str, uid: str) -> bool:
        """Remove a pod; return whether it was still this one.

        Raises:
            Unavailable: it cannot be removed.
        """
        options = self._client.V1DeleteOptions(preconditions=self._client.V1Preconditions(uid=uid))
        try:
            self._core.delete_namespaced_pod(name, namespace, body=options, _request_timeout=_SECONDS)
        except self._client.ApiException as error:
            if error.status in (404, 409):
                return False
            raise Unavailable(f"the pod {name} cannot be removed: {error.status} {_words(error)}") from None
        return True

    # -- what a profile names ----------------------------------------------------------------------------------

    def _objects(self, profile: Profile, namespace: str) -> Iterator[str]:
        core, api = self._core, self._api
        for pull in profile.pull_secrets:
            yield from self._missing(core.read_namespaced_secret, "pull secret", pull, namespace,
                                     f"kubectl -n {namespace} create secret docker-registry {pull} ...")  # fmt: skip
        yield from self._secrets(profile, namespace)
        named: tuple[tuple[str, str | None, Callable[..., Any], tuple[str, ...]], ...] = (
            ("service account", profile.service_account, core.read_namespaced_service_account, (namespace,)),
            ("claim", profile.volume_claim, core.read_namespaced_persistent_volume_claim, (namespace,)),
            ("PriorityClass", profile.priority, self._client.SchedulingV1Api(api).read_priority_class, ()),
            ("RuntimeClass", profile.runtime_class, self._client.NodeV1Api(api).read_runtime_class, ()),
        )
        for mount in profile.mounts:
            named += (
                ("claim", mount.claim, core.read_namespaced_persistent_volume_claim, (namespace,)),
                ("Secret", mount.secret, core.read_namespaced_secret, (namespace,)),
                ("ConfigMap", mount.config_map, core.read_namespaced_config_map, (namespace,)),
            )
        for what, wanted, read, scope in named:
            if wanted is not None:
                yield from self._missing(read, what, wanted, *scope)

    def _secrets(self, profile: Profile, namespace: str) -> Iterator[str]:
        for variable, secret in profile.secrets.items():
            name, key = str(secret.secret), secret.key or variable
            found = self._read(self._core.read_namespaced_secret, f"the Secret {name}", name, namespace)
            if found is False:
                yield f"there is no Secret {name} in {namespace} (secrets.{variable}); make it, with the key {key}"
            elif found is not None and key not in (found.data or {}):
                keys = ", ".join(sorted(found.data or {})) or "nothing"
                yield f"the Secret {name} has no key {key} (secrets.{variable}); it has {keys}"

    def _missing(self, read: Callable[..., Any], what: str, name: str, *scope: str | None) -> Iterator[str]:
        hint = scope[1] if len(scope) > 1 else "make it, or mend its name"
        place = scope[:1]
        if self._read(read, f"the {what} {name}", name, *place) is False:
            yield f"there is no {what} {name}{f' in {place[0]}' if place else ''}; {hint}"

    # -- nodes and quotas --------------------------------------------------------------------------------------

    def _nodes(self, profile: Profile) -> Iterator[str]:
        listed = self._read(self._core.list_node, "nodes")
        if not listed:
            return
        nodes: list[Json] = self._api.sanitize_for_serialization(listed)["items"]
        labelled = [one for one in nodes if profile.node_selector.items() <= (_labels(one)).items()]
        if not labelled:
            wanted = ", ".join(f"{key}={value}" for key, value in profile.node_selector.items())
            yield f"no node has the labels {wanted}{_others(profile, nodes)}; mend node_selector, or label a node"
            return
        open_, closed = _tolerated(labelled, profile)
        if not open_:
            yield f"every node that would do is tainted ({', '.join(closed)}); add that to tolerations"
            return
        short = shortfall(profile.resources, open_)
        if short:
            yield f"{short}; ask for less, or add a node"
        elif profile.resources and all(shortfall(profile.resources, [node]) for node in open_):
            yield "no single node offers all resources together, though each is somewhere; ask for less, or add a node"

    def _quotas(self, profile: Profile, namespace: str) -> Iterator[str]:
        listed = self._read(self._core.list_namespaced_resource_quota, f"quotas of {namespace}", namespace)
        for quota in listed.items if listed else ():
            hard, used = (quota.status.hard or quota.spec.hard or {}), (quota.status.used or {})
            for name, wanted in _asked(profile).items():
                limit, taken = hard.get(name), used.get(name, 0)
                if limit is None or amount(wanted) <= amount(limit) - amount(taken):
                    continue
                wait = "" if amount(wanted) > amount(limit) else "wait, "
                yield (f"the quota {quota.metadata.name} of {namespace} allows {name}: {limit}, {taken} are taken, and "
                       f"the profile asks for {wanted}; {wait}ask for less, or raise it")  # fmt: skip

    def _dry_run(self, profile: Profile, namespace: str) -> Iterator[str]:
        """Ask the API about the whole pod: its fields, policies, limits, our own permission."""
        identity = Identity(dag_id="check", run_id="check", task_id="check")
        pod = build_pod(profile, StepRequest(step="ingest", identity=identity, store="s3://check/check"))
        try:
            self._core.create_namespaced_pod(namespace, pod, dry_run="All", _request_timeout=_SECONDS)
        except self._client.ApiException as error:
            yield f"Kubernetes refuses the pod: {_words(error)}"

    # -- reading -----------------------------------------------------------------------------------------------

    def _there(self, read: Callable[..., Any], what: str, *arguments: Any) -> bool:
        return self._read(read, what, *arguments) is not False

    def _read(self, read: Callable[..., Any], what: str, *arguments: Any) -> Any:
        """Return an object, ``False`` where there is none, or ``None`` where it may not be read."""
        try:
            return read(*arguments, _request_timeout=_SECONDS)
        except self._client.ApiException as error:
            if error.status == 404:
                return False
            if error.status == 403:
                if what not in self.unread:
                    self.unread.append(what)
                return None
            raise Unavailable(f"Kubernetes: {error.status} {_words(error)}") from None


def _labels(node: Json) -> dict[str, str]:
    return node["metadata"].get("labels") or {}


def _others(profile: Profile, nodes: list[Json]) -> str:
    """Say which values the labels have that were asked for."""
    have = sorted({f"{key}={_labels(node)[key]}" for key in profile.node_selector for node in nodes
                   if key in _labels(node)})  # fmt: skip
    return f" (nodes have {', '.join(have)})" if have else ""


def _tolerated(nodes: list[Json], profile: Profile) -> tuple[list[Json], list[str]]:
    """Return nodes that a pod of a profile may use, and the taints that keep it from others."""
    spec = build_pod(profile, StepRequest(step="ingest", store="s3://x/x",
                                          identity=Identity(dag_id="x", run_id="x", task_id="x")))["spec"]  # fmt: skip
    open_, closed = [], set()
    for node in nodes:
        taints = [one for one in node.get("spec", {}).get("taints") or () if one["effect"] != "PreferNoSchedule"]
        kept = [one for one in taints if not any(_tolerates(each, one) for each in spec.get("tolerations", ()))]
        if kept:
            closed |= {f"{one['key']}={one.get('value', '')}:{one['effect']}" for one in kept}
        else:
            open_.append(node)
    return open_, sorted(closed)


def _tolerates(toleration: Json, taint: Json) -> bool:
    if toleration.get("effect") not in (None, taint["effect"]) or toleration.get("key") not in (None, taint["key"]):
        return False
    return toleration.get("operator") == "Exists" or toleration.get("value") == taint.get("value")


def _asked(profile: Profile) -> dict[str, Any]:
    """Return what a profile takes of a quota, by the quota's names."""
    asked: dict[str, Any] = {"pods": 1}
    for name, value in profile.resources.items():
        asked[f"requests.{name}"] = value
        if name in ("cpu", "memory"):
            asked[name] = value
        if name != "cpu":
            asked[f"limits.{name}"] = value
    return asked


def _words(error: Exception) -> str:
    try:
        return str(json.loads(error.body)["message"])  # type: ignore[attr-defined]
    except (AttributeError, TypeError, ValueError, KeyError):
        return str(getattr(error, "reason", None) or error).splitlines()[0]
