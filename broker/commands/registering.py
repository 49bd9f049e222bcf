"""Registering partners: what is asked for is checked whole, then written in one transaction."""

import csv
import io
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any, Final

from broker import registry
from broker.access import scopes
from broker.assertion import ALGORITHMS
from broker.audit import Entry
from broker.commands.keys import PublicKey, read_public
from broker.commands.opening import read_text
from broker.directory import Directory
from broker.errors import Conflict, NotFound, Problem, Refused
from broker.store import clients
from broker.store.tx import Tx
from fhir_profiles.identifiers import ods_code
from fhir_profiles.working_days import LONDON, london

DEFAULT_ALGORITHMS: Final = ("ES384",)
COLUMNS: Final = ("client", "name", "organisations", "scopes", "algorithms", "key", "kid")
REQUIRED: Final = ("client", "organisations")


@dataclass(slots=True)
class Registration:
    """A client as it is to be registered. What is empty is left as it is for one that is there."""

    client: str
    name: str = ""
    organisations: list[str] = field(default_factory=list)
    scopes: list[str] = field(default_factory=list)
    algorithms: list[str] = field(default_factory=list)
    keys: list[PublicKey] = field(default_factory=list)
    place: str = ""


def problems(asked: Registration, directory: Directory) -> list[Problem]:
    """Return everything that is wrong with a registration, each with where it stands."""
    found, place = [], asked.place
    if not is_client_id(asked.client):
        found.append(
            Problem(f"{place}client", "invalid", "It is 1 to 255 visible ASCII characters.")
        )
    found += organisation_problems(asked.organisations, directory, f"{place}organisations")
    known = scopes(registry.doors())
    for scope in asked.scopes:
        if scope not in known:
            todo = f"There are: {', '.join(known)}."
            found.append(
                Problem(f"{place}scopes", "unknown-code", f"There is no scope {scope}.", todo)
            )
    for algorithm in asked.algorithms:
        if algorithm not in ALGORITHMS:
            detail = f"{algorithm} is not an algorithm that may be used."
            todo = f"There are: {', '.join(ALGORITHMS)}."
            found.append(Problem(f"{place}algorithms", "unknown-code", detail, todo))
    return found


def key_problems(asked: Registration) -> list[Problem]:
    """Return which keys could not be used: they sign with no algorithm that is allowed."""
    return [
        Problem(
            f"{asked.place}key",
            "inconsistent",
            f"The key {key.kid} cannot sign with {', '.join(asked.algorithms)}.",
            f"It can with {', '.join(key.algorithms)}.",
        )
        for key in asked.keys
        if asked.algorithms and not set(key.algorithms) & set(asked.algorithms)
    ]


def organisation_problems(
    named: Iterable[str], directory: Directory, place: str = "organisation"
) -> list[Problem]:
    """Return what is wrong with ODS codes; what the directory does not have is refused, unless
    none is loaded yet."""
    found = []
    for ods in named:
        if ods_code(ods) != ods:
            detail = f"{ods} is not an ODS code: 1 to 9 of A-Z and 0-9."
            found.append(Problem(place, "invalid", detail))
        elif directory.organisations and ods not in directory.organisations:
            todo = "Load a directory that has it first."
            found.append(
                Problem(place, "unknown", f"The directory has no organisation {ods}.", todo)
            )
    return found


def add(tx: Tx, asked: Registration, actor: str) -> None:
    """Register a client that is not there yet. Raises Conflict where it is."""
    if clients.get(tx.connection, asked.client) is not None:
        raise Conflict(
            f"There is a client {asked.client} already. Use partner grant, partner key or partner "
            "import to add to it."
        )
    put(tx, asked, actor)


def put(tx: Tx, asked: Registration, actor: str) -> None:
    """Register a client, or add to one that is there; with an audit entry for each thing done."""
    there = clients.get(tx.connection, asked.client)
    name = asked.name or (there.name if there else asked.client)
    algorithms = asked.algorithms or (
        list(there.algorithms) if there else _algorithms_of(asked.keys)
    )
    scopes = asked.scopes or (list(there.scopes) if there else [])
    clients.put(tx, asked.client, name, algorithms, scopes)
    facts = {"scopes": " ".join(scopes), "algorithms": " ".join(algorithms)}
    action = "client.changed" if there else "client.added"
    tx.audit(Entry(action, actor, "", "client", asked.client, facts))
    for key in asked.keys:
        put_key(tx, asked.client, key, actor)
    # A grant that holds is left alone: it may be one that ends.
    held = clients.granted(tx.connection, asked.client, tx.now)
    for ods in dict.fromkeys(asked.organisations):
        if ods not in held:
            grant(tx, asked.client, ods, None, actor)


def _algorithms_of(keys: Sequence[PublicKey]) -> list[str]:
    return sorted({one for key in keys for one in key.algorithms}) or list(DEFAULT_ALGORITHMS)


