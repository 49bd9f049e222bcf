"""A running broker that tests call as its users do: the whole application, through every door.

    place = Place(folder)
    await place.start()
    sent = await place.of("FPH01").post("/pharmacy/consultations", consultation())
    row = await place.of("G99001").take(first(sent)["id"])
    await place.stop()

It runs in this process, so that a test may also look into the database and move deadlines back. The
journeys in `test_journeys.py` go over real HTTP to a process of its own.
"""

import asyncio
import copy
import json
import time
from collections import namedtuple
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from importlib.resources import files
from itertools import count
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx2
from joserfc.jwk import ECKey
from sqlalchemy import Connection, text, update

from adapters.pharmacy import ADAPTER as PHARMACY
from adapters.pillars.optometry.door import REFERRALS as OPTOMETRY
from broker import registry
from broker.access import scopes
from broker.api.app import create_app
from broker.assertion import ASSERTION_TYPE, signed_assertion
from broker.directory_file import parse
from broker.dispatch import GROUP
from broker.errors import ANSWERS
from broker.events import uuid7
from broker.log_kafka import topics
from broker.log_kafka.connection import connection
from broker.main import Broker
from broker.parts import parts_of
from broker.settings import Settings
from broker.store import clients, directory, ledger
from broker.store import tables as t
from broker.store.tx import Tx
from broker.vault import FileKeyRing
from sandbox import arrival
from sandbox.process import free_port
from tests import composed

Body = dict[str, Any]
Row = Mapping[str, Any]
BASE = "http://broker.test"
FHIR = "application/fhir+json"
BROKER = "https://fhir.nhs.uk/Id/ers-dos-service-id|1"
PATIENCE = 10.0
EVERYTHING = tuple(scopes(registry.doors()))
EXAMPLE = (files("sandbox") / "directory.yaml").read_text(encoding="utf-8")
# Two more that tests put into a directory of their own.
CALLERS = (*parse(EXAMPLE).organisations, "FPH02", "TPX02")
_RENEW_AFTER = 200.0
_references = count(1)


