"""Trouble of every kind, over real HTTP: a full disk, a locked database, destinations that lie,
hang and break off, senders that go away or ask twenty times. What is answered is kept; what is
refused left no trace."""

import asyncio
import hashlib
import json
import os
import sqlite3
import statistics
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import httpx2
import pytest
import pytest_asyncio

from broker.api.app import create_app
from broker.directory_file import parse
from broker.events import uuid7
from broker.main import Broker
from broker.opening import open_ring, open_store
from broker.settings import Settings
from broker.store import clients, directory, ledger
from broker.store.claims import LEASE
from broker.vault import FileKeyRing, Vault
from sandbox.client import Reply
from sandbox.ledger import until
from sandbox.partner import Partner
from sandbox.webhook import WebhookPartner
from sandbox.world import INBOX_PRACTICE, WEBHOOK_PRACTICE, World
from tests.databases import Database, PostgreSQL
from tests.faults.housed import (
    Answering,
    HousedBroker,
    Rude,
    broken_off,
    for_ever,
    never,
    with_status,
)
from tests.faults.judged import (
    ask,
    database,
    demand_nothing_wrong,
    found_right,
    judge,
    seen,
    settled,
)

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

MUST: Final = os.environ.get("BROKER_TEST_REQUIRE_SERVICES") == "1"
LONG: Final = 90.0
BASE: Final = "http://broker.test"
# A round of attempts in a blink: the broker stops waiting after a second, and looks often.
HASTY: Final = {"BROKER_SEND_TIMEOUT": "1.5", "BROKER_POLL_SECONDS": "0.3"}

# What a post that was refused must not leave behind.
_TRACES: Final = " UNION ALL ".join(
    f"SELECT '{table}', count(*) FROM {table} {where}"  # noqa: S608
    for table, where in (
        ("message", "WHERE door <> 'broker'"),
        ("idempotency_key", "WHERE status = 202"),
        ("payload", "WHERE role IN ('in', 'answer')"),
        ("audit", "WHERE action = 'message.accepted'"),
        ("event", "WHERE type = 'record.update.submitted.v1'"),
    )
)


# -- help ----------------------------------------------------------------------------------------


class Poster:
    """Posts once, whatever the answer, and keeps the sender's own ledger."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._http = httpx2.AsyncClient(base_url=world.url, trust_env=False, timeout=60.0)
        self._token = ""

    async def __aenter__(self) -> "Poster":
        self._token = await self._world.pharmacy.client.token()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    def headers(self, key: str) -> dict[str, str]:
        return {
            "Authorization": f"Bearer {self._token}",
            "Content-Type": "application/json",
            "Idempotency-Key": key,
        }

    async def post(self, body: dict[str, Any], key: str) -> httpx2.Response:
        sender, content = self._world.pharmacy, json.dumps(body).encode()
        answers: list[httpx2.Response] = []

        async def once() -> Reply:
            answer = await self._http.post(sender.door, content=content, headers=self.headers(key))
            answers.append(answer)
            return Reply(answer.status_code, answer.content, answer.headers)

        await sender.perform(
            "post",
            once,
            door=f"POST {sender.door}",
            key=key,
            digest=hashlib.sha256(content).hexdigest(),
            **sender.facts(body),
        )
        return answers[0]


def traces(world: World) -> dict[str, int]:
    return dict(ask(world, _TRACES))


async def only_delivery(world: World, reply: Any) -> str:
    """Return the id of the one delivery of what was answered, once there is one."""
    message = reply.json["messages"][0]["id"]
    question = "SELECT id FROM delivery WHERE message_id = ?"
    return str((await seen(world, question, message))[0][0])


async def now_is(world: World, delivery: str, **wanted: Any) -> dict[str, Any]:
    """Wait until a delivery's row says this; return the whole row."""
    names = [row[1] for row in ask(world, "PRAGMA table_info(delivery)")]

    def is_it(rows: Any) -> bool:
        row = dict(zip(names, rows[0], strict=True))
        return all(row[name] == value for name, value in wanted.items())

    rows = await seen(
        world, "SELECT * FROM delivery WHERE id = ?", delivery, is_right=is_it, seconds=LONG
    )
    return dict(zip(names, rows[0], strict=True))


def attempts(world: World, delivery: str) -> list[tuple[Any, ...]]:
    return ask(
        world,
        "SELECT outcome, code, http_status FROM attempt WHERE delivery_id = ? ORDER BY number",
        delivery,
    )


