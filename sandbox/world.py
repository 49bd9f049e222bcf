"""A whole world on loopback: the broker as a process of its own, and partners that talk to it.

    async with World(folder) as world:
        sent = await world.pharmacy.submit(world.pharmacy.consultation())
        await world.received(sent)              # in the practice's own ledger
        await world.broker.kill()               # kill -9
        await world.broker.start()              # the same database, the same port
        world.practice.ledger.entries("received")

In the folder stand: `data` (database), `keys` (the key ring), `partners/<ODS>/key.pem` and
`ledger.jsonl`, `directory.yaml` as it was loaded, `broker.log`.
"""

import asyncio
import secrets
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from joserfc.jwk import ECKey, RSAKey

from broker.access import Scope, submit_scope
from broker.directory_file import parse
from broker.events import uuid7
from broker.opening import migrate_store, open_ring, open_store
from broker.settings import Settings
from broker.store import clients, directory
from broker.store.tx import Tx
from broker.vault import FileKeyRing, Vault
from sandbox import bars_sentinels
from sandbox.bars_sentinels import SentinelReceiver
from sandbox.client import Client, Identity, Reply
from sandbox.inbox import InboxPartner
from sandbox.ledger import Entry, until
from sandbox.partner import Partner
from sandbox.process import BrokerProcess, NotServing, command, environment, free_port
from sandbox.senders import OptometrySystem, PharmacySystem, PillarSystem
from sandbox.webhook import WebhookPartner

PHARMACY: Final = "FPH01"
OPTOMETRIST: Final = "TPX01"
INBOX_PRACTICE: Final = "G99001"
WEBHOOK_PRACTICE: Final = "G99002"
HOSPITAL: Final = "RXX01"
DENTIST: Final = "V99001"
URGENT_CARE: Final = "Y99011"
URGENT_EYE: Final = "TPX03"
DISCHARGING_HOSPITAL: Final = "RXZ01"
OTHER_HOSPITAL: Final = "RYY01"
_WEBHOOK_IN_FILE: Final = "http://127.0.0.1:9902/inbound"

_EVERYBODY: Final = (
    Scope.BARS,
    Scope.INBOX_READ,
    Scope.INBOX_WRITE,
    Scope.MESSAGES_READ,
    Scope.REFERRALS_READ,
    Scope.REFERRALS_WRITE,
    Scope.DIRECTORY_READ,
    Scope.FHIR_READ,
    Scope.FHIR_WRITE,
    Scope.ATTACHMENTS_READ,
    submit_scope("communications"),
)


@dataclass(frozen=True, slots=True)
class Registration:
    """A client as the operator of the broker registers it, with one grant."""

    ods: str
    client_id: str
    name: str
    scopes: tuple[str, ...]
    algorithm: str = "ES384"


CAST: Final = (
    Registration(
        PHARMACY,
        "riverside-pharmacy-system",
        "Riverside Pharmacy",
        (submit_scope("pharmacy"), Scope.MESSAGES_WRITE, *_EVERYBODY),
    ),
    Registration(
        OPTOMETRIST,
        "clearview-optometry-system",
        "Clearview Opticians",
        (submit_scope("optometry"), Scope.ATTACHMENTS_WRITE, Scope.MESSAGES_WRITE, *_EVERYBODY),
    ),
    Registration(
        INBOX_PRACTICE,
        "riverside-gp-system",
        "Riverside Medical Practice",
        (submit_scope("general-practice"), *_EVERYBODY),
    ),
    Registration(WEBHOOK_PRACTICE, "hilltop-gp-system", "Hilltop Surgery", _EVERYBODY),
    Registration(HOSPITAL, "northfield-spa-system", "Northfield Hospital", _EVERYBODY, "RS384"),
)
PILLARS: Final = (
    Registration(
        DENTIST,
        "station-road-dental-system",
        "Station Road Dental",
        (submit_scope("dentistry"), Scope.ATTACHMENTS_WRITE, *_EVERYBODY),
    ),
    Registration(
        URGENT_CARE, "aire-111-system", "Aire NHS 111", (submit_scope("urgent-care"), *_EVERYBODY)
    ),
    Registration(
        URGENT_EYE,
        "harbour-optometry-system",
        "Harbour Eye Care",
        (submit_scope("optometry"), *_EVERYBODY),
    ),
    Registration(
        DISCHARGING_HOSPITAL,
        "westgate-hospital-system",
        "Westgate Hospital",
        (submit_scope("secondary-care"), *_EVERYBODY),
    ),
    Registration(OTHER_HOSPITAL, "southmoor-spa-system", "Southmoor Hospital", _EVERYBODY),
)
"""Who joins where every pillar is wanted."""


