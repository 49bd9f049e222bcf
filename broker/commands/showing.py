"""What commands print: tables for people, JSON with stable names for machines, one or the other."""

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import date, datetime
from typing import Annotated, Any, Final

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from fhir_profiles.working_days import london

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines, not a table.")]
WIDE: Final = 240
"""Characters in a line where nobody watches: a file or a pipe should not be folded."""


def console(*, err: bool = False) -> Console:
    """Return a console that prints text as it is: nothing in it is taken for markup."""
    stream = sys.stderr if err else sys.stdout
    width = None if stream.isatty() else WIDE
    return Console(file=stream, width=width, markup=False, highlight=False, soft_wrap=False)


def say(text: str) -> None:
    """Print a sentence to standard output."""
    typer.echo(text)


def warn(text: str) -> None:
    """Print a sentence to standard error."""
    typer.echo(text, err=True)


def more_than(limit: int) -> None:
    """Say on standard error that there is more than a list shows."""
    warn(f"There are more than these {limit}: see more with --limit.")


def as_json(data: Any) -> None:
    """Print data as JSON; times in ISO 8601."""
    typer.echo(json.dumps(data, indent=2, ensure_ascii=False, default=_plain))


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    title: str = "",
    empty: str = "",
    colour: Callable[[Sequence[object]], str] | None = None,
) -> None:
    """Print rows under their columns, or the sentence `empty` where there are none."""
    shown = Table(box=box.SIMPLE_HEAD, title=title or None, title_justify="left", pad_edge=False)
    for name in columns:
        # An id that is cut short cannot be copied into the next command.
        shown.add_column(name, overflow="fold", no_wrap=name == "id")
    for row in rows:
        style = colour(row) if colour is not None else None
        shown.add_row(*[words(cell) for cell in row], style=style)
    if shown.row_count or not empty:
        console().print(shown)
    else:
        say(empty)


def facts(pairs: Iterable[tuple[str, object]]) -> None:
    """Print names with their values, leaving out what is not known."""
    shown = Table(box=None, show_header=False, pad_edge=False)
    shown.add_column(style="bold", no_wrap=True)
    shown.add_column(overflow="fold")
    for name, value in pairs:
        if value not in (None, "", [], ()):
            shown.add_row(name, words(value))
    console().print(shown)


def words(value: object) -> str:
    """Return a value as a person reads it; times in London."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return f"{london(value):%Y-%m-%d %H:%M:%S}"
    if isinstance(value, list | tuple | set | frozenset):
        return ", ".join(words(one) for one in value)
    return str(value)


def _plain(value: object) -> object:
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, set | frozenset):
        return sorted(value)
    if isinstance(value, tuple):
        return list(value)
    raise TypeError(f"{type(value).__name__} is not JSON")