def open_items(world: World, delivery: str) -> set[str]:
    found = ask(
        world, "SELECT code FROM work_item WHERE delivery_id = ? AND closed_at IS NULL", delivery
    )
    return {code for (code,) in found}


def alter(world: World, statement: str, *values: Any) -> None:
    """Let time pass for one thing, as only a test can."""
    with closing(sqlite3.connect(database(world), timeout=30)) as connection, connection:
        connection.execute(statement, values)


def hurry(world: World, delivery: str) -> None:
    """Make a delivery due now, and close the breaker."""
    alter(world, "UPDATE endpoint_state SET failures = 0, open_until = NULL")
    alter(
        world,
        "UPDATE delivery SET due_at = '2026-01-01T00:00:00.000000Z' WHERE id = ? AND state = 'due'",
        delivery,
    )


def put_aside(world: World, delivery: str) -> None:
    """Do not try it again in this test run."""
    alter(world, "UPDATE endpoint_state SET failures = 0, open_until = NULL")
    alter(
        world,
        "UPDATE delivery SET due_at = '2999-01-01T00:00:00.000000Z' WHERE id = ? AND state = 'due'",
        delivery,
    )


async def send(world: World, family: str = "", practice: str = WEBHOOK_PRACTICE) -> str:
    """Send an update to a practice; return its delivery."""
    body = world.pharmacy.consultation(practice=practice, family=family)
    reply = await world.pharmacy.submit(body)
    assert reply.status == 202, reply.json
    return await only_delivery(world, reply)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hasty(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """A world of a broker without patience, shared by the tests of bad destinations."""
    folder = tmp_path_factory.mktemp("hasty")
    async with World(folder, settings=HASTY, send_timeout=1.5) as world:
        yield world


@asynccontextmanager
async def rude(world: World, answering: Answering) -> AsyncIterator[Rude]:
    """Put somebody else in the place of the practice that is called."""
    await world.webhook_practice.stop()
    try:
        async with Rude(world.webhook_practice.url, answering).running() as there:
            yield there
            for delivery in {call.delivery for call in there.calls}:
                world.webhook_practice.ledger.write("misbehaved", how="rude", delivery=delivery)
    finally:
        await world.webhook_practice.start()


async def demand_nothing_wrong_in(world: World) -> None:
    await found_right(world, is_decided=False)


# -- a full disk, a locked database --------------------------------------------------------------


async def post_into_trouble(world: World, poster: Poster, most: int = 60) -> dict[str, Any]:
    """Post until a few were refused; each answer is 202 or 503. Return what was refused, by key.

    What was refused left no trace, what was answered is kept: no more and no less.
    """
    before = traces(world)
    refused: dict[str, Any] = {}
    taken = 0
    for number in range(most):
        key = str(uuid4())
        body = world.pharmacy.consultation(practice=(INBOX_PRACTICE, WEBHOOK_PRACTICE)[number % 2])
        answer = await poster.post(body, key)
        assert answer.status_code in {202, 503}, answer.text
        if answer.status_code == 503:
            assert int(answer.headers["retry-after"]) > 0
            assert answer.json()["code"] == "unavailable"
            refused[key] = body
        taken += answer.status_code == 202
        if len(refused) >= 5:
            break
    assert refused, f"{taken} posts were taken and none refused"
    after = traces(world)
    per_message = {name: after[name] - before[name] for name in before}
    assert per_message == {**dict.fromkeys(before, taken), "payload": 2 * taken}
    return refused


async def readiness(world: World) -> int:
    """Ask as whoever routes traffic does: 200 or 503, in one word."""
    async with httpx2.AsyncClient(base_url=world.url, trust_env=False, timeout=60.0) as http:
        answer = await http.get("/health/ready")
    assert answer.text == {200: "ready", 503: "unavailable"}[answer.status_code]
    return answer.status_code


async def taken_after_all(poster: Poster, refused: dict[str, Any]) -> None:
    """What was refused is taken under the same key, as if for the first time."""
    for key, body in refused.items():
        answer = await poster.post(body, key)
        assert answer.status_code == 202, answer.text


async def test_on_a_full_database_a_post_is_kept_or_leaves_no_trace_and_all_goes_on_after(
    tmp_path: Path,
) -> None:
    world = World(tmp_path, settings={"BROKER_POLL_SECONDS": "0.5"})
    world.broker = housed = HousedBroker.like(world.broker)
    async with world, Poster(world) as poster:
        earlier = await poster.post(world.pharmacy.consultation(practice=WEBHOOK_PRACTICE), "early")
        assert earlier.status_code == 202
        assert await readiness(world) == 200
        with housed.full_disk():
            refused = await post_into_trouble(world, poster, most=400)
            some = next(iter(refused))
            together = await asyncio.gather(
                *(poster.post(refused[some], key=f"{some}-{n}") for n in range(4))
            )
            assert {answer.status_code for answer in together} <= {202, 409, 503}
            assert [await readiness(world) for _ in range(3)] == [503] * 3
        assert await readiness(world) == 200
        # One of those may have been taken under another key.
        refused = {k: b for k, b in refused.items() if k != some}
        await taken_after_all(poster, refused)
        await demand_nothing_wrong_in(world)


def may_mount(folder: Path) -> str:
    """Return why nothing can be mounted here, or nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        tried = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)],
            capture_output=True,
            text=True,
            timeout=30,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if tried.returncode:
        return tried.stderr.strip() or f"mount ended with {tried.returncode}"
    subprocess.run(["umount", str(folder)], check=True, timeout=30)
    return ""


def may_administer() -> bool:
    """Whether this process has the capability that mounting needs (CAP_SYS_ADMIN)."""
    status = Path("/proc/self/status")
    if not status.exists():
        return False
    held = next(line for line in status.read_text().splitlines() if line.startswith("CapEff:"))
    return bool(int(held.split()[1], 16) >> 21 & 1)


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """Mount a small disk in memory."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)],
        check=True,
        timeout=30,
    )
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True, timeout=30)


