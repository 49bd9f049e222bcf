"""`referral-broker check`: whether a broker could serve here, and how to mend what is wrong."""

import ipaddress
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from broker import choosing, pausing, registry, settings
from broker.addresses import UrlRefused, is_address, read_url, why_refused
from broker.commands import showing
from broker.commands.opening import demand_database
from broker.directory import Directory
from broker.errors import BrokerError
from broker.events import Destination
from broker.settings import Settings
from broker.store import clients, pauses, schema
from broker.store import directory as stored
from broker.store.store import Store
from broker.vault import RingProblem

MOST_NAMED: Final = 8
MEBIBYTE: Final = 1 << 20
LEAST_FREE: Final = 64


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found; `fail` is what keeps the broker from working, `warn` what may."""

    check: str
    state: Literal["ok", "warn", "fail"]
    found: str
    mend: str = ""


def check() -> Iterator[Finding]:
    """Yield every finding. Changes nothing; what hangs on something that failed is left out."""
    try:
        registry.load()
        for load in registry.commands().values():
            load()
        yield Finding("registry", "ok", "Every adapter, consumer and command fits.")
    except BrokerError as error:
        yield Finding("registry", "fail", str(error))
    try:
        found = settings.load()
    except BrokerError as error:
        yield Finding("settings", "fail", str(error), "Mend the environment.")
        return
    yield from _settings(found)
    try:
        demand_database(found)
        store = Store(found.store_url)
    except BrokerError as error:
        yield Finding("database", "fail", str(error))
        return
    try:
        yield Finding("database", "ok", "What it commits survives a loss of power.")
        if found.is_embedded:
            yield _disk(found)
        try:
            schema.check(store.writer)
        except BrokerError as error:
            yield Finding("schema", "fail", str(error), "referral-broker migrate")
            return
        yield Finding("schema", "ok", f"At {schema.current(store.writer)}.")
        yield _ring(found, store)
        yield from _paused(store)
        yield from _partners(found, store)
    finally:
        store.close()


def _settings(found: Settings) -> Iterator[Finding]:
    before = []
    if not found.public_url and not _is_local(found.host):
        before.append(("BROKER_PUBLIC_URL is empty.", "Set it to the URL that partners call."))
    public = urlsplit(found.public_url)
    if public.scheme == "http" and not _is_local(public.hostname or ""):
        before.append(("BROKER_PUBLIC_URL is not https.", "Put TLS in front of the broker."))
    if found.allow_plain_http:
        before.append(("Webhooks may go unencrypted.", "Unset BROKER_ALLOW_PLAIN_HTTP."))
    if found.is_embedded and found.keys_dir.resolve().is_relative_to(found.data_dir.resolve()):
        before.append(
            ("The keys lie with what they seal.", "Set BROKER_KEYS_DIR outside BROKER_DATA_DIR.")
        )
    for what, mend in before:
        yield Finding("settings", "warn", what, mend)
    if not before:
        yield Finding("settings", "ok", "Every BROKER_… variable is known and in its range.")


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _disk(found: Settings) -> Finding:
    free = shutil.disk_usage(found.data_dir).free // MEBIBYTE
    said = f"{free} MiB are free in {found.data_dir}."
    if free < LEAST_FREE:
        mend = "Make room: once it is full, every message is refused."
        return Finding("disk", "fail", said, mend)
    return Finding("disk", "ok", said)


def _ring(found: Settings, store: Store) -> Finding:
    from broker.opening import prove_ring, ring_checks

    sealed_with = ring_checks(store)
    if not found.ring_path.exists() and not sealed_with and found.is_embedded:
        return Finding("key ring", "warn", "There is none yet.", "The first serve makes it.")
    try:
        prove_ring(found.ring_path, sealed_with)
    except RingProblem as error:
        return Finding("key ring", "fail", str(error), "Restore it from its backup.")
    return Finding("key ring", "ok", "It holds every key that the data was sealed with.")


def _paused(store: Store) -> Iterator[Finding]:
    for one in store.read_now(pausing.listing):
        said = f"Nothing is attempted at {one.where}, since {showing.words(one.since)}. {one.words}"
        mend = f"referral-broker endpoints resume {one.to}"
        if one.to == pauses.EVERYWHERE:
            mend = "referral-broker restore reconcile, then restore go"
        yield Finding("paused", "warn", said, mend)


def _partners(found: Settings, store: Store) -> Iterator[Finding]:
    now = datetime.now(UTC)

    def read(connection: Any) -> tuple[Any, ...]:
        version, directory = stored.load(connection)
        callers = {
            row.id: (clients.keys(connection, row.id), clients.granted(connection, row.id, now))
            for row in clients.listing(connection)
            if row.disabled_at is None
        }
        return version, directory, callers, _without_secret(connection, directory)

    version, directory, callers, without_secret = store.read_now(read)
    if version:
        count = len(directory.organisations)
        yield Finding("directory", "ok", f"Version {version}, {count} organisations.")
        yield from _ways_out(found, directory, without_secret)
        yield _all(
            Finding(
                "services",
                "warn",
                "No new referral is taken by",
                "Once they take them, load a directory without their closure or pause.",
            ),
            [
                service.code
                for service in directory.entries.services
                if choosing.shut(service.destination, directory, now) is not None
            ],
        )
    else:
        mend = "referral-broker directory load FILE"
        yield Finding("directory", "fail", "None is loaded.", mend)
    if not callers:
        yield Finding("clients", "warn", "None is registered.", "referral-broker partner add …")
        return
    yield _all(
        Finding(
            "client keys", "warn", "Without a key is", "referral-broker partner key CLIENT FILE"
        ),
        [client for client, (held, _) in callers.items() if not held],
    )
    yield _all(
        Finding(
            "client grants",
            "warn",
            "For nobody may act",
            "referral-broker partner grant CLIENT ODS",
        ),
        [client for client, (_, granted) in callers.items() if not granted],
    )
    if version:
        granted = {ods for _, organisations in callers.values() for ods in organisations}
        yield _all(
            Finding(
                "client organisations",
                "warn",
                "Granted, but not in the directory, is",
                "Load a directory that has them, or revoke the grants.",
            ),
            sorted(granted - directory.organisations.keys()),
        )


def _ways_out(
    found: Settings, directory: Directory, without_secret: Sequence[str]
) -> Iterator[Finding]:
    yield _all(
        Finding(
            "endpoints",
            "warn",
            "Nothing can be sent to",
            "Name an endpoint of theirs in the directory, if something is to be.",
        ),
        _unconnected(directory),
    )
    yield _all(
        Finding(
            "addresses",
            "fail",
            "No call is ever made to the URL of",
            "Give it a https:// URL and a public address. On one machine, to try things out: "
            "BROKER_ALLOW_PLAIN_HTTP=true.",
        ),
        _never_called(directory, allow_plain_http=found.allow_plain_http),
    )
    yield _all(
        Finding(
            "webhook secrets",
            "fail",
            "There is no secret to sign the webhooks to",
            "referral-broker partner key --webhook ODS",
        ),
        without_secret,
    )


def _all(wrong: Finding, named: Sequence[str]) -> Finding:
    """Return what is wrong with those who are named, or that all is well with none."""
    if not named:
        return Finding(wrong.check, "ok", "Nothing is missing.")
    shown = ", ".join(named[:MOST_NAMED])
    more = f" and {len(named) - MOST_NAMED} more" if len(named) > MOST_NAMED else ""
    return replace(wrong, found=f"{wrong.found} {shown}{more}.")


def _without_secret(connection: Any, directory: Directory) -> list[str]:
    called = {one.organisation for one in directory.entries.endpoints if one.channel == "webhook"}
    return sorted(ods for ods in called if not clients.secrets(connection, ods))


def _never_called(directory: Directory, *, allow_plain_http: bool) -> list[str]:
    """Return where no call goes for its URLs alone. Nobody is asked where a name leads."""
    return [
        one.key
        for one in directory.entries.endpoints
        if any(
            _is_refused(url, allow_plain_http=allow_plain_http)
            for url in (one.url, one.token_url)
            if url
        )
    ]


def _is_refused(url: str, *, allow_plain_http: bool) -> bool:
    try:
        host = read_url(url, allow_plain_http=allow_plain_http).host
    except UrlRefused:
        return True
    return is_address(host) and why_refused(host, allow_loopback=allow_plain_http) is not None


def _unconnected(directory: Directory) -> list[str]:
    places = [Destination(ods) for ods in directory.organisations if directory.is_open(ods)]
    with_services = {service.organisation for service in directory.entries.services}
    services = [
        one.destination for one in directory.entries.services if directory.is_open(one.organisation)
    ]
    # Of an organisation that is reached by its services, only these must be reached.
    wanted = [place for place in places if place.ods not in with_services] + services
    return [str(place) for place in wanted if not directory.channel(place)]
