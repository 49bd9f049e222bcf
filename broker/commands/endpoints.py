"""`referral-broker endpoints`: the places that the broker calls, and whether it calls them now."""

import time
from typing import Annotated, Final

import typer

from broker import pausing
from broker.audit import Entry
from broker.commands import showing
from broker.commands.directory import typed_code
from broker.commands.opening import Opened, actor, opened
from broker.directory import BARS
from broker.errors import NotFound
from broker.events import Destination
from broker.store import claims, pauses
from broker.store import directory as stored
from broker.store import endpoints as marks
from broker.store.tx import Tx

HELP: Final = """Pause a destination and resume it, or have forgotten what is known of an endpoint.

[bold]Examples[/bold]

  referral-broker endpoints pause G99002
  referral-broker endpoints drain G99002
  referral-broker endpoints resume G99002
  referral-broker endpoints refresh FPH01/FPH01-PHARMACY-FIRST
"""
LOOK_EVERY: Final = 0.5

app = typer.Typer(help=HELP, no_args_is_help=True)
Place = Annotated[
    str,
    typer.Argument(
        metavar="ODS[/SERVICE]", help="The organisation with all its services, or one of these."
    ),
]


@app.command()
def refresh(
    destination: Annotated[
        str, typer.Argument(metavar="ODS[/SERVICE]", help="The endpoint, as the directory has it.")
    ],
) -> None:
    """Ask a BaRS receiver anew what it offers, before the next message to it.

    Also its access tokens are got anew. Every serving process hears of it with its next delivery
    there. Deliveries that died before are tried again with: deliveries retry.
    """
    ods, _, service = destination.upper().partition("/")
    to = Destination(ods, service)
    with opened() as broker:
        connection = broker.store.read_now(stored.load)[1].connections.get(to)
        if connection is None or connection.channel != BARS:
            raise NotFound(f"There is no BaRS endpoint {to} in the directory.")

        def write(tx: Tx) -> None:
            marks.refresh(tx, to.ods, to.service)
            tx.audit(Entry("endpoint.refreshed", actor(), to.ods, "endpoint", str(to)))

        broker.write(write)
    showing.say(f"What {to} offers is asked anew before the next message to it.")


@app.command()
def pause(place: Place) -> None:
    """Attempt nothing there any more, until it is resumed. What is under way ends.

    Everything stands in its inbox as ever, and deadlines go on: what is urgent must be telephoned.
    It says how much that is; `overdue`, `check` and /metrics show it until `resume`.
    """
    with opened() as broker:
        to = _place(broker, place)
        is_new = broker.write(lambda tx: pausing.pause(tx, to, actor()))
        showing.say(f"{to} is paused{'' if is_new else ' already'}. {_waiting(broker, to)}")


@app.command()
def drain(
    place: Place,
    *,
    seconds: Annotated[
        float, typer.Option("--seconds", min=0, help="How long to wait at most.")
    ] = 90.0,
) -> None:
    """Pause it, and return once no attempt at it is under way any more: now it may be stopped.

    Exit 1 where one still is after the time: its answer is waited for, or its process was killed.
    """
    with opened() as broker:
        to = _place(broker, place)
        broker.write(lambda tx: pausing.pause(tx, to, actor()))
        ends = time.monotonic() + seconds
        while left := broker.store.write_now(lambda tx: claims.under_way(tx, to)):
            if time.monotonic() >= ends:
                showing.warn(f"{left} under way at {to} after {seconds:g} s. It stays paused.")
                raise typer.Exit(1)
            time.sleep(LOOK_EVERY)
        showing.say(f"{to} is paused and nothing to it is under way. {_waiting(broker, to)}")


@app.command()
def resume(place: Place) -> None:
    """Attempt again what waits there, the most urgent first. Each begins its 72 hours anew."""
    with opened() as broker:
        to = _place(broker, place)
        waited = broker.write(lambda tx: pausing.resume(tx, to, actor()))
        still = [
            one.where
            for one in broker.store.read_now(pausing.listing)
            if one.to == pauses.EVERYWHERE or one.to.covers(to) or to.covers(one.to)
        ]
    showing.say(f"{to} is resumed: {waited} waited.")
    if still:
        showing.warn(f"Still paused: {', '.join(still)}.")


def _place(broker: Opened, text: str) -> Destination:
    """Return the place that is meant. A typing error must not leave it calling, so it has to be in
    the directory."""
    directory = broker.store.read_now(stored.load)[1]
    ods, _, service = text.upper().partition("/")
    to = Destination(typed_code(ods, directory), service)
    services = [one.code for one in directory.services_of(to.ods)]
    if to.ods not in directory.organisations or (service and service not in services):
        known = f" Its services: {', '.join(services)}." if services else ""
        raise NotFound(f"There is no {to} in the directory.{known}")
    return to


def _waiting(broker: Opened, to: Destination) -> str:
    found = broker.store.read_now(pausing.listing)
    return next(one.words for one in found if one.to == to)