def fill(disk: Path, leave: int) -> Path:
    """Fill a disk up to its last bytes, but for `leave`."""
    ballast = disk / "ballast"
    block = b"\0" * 4096
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(block)
        except OSError:
            pass
        file.truncate(max(0, file.tell() - leave))
    return ballast


async def test_on_a_disk_that_is_full_a_post_is_kept_or_leaves_no_trace_even_over_a_kill(
    tmp_path: Path,
) -> None:
    why = may_mount(tmp_path / "probe")
    if why and MUST and may_administer():
        pytest.fail(f"a disk must be filled here, and none can be mounted: {why}")
    if why:
        pytest.skip(f"nothing can be mounted here, so no disk can be filled: {why}")
    with small_disk(tmp_path / "data", "48m") as disk:
        async with World(tmp_path) as world, Poster(world) as poster:
            await poster.post(world.pharmacy.consultation(practice=WEBHOOK_PRACTICE), "early")
            ballast = fill(disk, leave=65_536)
            refused = await post_into_trouble(world, poster, most=400)
            assert await readiness(world) == 503
            await world.broker.kill()
            ballast.unlink()
            await world.broker.start()
            await taken_after_all(poster, refused)
            await demand_nothing_wrong_in(world)
            assert ask(world, "PRAGMA integrity_check") == [("ok",)]


async def test_a_locked_database_refuses_with_no_trace_or_keeps_what_it_took(
    tmp_path: Path,
) -> None:
    async with World(tmp_path) as world, Poster(world) as poster:
        with closing(sqlite3.connect(database(world), isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            before = traces(world)
            bodies = {
                str(uuid4()): world.pharmacy.consultation(practice=WEBHOOK_PRACTICE)
                for _ in range(5)
            }
            answers = await asyncio.gather(*(poster.post(b, k) for k, b in bodies.items()))
            for answer in answers:
                assert answer.status_code == 503, answer.text
                assert int(answer.headers["retry-after"]) > 0
            assert traces(world) == before
            behind = asyncio.create_task(
                poster.post(world.pharmacy.consultation(practice=INBOX_PRACTICE), "behind")
            )
            await asyncio.wait({behind}, timeout=0.5)
            for _ in range(2):
                assert await readiness(world) == 503
                assert not behind.done(), "it queued behind a post that waits"
            assert (await behind).status_code == 503
            short = asyncio.create_task(
                poster.post(world.pharmacy.consultation(practice=INBOX_PRACTICE), "short")
            )
            await asyncio.wait({short}, timeout=0.5)
            other.execute("ROLLBACK")
        assert (await short).status_code == 202
        assert await readiness(world) == 200
        await taken_after_all(poster, bodies)
        await demand_nothing_wrong_in(world)


@asynccontextmanager
async def on_postgresql(
    made: Database, folder: Path
) -> AsyncIterator[tuple[Broker, httpx2.AsyncClient]]:
    """A broker in this process that serves from a PostgreSQL database, and who asks it."""
    settings = Settings(
        database_url=made.url, data_dir=folder / "data", keys_dir=folder / "keys", public_url=BASE
    )
    FileKeyRing.create(settings.ring_path)
    app = create_app(settings)
    transport = httpx2.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=transport, base_url=BASE) as http,
    ):
        yield app.state.broker, http


