"""Where the demo is played: the world is set up, the acts are told, everything is stopped."""

import asyncio
import contextlib
import logging
import signal
from collections.abc import Coroutine
from pathlib import Path
from typing import Final

import structlog
from rich.console import Console

from sandbox import manual
from sandbox.acts import CLINICAL
from sandbox.pillars import PILLARS
from sandbox.process import NotServing
from sandbox.story import Story
from sandbox.trouble import TROUBLE
from sandbox.world import World

PORT: Final = 8080
WEBHOOK_PORT: Final = 9902
ACTS: Final = (*CLINICAL, *PILLARS, *TROUBLE)


def play(folder: Path, console: Console, *, serve: bool) -> bool:
    """Tell the story, or leave the world running; whether everything was seen as it should be."""
    _quiet()
    try:
        return asyncio.run(
            _until_stopped(_serve(folder, console) if serve else _tell(folder, console))
        )
    except NotServing as error:
        console.print(f"[bold red]{error}[/bold red]")
    except asyncio.CancelledError:
        console.print("[bold red]Stopped before the end.[/bold red]")
    return False


async def _until_stopped(work: Coroutine[None, None, bool]) -> bool:
    """Let SIGTERM and Ctrl-C end the work in order, so that no broker is left behind."""
    task = asyncio.create_task(work)
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    return await task


async def _tell(folder: Path, console: Console) -> bool:
    """Tell the story; whether all of it was seen."""
    story = Story(console)
    console.print(f"A broker, and nine partners, in {folder}. All names are invented.")
    async with contextlib.AsyncExitStack() as stack:
        async with story.act("Everything is set up and started"):
            world = await stack.enter_async_context(World(folder, has_pillars=True))
            story.see(
                world.broker.pid,
                f"the broker takes messages on {world.url} (process {world.broker.pid})",
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
    async with World(
        folder, wanted_port=PORT, wanted_webhook_port=WEBHOOK_PORT, has_targets=True
    ) as world:
        manual.print_manual(console, world)
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        console.print("Stopping.")
    return True


def _quiet() -> None:
    """Keep the logs of what runs in this process out of the story; the broker's own are in a
    file."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
