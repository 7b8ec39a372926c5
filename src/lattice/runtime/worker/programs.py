"""A worker's programs: the one that new queries are for, the next one beside it, and old ones until they are done.

Each is named by its artefact's hash. What the gateway wants is said with every reply; this loads what is missing, one
at a time and outside of the threads that evaluate, and drops what nobody wants or uses any more.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog

from lattice.core.errors import LatticeError
from lattice.runtime.transport import RelayDown
from lattice.runtime.worker import evaluation
from lattice.runtime.worker.evaluation import Model

log = structlog.get_logger("lattice.worker")


class Programs:
    """At most about `max_bytes` of encoded weights where there are two; one alone may be of any size.

    `fetch` gets an artefact's file, `changed` is called when a poll has something new to say, and `hopeless` when no
    program can be loaded at all.
    """

    def __init__(
        self,
        fetch: Callable[[str], Awaitable[Path]],
        changed: Callable[[], None],
        hopeless: Callable[[], None],
        max_bytes: int,
    ) -> None:
        self._fetch, self._changed, self._hopeless, self._max_bytes = fetch, changed, hopeless, max_bytes
        self._loaded: dict[str, Model] = {}
        self._known: dict[str, float] = {}  # what was loaded once, and its bytes in memory for each of the file's
        self._users: Counter[str] = Counter()
        self._done = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.current = self.next = ""
        self.no_room = self.rejected = self.rejected_because = ""

    @property
    def loaded(self) -> tuple[str, ...]:
        """What is there."""
        return tuple(self._loaded)

    @property
    def ready(self) -> bool:
        """Whether new queries can be taken."""
        return self.current in self._loaded

    @property
    def active(self) -> bool:
        """Whether queries can be taken, or are still evaluated with an older program."""
        return self.ready or self._users.total() > 0

    def want(self, current: str, following: str) -> None:
        """What the gateway's last word was."""
        self.current, self.next = current, following
        if self.rejected not in (current, following):
            self.rejected = self.rejected_because = ""
        if self.no_room not in (current, following):
            self.no_room = ""
        self._tidy()
        if self._missing() and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._load_missing())

    def hold(self, sha256: str) -> Model | None:
        """The program for a query, which stays until `release`; None where it is not there."""
        model = self._loaded.get(sha256 or self.current)
        if model is not None:
            self._users[sha256 or self.current] += 1
        return model

    def release(self, sha256: str) -> None:
        """A query that held it is done."""
        self._users[sha256 or self.current] -= 1
        self._tidy()
        self._done.set()

    def close(self) -> None:
        """Load nothing more."""
        if self._task is not None:
            self._task.cancel()

    # --- private -----------------------------------------------------------------------------------------------

    def _tidy(self) -> None:
        self._users += Counter()  # without those that are at zero
        if not self.ready:
            return  # what is there may have to serve again
        for sha256 in self._loaded.keys() - {self.current, self.next} - self._users.keys():
            log.info("worker.program_dropped", program=self._loaded.pop(sha256).prepared.program.id)

    def _missing(self) -> str:
        if self.current not in (*self._loaded, self.rejected):
            return self.current
        return self.next if self.ready and self.next not in (*self._loaded, self.rejected, self.no_room) else ""

    async def _load_missing(self) -> None:
        while missing := self._missing():
            try:
                path = await self._fetch(missing)
            except (LatticeError, RelayDown, OSError) as error:
                log.warning("worker.program_not_fetched", error=getattr(error, "code", type(error).__name__))
                if not self._loaded:
                    self._hopeless()
                return  # the next reply tries again
            if not await self._load(missing, path):
                return

    async def _load(self, sha256: str, path: Path) -> bool:
        if sha256 == self.current and sha256 == self.no_room:
            await self._make_room()
        elif self._loaded and not self._fits(path):
            self._say_no_room(sha256)
            return False
        try:
            model = await asyncio.to_thread(evaluation.load_model, path)
        except MemoryError:
            if self._loaded:
                self._say_no_room(sha256)
            else:
                self._reject(sha256, "MemoryError")
            return False
        except Exception as error:
            # Whatever it is, the gateway must hear of it.
            self._reject(sha256, error.code if isinstance(error, LatticeError) else type(error).__name__)
            return False
        self._loaded[sha256] = model
        self._known[sha256] = _growth(model, path)
        if self.no_room == sha256:
            self.no_room = ""
        log.info("worker.program_loaded", program=model.prepared.program.id, beside=sha256 != self.current)
        self._tidy()
        self._changed()
        return True

    def _fits(self, path: Path) -> bool:
        """A guess, by how much larger than their files the programs before it were."""
        there = sum(model.prepared.weight_bytes for model in self._loaded.values())
        return there + path.stat().st_size * max(self._known.values(), default=0.0) <= self._max_bytes

    async def _make_room(self) -> None:
        while self._users:
            self._done.clear()
            await self._done.wait()
        self._loaded.clear()
        self._changed()

    def _say_no_room(self, sha256: str) -> None:
        log.info("worker.program_needs_room")
        self.no_room = sha256
        self._changed()

    def _reject(self, sha256: str, code: str) -> None:
        log.error("worker.load_failed", code=code)
        if not self._known or sha256 in self._known:
            self._hopeless()  # the first one, or one that worked before: nothing is left to fall back on
        else:
            self.rejected, self.rejected_because = sha256, code
            self._changed()


def _growth(model: Model, path: Path) -> float:
    return model.prepared.weight_bytes / max(1, path.stat().st_size)