@pytest.mark.postgres
async def test_a_postgresql_that_falls_silent_is_unavailable_before_a_reading_is_given_up(
    postgresql: PostgreSQL, postgresql_database: Database, tmp_path: Path
) -> None:
    async with on_postgresql(postgresql_database, tmp_path) as (broker, http):
        assert (await http.get("/health/ready")).text == "ready"
        with postgresql.silent():
            reading = asyncio.create_task(broker.store.read(ledger.head))
            for _ in range(2):
                assert (await http.get("/health/ready")).status_code == 503
            assert not reading.done(), "it waited as long as any other reading does"
        await reading
        assert (await http.get("/health/ready")).text == "ready"


# -- destinations that misbehave -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "code"), [("XXTEST-LATE", "timed-out"), ("XXTEST-RESET", "connection-lost")]
)
async def test_what_was_stored_but_not_answered_is_sent_again_and_recognised(
    hasty: World, family: str, code: str
) -> None:
    delivery = await send(hasty, family)
    await seen(hasty, "SELECT 1 FROM attempt WHERE delivery_id = ?", delivery, seconds=LONG)
    hurry(hasty, delivery)
    row = await now_is(hasty, delivery, state="done", done_reason="receipt")
    assert row["received_at"]
    assert attempts(hasty, delivery) == [("retrying", code, None), ("received", None, 200)]
    ledger = hasty.webhook_practice.ledger
    assert len(ledger.entries("received", delivery=delivery)) == 1
    assert len(ledger.entries("received-again", delivery=delivery)) == 1
    await demand_nothing_wrong_in(hasty)


@pytest.mark.parametrize(
    ("family", "code", "status"),
    [
        ("XXTEST-FAIL", "answered-5xx", 500),
        ("XXTEST-REDIRECT", "redirected", 307),
        ("XXTEST-DRIP", "timed-out", None),
        ("XXTEST-SILENT", "timed-out", None),
    ],
)
async def test_what_may_pass_is_tried_again_and_claims_nothing(
    hasty: World, family: str, code: str, status: int | None
) -> None:
    delivery = await send(hasty, family)
    await seen(hasty, "SELECT 1 FROM attempt WHERE delivery_id = ?", delivery, seconds=LONG)
    row = await now_is(hasty, delivery, state="due", code=code)
    assert row["due_at"] > row["created_at"]
    assert row["received_at"] is None
    hurry(hasty, delivery)
    await seen(
        hasty, "SELECT 1 FROM attempt WHERE delivery_id = ? AND number = 2", delivery, seconds=LONG
    )
    put_aside(hasty, delivery)
    assert set(attempts(hasty, delivery)[:2]) == {("retrying", code, status)}
    assert not hasty.webhook_practice.ledger.entries("followed")
    assert not hasty.webhook_practice.ledger.entries("received", delivery=delivery)
    await demand_nothing_wrong_in(hasty)


async def test_a_destination_that_fails_twice_and_recovers_gets_it_once(hasty: World) -> None:
    delivery = await send(hasty, "XXTEST-RECOVER")
    for number in (1, 2):
        question = "SELECT 1 FROM attempt WHERE delivery_id = ? AND number = ?"
        await seen(hasty, question, delivery, number, seconds=LONG)
        hurry(hasty, delivery)
    await now_is(hasty, delivery, state="done", done_reason="receipt")
    assert attempts(hasty, delivery) == [
        ("retrying", "answered-5xx", 500),
        ("retrying", "answered-5xx", 500),
        ("received", None, 200),
    ]
    await demand_nothing_wrong_in(hasty)


@pytest.mark.parametrize("lie", ["DIGEST", "ODS", "DELIVERY"])
async def test_a_receipt_that_lies_is_evidence_counts_as_a_bare_2xx_and_is_somebodys_work_at_once(
    hasty: World, lie: str
) -> None:
    delivery = await send(hasty, f"XXTEST-LIE-{lie}")
    row = await now_is(hasty, delivery, state="held", held_reason="receipt")
    assert (row["code"], row["received_at"]) == ("receipt-mismatch", None)
    assert attempts(hasty, delivery) == [("answered", "receipt-mismatch", 200)]
    assert open_items(hasty, delivery) == {"receipt-mismatch"}
    evidence = ask(
        hasty,
        "SELECT named_delivery, named_digest, named_ods, matches FROM receipt "
        "WHERE delivery_id = ?",
        delivery,
    )
    assert len(evidence) == 1
    assert evidence[0][3] == 0
    true = (delivery, row["digest"], WEBHOOK_PRACTICE)
    assert [a != b for a, b in zip(evidence[0], true, strict=False)].count(True) == 1
    await demand_nothing_wrong_in(hasty)
    await confirmed_from_the_inbox(hasty, hasty.webhook_practice, delivery)
    assert open_items(hasty, delivery) == set()