def put_key(tx: Tx, client: str, key: PublicKey, actor: str) -> None:
    """Add a public key. Raises Conflict where it could not be used, and where another one has its
    id, for that one may be in use."""
    allowed = demand_client(tx, client).algorithms
    if not set(key.algorithms) & set(allowed):
        raise Conflict(
            f"The key {key.kid} signs with {' or '.join(key.algorithms)}, but {client} may use "
            f"{', '.join(allowed)} only: allow it with partner key --alg."
        )
    known = clients.keys(tx.connection, client).get(key.kid)
    if known is not None and known != key.jwk:
        raise Conflict(
            f"{client} has another key with the id {key.kid}: give --kid, or revoke that one first."
        )
    clients.put_key(tx, client, key.kid, dict(key.jwk))
    tx.audit(Entry("client-key.added", actor, "", "client", client, {"kid": key.kid}))


def grant(tx: Tx, client: str, ods: str, until: datetime | None, actor: str) -> None:
    """Let a client act for an organisation from now on."""
    clients.put_grant(tx, client, ods, until)
    facts = {"until": until.isoformat() if until else ""}
    tx.audit(Entry("grant.added", actor, ods, "client", client, facts))


def demand_client(tx: Tx, client: str) -> Any:
    """Return a client's row. Raises NotFound."""
    row = clients.get(tx.connection, client)
    if row is None:
        raise NotFound(f"There is no client {client}; see partner list.")
    return row


def until_end_of(day: date) -> datetime:
    """Return when a day is over in London. Raises Refused where it is over already."""
    if day < london(datetime.now(UTC)).date():
        problem = Problem("until", "invalid", f"{day} is past.")
        raise Refused("The grant would never hold; nothing was changed.", [problem])
    return datetime.combine(day + timedelta(days=1), time(), LONDON).astimezone(UTC)


def is_client_id(value: str) -> bool:
    """Whether an assertion could name it: 1 to 255 visible ASCII characters."""
    return 0 < len(value) <= 255 and all("!" <= letter <= "~" for letter in value)


# -- import --------------------------------------------------------------------------------------


def read_csv(path: Path, directory: Directory, known: Container[str]) -> list[Registration]:
    """Read partners from a CSV file whole, or raise Refused with every problem and its line.

    A client may stand on several lines: its organisations and keys add up, and what else a later
    line says of it must be the same or empty. One that is not `known` needs scopes.
    """
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""), strict=True)
    found: dict[str, Registration] = {}
    wrong: list[Problem] = []
    try:
        wrong += _header(reader.fieldnames or ())
        if not wrong:
            for row in reader:
                _read_row(row, f"line {reader.line_num}: ", path.parent, found, wrong, directory)
    except csv.Error as error:
        wrong.append(Problem(f"line {reader.line_num}", "malformed", f"Not CSV: {error}."))
    for asked in found.values():
        wrong += key_problems(asked)
        if asked.client not in known and not asked.scopes:
            detail = f"{asked.client} is new, and could do nothing."
            wrong.append(Problem(f"{asked.place}scopes", "missing", detail, "Name its scopes."))
    if not wrong and not found:
        wrong.append(Problem("", "missing", "There is no line with a client in it."))
    if wrong:
        count = "1 problem" if len(wrong) == 1 else f"{len(wrong)} problems"
        raise Refused(f"{path} has {count}; nothing was imported.", wrong)
    return list(found.values())


def _header(names: Sequence[str]) -> list[Problem]:
    todo = f"The columns are: {', '.join(COLUMNS)}."
    found = [
        Problem("line 1", "unknown-field", f"There is no column {name!r}.", todo)
        for name in names
        if name not in COLUMNS
    ]
    found += [
        Problem("line 1", "missing", f"The column {name} is missing.", todo)
        for name in REQUIRED
        if name not in names
    ]
    if len(set(names)) < len(names):
        found.append(Problem("line 1", "duplicate", "A column stands there twice.", todo))
    return found


def _read_row(
    row: Mapping[str, Any],
    place: str,
    folder: Path,
    found: dict[str, Registration],
    wrong: list[Problem],
    directory: Directory,
) -> None:
    # csv puts what stands beyond the last column under None, and None where columns are missing.
    if None in row or None in row.values():
        wrong.append(Problem(place.strip(": "), "malformed", "It has more or fewer columns."))
        return
    cells = {name: text.strip() for name, text in row.items()}
    asked = Registration(
        client=cells["client"],
        name=cells.get("name", ""),
        organisations=cells["organisations"].split(),
        scopes=cells.get("scopes", "").split(),
        algorithms=cells.get("algorithms", "").split(),
        place=place,
    )
    try:
        if cells.get("key"):
            asked.keys.append(read_public(folder / cells["key"], cells.get("kid") or None))
    except Refused as refused:
        wrong.append(Problem(f"{place}key", refused.code, refused.detail))
    wrong += problems(asked, directory)
    if not asked.organisations:
        wrong.append(Problem(f"{place}organisations", "missing", "No organisation is named."))
    known = found.setdefault(asked.client, asked)
    if known is not asked:
        wrong += _join(known, asked)


def _join(known: Registration, further: Registration) -> list[Problem]:
    known.organisations += further.organisations
    known.keys += further.keys
    wrong = []
    for name in ("name", "scopes", "algorithms"):
        before, after = getattr(known, name), getattr(further, name)
        if after and before and after != before:
            detail = f"{known.client} stands above with another one."
            wrong.append(
                Problem(f"{further.place}{name}", "inconsistent", detail, "Leave it empty here.")
            )
        elif after:
            setattr(known, name, after)
    return wrong
