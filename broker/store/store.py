"""The store: one writer thread and group commit.

`await store.write(fn)`: `fn(tx)` is plain synchronous code, SQL and nothing else, safe to run
again. What is queued meanwhile is run in one transaction, each `fn` in its own savepoint, and
committed once; then all are answered. If the commit fails nobody hears success.
"""

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import structlog
from sqlalchemy import Engine, delete, text
from sqlalchemy.exc import DBAPIError, IntegrityError

from broker.audit import Entry
from broker.crashpoints import crashpoint
from broker.errors import Unavailable
from broker.events import Event, uuid7
from broker.store import database, ears
from broker.store import tables as t
from broker.store.ears import Ears
from broker.store.tx import LOCK_HEAD, Connection, Tx, number

T = TypeVar("T")
LARGEST_GROUP: Final = 64
LONGEST_QUEUE: Final = 2_000
TRIES: Final = 3  # of a transaction that another process ran into
ANSWER_SECONDS: Final = 20.0  # after which a reading is given up: before whoever asked gives up
PASSING_SECONDS: Final = 0.01  # for who has already locked something: much less than a deadlock
_LOCK_TIMEOUT: Final = text("SELECT set_config('lock_timeout', :ms, true)")
_CLOCK: Final = text("SELECT clock_timestamp()")
PROOF: Final = 65_536  # bytes: well over what a message takes

log = structlog.get_logger()


@dataclass(slots=True)
class _Job:
    """What a caller waits for: on its event loop, or in its own thread."""

    fn: Callable[[Tx], Any]
    future: asyncio.Future[Any] | None = None
    done: threading.Event = field(default_factory=threading.Event)
    result: Any = None
    error: BaseException | None = None
    is_put_off: bool = False


