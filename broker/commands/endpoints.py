"""`referral-broker endpoints`: what is known of the endpoints that the broker calls."""

from typing import Annotated, Final

import typer

from broker.audit import Entry
from broker.commands import showing
from broker.commands.opening import actor, opened
from broker.directory import BARS
from broker.errors import NotFound
from broker.events import Destination
from broker.store import directory as stored
from broker.store import endpoints as marks
from broker.store.tx import Tx

HELP: Final = """Have forgotten what is known of an endpoint.

[bold]Examples[/bold]

  referral-broker endpoints refresh FPH01/FPH01-PHARMACY-FIRST
"""

app = typer.Typer(help=HELP, no_args_is_help=True)


@app.callback()
def endpoints() -> None:
    """Have forgotten what is known of an endpoint."""


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
