"""The models that a service answers with: load, swap, roll back, remove, restore.

A swap is one assignment in the event loop's thread, so a request sees the old model or the new one. Whatever blocks
(downloads, sessions, self-tests) runs in threads of its own; calls for one model wait for each other.
"""

from __future__ import annotations

import asyncio
import difflib
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from edgewright.errors import EdgewrightError, NotFound
from edgewright.serving.faults import NotReady
from edgewright.serving.library import Library, check_name, check_version
from edgewright.serving.model import ServedModel, load_model
from edgewright.serving.sources import Source
from edgewright.serving.state import Choice, ModelState, State, read_state, write_state

log = logging.getLogger("edgewright.serving")


class ModelHost:
    """All models of one service.

    Args:
        home: Folder for releases and the remembered state.
        source: Where releases come from.
        default: Name of the model that ``/invocations`` means; ``None``: the only one there is.
    """

    def __init__(self, home: Path, source: Source, default: str | None = None) -> None:
        self.home = home
        self.library = Library(home, source)
        self.default = default
        self.models: dict[str, ServedModel] = {}
        self.previous: dict[str, ServedModel] = {}
        self.problems: dict[str, str] = {}
        self._state = State(default=default)
        self._locks: dict[str, asyncio.Lock] = {}
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="admin")

    # -- answering ---------------------------------------------------------------------------------------------

    def get(self, name: str | None = None) -> ServedModel:
        """Return the model of a name, or the default model.

        Raises:
            NotFound: no model of that name is served.
            NotReady: no model is served at all, or it is not clear which one is the default.
        """
        model = self.models.get(name or self.default or "")
        if model is not None:
            return model
        if name is None and len(self.models) == 1:
            return next(iter(self.models.values()))
        raise self._absent(name)

    def _absent(self, name: str | None) -> EdgewrightError:
        names = ", ".join(sorted(self.models))
        if not self.models:
            return NotReady("no model is served yet", hint="deploy one: PUT /admin/models/{name}, or the step deploy")
        if name is None and self.default is not None:
            return NotReady(f"the default model {self.default} is not served", hint=f"served are: {names}")
        if name is None:
            return NotFound(
                "several models are served and none is the default", hint=f"use /models/NAME/invocations; NAME: {names}"
            )
        near = difflib.get_close_matches(name, self.models, n=1)
        suggestion = f'; did you mean "{near[0]}"?' if near else ""
        return NotFound(f"no model {name} is served{suggestion}", hint=f"served are: {names}")

    def describe(self, name: str) -> dict[str, Any]:
        """Return what is served under a name and what was before."""
        model = self.get(name)
        previous = self._state.models[name].previous if name in self._state.models else None
        before = {"version": previous.version, "variant": previous.variant} if previous else None
        return {**model.describe(), "default": self._is_default(name), "previous": before}

    def _is_default(self, name: str) -> bool:
        return name == self.default or (self.default is None and len(self.models) == 1)

    # -- administration ----------------------------------------------------------------------------------------

    async def load(
        self,
        name: str,
        *,
        version: str | None = None,
        alias: str | None = None,
        variant: str | None = None,
        digest: str | None = None,
    ) -> dict[str, Any]:
        """Load, verify, self-test and then serve a version.

        Args:
            name: The model.
            version: Which version; ``None``: the one that ``alias`` points to.
            alias: Alias in the registry.
            variant: Which variant; ``None``: the release's default.
            digest: Digest that the release must have; ``None``: whatever the registry says.

        Returns:
            What is served now, what was before, whether anything changed, and the seconds that it took.

        Raises:
            ConfigError: a name that cannot be one.
            NotFound: no such version.
            DeployRejected: the model is not fit to be served; what was served before stays.
            DamagedArtifact: its files are not those that were published; what was served before stays.
            Unavailable: the registry does not answer.
        """
        check_name(name)
        start = time.perf_counter()
        async with self._lock(name):
            before = self.models.get(name)
            model = await self._in_thread(self._prepare, name, version, alias, variant, digest)
            same = before is not None and (before.label, before.digest) == (model.label, model.digest)
            if not same:
                await self._swap(name, model, before)
            self.problems.pop(name, None)
        return {
            "model": self.describe(name),
            "previous": before.label if before else None,
            "changed": not same,
            "seconds": round(time.perf_counter() - start, 4),
        }

    def _prepare(
        self, name: str, version: str | None, alias: str | None, variant: str | None, digest: str | None
    ) -> ServedModel:
        if version is None:
            version = self.library.source.resolve(name, alias or "champion")
        release = self.library.fetch(name, check_version(version), variant, digest)
        return load_model(release, name, version)

    async def _swap(self, name: str, model: ServedModel, before: ServedModel | None) -> None:
        """Remember first, then swap: a crash between the two serves the new model, which has passed its test."""
        previous = _choice(before) if before else None
        await self._remember(name, ModelState(_choice(model), previous))
        self.models[name] = model
        if before is None:
            self.previous.pop(name, None)
        else:
            self.previous[name] = before
        kept = {model.version, *([before.version] if before else [])}
        await self._in_thread(self.library.keep_only, name, kept)
        log.info("serving %s version %s (%s)", name, model.version, model.variant)

    async def rollback(self, name: str) -> dict[str, Any]:
        """Serve what was served before; the two change places, so a second call undoes the first.

        Raises:
            NotFound: no such model, or nothing was served before.
        """
        async with self._lock(name):
            start = time.perf_counter()
            now = self.models.get(name)
            state = self._state.models.get(name)
            if state is None:
                raise self._absent(name)
            if state.previous is None:
                raise NotFound(f"no version of {name} was served before", hint="load one by PUT /admin/models/{name}")
            back = self.previous.get(name) or await self._in_thread(self._restore_one, name, state.previous)
            await self._swap(name, back, now)
            self.problems.pop(name, None)
        return {
            "model": self.describe(name),
            "previous": now.label if now else None,
            "changed": True,
            "seconds": round(time.perf_counter() - start, 6),
        }

    async def remove(self, name: str) -> dict[str, Any]:
        """Serve a model no longer.

        Raises:
            NotFound: no such model.
        """
        async with self._lock(name):
            if name not in self._state.models:
                raise self._absent(name)
            await self._remember(name, None)
            gone = self.models.pop(name, None)
            self.previous.pop(name, None)
            self.problems.pop(name, None)
            await self._in_thread(self.library.keep_only, name, ())
        return {"removed": gone.label if gone else {"name": name}}

    # -- restart -----------------------------------------------------------------------------------------------

    async def restore(self) -> None:
        """Serve again what was served before the last stop, from this machine's own files."""
        self._state = await self._in_thread(read_state, self.home)
        self.default = self.default or self._state.default
        for name, state in self._state.models.items():
            try:
                self.models[name] = await self._in_thread(self._restore_one, name, state.current)
            except EdgewrightError as error:
                self.problems[name] = f"version {state.current.version} cannot be served again: {error.message}"
                log.error("%s: %s", name, self.problems[name])

    def _restore_one(self, name: str, choice: Choice) -> ServedModel:
        release = self.library.open(name, choice.version, choice.variant, choice.digest)
        return load_model(release, name, choice.version)

    async def ensure(self, name: str, alias: str) -> None:
        """Load the version that an alias points to; what is served stays where that cannot be done."""
        try:
            await self.load(name, alias=alias)
        except EdgewrightError as error:
            if name not in self.models:
                self.problems[name] = error.message
            log.warning("%s@%s cannot be loaded: %s", name, alias, error.message)

    # -- helpers -----------------------------------------------------------------------------------------------

    async def _remember(self, name: str, model: ModelState | None) -> None:
        """Write the state; it is read and changed without a pause, so calls for two models cannot lose one."""
        models = {key: value for key, value in self._state.models.items() if key != name}
        if model is not None:
            models[name] = model
        state = State(default=self.default, models=models)
        # small and rare, and in the loop's thread: two writers can never overtake each other
        write_state(self.home, state)
        self._state = state

    def _lock(self, name: str) -> asyncio.Lock:
        return self._locks.setdefault(name, asyncio.Lock())

    async def _in_thread(self, function: Any, *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)


def _choice(model: ServedModel) -> Choice:
    return Choice(model.version, model.variant, model.digest)