class Store:
    """The one store, on SQLite or PostgreSQL. Durable on return from `write`."""

    def __init__(self, url: str, *, now: Callable[[], datetime] | None = None) -> None:
        self._engines = database.connect(url)
        self.writer, self.reader = self._engines.writer, self._engines.reader
        self.is_sqlite = self.writer.dialect.name == "sqlite"
        self._glancing = self._engines.glance.connect() if self.is_sqlite else None
        self._clock = now
        self._queue: queue.SimpleQueue[Sequence[_Job] | None] = queue.SimpleQueue()
        self._gathered: list[_Job] = []
        self._waiting = 0
        self._refusals = 0  # transactions that the database did not take
        self._refusals_disproved = 0
        self._proof: asyncio.Task[None] | None = None
        self._gate = threading.Lock()
        self._is_closed = False
        self._readers = ThreadPoolExecutor(database.READERS, thread_name_prefix="store-reader")
        self._listeners: list[Callable[[set[str]], None]] = []
        self._name = uuid7()
        self._ears = (
            Ears(self._engines.listener, self._name, self._wake)
            if (self._engines.listener)
            else None
        )
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        self._thread.start()

    def listen(self, listener: Callable[[set[str]], None]) -> None:
        """Call `listener(topics)`, from another thread, after each commit that wakes: one of this
        store or, on PostgreSQL, of any other."""
        self._listeners.append(listener)

    async def write(self, fn: Callable[[Tx], T]) -> T:
        """Run `fn` in a transaction. Durable on return. Raises what `fn` raised, or Unavailable."""
        if self._waiting >= LONGEST_QUEUE:
            raise Unavailable("The broker is overloaded; nothing was stored.", retry_after=2)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        with self._gate:
            self._refuse_if_closed()
            if not self._gathered:  # what else this turn of the loop brings goes with it
                loop.call_soon(self._hand_over)
            self._gathered.append(_Job(fn, future))
        self._waiting += 1
        try:
            result = await future
        finally:
            self._waiting -= 1
        return result

    async def prove(self) -> None:
        """Raise Unavailable unless the database takes what is written, as far as is known.

        It is asked only after it refused, and then by what would refuse a message too: it must
        give the lock and the room, and keep it. One asks at a time, for anybody may want to know,
        also where he who asked waits for the answer no longer.
        """
        refusals = self._refusals
        if refusals == self._refusals_disproved:
            return
        if self._proof is not None and not self._proof.done():
            raise Unavailable("The last that was to be stored was not.")
        self._proof = asyncio.create_task(self._disprove(refusals))
        await asyncio.shield(self._proof)

    async def _disprove(self, refusals: int) -> None:
        await self.write(_take_room)
        self._refusals_disproved = refusals

    def _hand_over(self) -> None:
        with self._gate:
            self._queue.put(self._gathered)
            self._gathered = []

    async def look_up(self, fn: Callable[[Connection], T]) -> T:
        """Run `fn`, which reads little, by keys or a page; each statement sees the latest.

        On SQLite in this thread: the way to another one takes longer than the reading.
        """
        if self._glancing is None:
            return await self._in_thread(self._engines.glance, fn)
        try:
            return fn(self._glancing)
        except DBAPIError as error:
            raise _unreadable(error) from error

    async def read(self, fn: Callable[[Connection], T]) -> T:
        """Run `fn` on a reading connection; it sees one consistent state of the database.

        Raises Unavailable, also where nothing is heard of the database in ANSWER_SECONDS.
        """
        return await self._in_thread(self.reader, _in_one_state(fn))

    def read_now(self, fn: Callable[[Connection], T]) -> T:
        """Run `fn` on a reading connection in this thread."""
        return _read(self.reader, _in_one_state(fn))

    async def _in_thread(self, engine: Engine, fn: Callable[[Connection], T]) -> T:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await loop.run_in_executor(self._readers, _read, engine, fn)
        except TimeoutError:
            raise Unavailable("The database does not answer.") from None

    def write_now(self, fn: Callable[[Tx], T]) -> T:
        """Run `fn` in a transaction and wait for it in this thread: for commands and start-up."""
        job = _Job(fn)
        with self._gate:
            self._refuse_if_closed()
            self._queue.put([job])
        job.done.wait()
        if job.error is not None:
            raise job.error
        result: T = job.result
        return result

    def _refuse_if_closed(self) -> None:
        if self._is_closed:
            raise Unavailable("The broker is stopping; nothing was stored.")

    def close(self) -> None:
        """Finish what is queued, then let go of the database."""
        with self._gate:  # nothing can be queued behind the last place in the queue
            self._is_closed = True
            self._queue.put(self._gathered)
            self._queue.put(None)
        self._thread.join()
        if self._ears is not None:
            self._ears.close()
        self._readers.shutdown()
        if self._glancing is not None:
            self._glancing.close()
        self._engines.dispose()

    # -- the writer's thread ---------------------------------------------------------------------

    def _run(self) -> None:
        last = False
        while not last:
            first = self._queue.get()
            if first is None:
                return
            group = [*first]
            while len(group) < LARGEST_GROUP:
                try:
                    more = self._queue.get_nowait()
                except queue.Empty:
                    break
                if more is None:
                    last = True
                    break
                group += more
            for place in range(0, len(group), LARGEST_GROUP):
                self._serve(group[place : place + LARGEST_GROUP])

    def _serve(self, group: list[_Job]) -> None:
        wakes: set[str] = set()
        for tries_left in reversed(range(TRIES)):
            try:
                wakes = self._transact(group)
            except BaseException as error:  # the writer must outlive any bug in what it is given
                # One that cannot be stored may take the whole transaction with it: run each alone,
                # so that only that one is refused. A locked database is locked for all of them.
                is_for_all = database.is_locked(error) or database.is_out_of_reach(error)
                if len(group) > 1 and not is_for_all:
                    for job in group:
                        self._serve([job])
                    return
                # Another process was first: with the same key, which the code sees when it is run
                # again, or in a deadlock, after which it may be first once more.
                may_pass = database.is_transient(error) or isinstance(error, IntegrityError)
                if tries_left and may_pass:
                    continue
                self._refuse(group, error)
            break
        _answer([job for job in group if not job.is_put_off])
        if wakes:
            self._wake(wakes)
        for job in group:
            if job.is_put_off:
                self._serve([job])

    def _wake(self, topics: set[str]) -> None:
        for listener in self._listeners:
            try:
                listener(topics)
            except Exception as error:  # what it listens for is also polled for
                log.error("store.listener-failed", error=type(error).__name__)

    def _refuse(self, group: list[_Job], error: BaseException) -> None:
        if not isinstance(error, DBAPIError):
            log.error("store.writer-failed", error=type(error).__name__)
            for job in group:
                job.error, job.is_put_off = error, False
            return
        self._refusals += 1
        log.error("store.unavailable", cause=_cause(error))
        said = f"Nothing was stored: {_cause(error)}."
        if error.connection_invalidated:  # perhaps between our COMMIT and its answer
            said = (
                f"It is not known whether this was stored: {_cause(error)}. Send it again as it "
                "was, with the same key: it is not taken twice."
            )
        for job in group:
            job.error, job.is_put_off = Unavailable(said), False

    def _transact(self, group: list[_Job]) -> set[str]:
        events: list[tuple[Event, int]] = []
        entries: list[Entry] = []
        wakes: set[str] = set()
        is_alone = len(group) == 1  # then the transaction itself is its savepoint
        with self.writer.connect() as connection, connection.begin() as transaction:
            now = self._now(connection)
            for place, job in enumerate(group):
                job.result, job.error, job.is_put_off = None, None, False
                if place == 1:
                    self._wait_for_locks(connection, PASSING_SECONDS)
                tx = Tx(connection, now)
                try:
                    with contextlib.nullcontext() if is_alone else connection.begin_nested():
                        job.result = job.fn(tx)
                except DBAPIError as error:
                    # Two processes, each waiting with what the other needs, would be a deadlock: so
                    # whoever comes after another in a group does not wait, and is run alone.
                    if place == 0 or not database.is_locked(error):
                        raise
                    job.is_put_off = True
                    continue
                except BaseException as error:  # the caller's own answer, told to the caller
                    job.error = error
                    if is_alone:
                        transaction.rollback()
                        return wakes
                    continue
                events += tx.events
                entries += tx.entries
                wakes |= tx.wakes
            if not is_alone:
                self._wait_for_locks(connection, database.BUSY_SECONDS)
            crashpoint("store.recorded")
            if events or entries:
                number(connection, now, events, entries)
            if wakes and self._ears is not None:
                ears.tell(connection, self._name, wakes)
            crashpoint("store.before-commit")
        crashpoint("store.committed")
        return wakes

    def _wait_for_locks(self, connection: Connection, seconds: float) -> None:
        """Wait for a row that another process holds for so long, in this transaction."""
        if not self.is_sqlite:
            connection.execute(_LOCK_TIMEOUT, {"ms": str(round(seconds * 1_000))})

    def _now(self, connection: Connection) -> datetime:
        if self._clock is not None:
            return self._clock()
        if self.is_sqlite:
            return datetime.now(UTC)
        found: datetime = connection.execute(_CLOCK).scalar_one()
        return found.astimezone(UTC)


