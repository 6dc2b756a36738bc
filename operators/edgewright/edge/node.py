"""One node: the model that answers, the updates, and what is told about both."""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from edgewright import __version__
from edgewright.edge.shelf import Shelf
from edgewright.edge.statistics import Statistics
from edgewright.edge.times import now
from edgewright.edge.updates import Updater
from edgewright.errors import EdgewrightError, SystemFault
from edgewright.serving.faults import NotReady
from edgewright.serving.invocations import Answer, predict
from edgewright.serving.model import ServedModel

log = logging.getLogger(__name__)

#: A model that fails on so many requests in a row, which fit it, is given up for the one before.
FAILURES = 3


class Node:
    """A node.

    Args:
        name: Its name in reports and topics.
        shelf: Its bundles.
        updater: Where new ones come from.
        values: The site's own configuration, which is shown and reported.
        max_rows: Rows of one request.
    """

    def __init__(
        self,
        name: str,
        shelf: Shelf,
        updater: Updater,
        *,
        values: Mapping[str, Any] | None = None,
        max_rows: int = 1000,
    ) -> None:
        self.name, self.shelf, self.values = name, shelf, dict(values or {})
        self._updater, self._max_rows = updater, max_rows
        self._model: tuple[ServedModel, Statistics] | None = None
        self._updating = threading.Lock()
        self._failures = 0
        self._boot, self._sequence = uuid.uuid4().hex[:12], 0
        self.problem = ""
        self._use(updater.restore())

    def _use(self, model: ServedModel | None) -> None:
        current = self.shelf.state.current
        if model is None or current is None:
            return
        statistics = Statistics.of_bundle(self.shelf.folder(current), model.table.features)
        self._failures = 0
        self._model = (model, statistics)  # one assignment: a request sees the old model or the new one
        log.info("answering with %s version %s, %s", model.name, model.version, model.variant)

    # -- answers -----------------------------------------------------------------------------------------------

    def predict(self, body: bytes, content_type: str) -> Answer:
        """Answer a request.

        Raises:
            NotReady: there is no model yet.
            RequestFault: the request does not fit the model.
            SystemFault: the model failed.
        """
        chosen = self._model
        if chosen is None:
            raise NotReady("this node has no model yet", hint=self.problem or None)
        model, statistics = chosen
        try:
            answer = predict(model, body, content_type, self._max_rows)
        except SystemFault:
            statistics.failed(ours=True)
            self._count_failure(model)
            raise
        except EdgewrightError:
            statistics.failed(ours=False)
            raise
        self._failures = 0
        statistics.answered(answer.cells, answer.inference)
        return answer

    def _count_failure(self, model: ServedModel) -> None:
        self._failures += 1
        if self._failures < FAILURES or not self._updating.acquire(blocking=False):
            return
        try:
            chosen = self._model
            if chosen is None or chosen[0] is not model:
                return
            reason = f"it failed on {self._failures} requests in a row"
            before = self._updater.roll_back(reason)
            if before is not None:
                log.error("%s version %s: %s; going back", model.name, model.version, reason)
                self.problem = f"{model.name} version {model.version}: {reason}; the one before answers"
                self._use(before)
        finally:
            self._updating.release()

    # -- updates -----------------------------------------------------------------------------------------------

    def update(self) -> bool:
        """Take a newer bundle where there is one; what is wrong is logged and told, and the node answers on."""
        with self._updating:
            try:
                model = self._updater.update()
            except EdgewrightError as error:
                if str(error) != self.problem:
                    log.warning("no update: %s", error)
                self.problem = str(error)
                return False
            except Exception as error:  # a node must look again whatever a client raises
                log.exception("no update")
                self.problem = f"{type(error).__name__}: {error}"
                return False
            if model is not None:
                self._use(model)
                self.problem = ""
        return model is not None

    def poll(self, stopping: threading.Event, seconds: float, tell: Callable[[], None]) -> None:
        """Look for updates until told to stop; ``tell`` is called after each one that was taken."""
        while not stopping.is_set():
            if self.update():
                tell()
            stopping.wait(seconds)

    # -- what is told ------------------------------------------------------------------------------------------

    def describe(self) -> dict[str, Any]:
        """Return what the node runs, since when, and what went wrong last."""
        state = self.shelf.state
        told: dict[str, Any] = {"node": self.name, "edgewright": __version__, "problem": self.problem}
        if self.values:
            told["values"] = self.values
        for place, slot in (("model", state.current), ("previous", state.previous)):
            told[place] = slot and {
                "name": slot.name, "version": str(slot.version), "target": slot.target, "release": slot.release,
                "signed": slot.signed, "since": slot.since,
            }  # fmt: skip
        return told

    def runs(self, version: str | None = None, target: str | None = None) -> bool:
        """Whether it answers, with this version for this target where they are named."""
        if self._model is None:
            return False
        return version in (None, self._model[0].version) and target in (None, self._model[0].variant)

    def report(self) -> dict[str, Any]:
        """Return the report of the period since the last one. ``boot`` and ``sequence`` order a node's reports."""
        self._sequence += 1
        chosen = self._model
        return {
            "format": "edgewright.edge-report/1", **self.describe(), "time": now(), "boot": self._boot,
            "sequence": self._sequence, **(chosen[1].describe(clear=True) if chosen else {}),
        }  # fmt: skip
