"""`referral-broker partner`: whose systems may call, for whom, and with which keys and secrets."""

import base64
import binascii
import secrets
import sys
from datetime import UTC, date, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from broker import registry
from broker.access import scopes
from broker.audit import Entry
from broker.commands import keys, registering, showing
from broker.commands.opening import Opened, actor, opened
from broker.commands.registering import Registration
from broker.commands.showing import AsJson
from broker.directory import Directory
from broker.errors import NotFound, Problem, Refused
from broker.events import uuid7
from broker.store import clients
from broker.store import directory as stored
from broker.store.tx import Tx

HELP: Final = """Register partners' systems, their keys, and the organisations they act for.

[bold]Examples[/bold]

  referral-broker partner new-key ~/pharmasys
  referral-broker partner add pharmasys --name "PharmaSys" --organisation FPH01
    --scope pharmacy:submit --scope inbox:read --key ~/pharmasys/public.pem
  referral-broker partner grant pharmasys FPH02 --until 2027-03-31
  referral-broker partner key --webhook G99002
"""
IMPORT_HELP: Final = """Register many partners from a CSV file: all, or none if a line is wrong.

The first line names the columns:

  [bold]client[/bold]         the client id, as its assertions name it (required)
  [bold]organisations[/bold]  ODS codes it may act for, with spaces between (required)
  [bold]name[/bold]           what a person calls it
  [bold]scopes[/bold]         what it may do, with spaces between (a new client needs some)
  [bold]algorithms[/bold]     what it may sign with; empty: what its key can
  [bold]key[/bold]            a file with its public key, PEM or JWK, from the CSV's folder
  [bold]kid[/bold]            the key's id; empty: the JWK's own, or the thumbprint

A client may stand on several lines, whose organisations and keys add up.
One that is registered already keeps what it has.
"""
LEAST_SECRET: Final = 24
MOST_SECRET: Final = 64
PREFIX: Final = "whsec_"

app = typer.Typer(help=HELP, no_args_is_help=True)


class Algorithm(StrEnum):
    """What an assertion may be signed with."""

    ES384 = "ES384"
    RS384 = "RS384"
    RS512 = "RS512"


Client = Annotated[str, typer.Argument(help="The client id, as its assertions name it.")]
Organisations = Annotated[
    list[str], typer.Option("--organisation", help="An ODS code it may act for; may be repeated.")
]
Scopes = Annotated[
    list[str],
    typer.Option(
        "--scope",
        metavar="SCOPE",
        help="Something it may do; may be repeated. There are: "
        f"{', '.join(scopes(registry.doors()))}.",
    ),
]
Algorithms = Annotated[
    list[Algorithm] | None,
    typer.Option(
        "--alg",
        metavar="ALG",
        help="What it may sign with: ES384, RS384 or RS512; by default what its key can.",
    ),
]
Kid = Annotated[
    str | None,
    typer.Option("--kid", help="The key's id; by default the JWK's own, else its thumbprint."),
]


@app.command()
def add(
    client: Client,
    *,
    name: Annotated[str, typer.Option("--name", help="What a person calls it.")],
    organisation: Organisations,
    scope: Scopes,
    alg: Algorithms = None,
    key: Annotated[
        Path | None, typer.Option("--key", help="Its public key: a file, PEM or JWK.")
    ] = None,
    kid: Kid = None,
) -> None:
    """Register a client with the organisations it may act for and what it may do."""
    asked = Registration(
        client=client,
        name=name,
        organisations=organisation,
        scopes=scope,
        algorithms=[one.value for one in alg or []],
        keys=[keys.read_public(key, kid)] if key is not None else [],
    )
    with opened() as broker:
        wrong = registering.problems(asked, _directory(broker)) + registering.key_problems(asked)
        if wrong:
            raise Refused(f"{client} cannot be registered; nothing was changed.", wrong)
        broker.write(lambda tx: registering.add(tx, asked, actor()))
    showing.say(f"{client} is registered for {', '.join(organisation)}.")
    if not asked.keys:
        showing.say(f"It has no key yet: referral-broker partner key {client} FILE adds one.")
    for one in asked.keys:
        showing.say(f"Its key id (kid) is {one.kid}.")