class Place:
    """One broker. `of(ODS)` is a system that may act for that organisation, with every scope."""

    def __init__(
        self, folder: Path, base: str = BASE, backing: Mapping[str, Any] | None = None
    ) -> None:
        self.folder = folder
        self.base = base
        self.settings = Settings(
            **(backing or {}),
            data_dir=folder / "data",
            keys_dir=folder / "keys",
            public_url=base,
            allow_plain_http=True,
            send_timeout=2.0,
            bars_target=BROKER,
        )
        self.app = create_app(self.settings, parts_of("all", self.settings))
        self.http = httpx2.AsyncClient(
            transport=httpx2.ASGITransport(self.app),
            base_url=base,
            timeout=30.0,
            event_hooks={"response": [partial(composed.keep, folder)]},
        )
        self.webhook_port = free_port()  # nothing listens there
        self.directory_text = EXAMPLE.replace("127.0.0.1:9902", f"127.0.0.1:{self.webhook_port}")
        self._key = ECKey.generate_key("P-384")
        self._callers: dict[tuple[str, tuple[str, ...]], Caller] = {}
        self._stop = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def broker(self) -> Broker:
        found: Broker = self.app.state.broker
        return found

    async def start(self) -> None:
        """Open the broker; every caller is registered and the example directory is loaded."""
        if not self.settings.is_embedded:
            FileKeyRing.create(self.settings.ring_path)
        if self.settings.has_kafka:
            await topics.create(connection(self.settings), topics.wanted(self.settings))
        ready = asyncio.Event()

        async def run() -> None:  # a task of its own: entered and left in the same one
            async with self.app.router.lifespan_context(self.app):
                ready.set()
                await self._stop.wait()

        self._task = asyncio.create_task(run())
        opened = asyncio.create_task(ready.wait())
        await asyncio.wait({self._task, opened}, return_when=asyncio.FIRST_COMPLETED)
        if self._task.done():
            opened.cancel()
            self._task.result()

        def write(tx: Tx) -> None:
            directory.replace(tx, parse(self.directory_text))
            self._register(tx, "acceptance", EVERYTHING)
            secret_id = uuid7()
            sealed = self.broker.vault.seal_secret(b"a webhook's secret of 32 bytes..", secret_id)
            clients.put_secret(tx, secret_id, "G99002", *sealed)

        await self.broker.store.write(write)

    async def stop(self) -> None:
        """Let the broker end in order."""
        self._stop.set()
        if self._task is not None:
            await self._task
        await self.http.aclose()

    # -- callers ---------------------------------------------------------------------------------

    def _register(self, tx: Tx, client: str, scopes: Iterable[str]) -> None:
        clients.put(tx, client, "Acceptance tests", ["ES384"], list(scopes))
        clients.put_key(tx, client, "k1", dict(self._key.as_dict(private=False)))
        for ods in CALLERS:
            clients.put_grant(tx, client, ods)

    def of(self, ods: str) -> "Caller":
        """Return a system of this organisation that has every scope."""
        return self._callers.setdefault((ods, ()), Caller(self, ods, "acceptance"))

    async def with_scopes(self, ods: str, scopes: Iterable[str]) -> "Caller":
        """Return a system of this organisation that has these scopes only."""
        held = tuple(sorted(scopes))
        if (ods, held) not in self._callers:
            client = f"limited-{uuid4().hex[:12]}"
            await self.broker.store.write(lambda tx: self._register(tx, client, held))
            self._callers[ods, held] = Caller(self, ods, client)
        return self._callers[ods, held]

    async def token(self, ods: str, client: str) -> str:
        """Return an access token, got the way every client gets one."""
        assertion = signed_assertion(
            self._key.as_pem(private=True), client, f"{self.base}/oauth2/token", ods, "ES384", "k1"
        )
        answer = await self.http.post(
            "/oauth2/token",
            data={
                "grant_type": "client_credentials",
                "client_assertion_type": ASSERTION_TYPE,
                "client_assertion": assertion,
            },
        )
        assert answer.status_code == 200, answer.text
        found: str = answer.json()["access_token"]
        return found

    # -- behind the counter ----------------------------------------------------------------------

    async def rows(self, sql: str, **values: Any) -> list[Any]:
        """Return what stands in the database."""

        def read(connection: Connection) -> list[Any]:
            found = connection.execute(text(sql), values)
            row = namedtuple("row", found.keys(), rename=True)  # type: ignore[misc]
            return [row(*map(_as_text, one)) for one in found]

        return await self.broker.store.read(read)

    async def move_deadline_back(self, message: str, *kinds: str) -> None:
        """Let deadlines of a message have passed a minute ago, and let the broker look."""
        past = datetime.now(UTC) - timedelta(minutes=1)

        def write(tx: Tx) -> None:
            d = t.deadline.c
            chosen = update(t.deadline).where(d.message_id == message, d.cleared_at.is_(None))
            if kinds:
                chosen = chosen.where(d.kind.in_(kinds))
            assert tx.execute(chosen.values(due_at=past)).rowcount

        await self.broker.store.write(write)
        self.broker.wake()

    async def accepted_at(self, message: str, moment: datetime) -> None:
        """Let a message have been accepted at another time."""
        chosen = update(t.message).where(t.message.c.id == message).values(accepted_at=moment)
        await self.broker.store.write(lambda tx: tx.execute(chosen))

    async def settled(self) -> None:
        """Wait until everything that was accepted stands in the inboxes of its destinations."""

        def look(connection: Connection) -> bool:
            return ledger.cursor(connection, GROUP) == ledger.head(connection)

        await eventually(lambda: self.broker.store.read(look))

    @asynccontextmanager
    async def directory(self, *changes: tuple[str, str]) -> AsyncIterator[None]:
        """Have another directory in force for a while: the example with these replacements. What
        was sent before has gone where the one before says."""
        await self.settled()
        changed = self.directory_text
        for old, new in changes:
            assert old in changed, old
            changed = changed.replace(old, new)
        await self.broker.store.write(lambda tx: directory.replace(tx, parse(changed)))
        try:
            yield
        finally:
            original = parse(self.directory_text)
            await self.broker.store.write(lambda tx: directory.replace(tx, original))


def _as_text(value: Any) -> Any:
    """Return an id as every row of ours has it: PostgreSQL's driver makes UUIDs of them."""
    return str(value) if isinstance(value, UUID) else value


