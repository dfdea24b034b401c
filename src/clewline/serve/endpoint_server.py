"""
The endpoints of a server: loaded when they are needed, swapped when another revision
goes live, evicted when memory is short, drained at the end.

No HTTP here: a protocol hands over what it was asked and gets the answer by a callback.
"""

from __future__ import annotations

import asyncio
import difflib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import partial

import msgspec

from clewline.errors import ClewlineError, Fault, IntegrityError, NotFound, Overloaded
from clewline.project import Project
from clewline.serve import revision as revisions
from clewline.serve.batcher import QUEUE_ROWS, Batcher
from clewline.serve.body_queue import BodyQueue
from clewline.serve.catalog_follower import CatalogFollower
from clewline.serve.deadlines import Deadlines
from clewline.serve.graph.routers.states import LearnedStates
from clewline.serve.graph.shadow_runner import ShadowRunner
from clewline.serve.idempotency.idempotency import Idempotency
from clewline.serve.json_reader import MAX_ROWS
from clewline.serve.loaded_revision import LoadedRevision
from clewline.serve.log.writer import LogWriter
from clewline.serve.metrics.request_statistics import LoadStatistics, RequestStatistics
from clewline.serve.model_cache.allocator_trim import AllocatorTrim
from clewline.serve.model_cache.cache import ModelCache
from clewline.serve.model_cache.loaded_models import SharedModels
from clewline.serve.observers import RequestTracer, WorkObserver
from clewline.serve.predict_request import PredictRequest
from clewline.serve.predict_response import Reply
from clewline.serve.request import Request, Waiter
from clewline.serve.served_endpoint import EndpointState, ServedEndpoint, ServedRevision, WhenServed
from clewline.store.records import LiveRevision, Revision
from clewline.store.store import Store

__all__ = ["EndpointServer", "EndpointState", "ServedEndpoint", "ServedRevision"]

logger = logging.getLogger(__name__)

WATCH_S = 0.5
"""How often the catalog is asked whether another revision went live."""
EAGER = 64
"""Up to so many endpoints are loaded at the start; of more, those that are pinned."""
MODEL_BYTES = 1 << 30
"""What the models in memory may cost, unless the server is told otherwise."""
LOADERS = 2
"""Revisions that are loaded at once."""
DRAIN_S = 30.0
"""How long the end of a server waits for what is under way."""
LEAST_S = 2.0
"""What closing gets, however long the draining took."""
NEAR = 500
"""Names that are compared to find the nearest one."""


