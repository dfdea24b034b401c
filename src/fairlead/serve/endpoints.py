"""
The endpoints of a server: loaded, swapped when another revision goes live, drained at the end.

No HTTP here: a protocol hands over a body and gets the answer by a callback.
"""

from __future__ import annotations

import asyncio
import difflib
import logging
import os
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Literal

import msgspec

from fairlead.errors import FairleadError, Fault, IntegrityError, NotFound
from fairlead.project import Project
from fairlead.serve import formats
from fairlead.serve import revision as revisions
from fairlead.serve.ask import Ask
from fairlead.serve.batch import QUEUE_ROWS, Call, Lane
from fairlead.serve.desk import Desk
from fairlead.serve.formats import JSON, Rows
from fairlead.serve.intake import MAX_ROWS, SMALL_BYTES
from fairlead.serve.loaded import LoadedRevision
from fairlead.serve.log import LogWriter, Part
from fairlead.serve.once import Answer, Once, Reply
from fairlead.serve.pool import ModelPool
from fairlead.serve.times import Times
from fairlead.store.records import LiveRevision, Revision
from fairlead.store.store import Store

logger = logging.getLogger(__name__)

WATCH_S = 0.5
"""How often the catalog is asked whether another revision went live."""


State = Literal["ready", "cold", "loading", "failed", "unloaded"]


