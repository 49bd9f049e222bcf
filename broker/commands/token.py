"""`referral-broker token`: an access token, as a partner's own system would get one."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from broker import settings
from broker.assertion import ASSERTION_TYPE, signed_assertion
from broker.commands import keys, showing
from broker.commands.showing import AsJson
from broker.errors import ANSWERS, Refused, Unavailable


def token(
    client: Annotated[str, typer.Argument(help="The client id.")],
    *,
    key: Annotated[Path, typer.Option("--key", help="The client's private key: a file, PEM.")],
    organisation: Annotated[
        str | None,
        typer.Option(
            "--organisation", help="The ODS code to act for; not needed if it can be only one."
        ),
    ] = None,
    url: Annotated[
        str | None,
        typer.Option("--url", help="The broker's public URL; by default the settings' own."),
    ] = None,
    kid: Annotated[
        str | None, typer.Option("--kid", help="The key's id; by default its thumbprint.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Get an access token from the running broker and print it; it is good for 5 minutes.

    For trying things out:  curl -H "Authorization: Bearer $(referral-broker token …)" …
    """
    signing = keys.read_private(key, kid)
    token_url = f"{url.rstrip('/')}/oauth2/token" if url else settings.load().token_url
    assertion = signed_assertion(
        signing.pem, client, token_url, organisation, signing.algorithm, signing.kid
    )
    answer = _ask(
        token_url,
        {
            "grant_type": "client_credentials",
            "client_assertion_type": ASSERTION_TYPE,
            "client_assertion": assertion,
        },
    )
    if as_json:
        showing.as_json(answer)
    else:
        showing.say(answer["access_token"])


def _ask(token_url: str, form: dict[str, str]) -> dict[str, Any]:
    from broker.outbound import post_form

    status, body = post_form(token_url, form)
    try:
        answer = json.loads(body)
    except ValueError:
        answer = None
    if status == ANSWERS["unavailable"].status:
        raise Unavailable(f"{token_url} cannot give a token now ({status}): try again shortly.")
    if not isinstance(answer, dict) or not {"access_token", "error"} & answer.keys():
        raise Unavailable(f"{token_url} answers {status}, but not as a token endpoint does.")
    if "access_token" not in answer:
        raise Refused(f"No token: {answer.get('error_description', answer['error'])}")
    return answer