class Caller:
    """A system that acts for one organisation."""

    def __init__(self, place: Place, ods: str, client: str) -> None:
        self.place = place
        self.ods = ods
        self.client = client
        self._token = ""
        self._renew_at = 0.0

    async def call(self, method: str, path: str, **given: Any) -> httpx2.Response:
        """Call any door, signed in."""
        if time.monotonic() >= self._renew_at:
            self._token = await self.place.token(self.ods, self.client)
            self._renew_at = time.monotonic() + _RENEW_AFTER
        headers = {"authorization": f"Bearer {self._token}", **given.pop("headers", {})}
        return await self.place.http.request(method, path, headers=headers, **given)

    async def get(self, path: str, **parameters: Any) -> httpx2.Response:
        # None, because {} would take the query out of a path that has one.
        return await self.call("GET", path, params=parameters or None)

    async def post(
        self,
        path: str,
        body: Any = None,
        *,
        key: str | None = None,
        if_match: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx2.Response:
        """Post a body (a dict as JSON, bytes as they are), under a new key unless one is given."""
        return await self._send("POST", path, body, key or str(uuid4()), if_match, headers)

    async def put(self, path: str, body: Any, *, if_match: str | None = None) -> httpx2.Response:
        return await self._send("PUT", path, body, None, if_match, None)

    async def _send(
        self,
        method: str,
        path: str,
        body: Any,
        key: str | None,
        if_match: str | None,
        more: Mapping[str, str] | None,
    ) -> httpx2.Response:
        headers: dict[str, str] = {}
        if body is not None:
            headers["content-type"] = "application/json"
        if key is not None:
            headers["idempotency-key"] = key
        if if_match is not None:
            headers["if-match"] = if_match
        content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        return await self.call(method, path, content=content, headers={**headers, **(more or {})})

    # -- sending ---------------------------------------------------------------------------------

    async def submit(self, body: Body) -> Body:
        """Post a body at the door that it is for; it is taken."""
        door = PHARMACY.door if "service" in body else OPTOMETRY.door
        return taken(await self.post(door, body))

    async def tracked(self, message: str) -> Body:
        """Return what this organisation is shown of a message."""
        return taken(await self.get(f"/messages/{message}"), 200)

    async def etag(self, path: str) -> str:
        answer = await self.get(path)
        assert answer.status_code == 200, answer.text
        found: str = answer.headers["etag"]
        return found

    async def overdue(self, message: str) -> set[str]:
        """Return the codes of what stands on this organisation's list about a message."""
        items = taken(await self.get("/overdue", limit=500), 200)["items"]
        return {one["code"] for one in items if one["message"] == message}

    # -- receiving -------------------------------------------------------------------------------

    async def inbox(self, state: str = "all") -> list[Body]:
        """Return everything that stands in the inbox."""
        rows: list[Body] = []
        after: str | None = ""
        while after is not None:
            page = taken(await self.get("/inbox", state=state, limit=200, after=after), 200)
            rows += page["deliveries"]
            after = page["next"]
        return rows

    async def arrived(self, message: str) -> Body:
        """Return the row of a message once it stands in the inbox."""

        async def look() -> Body | None:
            return next((row for row in await self.inbox() if row["message"] == message), None)

        return await eventually(look)

    async def receipt(self, row: Row, **changes: str) -> httpx2.Response:
        said = {"delivery": row["id"], "digest": row["digest"], "ods": self.ods} | changes
        return await self.put(f"/inbox/{row['id']}/receipt", said)

    async def take(self, message: str) -> Body:
        """Wait for a message and confirm that it is stored."""
        row = await self.arrived(message)
        taken(await self.receipt(row), 200)
        return row

    async def collect(self, row: Row) -> arrival.Arrival:
        """Collect a delivery and read it."""
        answer = await self.get(f"/inbox/{row['id']}")
        assert answer.status_code == 200, answer.text
        return arrival.read(row["id"], row["kind"], "inbox", answer.content)

    async def decide(self, row: Row, **said: str) -> httpx2.Response:
        return await self.put(f"/inbox/{row['id']}/acknowledgement", said)

    async def heard(self, about: str, topic: str) -> arrival.Arrival:
        """Return the notice that tells this of a message, once it stands in the inbox."""

        async def look() -> arrival.Arrival | None:
            for row in await self.inbox():
                if row["kind"] == "notice":
                    found = await self.collect(row)
                    if (found.about, found.topic) == (about, topic):
                        return found
            return None

        return await eventually(look)

    async def notices(self, about: str) -> list[str]:
        """Return the topics of every notice about a message, once all is delivered."""
        await self.place.settled()
        found = [await self.collect(r) for r in await self.inbox() if r["kind"] == "notice"]
        return [one.topic for one in found if one.about == about]

    # -- referrals -------------------------------------------------------------------------------

    async def move(
        self, referral: str, move: str, body: Body | None = None, **given: Any
    ) -> httpx2.Response:
        """Make a move on the version that stands now, unless another `if_match` is given."""
        if "if_match" not in given:
            given["if_match"] = await self.etag(referral)
        return await self.post(f"{referral}/{move}", body, **given)


def taken(answer: httpx2.Response, status: int = 202) -> Body:
    """Return what an answer says, which has this status."""
    assert answer.status_code == status, f"{answer.status_code}: {answer.text}"
    said: Body = answer.json()
    return said


async def eventually(look: Callable[[], Awaitable[Any]], seconds: float = PATIENCE) -> Any:
    """Return the first thing found that is not None and not false, or fail."""
    ends = time.monotonic() + seconds
    while not (found := await look()):
        assert time.monotonic() < ends, "it did not happen in time"
        await asyncio.sleep(0.01)
    return found


# -- bodies --------------------------------------------------------------------------------------


def consultation(example: str = "uncomplicated-uti", **changes: Any) -> Body:
    """Return a consultation that has just ended: an example with a new reference.

    `practice` may be an ODS code; `family` is the patient's family name; a field that is None is
    left out.
    """
    return _drawn_up(PHARMACY.examples[example], {"clinical_time": _now(), **changes})


def reading(systolic: int, diastolic: int, method: str = "clinic", **changes: Any) -> Body:
    """Return a pressure check that found this, and says nothing more that would ask for action."""
    found = {"method": method, "systolic": systolic, "diastolic": diastolic, "unit": "mm[Hg]"}
    said = {
        "blood_pressures": [found],
        "pulse": None,
        "abpm_declined": None,
        "acute_symptoms": False,
        "fainting_or_falls": False,
        "outcome": "advice-only",
        "urgency": None,
        "plan": None,
        "practice": "G99001",
    }
    return consultation("blood-pressure-check", **{**said, **changes})


def referral(example: str = "cataract", **changes: Any) -> Body:
    """Return a referral after a sight test that was just done."""
    return _drawn_up(OPTOMETRY.examples[example], {"date_of_sight_test": _now(), **changes})


def _drawn_up(example: Mapping[str, Any], changes: Mapping[str, Any]) -> Body:
    body: Body = copy.deepcopy(dict(example))
    body["reference"] = f"T-{next(_references):06}"
    given = dict(changes)
    if isinstance(given.get("practice"), str):
        given["practice"] = {"ods": given["practice"]}
    if "family" in given:
        body["patient"]["name"] = {**body["patient"]["name"], "family": given.pop("family")}
    body |= given
    return {name: value for name, value in body.items() if value is not None}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def first(answer: Body, kind: str = "update") -> Body:
    """Return the message of this kind in an answer."""
    found: Body = next(one for one in answer["messages"] if one["kind"] == kind)
    return found


def warned(answer: Body) -> list[str]:
    """Return what the sender is warned of, but that others of these tests told of the same patient
    too."""
    codes = [one["code"] for one in answer["warnings"]]
    return [code for code in codes if code != "similar-message"]


def kinds(answer: Body) -> list[str]:
    return [one["kind"] for one in answer["messages"]]


def by(message: Body, kind: str) -> datetime:
    """Return when a deadline of a message passes."""
    return datetime.fromisoformat(
        next(one["by"] for one in message["deadlines"] if one["kind"] == kind)
    )


def problem(answer: httpx2.Response, status: int, code: str) -> Body:
    """Return the problem that an answer tells, which has this status and code.

    A FHIR door tells it as an OperationOutcome; what that says is returned as its detail.
    """
    assert answer.status_code == status, f"{answer.status_code}: {answer.text}"
    if answer.headers["content-type"] == FHIR:
        (first, *_) = answer.json()["issue"]
        assert first["details"]["coding"][0]["code"] == ANSWERS[code].nhs_code, answer.text
        return {"detail": first["diagnostics"]}
    assert answer.headers["content-type"] == "application/problem+json"
    said: Body = answer.json()
    assert (said["status"], said["code"]) == (status, code), said
    return said
