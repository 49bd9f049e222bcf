"""What `demo --serve` prints: who is there, where, with which key, and how to call each door."""

import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sandbox import bars, bars_sentinels, sentinels
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
# Replaced in the body of a BaRS message by what the shell has in $TARGET, and by a new id.
_TARGET: Final = bars_sentinels.TAKES
_NEW: Final = "00000000-0000-4000-8000-000000000000"
_NOT_NEEDED: Final = {"reason": "no-longer-needed"}
_REJECTED: Final = {"reason": "criteria-not-met", "advice": "Please repeat the pressures."}


def print_sentinels(console: Console) -> None:
    """Print the whole tables of sentinel values and, for BaRS, of sentinel targets."""
    _print_table(console, "Sentinel values", sentinels.as_table())
    _print_table(console, "Sentinel targets of BaRS", bars_sentinels.as_table())
    for gets, words in bars_sentinels.MEANS.items():
        console.print(escape(f"{gets}: {words}"), highlight=False)


def _print_table(console: Console, title: str, lines: Sequence[Sequence[str]]) -> None:
    (head, *rows) = lines
    table = Table(title=title, title_justify="left", title_style="bold")
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
        "\nA patient's family name makes the receiver behave; for BaRS, the service that is named: "
        "`referral-broker demo --sentinels`."
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
    if world.targets is not None:
        named = f"Sentinel targets of BaRS[/bold] ({bars_sentinels.ORGANISATION}"
        console.print(f"\n[bold]{named}, called at {world.targets.url})", highlight=False)


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
        "bars": bars.referral(
            sender="G99001", receiver=bars_sentinels.ORGANISATION, service=_TARGET
        )
        | {"id": _NEW},
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
            "A practice's BaRS system (TARGET is any DoS service id of `demo --sentinels`)",
            world.practice,
            [f"TARGET={_TARGET}", *_bars(curl, bodies["bars"])],
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


def _bars(curl: _Curl, body: Path) -> list[str]:
    named = f'{{"system":"{bars.DOS}","value":"%s"}}'
    return [
        "new() { python -c 'import uuid; print(uuid.uuid4())'; }",
        f"NAMED=$(printf {shlex.quote(named)} \"$TARGET\" | base64 | tr -d '\\n')",
        f'sed "s/{_TARGET}/$TARGET/; s/{_NEW}/$(new)/" {shlex.quote(str(body))} | '
        + curl(
            "POST",
            r"/FHIR/R4/\$process-message",
            "-i",
            '-H "X-Request-Id: $(new)"',
            '-H "X-Correlation-Id: $(new)"',
            '-H "NHSD-Target-Identifier: $NAMED"',
            "-H 'Content-Type: application/fhir+json'",
            "--data-binary @-",
        ),
    ]


def _said(body: dict[str, str]) -> str:
    return f"{_JSON} -d {shlex.quote(json.dumps(body))}"
