"""Telling what was seen: a line is printed once it was verified, and what was not seen is red."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sandbox.client import NeverAnswered, NotSignedIn
from sandbox.process import NotServing

_WRONG: Final = (
    NeverAnswered,
    NotSignedIn,
    NotServing,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
    AssertionError,
    TimeoutError,
)


class Story:
    """What was seen true and what was not, act by act, with the time each took."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.missed: list[str] = []
        self.seen = 0
        self._times: list[tuple[str, float]] = []

    @asynccontextmanager
    async def act(self, title: str) -> AsyncIterator[None]:
        """Tell one act. One that breaks off is told as that, and the story goes on."""
        self.console.print(f"\n[bold]{escape(title)}[/bold]")
        started = time.perf_counter()
        try:
            yield
        except _WRONG as error:  # an act reads what should be there: what is not breaks it off
            self.see(False, f"this act broke off: {type(error).__name__}: {error}")
        self._times.append((title, time.perf_counter() - started))

    def see(self, truth: object, line: str) -> bool:
        """Print a line as seen if it is true; else print that it was not, and remember it."""
        if truth:
            self.seen += 1
            self.console.print(f"  [green]✓[/green] {escape(line)}", highlight=False)
            return True
        self.missed.append(line)
        self.console.print(f"  [bold red]✗ NOT SEEN: {escape(line)}[/bold red]", highlight=False)
        return False

    def say(self, line: str) -> None:
        """Print what is no claim: a heading, or what somebody said, quoted."""
        self.console.print(f"    {escape(line)}", style="dim", highlight=False)

    def finish(self) -> bool:
        """Print the time that each act took and what came of it; whether all was seen."""
        table = Table(title="How long each step took", title_justify="left", title_style="bold")
        table.add_column("step")
        table.add_column("seconds", justify="right")
        for title, seconds in self._times:
            table.add_row(escape(title), f"{seconds:.1f}")
        table.add_row("in all", f"{sum(seconds for _, seconds in self._times):.1f}", style="bold")
        self.console.print()
        self.console.print(table)
        if self.missed:
            self.console.print(
                f"[bold red]{len(self.missed)} of {self.seen + len(self.missed)} things were "
                "not seen.[/bold red]"
            )
            return False
        self.console.print(f"[bold green]All {self.seen} things were seen.[/bold green]")
        return True
