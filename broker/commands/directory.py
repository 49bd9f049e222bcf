"""`referral-broker directory`: who there is, how each is reached and what it takes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from broker.audit import Entry
from broker.commands import showing
from broker.commands.opening import actor, opened, read_text
from broker.commands.showing import AsJson
from broker.directory import Directory
from broker.directory_file import Change, difference, parse, rows
from broker.errors import NotFound, Refused
from broker.events import Destination, digest
from broker.store import deliveries
from broker.store import directory as stored
from broker.store.tx import Tx
from fhir_profiles.identifiers import ods_code

HELP: Final = """Look at the directory and put a new one in force.

[bold]Examples[/bold]

  referral-broker directory load sandbox/directory.yaml --dry-run
  referral-broker directory load sandbox/directory.yaml
  referral-broker directory show G99001
"""

app = typer.Typer(help=HELP, no_args_is_help=True)


@app.command()
def load(
    file: Annotated[Path, typer.Argument(help="The directory as YAML; the whole of it.")],
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would change, and change nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Put a directory file in force as a whole, and show what that changes.

    A file with a problem changes nothing; every problem is named with its place. A broker that
    serves goes by the new directory at once. It says whom it leaves with deliveries not done.
    """
    text = read_text(file)
    new = parse(text)
    with opened() as broker:
        if dry_run:
            version, old = broker.store.read_now(stored.load)
            changes = difference(old, new)
        else:
            version, changes = broker.write(lambda tx: _replace(tx, new, digest(text.encode())))
        waiting = broker.store.read_now(deliveries.open_by_organisation)
    stranded = {ods: n for ods, n in waiting.items() if new.resolve_successor(ods) is None}
    if as_json:
        said = {"version": version, "loaded": bool(changes) and not dry_run, "stranded": stranded}
        showing.as_json({**said, "changes": [_plain(change) for change in changes]})
        return
    _say(version, changes, dry_run=dry_run)
    for ods, count in stranded.items():
        showing.warn(
            f"{ods} is not open in it and has no successor; deliveries to it that are not done: "
            f"{count}. See referral-broker deliveries list --organisation {ods}"
        )


def _say(version: int, changes: Sequence[Change], *, dry_run: bool) -> None:
    showing.table(
        ("what", "kind", "key", "how"),
        [(one.action, one.kind, one.key, "; ".join(one.details)) for one in changes],
        empty="Nothing changes.",
    )
    if dry_run:
        showing.say(f"This was a dry run: version {version} stays in force.")
    else:
        showing.say(f"Version {version} of the directory is in force.")


def _replace(tx: Tx, new: Directory, sha256: str) -> tuple[int, list[Change]]:
    """Put it in force if it differs from what is, in one piece with the audit entry."""
    version, old = stored.load(tx.connection)
    changes = difference(old, new)
    if not changes:
        return version, changes
    version = stored.replace(tx, new)
    facts = {"version": str(version), "sha256": sha256}
    for action in ("added", "changed", "removed"):
        facts[action] = str(sum(1 for one in changes if one.action == action))
    tx.audit(Entry("directory.loaded", actor(), "", "directory", str(version), facts))
    return version, changes


def _plain(change: Change) -> dict[str, Any]:
    return {
        "action": change.action,
        "kind": change.kind,
        "key": change.key,
        "details": change.details,
    }


@app.command()
def show(
    ods: Annotated[str, typer.Argument(help="An ODS code; none: every organisation.")] = "",
    *,
    as_json: AsJson = False,
) -> None:
    """Show every organisation, or all that is known of one."""
    with opened() as broker:
        version, found = broker.store.read_now(stored.load)
    if ods:
        _show_one(found, ods_code(ods) or ods, as_json=as_json)
    elif as_json:
        entries: dict[str, list[Any]] = {}
        for kind, _, entry in rows(found):
            entries.setdefault(kind, []).append(entry)
        showing.as_json({"version": version, "entries": entries})
    else:
        showing.table(
            ("ods", "name", "pillar", "icb", "status", "telephone", "reached by"),
            [
                (one.ods, one.name, one.pillar, one.icb, one.status, one.telephone, reached)
                for one in found.organisations.values()
                for reached in [_reached(found, one.ods)]
            ],
            title=f"Directory, version {version}" if version else "",
            empty="No directory is loaded. Run: referral-broker directory load FILE",
        )


def _reached(found: Directory, ods: str) -> str:
    places = [Destination(ods), *(one.destination for one in found.services_of(ods))]
    return ", ".join(
        f"{place.service} by {channel}" if place.service else channel
        for place in places
        if (channel := found.channel(place))
    )


def typed_code(text: str, found: Directory) -> str:
    """Return an ODS code as it stands in the database, however it was typed. Raises Refused.

    One that the directory does not have is said to be so: nothing is found under it because it is
    wrong, or because its organisation is no longer there.
    """
    code = ods_code(text)
    if code is None:
        raise Refused(f"{text} is not an ODS code: 1 to 9 of A-Z and 0-9.")
    if code not in found.organisations:
        showing.warn(f"The directory has no organisation {code}.")
    return code


def _show_one(found: Directory, ods: str, *, as_json: bool) -> None:
    if ods not in found.organisations:
        raise NotFound(f"The directory has no organisation {ods}.")
    about = [(kind, key, entry) for kind, key, entry in rows(found) if _is_about(kind, entry, ods)]
    if as_json:
        entries: dict[str, list[Any]] = {}
        for kind, _, entry in about:
            entries.setdefault(kind, []).append(entry)
        showing.as_json(entries)
        return
    for kind, _, entry in about:
        showing.say(f"{kind}:")
        showing.facts((name, _words(value)) for name, value in entry.items())


def _is_about(kind: str, entry: dict[str, Any], ods: str) -> bool:
    if kind == "agreement":
        return ods in entry["parties"]
    return ods in (entry.get("ods"), entry.get("organisation"))


def _words(value: object) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(_words(one) for one in value)
    if isinstance(value, dict):
        return " ".join(_words(one) for one in value.values())
    return showing.words(value)