@app.command("import", help=IMPORT_HELP)
def import_(file: Annotated[Path, typer.Argument(help="The CSV file, in UTF-8.")]) -> None:
    """Register many partners from a CSV file: all, or none if a line is wrong."""
    with opened() as broker:
        known = {
            row.id for row in broker.store.read_now(clients.listing) if row.disabled_at is None
        }
        asked = registering.read_csv(file, _directory(broker), known)

        def put(tx: Tx) -> None:
            for one in asked:
                registering.put(tx, one, actor())

        broker.write(put)
    count = "1 client" if len(asked) == 1 else f"{len(asked)} clients"
    showing.say(f"{count} imported.")


@app.command()
def grant(
    client: Client,
    ods: Annotated[str, typer.Argument(help="The organisation's ODS code.")],
    *,
    until: Annotated[
        datetime | None,
        typer.Option("--until", formats=["%Y-%m-%d"], help="Its last day; by default no end."),
    ] = None,
) -> None:
    """Let a client act for one more organisation, or change until when it may."""
    last = until.date() if until is not None else None
    ends = registering.until_end_of(last) if last is not None else None

    def put(tx: Tx) -> None:
        registering.demand_client(tx, client)
        registering.grant(tx, client, ods, ends, actor())

    with opened() as broker:
        wrong = registering.organisation_problems([ods], _directory(broker))
        if wrong:
            raise Refused("The grant cannot be made; nothing was changed.", wrong)
        broker.write(put)
    showing.say(f"{client} may act for {ods}{_until(last)}.")


def _until(last: date | None) -> str:
    return f" until the end of {last}" if last is not None else ""


@app.command()
def revoke(
    client: Client,
    *,
    organisation: Annotated[
        str | None, typer.Option("--organisation", help="Only the grant to act for this one.")
    ] = None,
    key: Annotated[str | None, typer.Option("--key", help="Only the key with this id.")] = None,
) -> None:
    """Withdraw a grant or a key, or with neither option shut the client out; at once."""

    def put(tx: Tx) -> str:
        registering.demand_client(tx, client)
        if organisation is not None and key is not None:
            raise Refused("Name an organisation or a key, one at a time; nothing was changed.")
        if organisation is not None:
            done = clients.revoke_grant(tx, client, organisation)
            action, facts, what = "grant.revoked", {}, f"act for {organisation}"
        elif key is not None:
            done = clients.revoke_key(tx, client, key)
            action, facts, what = "client-key.revoked", {"kid": key}, f"sign in with {key}"
        else:
            done = clients.disable(tx, client)
            action, facts, what = "client.disabled", {}, "call at all"
        if not done:
            raise NotFound(f"{client} could not {what} anyway; nothing was changed.")
        tx.audit(Entry(action, actor(), organisation or "", "client", client, facts))
        return what

    with opened() as broker:
        what = broker.write(put)
    showing.say(f"{client} may no longer {what}.")


@app.command()
def key(
    client: Annotated[str | None, typer.Argument(help="The client id.")] = None,
    file: Annotated[Path | None, typer.Argument(help="Its public key, PEM or JWK.")] = None,
    *,
    webhook: Annotated[
        str | None,
        typer.Option("--webhook", metavar="ODS", help="Make the secret of this one's webhooks."),
    ] = None,
    stdin: Annotated[
        bool, typer.Option("--stdin", help="Take that secret (whsec_…) from standard input.")
    ] = False,
    as_json: AsJson = False,
    kid: Kid = None,
    alg: Annotated[
        list[Algorithm] | None,
        typer.Option("--alg", metavar="ALG", help="Let the client sign with this one too."),
    ] = None,
) -> None:
    """Add a public key to a client, or make the secret that signs an organisation's webhooks.

    Keys that a client has stay valid until they are revoked. A secret is shown once and kept
    sealed; the one before it stays valid until the next, so give the new one to the organisation
    and make another only when it has it.
    """
    if webhook is not None and client is None:
        _make_secret(webhook, stdin=stdin, as_json=as_json)
        return
    if client is None or file is None or webhook is not None:
        raise typer.BadParameter("Name a client and the file of its key, or --webhook ODS alone.")
    found = keys.read_public(file, kid)

    def put(tx: Tx) -> None:
        row = registering.demand_client(tx, client)
        if alg:
            more = sorted({*row.algorithms, *(one.value for one in alg)})
            clients.put(tx, client, row.name, more, list(row.scopes))
            facts = {"scopes": " ".join(row.scopes), "algorithms": " ".join(more)}
            tx.audit(Entry("client.changed", actor(), "", "client", client, facts))
        registering.put_key(tx, client, found, actor())

    with opened() as broker:
        broker.write(put)
    showing.say(f"{client} may sign in with the key {found.kid}.")


