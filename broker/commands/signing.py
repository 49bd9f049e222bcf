"""`referral-broker keys`: the key ring, and the key by which this broker proves who it is."""

from typing import Annotated, Final

import typer

from broker import settings
from broker.commands import showing
from broker.commands.opening import opened
from broker.errors import Conflict
from broker.opening import open_ring
from broker.vault import FileKeyRing

HELP: Final = """Make the key ring, and show the key that the broker signs with.

[bold]Examples[/bold]

  referral-broker keys create
  referral-broker keys public > broker.jwk
"""

app = typer.Typer(help=HELP, no_args_is_help=True)


@app.callback()
def keys() -> None:
    """Make the key ring, and show the key that the broker signs with."""


@app.command()
def create(
    unless_there: Annotated[
        bool, typer.Option("--unless-there", help="Do nothing where there is a ring.")
    ] = False,
) -> None:
    """Make a new key ring for a broker on PostgreSQL, before it is first started.

    Never overwrites one: without its ring nothing that was stored can be read. Give every process
    the same ring, and keep a copy apart from the database and its backups.
    """
    path = settings.load().ring_path
    try:
        FileKeyRing.create(path)
    except FileExistsError:
        if not unless_there:
            raise Conflict(f"There is a key ring at {path}; it was left as it is.") from None
        FileKeyRing.load(path)
    else:
        showing.say(f"Made {path}. Keep a copy apart from the database: nothing opens without it.")


@app.command()
def public() -> None:
    """Print the public key as a JWK: register it where the broker is to be a client.

    A BaRS receiver with a token_url gives the broker access tokens for assertions that are signed
    with it (ES384), under the kid that is printed.
    """
    with opened() as broker:
        key = open_ring(broker.settings, broker.store).token_keys[-1]
    showing.as_json(
        dict(key.as_dict(private=False)) | {"kid": key.thumbprint(), "alg": "ES384", "use": "sig"}
    )