class World:
    """Everything that the sandbox has, set up from nothing. `async with` starts and ends it.

    `settings` go to the broker (`{"BROKER_SEND_TIMEOUT": "2"}`). `wanted_port` and
    `wanted_webhook_port` are taken where they are free. `starts_partners` False: they are made and
    may send, but receive only once `start()` is called on them. `has_targets`: BaRS's sentinel
    targets stand in the directory, and their receiver listens. `has_pillars`: `PILLARS` are there
    too. `roles` are those of the broker's processes, the first of which answers callers; with more
    than one, or with
    BROKER_DATABASE_URL among the settings, the database must be there, empty; with `migrates`
    False it has a schema already, which stays as it is.
    """

    pharmacy: PharmacySystem
    optometrist: OptometrySystem
    practice: PillarSystem
    webhook_practice: WebhookPartner
    hospital: InboxPartner
    pillars: Mapping[str, PillarSystem]

    def __init__(
        self,
        folder: Path,
        *,
        settings: Mapping[str, str] | None = None,
        wanted_port: int = 0,
        wanted_webhook_port: int = 0,
        send_timeout: float = 5.0,
        patience: float = 60.0,
        starts_partners: bool = True,
        has_targets: bool = False,
        has_pillars: bool = False,
        roles: Sequence[str] = ("all",),
        migrates: bool = True,
    ) -> None:
        self.folder = folder
        self.port = free_port(wanted_port)
        self.url = f"http://127.0.0.1:{self.port}"
        self._webhook_port = wanted_webhook_port
        self._starts_partners = starts_partners
        self._migrates = migrates
        self._cast = (*CAST, *PILLARS) if has_pillars else CAST
        self.pillars = {}
        self.targets = SentinelReceiver() if has_targets else None
        self._send_timeout = send_timeout
        self._patience = patience
        self._secret = secrets.token_bytes(32)
        self._stack = AsyncExitStack()
        self._settings = {
            "BROKER_DATA_DIR": str(folder / "data"),
            "BROKER_KEYS_DIR": str(folder / "keys"),
            "BROKER_ADMIN_PORT": "0",
            "BROKER_PUBLIC_URL": self.url,
            "BROKER_ALLOW_PLAIN_HTTP": "true",
            "BROKER_SEND_TIMEOUT": f"{send_timeout:g}",
            **(settings or {}),
        }
        self.broker = self._process(roles[0], self.port, folder / "broker.log")
        self._others = [
            self._process(role, free_port(), folder / f"{role}-{number}.log")
            for number, role in enumerate(roles[1:], start=2)
        ]

    def _process(self, role: str, port: int, log: Path) -> BrokerProcess:
        """Return a process that is ready where its port says so: its API's, or its metrics'."""
        called = {"all", "api"}
        ports = {"BROKER_PORT" if role in called else "BROKER_ADMIN_PORT": str(port)}
        url = f"http://127.0.0.1:{port}"
        return BrokerProcess(url, {**self._settings, **ports}, log, role=role)

    # -- beginning and end -----------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        try:
            await self._set_up()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._stack.aclose()

    async def _set_up(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        identities = {one.ods: _identity(self.folder, one) for one in self._cast}
        self.pharmacy = PharmacySystem(*self._of(identities[PHARMACY]))
        self.optometrist = OptometrySystem(*self._of(identities[OPTOMETRIST]))
        self.practice = PillarSystem(*self._of(identities[INBOX_PRACTICE]))
        self.webhook_practice = WebhookPartner(
            *self._of(identities[WEBHOOK_PRACTICE]), secret=self._secret, port=self._webhook_port
        )
        self.hospital = InboxPartner(*self._of(identities[HOSPITAL]))
        joined = {one.ods for one in self._cast} - {one.ods for one in CAST}
        self.pillars = {ods: PillarSystem(*self._of(identities[ods])) for ods in sorted(joined)}
        for partner in self.partners:
            partner.late_seconds = self._send_timeout + 2.0
            partner.client.patience = self._patience
        self.webhook_practice.reserve()
        await asyncio.to_thread(self._fill, identities)
        if "BROKER_KAFKA_SERVERS" in self._settings:
            code, said = await self.cli("topics", "create")
            if code != 0:
                raise NotServing(said)
        if self.targets is not None:
            self._stack.push_async_callback(self.targets.stop)
            await self.targets.start()
        for process in self.processes:
            self._stack.push_async_callback(process.stop)
        await asyncio.gather(*(process.start() for process in self.processes))
        for partner in self.partners:
            self._stack.push_async_callback(partner.close)
            if self._starts_partners:
                await partner.start()

    def _of(self, identity: Identity) -> tuple[Identity, str, Path]:
        return identity, self.url, self.partner_folder(identity.organisation) / "ledger.jsonl"

    def _fill(self, identities: Mapping[str, Identity]) -> None:
        """Fill an empty database: directory, clients, keys, grants, the webhook's secret."""
        text = (files("sandbox") / "directory.yaml").read_text(encoding="utf-8")
        text = text.replace(_WEBHOOK_IN_FILE, self.webhook_practice.url)
        if self.targets is not None:
            text = bars_sentinels.joined(text, self.targets.url)
        (self.folder / "directory.yaml").write_text(text, encoding="utf-8")
        settings = Settings(
            data_dir=self.folder / "data",
            keys_dir=self.folder / "keys",
            database_url=self._settings.get("BROKER_DATABASE_URL", ""),
        )
        if not settings.is_embedded:
            FileKeyRing.create(settings.ring_path)
            if self._migrates:
                migrate_store(settings)
        with open_store(settings, migrate=settings.is_embedded) as store:
            vault = Vault(open_ring(settings, store))

            def write(tx: Tx) -> None:
                directory.replace(tx, parse(text))
                for identity in identities.values():
                    register(tx, identity)
                secret_id = uuid7()
                sealed = vault.seal_secret(self._secret, secret_id)
                clients.put_secret(tx, secret_id, WEBHOOK_PRACTICE, *sealed)

            store.write_now(write)

    # -- what it is made of ----------------------------------------------------------------------

    @property
    def database_url(self) -> str:
        """Its database as it was given, by whatever way its processes reach it; empty: SQLite."""
        return self._settings.get("BROKER_DATABASE_URL", "")

    @property
    def processes(self) -> list[BrokerProcess]:
        """Every process of the broker, the one that answers callers first."""
        return [self.broker, *self._others]

    @property
    def partners(self) -> tuple[Partner, ...]:
        """Every partner, senders first."""
        return (
            self.pharmacy,
            self.optometrist,
            self.practice,
            self.webhook_practice,
            self.hospital,
            *self.pillars.values(),
        )

    def partner_folder(self, ods: str) -> Path:
        """Return where a partner's key and ledger are."""
        return self.folder / "partners" / ods

    async def cli(self, *arguments: str, crashpoint: str = "") -> tuple[int, str]:
        """Run a `referral-broker` command on this world's database: (exit code, what it said).

        `crashpoint` as in `BrokerProcess.start`.
        """
        chosen = environment(self.broker.settings)
        if crashpoint:
            chosen["CRASHPOINT"] = crashpoint
        process = await asyncio.create_subprocess_exec(
            *command(*arguments),
            env=chosen,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            cwd=self.folder,
        )
        said, _ = await process.communicate()
        return process.returncode or 0, said.decode(errors="replace")

    # -- comparing ledgers -----------------------------------------------------------------------

    async def received(self, sent: Reply, *by: Partner, seconds: float = 10.0) -> list[Entry]:
        """Return the entry of each receiver (the practice) that stored each message of an answer.

        Empty where one of them has not within that time.
        """
        wanted = [one["id"] for one in sent.json["messages"]]

        def look() -> list[Entry]:
            found = [
                partner.ledger.first("received", message=message)
                for partner in by or (self.practice,)
                for message in wanted
            ]
            return [] if None in found else [one for one in found if one is not None]

        return await until(look, seconds) or []

    def compare(self, references: Iterable[str]) -> "Comparison":
        """Compare what the senders were answered for with what the receivers hold."""
        wanted = set(references)
        answered: dict[str, set[str]] = {}
        for sender in (self.pharmacy, self.optometrist):
            for entry in sender.ledger.entries("ok", status=202):
                if entry.get("reference") in wanted:
                    answered.setdefault(entry["reference"], set()).update(entry["messages"])
        stored: dict[tuple[str, str, str], set[str]] = {}
        messages: set[str] = set()
        again = 0
        for receiver in (self.practice, self.webhook_practice, self.hospital):
            for entry in receiver.ledger.entries("received"):
                if entry.get("reference") in wanted:
                    place = (receiver.ods, entry["kind"], entry["reference"])
                    stored.setdefault(place, set()).add(entry["delivery"])
                messages.add(entry.get("message", ""))
            again += sum(
                entry.get("reference") in wanted
                for entry in receiver.ledger.entries("received-again")
            )
        return Comparison(
            answered=answered,
            unanswered=wanted - answered.keys(),
            lost={one for some in answered.values() for one in some} - messages,
            doubled={place[2] for place, deliveries in stored.items() if len(deliveries) > 1},
            sent_again=again,
        )


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two sides' ledgers, compared. Nothing may be in `unanswered`, `lost` or `doubled`.

    `answered` is the broker's message ids by reference; `sent_again` counts deliveries that came
    over the wire more than once and were recognised: allowed, at least once on the wire.
    """

    answered: Mapping[str, set[str]]
    unanswered: set[str]
    lost: set[str]
    doubled: set[str]
    sent_again: int

    @property
    def is_whole(self) -> bool:
        return not (self.unanswered or self.lost or self.doubled)


def register(tx: Tx, identity: Identity) -> None:
    """Register a client with its public key and a grant for its organisation."""
    key = _kind(identity.algorithm).import_key(identity.key_path.read_bytes())
    public = key.as_dict(private=False)
    clients.put(tx, identity.client_id, identity.name, [identity.algorithm], list(identity.scopes))
    clients.put_key(tx, identity.client_id, identity.kid, dict(public))
    clients.put_grant(tx, identity.client_id, identity.organisation)


def _kind(algorithm: str) -> type[ECKey] | type[RSAKey]:
    return ECKey if algorithm.startswith("ES") else RSAKey


def _identity(folder: Path, one: Registration) -> Identity:
    """Make a client's key pair, or take the one that is there; the private key stays its own."""
    home = folder / "partners" / one.ods
    home.mkdir(parents=True, exist_ok=True)
    path = home / "key.pem"
    kind = _kind(one.algorithm)
    if not path.exists():
        made = RSAKey.generate_key(2048) if kind is RSAKey else ECKey.generate_key("P-384")
        path.touch(mode=0o600)
        path.write_bytes(made.as_pem(private=True))
    key = kind.import_key(path.read_bytes())
    return Identity(
        client_id=one.client_id,
        organisation=one.ods,
        name=one.name,
        key_path=path,
        algorithm=one.algorithm,
        kid=key.thumbprint(),
        scopes=tuple(str(scope) for scope in one.scopes),
    )


def caller(world: World, ods: str) -> Client:
    """Return a client of its own for one of the cast, to call any door with. Close it yourself."""
    one = next(one for one in CAST if one.ods == ods)
    return Client(world.url, _identity(world.folder, one))