def _take_room(tx: Tx) -> None:
    """Lock what a message would, write as much and take it away again: it is free for the next."""
    tx.execute(LOCK_HEAD)
    owner = uuid7()
    tx.execute(
        t.into(t.payload),
        {
            "owner_id": owner,
            "role": "proof",
            "version": 1,
            "key_id": owner,
            "organisation": "",
            "content_type": "",
            "digest": "",
            "size": PROOF,
            "sealed": bytes(PROOF),
            "created_at": tx.now,
        },
    )
    tx.execute(delete(t.payload).where(t.payload.c.owner_id == owner))


def _answer(group: list[_Job]) -> None:
    """Tell every caller, with one wake-up per event loop."""
    waiting: dict[asyncio.AbstractEventLoop, list[_Job]] = {}
    for job in group:
        if job.future is None:
            job.done.set()
        else:
            waiting.setdefault(job.future.get_loop(), []).append(job)
    for loop, jobs in waiting.items():
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to hear it
            loop.call_soon_threadsafe(_resolve, jobs)


def _resolve(jobs: list[_Job]) -> None:
    for job in jobs:
        if job.future is None or job.future.done():
            continue
        if job.error is not None:
            job.future.set_exception(job.error)
        else:
            job.future.set_result(job.result)


def _in_one_state(fn: Callable[[Connection], T]) -> Callable[[Connection], T]:
    def read(connection: Connection) -> T:
        with connection.begin():
            return fn(connection)

    return read


def _read(engine: Engine, fn: Callable[[Connection], T], *, is_last: bool = False) -> T:
    """Read, on a new connection where the one that there was had broken, perhaps long before."""
    try:
        with engine.connect() as connection:
            return fn(connection)
    except DBAPIError as error:
        if error.connection_invalidated and not is_last:
            return _read(engine, fn, is_last=True)
        raise _unreadable(error) from error


def _unreadable(error: DBAPIError) -> Unavailable:
    return Unavailable(f"The database cannot be read: {_cause(error)}.")


def _cause(error: DBAPIError) -> str:
    """Say what the database said first, without the statement's values.

    After a full disk SQLite has no savepoint left to roll back to, which fails in its turn.
    """
    first, earlier = error, error.__context__
    while earlier is not None:
        if isinstance(earlier, DBAPIError):
            first = earlier
        earlier = earlier.__context__
    return str(first.orig).splitlines()[0] if first.orig else type(first).__name__