async def test_a_receipt_that_lies_in_an_inbox_is_evidence_too(hasty: World) -> None:
    delivery = await send(hasty, "XXTEST-LIE-DIGEST", INBOX_PRACTICE)
    question = "SELECT 1 FROM work_item WHERE delivery_id = ? AND code = 'receipt-mismatch'"
    await seen(hasty, question, delivery, seconds=LONG)
    row = await now_is(hasty, delivery, state="held", held_reason="receipt")
    assert (row["code"], row["received_at"]) == ("receipt-mismatch", None)
    await demand_nothing_wrong_in(hasty)


async def confirmed_from_the_inbox(world: World, partner: Partner, delivery: str) -> None:
    """A receiver whose webhook went wrong collects the very same bytes and confirms them."""
    found = await partner.client.call("GET", f"/inbox/{delivery}")
    assert found.status == 200
    digest = found.headers["referral-broker-digest"].removeprefix("sha-256=")
    ((kind, message),) = ask(world, "SELECT kind, message_id FROM delivery WHERE id = ?", delivery)
    if not partner.ledger.entries("received", delivery=delivery):
        facts = {"kind": kind, "message": message, "via": "inbox", "digest": digest}
        reference = world.pharmacy.ledger.entries("ok", messages=[message])[0]["reference"]
        partner.ledger.write("received", delivery=delivery, reference=reference, **facts)
    partner.ledger.write("confirmed", delivery=delivery, answer="receipt")
    said = {"delivery": delivery, "digest": digest, "ods": partner.ods}
    reply = await partner.client.call(
        "PUT", f"/inbox/{delivery}/receipt", json.dumps(said).encode()
    )
    assert reply.status == 200, reply.json
    row = await now_is(world, delivery, state="done", done_reason="receipt")
    assert row["received_at"]
    await demand_nothing_wrong_in(world)


async def test_a_bare_2xx_is_not_sent_again_and_is_confirmed_from_the_inbox(hasty: World) -> None:
    delivery = await send(hasty, "XXTEST-BARE")
    row = await now_is(hasty, delivery, state="held", held_reason="receipt")
    assert (row["code"], row["received_at"], row["attempt"]) == (None, None, 1)
    assert attempts(hasty, delivery) == [("answered", None, 200)]
    listed = await hasty.webhook_practice.get("/inbox", limit="200")
    assert delivery in {one["id"] for one in listed["deliveries"]}
    await confirmed_from_the_inbox(hasty, hasty.webhook_practice, delivery)
    assert len(attempts(hasty, delivery)) == 1


@pytest.mark.parametrize("status", [400, 410, 413, 415, 422])
async def test_a_refusal_for_good_is_dead_at_once_on_the_work_list_and_still_collectable(
    hasty: World, status: int
) -> None:
    async with rude(hasty, with_status(status)) as there:
        delivery = await send(hasty)
        row = await now_is(hasty, delivery, state="dead")
        assert len(there.calls) == 1
    assert row["code"] == "answered-4xx"
    assert attempts(hasty, delivery) == [("failed", "answered-4xx", status)]
    assert open_items(hasty, delivery) == {"delivery-dead"}
    await demand_nothing_wrong_in(hasty)
    await confirmed_from_the_inbox(hasty, hasty.webhook_practice, delivery)
    assert open_items(hasty, delivery) == set()


async def test_a_connection_reset_in_the_middle_of_a_2xx_is_no_answer(hasty: World) -> None:
    async with rude(hasty, broken_off):
        delivery = await send(hasty)
        row = await now_is(hasty, delivery, state="due", code="connection-lost")
        assert row["received_at"] is None
    hurry(hasty, delivery)
    await now_is(hasty, delivery, state="done", done_reason="receipt")
    await demand_nothing_wrong_in(hasty)


