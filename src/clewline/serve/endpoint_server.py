"""
The endpoints of a server: loaded when they are needed, swapped when another revision
goes live, evicted when memory is short, drained at the end.

`clewline.serve.predict` answers a request to one of them. Nothing here knows HTTP.
"""

from __future__ import annotations

import asyncio
import difflib
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from functools import cache, partial
from pathlib import Path
from typing import Any, Protocol

import msgspec

from clewline import entry_points
from clewline.errors import ClewlineError, Fault, IntegrityError, NotFound, Overloaded
from clewline.model.sealed_records import SealedRecords
from clewline.model_families import import_loading
from clewline.project import Project
from clewline.serve import revision as revisions
from clewline.serve.batcher import QUEUE_ROWS, Batcher
from clewline.serve.catalog_follower import CatalogFollower
from clewline.serve.graph.builder import longest_isolated_s
from clewline.serve.graph.routers.router import LearnedStates
from clewline.serve.idempotency.idempotency import Idempotency
from clewline.serve.json_reader import MAX_ROWS
from clewline.serve.loaded_revision import LoadedRevision
from clewline.serve.log.seals import seal_files
from clewline.serve.log.writer import LogWriter
from clewline.serve.metrics.request_statistics import LoadStatistics, RequestStatistics
from clewline.serve.model_cache.allocator_trim import AllocatorTrim
from clewline.serve.model_cache.cache import ModelCache
from clewline.serve.model_cache.loaded_models import SharedModels
from clewline.serve.request.body_queue import BodyQueue
from clewline.serve.request.deadlines import Deadlines
from clewline.serve.request.predict_request import RequestTracer
from clewline.serve.served_endpoint import ServedEndpoint, ServedRevision, WhenServed
from clewline.serve.shadow_runner import ShadowRunner
from clewline.store.disk import known_error
from clewline.store.records import LiveRevision, Revision
from clewline.store.rows import UnreadableRecord
from clewline.store.store import Store

logger = logging.getLogger(__name__)

WATCH_S = 0.5
"""Time between two checks of the catalog for another live revision."""
EAGER = 64
"""With up to this many endpoints all are loaded at the start; with more, only pinned ones."""
MODEL_BYTES = 1 << 30
"""Default memory budget of loaded models."""
LOADERS = 2
"""Maximum revisions that are loaded at the same time."""
HELD_S = 5.0
"""A server is not ready if no compute thread has taken new work for this long."""
ISOLATED_START_S, START_POLL_S = 5.0, 0.1
"""How long a start waits for isolated models, and how often it looks."""
DRAIN_S = 30.0
"""How long a stopping server waits for requests under way."""
MIN_CLOSE_S = 2.0
"""Minimum time for closing, however long the draining took."""
NEAR = 100
"""Maximum names that are compared to find the nearest one."""
PLUG_INS = ("clewline.families", "clewline.formats", "clewline.nodes", "clewline.routers")
"""Groups of entry points with types that a server decodes."""


class WorkObserver(Protocol):
    """Records which revision each thread works on, so that a crash or hang has a known cause."""

    def computing(
        self,
        endpoint: str,
        revision: int = 0,
        timeout_s: float | None = None,
        isolated_s: float = 0.0,
    ) -> AbstractContextManager[None]:
        """Return a context in which this thread computes a batch of a revision."""

    def loading(
        self, endpoint: str, revision: int = 0, isolated_s: float = 0.0
    ) -> AbstractContextManager[None]:
        """Return a context in which this thread loads a revision."""

    def failure(self, endpoint: str, revision: int) -> ClewlineError | None:
        """Return why a revision must not be loaded here, or None if it may be."""


class UnderWay(Protocol):
    """A caller who waits for an answer."""

    def give_up(self, error: ClewlineError) -> None:
        """Answer with an error now."""


