"""`referral-broker demo`: the story of the broker, told against a real one, each line verified.

Ends by itself: 0 if every claim was seen true, else 1. With --serve it leaves the broker and its
partners running for others to build against, and says how to call them.
"""

import asyncio
import contextlib
import logging
import signal
import tempfile
from pathlib import Path
from typing import Annotated, Final

import structlog
import typer
from rich.console import Console

from sandbox import manual
from sandbox.acts import CLINICAL
from sandbox.process import NotServing
from sandbox.story import Story
from sandbox.trouble import TROUBLE
from sandbox.world import World

PORT: Final = 8080
WEBHOOK_PORT: Final = 9902
ACTS: Final = (*CLINICAL, *TROUBLE)


def command(
    serve: Annotated[
        bool,
        typer.Option("--serve", help="Leave broker and partners running, and say how to call them"),
    ] = False,
    sentinels: Annotated[
        bool,
        typer.Option("--sentinels", help="Print which patient makes a partner do what, and end"),
    ] = False,
    folder: Annotated[
        Path | None,
        typer.Option(help="Where to keep it all; otherwise a temporary folder, removed at the end"),
    ] = None,
) -> None:
    """Show the broker at work with five simulated partners; fail if anything is not seen true."""
    console = Console(soft_wrap=True)
    _quiet()
    if sentinels:
        manual.print_sentinels(console)
        return
    with contextlib.ExitStack() as stack:
        place = folder or Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="referral-broker-demo-"))
        )
        try:
            seen = asyncio.run(_serve(place, console) if serve else _tell(place, console))
        except NotServing as error:
            console.print(f"[bold red]{error}[/bold red]")
            seen = False
    if not seen:
        raise typer.Exit(1)


async def _tell(folder: Path, console: Console) -> bool:
    """Tell the story; whether all of it was seen."""
    story = Story(console)
    console.print(f"A broker, and five partners, in {folder}. All names are invented.")
    async with contextlib.AsyncExitStack() as stack:
        async with story.act("Everything is set up and started"):
            world = await stack.enter_async_context(World(folder))
            story.see(
                world.broker.pid, f"the broker takes messages on {world.url} ({world.broker.pid})"
            )
            names = ", ".join(partner.name for partner in world.partners)
            story.see(
                all([await partner.client.token() for partner in world.partners]),
                f"each signed in with its own key: {names}",
            )
        if story.missed:
            return story.finish()
        for title, act in ACTS:
            async with story.act(title):
                await act(world, story)
        async with story.act("Everything is stopped"):
            code = await world.broker.stop()
            story.see(code == 0, "the broker drained and ended with 0 on SIGTERM")
    return story.finish()


async def _serve(folder: Path, console: Console) -> bool:
    """Leave everything running until SIGTERM or Ctrl-C; whether it all came up."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with World(folder, wanted_port=PORT, wanted_webhook_port=WEBHOOK_PORT) as world:
        manual.print_manual(console, world)
        await stop.wait()
    console.print("Stopped.")
    return True


def _quiet() -> None:
    """Keep the logs of what runs in this process out of the story; the broker's own are in a
    file."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
