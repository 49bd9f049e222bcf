"""What `demo --serve` prints: who is there, where, with which key, and how to call each door."""

import json
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sandbox import sentinels
from sandbox.partner import Partner
from sandbox.webhook import WebhookPartner
from sandbox.world import World

_JSON: Final = "-H 'Content-Type: application/json'"
_MATCH: Final = '-H "If-Match: $ETAG"'
_RECEIPT: Final = r"{\"delivery\": \"$DELIVERY\", \"digest\": \"$DIGEST\", \"ods\": \"G99001\"}"
_CALLED: Final = {"outcome": "spoke-to-clinician", "note": "Spoke to the duty doctor."}
_COMMANDS: Final = str(Path(sys.executable).parent)
_SETTINGS: Final = (
    "BROKER_DATA_DIR",
    "BROKER_KEYS_DIR",
    "BROKER_PUBLIC_URL",
    "BROKER_ALLOW_PLAIN_HTTP",
)
_NOT_NEEDED: Final = {"reason": "no-longer-needed"}
_REJECTED: Final = {"reason": "criteria-not-met", "advice": "Please repeat the pressures."}


def print_sentinels(console: Console) -> None:
    """Print the whole table of sentinel values."""
    (head, *rows) = sentinels.as_table()
    table = Table(title="Sentinel values", title_justify="left", title_style="bold")
    for column in head:
        table.add_column(column, no_wrap=column == head[0])
    for row in rows:
        table.add_row(*map(escape, row))
    console.print(table)


def print_manual(console: Console, world: World) -> None:
    """Print what runs where, and a copyable command for each door."""
    bodies = _bodies(world)
    console.print(f"\n[bold]The broker serves on {world.url}[/bold] (its API: {world.url}/docs)")
    console.print(f"Everything is in {world.folder}; the broker's log is {world.broker.log_path}.")
    console.print("In another terminal, for what follows and for the operator's commands:")
    console.print(escape(f'export PATH={shlex.quote(_COMMANDS)}:"$PATH"'), highlight=False)
    for name in _SETTINGS:
        console.print(f"export {name}={shlex.quote(world.broker.settings[name])}", highlight=False)
    _print_partners(console, world)
    console.print("\n[bold]How to call each door[/bold] (tokens are good for 5 minutes)")
    for heading, partner, lines in _doors(world, bodies):
        console.print(f"\n[bold]# {escape(heading)}[/bold]")
        console.print(escape(f"TOKEN=$({_token(world, partner)})"), highlight=False)
        for line in lines:
            console.print(escape(line), highlight=False)
    console.print(
        "\nA patient's family name makes the receiver behave: `referral-broker demo --sentinels`."
        "\n[bold]Stop everything with Ctrl-C.[/bold]"
    )


def _print_partners(console: Console, world: World) -> None:
    for partner in world.partners:
        who = partner.identity
        reached = f"called at {partner.url}" if isinstance(partner, WebhookPartner) else "an inbox"
        console.print(f"\n[bold]{escape(who.name)}[/bold] ({who.organisation}, {reached})")
        for name, value in (
            ("client id", who.client_id),
            ("private key", who.key_path),
            ("scopes", " ".join(who.scopes)),
            ("its own ledger", partner.ledger.path),
        ):
            console.print(f"  {name:15}{escape(str(value))}", highlight=False)


def _token(world: World, partner: Partner) -> str:
    who = partner.identity
    return (
        f"referral-broker token {who.client_id} --key {shlex.quote(str(who.key_path))} "
        f"--organisation {who.organisation} --url {world.url}"
    )


def _bodies(world: World) -> dict[str, Path]:
    """Write one body for each posting door into the folder."""
    folder = world.folder / "bodies"
    folder.mkdir(exist_ok=True)
    drawn: dict[str, Any] = {
        "consultation": world.pharmacy.consultation(practice="G99001"),
        "crisis": world.pharmacy.crisis(practice="G99002"),
        "referral": world.optometrist.referral("cataract", practice="G99002"),
    }
    paths = {}
    for name, body in drawn.items():
        paths[name] = folder / f"{name}.json"
        paths[name].write_text(json.dumps(body, indent=1), encoding="utf-8")
    return paths


@dataclass(frozen=True, slots=True)
class _Curl:
    """Draws up curl commands for one broker. `$TOKEN` and the like are set before, as said."""

    url: str

    def __call__(self, method: str, path: str, *rest: str) -> str:
        start = f'curl -sS -X {method} "{self.url}{path}" -H "Authorization: Bearer $TOKEN"'
        return " ".join((start, *rest))

    def post(self, path: str, *rest: str) -> str:
        return self("POST", path, '-H "Idempotency-Key: try-$(date +%s)-$RANDOM"', *rest)


def _doors(world: World, bodies: dict[str, Path]) -> list[tuple[str, Partner, list[str]]]:
    curl = _Curl(world.url)
    file = {name: f"{_JSON} -d @{shlex.quote(str(path))}" for name, path in bodies.items()}
    return [
        (
            "A pharmacy system (a new post needs a new `reference`: edit the file)",
            world.pharmacy,
            [
                curl.post("/pharmacy/consultations", file["consultation"]),
                curl.post("/pharmacy/consultations", file["crisis"]),
                curl("GET", "/messages"),
                "MESSAGE=…  # an id of these",
                curl("GET", "/messages/$MESSAGE", "-i"),
                "ETAG=…     # of the answer",
                curl("PUT", "/pharmacy/consultations/$MESSAGE", _MATCH, file["consultation"]),
                curl.post("/messages/$MESSAGE/telephone-calls", _said(_CALLED)),
                curl.post("/messages/$MESSAGE/withdrawal"),
                curl.post("/messages/$MESSAGE/closure", _said({"reason": "patient-told"})),
                curl("GET", "/overdue"),
                curl("GET", "/organisations/G99001"),
            ],
        ),
        (
            "An optometrist's system",
            world.optometrist,
            [
                curl.post("/optometry/referrals", file["referral"]),
                "REFERRAL=…  # of the answer",
                curl("GET", "/referrals/$REFERRAL", "-i"),
                "ETAG=…      # of the answer",
                curl("PUT", "/optometry/referrals/$REFERRAL", _MATCH, file["referral"]),
                curl.post("/referrals/$REFERRAL/cancel", _MATCH, _said(_NOT_NEEDED)),
            ],
        ),
        (
            "A GP system (this one's own simulator collects too: whoever is first)",
            world.practice,
            [
                curl("GET", "/inbox?state=all"),
                "DELIVERY=…  # an id of these",
                curl("GET", "/inbox/$DELIVERY", "-o delivery.json"),
                "DIGEST=$(sha256sum delivery.json | cut -d' ' -f1)",
                curl("PUT", "/inbox/$DELIVERY/receipt", _JSON, f'-d "{_RECEIPT}"'),
                curl("PUT", "/inbox/$DELIVERY/acknowledgement", _said({"outcome": "filed"})),
            ],
        ),
        (
            "A hospital's single point of access",
            world.hospital,
            [
                curl("GET", "/inbox?service=RXX01-SPA"),
                curl("GET", "/referrals/$REFERRAL", "-i"),
                curl.post("/referrals/$REFERRAL/accept", _MATCH),
                curl.post("/referrals/$REFERRAL/reject", _MATCH, _said(_REJECTED)),
                curl.post("/referrals/$REFERRAL/complete", _MATCH, _said({"outcome": "Seen."})),
            ],
        ),
    ]


def _said(body: dict[str, str]) -> str:
    return f"{_JSON} -d {shlex.quote(json.dumps(body))}"
