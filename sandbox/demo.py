"""`referral-broker demo`: the story of the broker, told against a real one, each line verified.

Ends by itself: 0 if every claim was seen true, else 1. With --serve it leaves the broker and its
partners running for others to build against, and says how to call them.
"""

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer


def command(
    *,
    serve: Annotated[
        bool,
        typer.Option("--serve", help="Leave broker and partners running, and say how to call them"),
    ] = False,
    sentinels: Annotated[
        bool,
        typer.Option("--sentinels", help="Print which patient or service makes a partner do what"),
    ] = False,
    folder: Annotated[
        Path | None,
        typer.Option(help="Where to keep it all; otherwise a temporary folder, removed at the end"),
    ] = None,
) -> None:
    """Show the broker at work with nine simulated partners; fail if anything is not seen true."""
    # Imported here: every other command loads this module too, to know that there is a demo.
    from rich.console import Console

    from sandbox import manual, stage

    console = Console(soft_wrap=True)
    if sentinels:
        manual.print_sentinels(console)
        return
    with ExitStack() as stack:
        place = folder or Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="referral-broker-demo-"))
        )
        seen = stage.play(place.resolve(), console, serve=serve)
    if not seen:
        raise typer.Exit(1)