@app.command("new-key")
def new_key(
    folder: Annotated[Path, typer.Argument(help="Where to put private.pem and public.pem.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Make a pair of keys (ES384): the partner keeps the private one, the broker gets the other."""
    private, public, kid = keys.new_pair(folder)
    if as_json:
        showing.as_json({"private": str(private), "public": str(public), "kid": kid})
        return
    showing.say(f"{private} is the private key: only its owner can read it, and only he may.")
    showing.say(f"{public} is the public key, to be registered with the broker.")
    showing.say(f"The key id (kid) is {kid}.")


def _make_secret(ods: str, *, stdin: bool, as_json: bool) -> None:
    raw = _read_secret(sys.stdin.readline()) if stdin else secrets.token_bytes(32)
    secret_id = uuid7()
    with opened() as broker:
        wrong = registering.organisation_problems([ods], _directory(broker))
        if wrong:
            raise Refused("No secret was made.", wrong)
        kek_id, sealed = broker.vault().seal_secret(raw, secret_id)

        def put(tx: Tx) -> None:
            clients.put_secret(tx, secret_id, ods, kek_id, sealed)
            tx.audit(Entry("webhook-secret.added", actor(), ods, "organisation", ods))

        broker.write(put)
    said: dict[str, Any] = {"organisation": ods, "id": secret_id}
    shown = None if stdin else PREFIX + base64.b64encode(raw).decode("ascii")
    if as_json:
        showing.as_json(said | ({"secret": shown} if shown else {}))
        return
    if shown:
        showing.say(shown)
        showing.warn("This secret is shown once only: give it to the organisation by a safe way.")
    showing.warn(f"Webhooks to {ods} are signed with it from now on, and with the one before it.")


def _read_secret(text: str) -> bytes:
    """Return the bytes of a Standard Webhooks secret. What is wrong with it is said without it."""
    encoded = text.strip().removeprefix(PREFIX)
    try:
        raw = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if not text.startswith(PREFIX) or not LEAST_SECRET <= len(raw) <= MOST_SECRET:
        detail = f"It is {PREFIX} and {LEAST_SECRET} to {MOST_SECRET} bytes in base64."
        raise Refused("This is not a secret for webhooks.", [Problem("secret", "invalid", detail)])
    return raw


@app.command("list")
def list_(*, as_json: AsJson = False) -> None:
    """List every client with the organisations it may act for now, its keys and its scopes."""
    now = datetime.now(UTC)
    with opened() as broker:
        found = broker.store.read_now(
            lambda connection: [
                {
                    "client": row.id,
                    "name": row.name,
                    "organisations": clients.granted(connection, row.id, now),
                    "scopes": sorted(row.scopes),
                    "algorithms": sorted(row.algorithms),
                    "keys": sorted(clients.keys(connection, row.id)),
                    "disabled_at": row.disabled_at,
                }
                for row in clients.listing(connection)
            ]
        )
    if as_json:
        showing.as_json(found)
        return
    columns = ("client", "name", "organisations", "scopes", "algorithms", "keys")
    showing.table(
        (*columns, "shut out"),
        [[*(one[name] for name in columns), one["disabled_at"]] for one in found],
        empty="No client is registered. Run: referral-broker partner add --help",
    )


def _directory(broker: Opened) -> Directory:
    _, found = broker.store.read_now(stored.load)
    return found