async def test_an_answer_without_end_is_cut_off_and_counts_as_a_bare_2xx(hasty: World) -> None:
    async with rude(hasty, for_ever):
        delivery = await send(hasty)
        row = await now_is(hasty, delivery, state="held", held_reason="receipt")
    assert row["received_at"] is None
    assert attempts(hasty, delivery) == [("answered", None, 200)]
    await confirmed_from_the_inbox(hasty, hasty.webhook_practice, delivery)


async def test_a_redirect_is_never_followed(hasty: World) -> None:
    where = f"Location: {hasty.webhook_practice.url.replace('/inbound', '/elsewhere')}"
    for status in (301, 302, 303, 307, 308):
        async with rude(hasty, with_status(status, where)) as there:
            delivery = await send(hasty)
            await now_is(hasty, delivery, state="due", code="redirected")
            put_aside(hasty, delivery)
            assert {call.path for call in there.calls} == {"/inbound"}
    await demand_nothing_wrong_in(hasty)


async def test_what_a_destination_answered_while_nothing_could_be_written_is_written_down_later(
    hasty: World,
) -> None:
    practice = hasty.webhook_practice
    delivery = await send(hasty, "XXTEST-SLOW")  # it answers after a second
    assert await until(lambda: practice.ledger.first("misbehaved", delivery=delivery), LONG)
    with closing(sqlite3.connect(database(hasty), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert await until(lambda: practice.ledger.first("confirmed", delivery=delivery), LONG)
        await asyncio.sleep(LEASE.total_seconds())  # longer than the broker waits for a lock, too
        other.execute("ROLLBACK")
    # Its lease ran out, and whoever works on it still renews it before he claims.
    row = await now_is(hasty, delivery, state="done", done_reason="receipt")
    assert row["attempt"] == 1
    assert not practice.ledger.entries("received-again", delivery=delivery)
    await demand_nothing_wrong_in(hasty)


async def test_a_receipt_for_what_was_given_up_is_kept_and_what_was_stored_can_be_decided_on(
    hasty: World,
) -> None:
    delivery = await send(hasty, "XXTEST-FAIL")
    await seen(hasty, "SELECT 1 FROM attempt WHERE delivery_id = ?", delivery, seconds=LONG)
    code, said = await hasty.cli("deliveries", "give-up", delivery, "--reason", "The practice did.")
    assert code == 0, said
    practice = hasty.webhook_practice
    digest = (await now_is(hasty, delivery, state="done", done_reason="given-up"))["digest"]
    assert (await practice.client.call("GET", f"/inbox/{delivery}")).status == 200
    for _ in range(2):
        named = {"delivery": delivery, "digest": digest, "ods": practice.ods}
        path = f"/inbox/{delivery}/receipt"
        assert (await practice.client.call("PUT", path, json.dumps(named).encode())).status == 200
    row = await now_is(hasty, delivery, state="done", done_reason="given-up")
    assert row["received_at"]
    audited = "SELECT count(*) FROM audit WHERE action = 'delivery.received' AND object_id = ?"
    assert ask(hasty, audited, delivery) == [(1,)]
    ((message,),) = ask(hasty, "SELECT message_id FROM delivery WHERE id = ?", delivery)
    reference = hasty.pharmacy.ledger.entries("ok", messages=[message])[0]["reference"]
    practice.ledger.write(
        "received",
        delivery=delivery,
        kind="update",
        via="inbox",
        digest=digest,
        message=message,
        reference=reference,
    )
    practice.ledger.write("confirmed", delivery=delivery, answer="receipt")
    path = f"/inbox/{delivery}/acknowledgement"
    decided = await practice.perform(
        "decide",
        lambda: practice.client.call("PUT", path, b'{"outcome": "filed"}'),
        delivery=delivery,
        outcome="filed",
        reason=None,
    )
    assert decided.status == 200, decided.json
    await demand_nothing_wrong_in(hasty)


async def test_a_receipt_after_the_deadline_tells_the_sender_so_also_from_a_webhook(
    hasty: World,
) -> None:
    await hasty.webhook_practice.stop()
    crisis = hasty.pharmacy.crisis(
        practice=WEBHOOK_PRACTICE, clinical_time="2026-01-05T10:00:00+00:00"
    )
    reply = await hasty.pharmacy.submit(crisis)
    assert reply.status == 202
    referral = reply.json["messages"][1]["id"]
    told = hasty.pharmacy.ledger
    assert await until(
        lambda: told.first("received", about=referral, topic="deadline-passed"), LONG
    )
    await hasty.webhook_practice.start()
    question = "SELECT id FROM delivery WHERE message_id = ?"
    ((delivery,),) = ask(hasty, question, referral)
    hurry(hasty, delivery)
    await now_is(hasty, delivery, state="done", done_reason="receipt")
    hurry(hasty, ask(hasty, question, reply.json["messages"][0]["id"])[0][0])
    found = await until(lambda: told.first("received", about=referral, topic="received-late"), 20.0)
    assert found, "nobody told the sender that it was received after all"
    await demand_nothing_wrong_in(hasty)


async def test_one_message_that_cannot_be_opened_holds_nobody_else_up_and_is_somebodys_work(
    tmp_path: Path,
) -> None:
    async with World(tmp_path, settings=HASTY, send_timeout=1.5) as world:
        await world.broker.stop()
        await world.broker.start(crashpoint="dispatch.read:1")
        body = world.pharmacy.crisis(
            practice=WEBHOOK_PRACTICE, clinical_time="2026-01-05T10:00:00+00:00"
        )
        posting = asyncio.create_task(world.pharmacy.submit(body))
        await world.broker.died(LONG)
        alter(world, "UPDATE payload SET sealed = x'00' WHERE role = 'content'")
        await world.broker.start()
        assert (await posting).status == 202
        assert await send(world)
        delivery = await send(world)
        await now_is(world, delivery, state="done", done_reason="receipt")
        for message in posting.result().json["messages"]:
            found = "SELECT code FROM work_item WHERE message_id = ? AND closed_at IS NULL"
            codes = await seen(
                world, found, message["id"], is_right=lambda rows: len(rows) > 1, seconds=30.0
            )
            assert ("unreadable",) in codes
            assert ("received-overdue",) in codes  # its deadlines are watched all the same
        await demand_nothing_wrong_in(world)


# -- a dead destination --------------------------------------------------------------------------


def second_webhook(world: World, folder: Path) -> WebhookPartner:
    """Let the practice that collects be called instead; return it as one that listens."""
    secret = os.urandom(32)
    partner = WebhookPartner(
        world.practice.identity, world.url, folder / "second.jsonl", secret=secret
    )
    partner.reserve()
    settings = Settings(data_dir=world.folder / "data", keys_dir=world.folder / "keys")
    text = (world.folder / "directory.yaml").read_text()
    inbox = "{organisation: G99001, channel: inbox, takes: [update, referral, notice]}"
    called = inbox.replace("channel: inbox", f"channel: webhook, url: '{partner.url}'")
    assert inbox in text
    with open_store(settings) as store:
        vault = Vault(open_ring(settings, store))

        def write(tx: Any) -> None:
            directory.replace(tx, parse(text.replace(inbox, called)))
            secret_id = uuid7()
            clients.put_secret(tx, secret_id, INBOX_PRACTICE, *vault.seal_secret(secret, secret_id))

        store.write_now(write)
    return partner


async def seconds_to_deliver(world: World, practice: str, count: int) -> float:
    """Return the middle time from acceptance to receipt of a few updates, one after the other."""
    times = []
    for _ in range(count):
        delivery = await send(world, practice=practice)
        await now_is(world, delivery, state="done")
        ((spent,),) = ask(
            world,
            "SELECT (julianday(received_at) - julianday(created_at)) * 86400 FROM delivery "
            "WHERE id = ?",
            delivery,
        )
        times.append(spent)
    return statistics.median(times)


async def test_a_dead_destination_slows_nobody_else_and_what_is_urgent_overtakes(
    tmp_path: Path,
) -> None:
    settings = {"BROKER_POLL_SECONDS": "0.5"}
    async with World(tmp_path, settings=settings, starts_partners=False) as world:
        await world.pharmacy.start()
        async with second_webhook(world, tmp_path) as lively:
            before = await seconds_to_deliver(world, INBOX_PRACTICE, 8)
            async with Rude(world.webhook_practice.url, never).running():
                room = asyncio.Semaphore(16)

                async def one() -> None:
                    async with room:
                        body = world.pharmacy.consultation(practice=WEBHOOK_PRACTICE)
                        assert (await world.pharmacy.submit(body)).status == 202

                await asyncio.gather(*(one() for _ in range(300)))
                await seen(
                    world,
                    "SELECT count(*) FROM delivery WHERE ods = ? AND state = 'due'",
                    WEBHOOK_PRACTICE,
                    is_right=lambda rows: rows[0][0] == 300,
                )
                during = await seconds_to_deliver(world, INBOX_PRACTICE, 8)
                assert during < 10 * before + 1.0, f"{before:.3f} s before, {during:.3f} s during"
                crisis = world.pharmacy.crisis(practice=WEBHOOK_PRACTICE)
                sent = await world.pharmacy.submit(crisis)
                assert sent.status == 202
                alter(world, "UPDATE endpoint_state SET failures = 0, open_until = NULL")
            await world.webhook_practice.start()
            urgent = sent.json["messages"][1]["id"]
            stored = world.webhook_practice.ledger
            await until(lambda: stored.first("received", message=urgent), LONG)
            place = [entry["message"] for entry in stored.entries("received")].index(urgent)
            assert place < 60, f"{place} routine updates came before what is urgent"
            await until_all_is_stored(world, 302)
            await settled(world, is_decided=False)
            verdict = judge(world, ledgers=[lively.ledger.path])
            demand_nothing_wrong(verdict)


async def until_all_is_stored(world: World, count: int) -> None:
    """Wait for a destination's backlog, without its long pauses after what failed before."""
    stored = world.webhook_practice.ledger

    def look() -> bool:
        alter(world, "UPDATE endpoint_state SET failures = 0, open_until = NULL")
        alter(
            world,
            "UPDATE delivery SET due_at = '2026-01-01T00:00:00.000000Z' "
            "WHERE state = 'due' AND lease_until IS NULL",
        )
        found = [e for e in stored.entries("received") if e["kind"] != "notice"]
        return len(found) == count

    assert await until(look, LONG), len(stored.entries("received"))


# -- senders -------------------------------------------------------------------------------------


async def test_twenty_posts_at_once_with_one_key_make_one_message(hasty: World) -> None:
    body, key = hasty.pharmacy.consultation(practice=INBOX_PRACTICE), str(uuid4())
    async with Poster(hasty) as poster:
        answers = await asyncio.gather(*(poster.post(body, key) for _ in range(20)))
        assert {answer.status_code for answer in answers} <= {202, 425}
        taken = {answer.content for answer in answers if answer.status_code == 202}
        assert len(taken) == 1
        for answer in answers:
            assert answer.status_code == 202 or int(answer.headers["retry-after"]) > 0
        again = await poster.post(body, key)
        assert (again.status_code, {again.content}) == (202, taken)
        other = await poster.post({**body, "advice": "Something else."}, key)
        assert other.status_code == 409
    message = json.loads(next(iter(taken)))["messages"][0]["id"]
    owners = "SELECT count(*) FROM idempotency_key WHERE owner_id = ?"
    assert ask(hasty, owners, message) == [(1,)]
    await demand_nothing_wrong_in(hasty)


async def test_a_sender_that_goes_away_once_its_body_was_read_is_taken_exactly_once(
    hasty: World,
) -> None:
    body, key = hasty.pharmacy.consultation(practice=INBOX_PRACTICE), str(uuid4())
    content = json.dumps(body).encode()
    async with Poster(hasty) as poster:
        (before,) = ask(hasty, "SELECT count(*) FROM message WHERE kind = 'update'")[0]
        with closing(sqlite3.connect(database(hasty), isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")  # it cannot be answered meanwhile
            host, port = hasty.url.removeprefix("http://").split(":")
            _, writer = await asyncio.open_connection(host, int(port))
            headers = {
                "Host": f"{host}:{port}",
                "Content-Length": str(len(content)),
                **poster.headers(key),
            }
            head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
            writer.write(f"POST {hasty.pharmacy.door} HTTP/1.1\r\n{head}\r\n".encode() + content)
            await writer.drain()
            await asyncio.sleep(0.2)  # a head start; what counts is waited for below
            ends = asyncio.get_running_loop().time() + 4.0
            probe = {"reference": body["reference"]}  # refused, unless the key is being worked on
            answer = await poster.post(probe, key)
            while answer.status_code != 425 and asyncio.get_running_loop().time() < ends:
                await asyncio.sleep(0.05)
                answer = await poster.post(probe, key)
            assert answer.status_code == 425, answer.text
            writer.close()
            await writer.wait_closed()
            other.execute("ROLLBACK")
        await seen(
            hasty,
            "SELECT count(*) FROM message WHERE kind = 'update'",
            is_right=lambda rows: rows[0][0] == before + 1,
        )
        again = await poster.post(body, key)
        assert again.status_code == 202
    assert ask(hasty, "SELECT count(*) FROM message WHERE kind = 'update'") == [(before + 1,)]
    await demand_nothing_wrong_in(hasty)
