"""`referral-broker keys`: the key by which this broker proves who it is where it is a client."""

from typing import Final

import typer

from broker.commands import showing
from broker.commands.opening import opened
from broker.opening import open_ring

HELP: Final = """Show the key that the broker signs with.

[bold]Examples[/bold]

  referral-broker keys public > broker.jwk
"""

app = typer.Typer(help=HELP, no_args_is_help=True)


@app.callback()
def keys() -> None:
    """Show the key that the broker signs with."""


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