class EndpointServer:
    """
    All endpoints of a server. Lives on the loop's thread; revisions are loaded on others.

    Args:
        project: Has the endpoints.
        names: Serve only these; None serves all applied endpoints.
        max_rows: Maximum rows of one request.
        queue_rows: Maximum rows of one endpoint that may wait.
        model_bytes: Memory budget of loaded models. Beyond it the least recently used
            are evicted, unless they are pinned or in use.
    """

    def __init__(
        self,
        project: Project,
        names: Iterable[str] | None = None,
        *,
        max_rows: int = MAX_ROWS,
        queue_rows: int = QUEUE_ROWS,
        model_bytes: int = MODEL_BYTES,
    ) -> None:
        self.project = project
        self.endpoints: dict[str, ServedEndpoint] = {}
        self.failure: ClewlineError | None = None  # why the catalog can no longer be followed
        self.work_observer: WorkObserver | None = None
        self.tracer: RequestTracer | None = None
        self.load_statistics = LoadStatistics()
        self.statistics = RequestStatistics()
        self.model_cache = ModelCache(model_bytes)
        self.under_way: dict[UnderWay, None] = {}
        self.threads = ThreadPoolExecutor((os.cpu_count() or 1) + 2, "clewline-compute")
        self.loop: asyncio.AbstractEventLoop
        self.deadlines: Deadlines
        self.body_queue: BodyQueue
        self.idempotency: Idempotency
        self._closed_files: deque[Path] = deque()  # of the logs, to be sealed
        self.shadows = ShadowRunner(project.shadow, closed=self._closed_files)
        self._branches = ThreadPoolExecutor(os.cpu_count() or 1, "clewline-branch")
        self._loaders = ThreadPoolExecutor(LOADERS, "clewline-load")
        self._follower_thread = ThreadPoolExecutor(1, "clewline-follow")
        self._names = None if names is None else set(names)
        self._max_rows = max_rows
        self._queue_rows = queue_rows
        self._pool = SharedModels(project)
        self._allocator = AllocatorTrim(self._loaders, model_bytes)
        self._store: Store
        self._sealed: SealedRecords
        self._states: LearnedStates
        self._log: LogWriter
        self._follower: CatalogFollower
        self._probe: Future[None] | None = None  # ends as soon as a compute thread is free
        self._probed_at = 0.0
        self._watcher: asyncio.Task[None] | None = None
        self._is_open = False
        self._stopping = False
        self._opened = ExitStack()  # closes everything, the last opened first
        self._opened.callback(self.shadows.close)
        for threads in (self._branches, self.threads, self._follower_thread, self._loaders):
            self._opened.callback(threads.shutdown)
        self._opened.callback(self._pool.end_processes)

    async def open(self) -> None:
        """
        Open the log and load endpoints; one that cannot be loaded answers with the reason.

        Raises:
            NotFound: There is no store, or no endpoint of one of the names.
            StoreReadOnly, StoreFull: The log cannot be written.
        """
        prepare_decoders()
        self.loop = asyncio.get_running_loop()
        self.deadlines = Deadlines()
        self._is_open = True
        self.body_queue = BodyQueue(self.threads)
        self._store = self._opened.enter_context(Store.open(self.project.store_root, write=False))
        for name in self._names or ():
            revisions.require_live(self._store.catalog, name)
        self._opened.callback(self._seal_log)
        self._log = self._opened.enter_context(
            LogWriter(self.project.log, closed=self._closed_files)
        )
        self.idempotency = Idempotency(self.project.log)
        self._opened.callback(self.idempotency.close)
        self._sealed = SealedRecords(self.project, self._store.catalog)
        self._follower = CatalogFollower(self._store, self._names)
        self._states = LearnedStates(self._store.catalog)
        await self._catch_up()
        await self._first_loads()
        self._watcher = asyncio.create_task(self._watch())

    async def close(self, drain_s: float = DRAIN_S) -> bool:
        """
        Answer the requests under way, then close everything.

        Args:
            drain_s: How long to wait for them; then the rest get `Overloaded`.

        Returns:
            False if something hangs, such as a disk. Its threads are left behind, and the
            process should end without waiting for them.
        """
        self._stopping = True
        until = time.monotonic() + drain_s
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)
        while self.under_way and time.monotonic() < until:
            await asyncio.sleep(0.005)
        self.give_up()
        for endpoint in self.endpoints.values():
            self._release(endpoint)
        return await self._close_all(until)

    def give_up(self) -> None:
        """Answer every waiting caller that the server is stopping."""
        for caller in list(self.under_way):
            caller.give_up(_stopping())
        for endpoint in self.endpoints.values():
            endpoint.notify(_stopping())

    @property
    def ready(self) -> bool:
        """Whether every endpoint answers with its live revision."""
        return self.failure is None and all(e.ready for e in self.endpoints.values())

    @property
    def held_s(self) -> float:
        """How long no compute thread has been free; 0 if one is."""
        if self._probe is None or self._probe.done():
            return 0.0
        return time.monotonic() - self._probed_at

    def get(self, name: str) -> ServedEndpoint:
        """
        Return an endpoint.

        Raises:
            NotFound: This server has no endpoint with that name; suggests the nearest name.
        """
        endpoint = self.endpoints.get(name)
        if endpoint is None:
            names: Iterable[str] = self.endpoints
            if len(self.endpoints) > NEAR:  # among thousands, only names that begin alike
                names = [known for known in names if known[:2] == name[:2]][:NEAR]
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else "GET /v1/endpoints lists them."
            raise NotFound(f"There is no endpoint {name!r} here.", hint)
        return endpoint

    def when_loaded(self, endpoint: ServedEndpoint, then: WhenServed) -> None:
        """
        Call `then` with the revision that answers for an endpoint, or the reason why none does.

        It is called at once if the revision is in memory. Otherwise the revision is loaded
        first, once for all callers who wait.
        """
        if endpoint.serving is not None:
            self.model_cache.used(endpoint.serving)
            then(endpoint.serving)
        elif self._stopping:
            then(_stopping())
        elif (refusal := endpoint.refusal) is not None:
            then(refusal)
        elif len(endpoint.waiting) >= self._queue_rows:
            then(
                Overloaded(
                    f"{self._queue_rows} requests wait for the endpoint to load.",
                    "Try again in 1 s.",
                )
            )
        else:
            endpoint.waiting.append(then)
            self._load(endpoint)

    @property
    def restarts(self) -> dict[str, int]:
        """Number of restarts of each isolated model's process, by `name@number`."""
        return self._pool.restarts()

    @property
    def router_states(self) -> dict[tuple[str, str], int]:
        """The number of each router's learned state, by endpoint and node."""
        return self._states.numbers()

    async def load(self, name: str) -> None:
        """
        Load an endpoint, here now and soon in every server of the project.

        Raises:
            NotFound: There is no such endpoint.
            ClewlineError: The endpoint could not be loaded.
        """
        endpoint = self.get(name)
        await self._persist(name, unloaded=False)
        endpoint.retry_now()
        found = await self._settled(endpoint)
        if isinstance(found, ClewlineError):
            raise found

    async def unload(self, name: str) -> None:
        """
        Unload an endpoint, here now and soon in every server of the project.

        Raises:
            NotFound: There is no such endpoint.
        """
        self.get(name)
        await self._persist(name, unloaded=True)

    def fail(self, name: str, error: ClewlineError) -> None:
        """
        Make an endpoint answer only with `error`, until another revision goes live.

        Raises:
            NotFound: There is no such endpoint.
        """
        endpoint = self.get(name)
        endpoint.fail(error, for_good=True)
        self._release(endpoint)
        endpoint.notify(error)

    def _settled(self, endpoint: ServedEndpoint) -> asyncio.Future[ServedRevision | ClewlineError]:
        """Return a future of the loaded revision, or of the reason why there is none."""
        found: asyncio.Future[ServedRevision | ClewlineError] = self.loop.create_future()
        self.when_loaded(endpoint, found.set_result)
        return found

    async def _first_loads(self) -> None:
        """Wait for the loads of the start; for isolated models only `ISOLATED_START_S`."""
        until = time.monotonic() + ISOLATED_START_S
        loads = [(self._settled(e), e) for e in self.endpoints.values() if e.loading]

        def holds(load: asyncio.Future[Any], endpoint: ServedEndpoint) -> bool:
            return not load.done() and not (endpoint.loads_apart and time.monotonic() >= until)

        while held := [load for load, endpoint in loads if holds(load, endpoint)]:
            await asyncio.wait(held, timeout=START_POLL_S)
        if late := [endpoint.name for load, endpoint in loads if not load.done()]:
            logger.warning("isolated models still load, the server starts: %s", ", ".join(late))

    # ---- following the catalog

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(WATCH_S)
            if self._probe is None or self._probe.done():
                self._probe, self._probed_at = self.threads.submit(_nothing), time.monotonic()
            try:
                await self._catch_up()
            except ClewlineError as error:
                if self.failure is None:
                    logger.error("live revisions can no longer be followed: %s", error)
                self.failure = error
            except Exception:
                logger.exception("live revisions could not be read from the catalog")
            else:
                self.failure = None
            if self._closed_files:
                await self.loop.run_in_executor(self._follower_thread, self._seal_log)
            self.statistics.fold()
            # Retry failed loads of endpoints that an older revision still answers.
            for endpoint in self.endpoints.values():
                if endpoint.failure is not None and endpoint.serving and endpoint.may_retry:
                    self._load(endpoint)

    def _changes(self) -> list[LiveRevision]:
        """Return the revisions that went live, and read the routers' states; on a thread."""
        self._states.refresh()
        return self._follower.changes()

    async def _catch_up(self) -> None:
        """Apply the changes since the last time."""
        lives = await self.loop.run_in_executor(self._follower_thread, self._changes)
        total = len(self.endpoints.keys() | {live.endpoint for live in lives})
        pinned: set[str] = set()
        if total > EAGER:
            pinned = await self.loop.run_in_executor(self._follower_thread, self._pinned, lives)
        for live in lives:
            self._follow(live, eager=total <= EAGER or live.endpoint in pinned)
        for name, error in self._follower.unreadable.items():
            endpoint = self._known_endpoint(name)
            if endpoint.failure is not error:
                logger.error("%s cannot be followed: %s", name, error)
                endpoint.want(0)
                endpoint.fail(error, for_good=True)

    def _seal_log(self) -> None:
        """Seal the files of the logs that were closed since the last time; on a thread."""
        paths = [self._closed_files.popleft() for _ in range(len(self._closed_files))]
        try:
            seal_files(self.project, paths)
        except (ClewlineError, OSError) as error:
            logger.error("closed files of the log have no link in the signed chain: %s", error)

    def _pinned(self, lives: list[LiveRevision]) -> set[str]:
        """Return the endpoints that must stay in memory."""
        found = set()
        for live in lives:
            with suppress(UnreadableRecord):  # its load says so
                revision = self._store.catalog.get(Revision, live.endpoint, live.number)
                if revision is not None and revisions.is_pinned(revision):
                    found.add(live.endpoint)
        return found

    def _follow(self, live: LiveRevision, *, eager: bool) -> None:
        """Apply the catalog's record of an endpoint."""
        endpoint = self._known_endpoint(live.endpoint)
        was_unloaded, endpoint.unloaded = endpoint.unloaded, live.unloaded
        is_new = endpoint.wanted != live.number
        if is_new:
            endpoint.want(live.number)
        if live.unloaded:
            self._release(endpoint)
            if endpoint.refusal is not None:
                endpoint.notify(endpoint.refusal)
        elif (is_new or was_unloaded) and (eager or endpoint.serving or endpoint.waiting):
            self._load(endpoint)

    def _known_endpoint(self, name: str) -> ServedEndpoint:
        """Return an endpoint that the catalog has; a new one the first time."""
        if name not in self.endpoints:
            self.endpoints[name] = ServedEndpoint(name, self.statistics)
        return self.endpoints[name]

    async def _persist(self, name: str, *, unloaded: bool) -> None:
        live = await self.loop.run_in_executor(
            self._loaders, _persist_unloaded, self.project, name, unloaded
        )
        self._follow(live, eager=False)

    # ---- loading, swapping, evicting

    def _load(self, endpoint: ServedEndpoint) -> None:
        """Load the live revision on a thread, unless that is under way."""
        if endpoint.loading or self._stopping:
            return
        endpoint.loading = True
        number, start = endpoint.wanted, time.perf_counter()
        loading: Future[LoadedRevision] = Future()

        def done(future: Future[LoadedRevision]) -> None:
            if not self.loop.is_closed():
                self.loop.call_soon_threadsafe(self._loaded, endpoint, number, start, future)

        loading.add_done_callback(done)
        self._loaders.submit(self._read, endpoint.name, number, loading)

    def _read(self, name: str, number: int, loading: Future[LoadedRevision]) -> None:
        """Load a revision on this thread, or on its own if that may hang."""
        work_observer = self.work_observer
        observed: Callable[..., AbstractContextManager[None]] = nullcontext
        if work_observer is not None:
            observed = partial(work_observer.loading, name, number)
        try:
            if work_observer is not None and (error := work_observer.failure(name, number)):
                raise error
            with observed():
                self._store.catalog.reader.data_version()  # opens the file that is there now
                self._sealed.get(LiveRevision, name)  # raises if someone without the key moved it
                revision = self._sealed.get(Revision, name, number)
            if revision is None:
                raise NotFound(
                    f"There is no revision {name}#{number}.", "Run `clewline endpoints apply`."
                )
            isolated_s = longest_isolated_s(revision)
        except BaseException as error:
            loading.set_exception(error)
            return

        def load() -> None:
            try:
                with observed(isolated_s):
                    loaded = LoadedRevision.load(
                        revision,
                        self._pool,
                        max_rows=self._max_rows,
                        threads=self._branches,
                        states=self._states.of(name),
                        shadowing=self.shadows,
                    )
            except BaseException as error:
                loading.set_exception(error)
            else:
                loading.set_result(loaded)

        if isolated_s:
            self.endpoints[name].loads_apart = True
            threading.Thread(target=load, name="clewline-load-isolated", daemon=True).start()
        else:
            load()

    def _loaded(
        self, endpoint: ServedEndpoint, number: int, start: float, loading: Future[LoadedRevision]
    ) -> None:
        """Put a loaded revision to work, or record why it could not be loaded."""
        endpoint.loading = endpoint.loads_apart = False
        self.load_statistics.seconds.observe(time.perf_counter() - start)
        error = loading.exception()
        if self._stopping or endpoint.unloaded or number != endpoint.wanted or endpoint.given_up:
            if error is None:
                self._loaders.submit(loading.result().close)
            self._load_wanted(endpoint)
        elif error is None:
            self._swap(endpoint, loading.result())
        else:
            logger.error("%s#%s could not be loaded", endpoint.name, number, exc_info=error)
            self.load_statistics.failed += 1
            endpoint.fail(load_error(error))
            assert endpoint.failure is not None
            endpoint.notify(endpoint.failure)

    def _load_wanted(self, endpoint: ServedEndpoint) -> None:
        """Load the revision that is live by now, if somebody waits for it."""
        if self._stopping:
            endpoint.notify(_stopping())
        elif (refusal := endpoint.refusal) is not None:
            endpoint.notify(refusal)
        elif endpoint.waiting or endpoint.serving is not None:
            self._load(endpoint)

    def _swap(self, endpoint: ServedEndpoint, loaded: LoadedRevision) -> None:
        """Send new requests to another revision; those under way stay with theirs."""
        revision = loaded.revision
        computing: Callable[[], AbstractContextManager[None]] = nullcontext
        if self.work_observer is not None:
            computing = partial(
                self.work_observer.computing,
                endpoint.name,
                revision.number,
                loaded.timeout_s,
                loaded.isolated_s,
            )
        batcher = Batcher(
            loaded,
            self._log,
            revisions.durability(revision),
            loaded.threads or self.threads,
            endpoint.statistics,
            cost=loaded.cost,
            computing=computing,
            queue_rows=self._queue_rows,
            ref=loaded.ref,
        )
        before = endpoint.serving
        serving = endpoint.serving = ServedRevision(loaded, batcher, self._close)
        endpoint.succeed()
        self.model_cache.add(serving)
        if before is not None:
            self.model_cache.remove(before)
            before.release()
            logger.info("%s answers now; it replaced %s", loaded.ref, before.loaded.ref)
        if len(self.model_cache) > EAGER:
            self._allocator.loaded()
        endpoint.notify(serving)
        for resident in self.model_cache.evict(serving):
            assert isinstance(resident, ServedRevision)
            self.endpoints[resident.loaded.revision.endpoint].serving = None
            resident.release()
            self.load_statistics.evictions += 1

    def _release(self, endpoint: ServedEndpoint) -> None:
        """Stop answering with an endpoint's current revision."""
        serving, endpoint.serving = endpoint.serving, None
        if serving is not None:
            self.model_cache.remove(serving)
            serving.release()

    def _close(self, serving: ServedRevision) -> None:
        """Close a revision that nobody uses, on a thread."""
        if self._stopping:
            serving.loaded.close()
            return
        self._loaders.submit(serving.loaded.close)
        self._allocator.freed(sum(serving.models.values()))

    async def _close_all(self, until: float) -> bool:
        """Close everything on a thread of its own, because a disk may hang."""
        loop, closed = asyncio.get_running_loop(), asyncio.Event()
        if self._is_open:
            self.deadlines.close()

        def close() -> None:
            try:
                self._opened.close()
            except Exception:
                logger.exception("the endpoints could not be closed cleanly")
            if not loop.is_closed():
                loop.call_soon_threadsafe(closed.set)

        threading.Thread(target=close, name="clewline-close", daemon=True).start()
        limit_s = max(until - time.monotonic(), MIN_CLOSE_S)
        try:
            await asyncio.wait_for(closed.wait(), limit_s)
        except TimeoutError:
            logger.error("closing hangs, and was left behind")
            return False
        return True