class Endpoint:
    """One endpoint: what answers, and why the revision that should does not, if so."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.times = Times()
        self.serving: Serving | None = None
        self.wanted = 0  # the revision that is live in the catalog
        self.unloaded = False  # by an operator
        self.failure: FairleadError | None = None  # why it could not be loaded

    @property
    def state(self) -> State:
        """Tell whether it answers: it does when "ready", and after a load when "cold"."""
        if self.unloaded:
            return "unloaded"
        if self.serving is not None:
            return "ready"
        return "failed" if self.failure is not None else "cold"


class Serving:
    """A loaded revision, its lane, and how many still need it."""

    def __init__(self, loaded: LoadedRevision, lane: Lane) -> None:
        self.loaded = loaded
        self.lane = lane
        self._users = 1  # the endpoint, and each request under way

    def hold(self) -> None:
        """Say that a request is under way."""
        self._users += 1

    def release(self) -> None:
        """Say that a request is over, or that another revision answers now."""
        self._users -= 1
        if not self._users:
            self.loaded.close()


class Endpoints:
    """
    All endpoints of a server. Lives on the loop's thread; revisions are loaded on another.

    Args:
        project: Whose endpoints.
        names: Only these; all that were applied if None.
        max_rows: Rows that one request may have.
        queue_rows: Rows of one endpoint that may wait.
    """

    def __init__(
        self,
        project: Project,
        names: Iterable[str] | None = None,
        *,
        max_rows: int = MAX_ROWS,
        queue_rows: int = QUEUE_ROWS,
    ) -> None:
        self.project = project
        self.endpoints: dict[str, Endpoint] = {}
        self.threads = ThreadPoolExecutor(os.cpu_count() or 1, "fairlead-compute")
        self._names = None if names is None else set(names)
        self._max_rows = max_rows
        self._queue_rows = queue_rows
        self._pool = ModelPool(project)
        self._loader = ThreadPoolExecutor(1, "fairlead-load")
        self.under_way = 0
        self._store: Store
        self._log: LogWriter
        self._desk: Desk
        self._once: Once
        self._watcher: asyncio.Task[None] | None = None
        self._opened = ExitStack()  # closes what was opened, the last first
        self._opened.callback(self.threads.shutdown)
        self._opened.callback(self._loader.shutdown)

    async def open(self) -> None:
        """
        Open the log and load every endpoint; one that cannot be loaded says so when asked.

        Raises:
            NotFound: There is no store, or no endpoint of a name that was given.
            StoreReadOnly, StoreFull: Predictions could not be logged.
        """
        self._store = self._opened.enter_context(Store.open(self.project.store_root, write=False))
        for name in self._names or ():
            revisions.require_live(self._store.catalog, name)
        self._log = self._opened.enter_context(LogWriter(self.project.log))
        self._desk = Desk()
        self._once = Once(self.project.log)
        self._opened.callback(self._once.close)
        await self._catch_up()
        self._watcher = asyncio.create_task(self._watch())

    async def close(self) -> None:
        """Answer what is under way, then let go of everything."""
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)
        while self.under_way:
            await asyncio.sleep(0.005)
        for endpoint in self.endpoints.values():
            if endpoint.serving is not None:
                endpoint.serving.release()
        self._opened.close()

    @property
    def ready(self) -> bool:
        """Tell whether every endpoint answers with the revision that it should."""
        return all(endpoint.failure is None for endpoint in self.endpoints.values())

    def get(self, name: str) -> Endpoint:
        """
        Get an endpoint.

        Raises:
            NotFound: This server has none of that name; names the nearest.
        """
        endpoint = self.endpoints.get(name)
        if endpoint is None:
            near = difflib.get_close_matches(name, self.endpoints, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else "GET /v1/endpoints lists them."
            raise NotFound(f"There is no endpoint {name!r} here.", hint)
        return endpoint

    def predict(self, endpoint: Endpoint, ask: Ask, reply: Reply) -> None:
        """
        Answer a request.

        Args:
            endpoint: Who is asked.
            ask: The rows as they came, and how long the caller waits.
            reply: Called once, now or later, with the answer or the reason why there is none.
        """
        serving = endpoint.serving
        if serving is not None:
            self._ask(endpoint, serving, ask, reply)
            return

        def then(loaded: Serving | FairleadError) -> None:
            if isinstance(loaded, FairleadError):
                reply(loaded)
            else:
                self._ask(endpoint, loaded, ask, reply)

        self.when_loaded(endpoint, then)

    def when_loaded(
        self, endpoint: Endpoint, then: Callable[[Serving | FairleadError], None]
    ) -> None:
        """Call `then` with what answers for an endpoint: at once when it is loaded, else later."""
        then(endpoint.serving or endpoint.failure or _not_loaded(endpoint.name))

    async def load(self, name: str) -> None:
        """
        Let an endpoint answer again, here and in every other server of the project.

        Raises:
            NotFound: There is no such endpoint.
            FairleadError: It could not be loaded.
        """
        await self._persist(name, unloaded=False)

    async def unload(self, name: str) -> None:
        """
        Let an endpoint answer no more, here and in every other server of the project.

        Raises:
            NotFound: There is no such endpoint.
        """
        await self._persist(name, unloaded=True)

    def fail(self, name: str, error: FairleadError) -> None:
        """Let an endpoint answer no more but `error`, until another revision goes live."""
        endpoint = self.get(name)
        endpoint.failure = error
        before, endpoint.serving = endpoint.serving, None
        if before is not None:
            before.release()

    async def _persist(self, name: str, *, unloaded: bool) -> None:
        self.get(name)
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._loader, self._mark, name, unloaded)
        await self._catch_up()

    def _mark(self, name: str, unloaded: bool) -> None:
        with (
            Store.open(self.project.store_root) as store,
            store.catalog.transaction() as transaction,
        ):
            live = transaction.get(LiveRevision, name)
            if live is None:
                raise NotFound(f"There is no endpoint {name!r}.", "Apply it.")
            moved = msgspec.structs.replace(live, unloaded=unloaded, moved=time.time())
            transaction.replace(moved)

    def _ask(self, endpoint: Endpoint, serving: Serving, ask: Ask, reply: Reply) -> None:
        if ask.key is None:
            self._begin(serving, ask, reply, ask.abandoned)
            return
        self.under_way += 1
        serving.hold()

        def done(result: Answer | FairleadError) -> None:
            self.over(serving)
            reply(result)

        def go(reply: Reply) -> None:
            # Others may come to wait for the same answer: that its caller leaves is no reason.
            self._begin(serving, ask, reply, None)

        self._once.claim(endpoint.name, ask, done, go)

    def _begin(
        self, serving: Serving, ask: Ask, reply: Reply, abandoned: Callable[[], bool] | None
    ) -> None:
        self.under_way += 1
        serving.hold()
        request = _Request(self, serving, ask, reply, abandoned)
        if ask.format != JSON or len(ask.body) <= SMALL_BYTES:
            request.read()
        else:
            self._desk.read(serving.loaded.intake.read_large(ask.body), request.submit)

    def over(self, serving: Serving) -> None:
        """Say that a request has its answer."""
        self.under_way -= 1
        serving.release()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(WATCH_S)
            try:
                await self._catch_up()
            except Exception:
                logger.exception("the catalog could not be asked for live revisions")

    async def _catch_up(self) -> None:
        """Load what went live since the last time, one after another."""
        loop = asyncio.get_running_loop()
        for live in await loop.run_in_executor(self._loader, self._live):
            endpoint = self.endpoints.setdefault(live.endpoint, Endpoint(live.endpoint))
            if (endpoint.wanted, endpoint.unloaded) == (live.number, live.unloaded):
                continue
            endpoint.unloaded = live.unloaded
            if live.unloaded:
                endpoint.wanted = live.number
                self.fail(live.endpoint, _unloaded(live.endpoint))
                continue
            endpoint.wanted = live.number
            try:
                loaded = await loop.run_in_executor(self._loader, self._load, live)
            except Exception as error:
                logger.exception("%s#%d could not be loaded", live.endpoint, live.number)
                endpoint.failure = _as_ours(error)
            else:
                self._swap(endpoint, loaded)

    def _live(self) -> list[LiveRevision]:
        found = self._store.catalog.find(LiveRevision, limit=None)
        return [live for live in found if self._names is None or live.endpoint in self._names]

    def _load(self, live: LiveRevision) -> LoadedRevision:
        revision = self._store.catalog.get(Revision, live.endpoint, live.number)
        if revision is None:
            raise NotFound(
                f"There is no revision {live.endpoint}#{live.number}.", "Apply it again."
            )
        return LoadedRevision.load(revision, self._pool, max_rows=self._max_rows)

    def _swap(self, endpoint: Endpoint, loaded: LoadedRevision) -> None:
        """Let new requests go to another revision; those under way stay with theirs."""
        lane = Lane(
            loaded,
            self._log,
            revisions.durability(loaded.revision),
            self.threads,
            endpoint.times,
            cost=loaded.cost,
            queue_rows=self._queue_rows,
        )
        before, endpoint.serving = endpoint.serving, Serving(loaded, lane)
        endpoint.failure = None
        if before is not None:
            before.release()
            logger.info("%s answers now, in place of %s", loaded.ref, before.loaded.ref)


class _Request(msgspec.Struct, eq=False):
    """A request between its body and its answer."""

    endpoints: Endpoints
    serving: Serving
    ask: Ask
    reply: Reply
    abandoned: Callable[[], bool] | None

    def read(self) -> None:
        ask, loaded = self.ask, self.serving.loaded
        try:
            if ask.format == JSON:
                rows = loaded.intake.read(ask.body)
            else:
                format = formats.named(ask.format)
                rows = format.rows(ask.body, ask.detail, loaded.checker, loaded.max_rows)
        except FairleadError as error:
            self._finish(error)
        except Exception:
            logger.exception("a body could not be read")
            self._finish(Fault("The body could not be read.", "The server's log has the reason."))
        else:
            self.submit(rows)

    def submit(self, read: Rows | FairleadError) -> None:
        if isinstance(read, FairleadError):
            self._finish(read)
            return
        ask = self.ask
        part = Part(ask.format, ask.body, len(read.rows), read.entities, ask.key, ask.detail)
        try:
            self.serving.lane.submit(Call(read.rows, part, self._answered, self.abandoned))
        except FairleadError as error:
            self._finish(error)

    def _answered(self, call: Call) -> None:
        if call.error is not None:
            self._finish(call.error)
        else:
            self._finish(Answer(self.serving.loaded.ref, call.answers, call.ids[0]))

    def _finish(self, result: Answer | FairleadError) -> None:
        self.endpoints.over(self.serving)
        self.reply(result)


def _not_loaded(name: str) -> FairleadError:
    return Fault(f"{name} is not loaded.", "Try again.")


def _unloaded(name: str) -> FairleadError:
    return NotFound(f"{name} is unloaded.", "An operator loads it again.")


def _as_ours(error: Exception) -> FairleadError:
    if isinstance(error, NotFound):  # the endpoint is there: what it needs is lost
        return IntegrityError(error.message, error.fix)
    if isinstance(error, FairleadError):
        return error
    return Fault(
        f"It could not be loaded: {type(error).__name__}: {error}.", "See the server's log."
    )
