"""The model registry as an event source: new versions, and aliases that move.

The registry is looked at every few seconds; with ``webhook: true`` also as soon as a webhook of its own said that there
is something (:mod:`edgewright.streams.webhooks`).
"""

from __future__ import annotations

import fnmatch
import json
import logging
import time
from collections.abc import Iterator, Mapping
from typing import Any

from edgewright.errors import Unavailable
from edgewright.installation import Installation
from edgewright.spec.triggers import RegistryTrigger, seconds
from edgewright.streams.batches import Batch, BatchLog
from edgewright.streams.webhooks import HintWatch

log = logging.getLogger("edgewright.streams")


class RegistrySource:
    """Looks for versions with fitting tags; each (or each move of the alias) is a batch of its own.

    Args:
        config: The trigger.
        tracking_uri: MLflow.
        batches: Where batches go.
    """

    def __init__(self, config: RegistryTrigger, tracking_uri: str, batches: BatchLog) -> None:
        self.config = config
        self.batches = batches
        self._tracking_uri = tracking_uri
        self._next = 0.0
        self._hints = HintWatch(batches.store) if config.webhook else None
        self.problem: str | None = None

    @property
    def gathered(self) -> int:
        """How many versions wait for a batch: a version is one at once."""
        return 0

    def poll(self, timeout: float = 1.0) -> Batch | None:
        """Look once the time has come, else wait; return a batch for the first version that is new."""
        if self._hints is not None and self._hints.hinted():
            self._next = 0.0
        rest = self._next - time.monotonic()
        if rest > 0:
            time.sleep(min(timeout, rest))
            return None
        try:
            made = self._look()
        except Exception as error:
            if str(error) != self.problem:
                self.problem = str(error)
                log.warning("%s waits for the registry: %s", self.batches.source, error)
            made = None
        else:
            self.problem = None
        if made is None:  # there may be more: ask again at once
            self._next = time.monotonic() + seconds(self.config.every)
        return made

    def close(self) -> None:
        """Let go of nothing."""

    def _look(self) -> Batch | None:
        head = self.batches.head()
        begun = head is not None or self.batches.store.read_json(f"{self.batches.prefix}/start.json") is not None
        positions = dict(head.positions) if head else self._start(begun)
        for model, version in self._fitting():
            place = f"{model}/{self.config.alias or 'versions'}"
            last = positions.get(place, [0, 0])[1]
            is_new = version != last if self.config.alias else version > last
            if is_new:
                return self._append(model, version, {**positions, place: [0, version]})
        return None

    def _start(self, begun: bool) -> dict[str, list[int]]:
        """Return what there was at the first look: only what comes later counts, or the newest of it as well."""
        key = f"{self.batches.prefix}/start.json"
        if not begun:
            places: dict[str, list[int]] = {}
            for model, version in self._fitting():
                before = 0 if self.config.alias else version - 1
                counts = self.config.start == "existing"
                places[f"{model}/{self.config.alias or 'versions'}"] = [0, before if counts else version]
            self.batches.store.create_json(key, {"positions": places})
        found: dict[str, list[int]] = (self.batches.store.read_json(key) or {"positions": {}})["positions"]
        return found

    def _fitting(self) -> Iterator[tuple[str, int]]:
        """Yield model and version of all that fit, oldest versions first."""
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        client = MlflowClient(self._tracking_uri)
        try:
            models = sorted(model.name for model in _pages(client.search_registered_models))
            for model in models:
                if fnmatch.fnmatchcase(model, self.config.model):
                    yield from self._of(client, model)
        except MlflowException as error:
            raise Unavailable(str(error), where=self._tracking_uri) from error

    def _of(self, client: Any, model: str) -> Iterator[tuple[str, int]]:
        alias = self.config.alias
        aliases = client.get_registered_model(model).aliases if alias else {}
        found = _pages(client.search_model_versions, f"name='{model}'")
        for version in sorted(found, key=lambda one: int(one.version)):
            if alias is not None and str(aliases.get(alias)) != str(version.version):
                continue
            if _has_tags(version.tags or {}, self.config.tag):
                yield model, int(version.version)

    def _append(self, model: str, version: int, positions: dict[str, list[int]]) -> Batch | None:
        event: Mapping[str, Any] = {"model": model, "version": str(version), "alias": self.config.alias}
        head = self.batches.head()
        # an alias may come back to a version, and that is another event
        move = f"{self.config.alias}-{(head.number if head else 0) + 1}" if self.config.alias else "new"
        name = f"{model}-v{version}-{move}"
        data = json.dumps({"offset": 0, "value": event}).encode() + b"\n"
        key, sha256 = self.batches.write_data(name, data)
        draft = Batch(
            number=0, name=name, kind="registry", data=key, messages=1, size=len(data), sha256=sha256,
            positions=positions, timestamps=[int(time.time() * 1000)], details={"event": event},
        )  # fmt: skip
        return self.batches.append(draft)


def open_source(config: RegistryTrigger, settings: Mapping[str, Any], batches: BatchLog) -> RegistrySource:
    """Return the source of a trigger; the installation says where the registry is."""
    return RegistrySource(config, Installation.load().tracking_uri, batches)


def _has_tags(tags: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    """Whether a version has the tags; ``*`` in a wanted value stands for any letters."""
    return all(
        name in tags and (tags[name] == value or ("*" in value and fnmatch.fnmatchcase(tags[name], value)))
        for name, value in wanted.items()
    )


def _pages(search: Any, *arguments: Any) -> Iterator[Any]:
    token = None
    while True:
        page = search(*arguments, page_token=token)
        yield from page
        token = page.token
        if not token:
            return