def _nothing() -> None:
    """Show that a thread is free."""


def load_error(error: BaseException) -> ClewlineError:
    """Return the reason why a revision could not be loaded as one of our errors."""
    if isinstance(error, NotFound):  # the endpoint exists: what it needs is lost
        return IntegrityError(error.message, error.fix)
    fault = Fault(
        f"The revision could not be loaded: {type(error).__name__}: {error}.",
        "The server's log has the traceback.",
    )
    return known_error(error, fault)


def _persist_unloaded(project: Project, name: str, unloaded: bool) -> LiveRevision:
    """Record whether an endpoint is unloaded; every server of the project follows."""
    with Store.open(project.store_root) as store, store.catalog.transaction() as transaction:
        live = transaction.get(LiveRevision, name)
        if live is None:
            raise NotFound(f"There is no endpoint {name!r}.", "Run `clewline endpoints apply`.")
        if live.unloaded != unloaded:
            live = msgspec.structs.replace(live, unloaded=unloaded, moved=time.time())
            transaction.replace(live)
        return live


def _stopping() -> Overloaded:
    return Overloaded("The server is stopping.", "Try again in 1 s.")


@cache
def prepare_decoders() -> None:
    """
    Build a decoder for every msgspec type that a server decodes.

    msgspec completes a type when it is decoded for the first time. If two threads that load
    revisions do that at once, one of them sees an incomplete type and the process crashes.
    """
    for group in PLUG_INS:
        for name in entry_points.names(group):
            with suppress(Exception):  # a broken plug-in is reported when it is needed
                import_loading(entry_points.load_entry_point(group, name))
    types = [msgspec.Struct]
    for each in types:
        types += each.__subclasses__()
        with suppress(TypeError, NameError):  # a type that is only encoded, or never leaves
            msgspec.json.Decoder(each)
            msgspec.msgpack.Decoder(each)