class EndpointServer:
    """
    All endpoints of a server. Lives on the loop's thread; revisions are loaded on others.

    Args:
        project: Whose endpoints.
        names: Only these; all that were applied if None.
        max_rows: Rows that one request may have.
        queue_rows: Rows of one endpoint that may wait.
        model_bytes: What the models in memory may cost; beyond, those that were not
            used for longest are let go, unless they are pinned or in use.
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
        self.failure: ClewlineError | None = None  # why the catalog is followed no more
        self.watched: WorkObserver | None = None
        self.tracer: RequestTracer | None = None
        self.load_statistics = LoadStatistics()
        self.statistics = RequestStatistics()
        self.model_cache = ModelCache(model_bytes)
        self.under_way: dict[Waiter, None] = {}
        self.threads = ThreadPoolExecutor((os.cpu_count() or 1) + 2, "clewline-compute")
        self.loop: asyncio.AbstractEventLoop
        self.deadlines: Deadlines
        self.body_queue: BodyQueue
        self.shadows = ShadowRunner(project.shadow)
        self._branches = ThreadPoolExecutor(os.cpu_count() or 1, "clewline-branch")
        self._loaders = ThreadPoolExecutor(LOADERS, "clewline-load")
        self._follower_thread = ThreadPoolExecutor(1, "clewline-follow")
        self._names = None if names is None else set(names)
        self._max_rows = max_rows
        self._queue_rows = queue_rows
        self._pool = SharedModels(project)
        self._allocator = AllocatorTrim(self._loaders, model_bytes)
        self._store: Store
        self._states: LearnedStates
        self._log: LogWriter
        self._idempotency: Idempotency
        self._follower: CatalogFollower
        self._watcher: asyncio.Task[None] | None = None
        self._stopping = False
        self._opened = ExitStack()  # closes what was opened, the last first
        self._opened.callback(self.shadows.close)
        for threads in (self._branches, self.threads, self._follower_thread, self._loaders):
            self._opened.callback(threads.shutdown)

    async def open(self) -> None:
        """
        Open the log and load what is loaded at the start; what cannot be says so when asked.

        Raises:
            NotFound: There is no store, or no endpoint of a name that was given.
            StoreReadOnly, StoreFull: Predictions could not be logged.
        """
        self.loop = asyncio.get_running_loop()
        self.deadlines = Deadlines()
        self.body_queue = BodyQueue()
        self._store = self._opened.enter_context(Store.open(self.project.store_root, write=False))
        for name in self._names or ():
            revisions.require_live(self._store.catalog, name)
        self._log = self._opened.enter_context(LogWriter(self.project.log))
        self._idempotency = Idempotency(self.project.log)
        self._opened.callback(self._idempotency.close)
        self._follower = CatalogFollower(self._store, self._names)
        self._states = LearnedStates(self._store.catalog)
        await self._catch_up()
        await asyncio.gather(*[self._settled(e) for e in self.endpoints.values() if e.loading])
        self._watcher = asyncio.create_task(self._watch())

    async def close(self, drain_s: float = DRAIN_S) -> bool:
        """
        Answer what is under way, then let go of everything.

        Args:
            drain_s: How long to wait; then the rest is told that the server stops.

        Returns:
            False when something stands still, such as a disk: its threads are left behind,
            and the process should end without waiting for them.
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
        return await self._let_go(until)

    def give_up(self) -> None:
        """Tell everybody who still waits that the server stops."""
        for waiter in list(self.under_way):
            waiter.give_up(_stopping())
        for endpoint in self.endpoints.values():
            endpoint.tell(_stopping())

    @property
    def ready(self) -> bool:
        """Tell whether every endpoint answers with the revision that it should."""
        return self.failure is None and all(e.trouble is None for e in self.endpoints.values())

    def get(self, name: str) -> ServedEndpoint:
        """
        Get an endpoint.

        Raises:
            NotFound: This server has none of that name; names the nearest.
        """
        endpoint = self.endpoints.get(name)
        if endpoint is None:
            near = self._near(name)
            hint = f"Did you mean {near!r}?" if near else "GET /v1/endpoints lists them."
            raise NotFound(f"There is no endpoint {name!r} here.", hint)
        return endpoint

    def predict(self, endpoint: ServedEndpoint, ask: PredictRequest, reply: Reply) -> None:
        """
        Answer a request; an endpoint that is not in memory is loaded first.

        A deadline, of the request or the endpoint, is met with `DeadlineExceeded`.
        A request with an idempotency key is computed to its end all the same, so
        that who tries again finds the answer.

        Args:
            endpoint: Who is asked.
            ask: The rows as they came, and how long the caller waits.
            reply: Called once, now or later, with the answer or the reason why there is none.
        """
        if self.tracer is not None:
            reply = self.tracer.follow(endpoint.name, ask, reply)
        if ask.key is None:
            self._begin(endpoint, Request(self, ask, reply))
            return
        waiter = Waiter(self, reply)
        waiter.wait_until(self._deadline(endpoint, ask))

        def go(settle: Reply) -> None:
            self._begin(endpoint, Request(self, ask, settle, patient=True))

        self._idempotency.claim(endpoint.name, ask, waiter.finish, go)

    def when_loaded(self, endpoint: ServedEndpoint, then: WhenServed) -> None:
        """
        Call `then` with what answers for an endpoint, or with why nothing does.

        At once when it is in memory; else it is loaded first, once for all who wait.
        """
        if endpoint.serving is not None:
            self.model_cache.used(endpoint.serving)
            then(endpoint.serving)
        elif self._stopping:
            then(_stopping())
        elif (refusal := endpoint.refusal) is not None:
            then(refusal)
        elif len(endpoint.waiting) >= self._queue_rows:
            then(Overloaded(f"{self._queue_rows} requests wait already.", "Try again in 1 s."))
        else:
            endpoint.waiting.append(then)
            self._load(endpoint)

    @property
    def replays(self) -> int:
        """Requests with an idempotency key that got an answer which was there already."""
        return self._idempotency.replays

    @property
    def restarts(self) -> dict[str, int]:
        """How often the process of an isolated model was started again, by `name@number`."""
        return self._pool.restarts()

    @property
    def router_states(self) -> dict[tuple[str, str], int]:
        """The number of what each router has learned, by endpoint and node."""
        return self._states.numbers()

    async def load(self, name: str) -> None:
        """
        Let an endpoint answer again, here now and soon in every server of the project.

        Raises:
            NotFound: There is no such endpoint.
            ClewlineError: It could not be loaded.
        """
        endpoint = self.get(name)
        await self._persist(name, unloaded=False)
        endpoint.hurry()
        found = await self._settled(endpoint)
        if isinstance(found, ClewlineError):
            raise found

    async def unload(self, name: str) -> None:
        """
        Let an endpoint answer no more, here now and soon in every server of the project.

        Raises:
            NotFound: There is no such endpoint.
        """
        self.get(name)
        await self._persist(name, unloaded=True)

    def fail(self, name: str, error: ClewlineError) -> None:
        """
        Let an endpoint answer nothing but `error`, until another revision goes live.

        Raises:
            NotFound: There is no such endpoint.
        """
        endpoint = self.get(name)
        endpoint.fail(error, for_good=True)
        self._release(endpoint)
        endpoint.tell(error)

    # ---- requests

    def _begin(self, endpoint: ServedEndpoint, request: Request) -> None:
        serving = endpoint.serving
        if serving is not None:
            self.model_cache.used(serving)
            request.begin(serving)
        else:
            self.load_statistics.cold_calls += 1
            request.wait()
            self.when_loaded(endpoint, request.loaded)

    def _deadline(self, endpoint: ServedEndpoint, ask: PredictRequest) -> float:
        timeout_s = None if endpoint.serving is None else endpoint.serving.timeout_s
        return ask.deadline if timeout_s is None else min(ask.deadline, _in(timeout_s))

    def _settled(self, endpoint: ServedEndpoint) -> asyncio.Future[ServedRevision | ClewlineError]:
        """Wait until an endpoint is loaded, or could not be."""
        found: asyncio.Future[ServedRevision | ClewlineError] = self.loop.create_future()
        self.when_loaded(endpoint, found.set_result)
        return found

    def _near(self, name: str) -> str | None:
        """Find the nearest name; among some thousand, only those that begin alike."""
        names: Iterable[str] = self.endpoints
        if len(self.endpoints) > NEAR:
            names = [known for known in names if known[:2] == name[:2]][:NEAR]
        return next(iter(difflib.get_close_matches(name, names, n=1)), None)

    # ---- following the catalog

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(WATCH_S)
            try:
                await self._catch_up()
            except ClewlineError as error:
                if self.failure is None:
                    logger.error("live revisions are followed no more: %s", error)
                self.failure = error
            except Exception:
                logger.exception("the catalog could not be asked for live revisions")
            else:
                self.failure = None
            self._try_again()

    def _changes(self) -> list[LiveRevision]:
        """Tell what went live, and read what routers have learned; on a thread."""
        self._states.refresh()
        return self._follower.changes()

    async def _catch_up(self) -> None:
        """Follow what changed since the last time."""
        lives = await self.loop.run_in_executor(self._follower_thread, self._changes)
        total = len(self.endpoints.keys() | {live.endpoint for live in lives})
        pinned: set[str] = set()
        if total > EAGER:
            pinned = await self.loop.run_in_executor(self._follower_thread, self._pinned, lives)
        for live in lives:
            self._follow(live, eager=total <= EAGER or live.endpoint in pinned)

    def _pinned(self, lives: list[LiveRevision]) -> set[str]:
        """Tell which endpoints are to stay in memory."""
        found = set()
        for live in lives:
            revision = self._store.catalog.get(Revision, live.endpoint, live.number)
            if revision is not None and revision.spec.get("pin"):
                found.add(live.endpoint)
        return found

    def _follow(self, live: LiveRevision, *, eager: bool) -> None:
        """Take over what the catalog says of an endpoint."""
        endpoint = self.endpoints.get(live.endpoint)
        if endpoint is None:
            endpoint = self.endpoints[live.endpoint] = ServedEndpoint(
                live.endpoint, self.statistics
            )
        was_unloaded, endpoint.unloaded = endpoint.unloaded, live.unloaded
        is_new = endpoint.wanted != live.number
        if is_new:
            endpoint.want(live.number)
        if live.unloaded:
            self._release(endpoint)
            if endpoint.refusal is not None:
                endpoint.tell(endpoint.refusal)
        elif (is_new or was_unloaded) and (eager or endpoint.serving or endpoint.waiting):
            self._load(endpoint)

    def _try_again(self) -> None:
        """Load again what failed some time ago, where an older revision still answers."""
        for endpoint in self.endpoints.values():
            if endpoint.failure is not None and endpoint.serving and endpoint.may_retry:
                self._load(endpoint)

    async def _persist(self, name: str, *, unloaded: bool) -> None:
        live = await self.loop.run_in_executor(self._loaders, _mark, self.project, name, unloaded)
        self._follow(live, eager=False)

    # ---- loading, swapping, evicting

    def _load(self, endpoint: ServedEndpoint) -> None:
        """Load the wanted revision on a thread, unless it is being loaded already."""
        if endpoint.loading or self._stopping:
            return
        endpoint.loading = True
        number, start = endpoint.wanted, time.perf_counter()
        loading = self._loaders.submit(self._read, endpoint.name, number)

        def done(future: Future[LoadedRevision]) -> None:
            if not self.loop.is_closed():
                self.loop.call_soon_threadsafe(self._loaded, endpoint, number, start, future)

        loading.add_done_callback(done)

    def _read(self, name: str, number: int) -> LoadedRevision:
        """Load a revision; on a thread."""
        watched = self.watched
        if watched is not None and (error := watched.failure(name, number)) is not None:
            raise error
        with nullcontext() if watched is None else watched.loading(name, number):
            revision = self._store.catalog.get(Revision, name, number)
            if revision is None:
                raise NotFound(f"There is no revision {name}#{number}.", "Apply it again.")
            return LoadedRevision.load(
                revision,
                self._pool,
                max_rows=self._max_rows,
                threads=self._branches,
                states=self._states.of(name),
                shadowing=self.shadows,
            )

    def _loaded(
        self, endpoint: ServedEndpoint, number: int, start: float, loading: Future[LoadedRevision]
    ) -> None:
        """Let what was loaded answer, or say why it does not."""
        endpoint.loading = False
        self.load_statistics.seconds.observe(time.perf_counter() - start)
        error = loading.exception()
        if self._stopping or endpoint.unloaded or number != endpoint.wanted or endpoint.given_up:
            if error is None:
                self._loaders.submit(loading.result().close)
            self._load_wanted(endpoint)
        elif error is None:
            self._swap(endpoint, loading.result())
        else:
            logger.error("%s#%d could not be loaded", endpoint.name, number, exc_info=error)
            self.load_statistics.failed += 1
            endpoint.fail(as_ours(error))
            assert endpoint.failure is not None
            endpoint.tell(endpoint.failure)

    def _load_wanted(self, endpoint: ServedEndpoint) -> None:
        """Load what is wanted by now, if somebody waits for it."""
        if self._stopping:
            endpoint.tell(_stopping())
        elif (refusal := endpoint.refusal) is not None:
            endpoint.tell(refusal)
        elif endpoint.waiting or endpoint.serving is not None:
            self._load(endpoint)

    def _swap(self, endpoint: ServedEndpoint, loaded: LoadedRevision) -> None:
        """Let new requests go to another revision; those under way stay with theirs."""
        lane = Batcher(
            loaded,
            self._log,
            revisions.durability(loaded.revision),
            self.threads,
            endpoint.statistics,
            cost=loaded.cost,
            computing=self._computing(loaded),
            queue_rows=self._queue_rows,
            ref=loaded.ref,
        )
        before = endpoint.serving
        serving = endpoint.serving = ServedRevision(loaded, lane, self._close)
        endpoint.succeed()
        self.model_cache.add(serving)
        if before is not None:
            self.model_cache.remove(before)
            before.release()
            logger.info("%s answers now, in place of %s", loaded.ref, before.loaded.ref)
        if len(self.model_cache) > EAGER:
            self._allocator.loaded()
        endpoint.tell(serving)
        self._evict(serving)

    def _evict(self, keep: ServedRevision) -> None:
        for resident in self.model_cache.evict(keep):
            assert isinstance(resident, ServedRevision)
            self.endpoints[resident.loaded.revision.endpoint].serving = None
            resident.release()
            self.load_statistics.evictions += 1

    def _computing(self, loaded: LoadedRevision) -> Callable[[], AbstractContextManager[None]]:
        if self.watched is None:
            return nullcontext
        revision = loaded.revision
        return partial(self.watched.computing, revision.endpoint, revision.number, loaded.timeout_s)

    def _release(self, endpoint: ServedEndpoint) -> None:
        """Let an endpoint answer no more with what it has."""
        serving, endpoint.serving = endpoint.serving, None
        if serving is not None:
            self.model_cache.remove(serving)
            serving.release()

    def _close(self, serving: ServedRevision) -> None:
        """Give back what nobody needs any more, on a thread."""
        if self._stopping:
            serving.loaded.close()
            return
        self._loaders.submit(serving.loaded.close)
        self._allocator.freed(sum(serving.models.values()))

    async def _let_go(self, until: float) -> bool:
        """Close everything on a thread of its own, which a disk that stands still may hold."""
        self.deadlines.close()
        closed = asyncio.Event()

        def close() -> None:
            try:
                self._opened.close()
            except Exception:
                logger.exception("the endpoints were not closed well")
            if not self.loop.is_closed():
                self.loop.call_soon_threadsafe(closed.set)

        threading.Thread(target=close, name="clewline-close", daemon=True).start()
        limit_s = max(until - time.monotonic(), LEAST_S)
        try:
            await asyncio.wait_for(closed.wait(), limit_s)
        except TimeoutError:
            logger.error("something stands still, and was left behind")
            return False
        return True


def as_ours(error: BaseException) -> ClewlineError:
    """Explain why a revision could not be loaded."""
    if isinstance(error, NotFound):  # the endpoint is there: what it needs is lost
        return IntegrityError(error.message, error.fix)
    if isinstance(error, ClewlineError):
        return error
    return Fault(
        f"It could not be loaded: {type(error).__name__}: {error}.", "See the server's log."
    )


def _mark(project: Project, name: str, unloaded: bool) -> LiveRevision:
    """Write down whether an endpoint is to answer; every server of the project follows."""
    with Store.open(project.store_root) as store, store.catalog.transaction() as transaction:
        live = transaction.get(LiveRevision, name)
        if live is None:
            raise NotFound(f"There is no endpoint {name!r}.", "Apply it.")
        if live.unloaded != unloaded:
            live = msgspec.structs.replace(live, unloaded=unloaded, moved=time.time())
            transaction.replace(live)
        return live


def _in(seconds: float) -> float:
    return time.perf_counter() + seconds


def _stopping() -> Overloaded:
    return Overloaded("The server is stopping.", "Try again in 1 s.")
