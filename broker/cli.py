"""The command `referral-broker`: what can be done with a broker from a shell.

Exit codes: 0 it is done, 1 something was found wrong or is not there, 2 it could not be run.
"""

import gc
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Final

import typer

from broker import parts, registry, settings
from broker.errors import BrokerError, Refused
from broker.registry import BadWiring
from broker.telemetry import set_up_logging

NAME: Final = "referral-broker"
WRONG: Final = 1
NOT_RUN: Final = 2
HELP: Final = """Carry referrals and clinical messages between care settings, and lose none.

Settings are environment variables, BROKER_…; README.md has the table of them.

[bold]Examples[/bold]

  referral-broker migrate
  referral-broker directory load sandbox/directory.yaml
  referral-broker partner add --help
  referral-broker check
  referral-broker serve
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; what goes wrong is said in a sentence."""
    set_up_logging("warning")
    try:
        asked = list(sys.argv[1:] if arguments is None else arguments)
        build(asked[0] if asked else "")(args=asked, prog_name=NAME)
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else WRONG
    except Refused as refused:
        _complain(refused.detail)
        for one in refused.problems:
            _complain("  " + ": ".join(filter(None, (one.field, f"{one.detail} {one.todo}"))))
        return WRONG
    except BrokerError as error:
        _complain(str(error))
        return NOT_RUN
    except OSError as error:
        _complain(f"{error.filename or 'The system'}: {error.strerror or error}.")
        return NOT_RUN
    return 0


def _complain(sentence: str) -> None:
    typer.echo(sentence.rstrip(), err=True)


def build(asked: str = "") -> typer.Typer:
    """Return every command. What is plugged in is left out where one of ours is `asked` for: it
    may take long to load. Raises BadWiring.
    """
    from broker.commands import (
        deliveries,
        directory,
        endpoints,
        looking,
        partner,
        profiles,
        replay,
        restoring,
        signing,
        token,
        topics,
    )

    app = typer.Typer(
        help=HELP, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False
    )
    commands: dict[str, Callable[..., None]] = {
        "serve": serve,
        "migrate": migrate,
        "check": looking.check,
        "token": token.token,
        "overdue": looking.overdue,
        "replay": replay.replay,
        "backup": restoring.backup,
    }
    groups = {
        "directory": directory.app,
        "partner": partner.app,
        "deliveries": deliveries.app,
        "audit": looking.audit,
        "profiles": profiles.app,
        "endpoints": endpoints.app,
        "keys": signing.app,
        "topics": topics.app,
        "restore": restoring.app,
    }
    for name, command in commands.items():
        app.command(name)(command)
    for name, group in groups.items():
        app.add_typer(group, name=name)
    for name, load in registry.commands().items():
        if name in commands or name in groups:
            raise BadWiring(f"The command {name} is plugged in, but {NAME} has one: rename it.")
        if asked in commands or asked in groups:
            continue
        plugged = load()
        if isinstance(plugged, typer.Typer):
            app.add_typer(plugged, name=name)
        else:
            app.command(name)(plugged)
    return app


def serve(
    role: Annotated[
        str, typer.Option(help=f"What this process does: {', '.join(parts.NAMES)}.")
    ] = parts.ALL,
) -> None:
    """Serve until SIGTERM or Ctrl-C: what is under way ends first, within 15 seconds.

    `api` answers callers, `relay` publishes to Kafka, `dispatch` makes deliveries, `worker` sends
    them and watches deadlines: on PostgreSQL each may run in any number of processes. An embedded
    broker is one process; it makes its database and its key ring where there are none, and brings
    the database up to date after a backup. Logs are JSON lines on standard error.
    """
    gc.disable()  # what is loaded stays: to look for garbage in it takes a fifth of the time
    from broker import serving

    gc.enable()
    found = settings.load()
    set_up_logging(found.log_level)
    serving.run(found, parts.parts_of(role, found), typer.echo)


def migrate() -> None:
    """Bring the database up to this release; one that holds messages is backed up first.

    On PostgreSQL the backup is yours to make.
    """
    from broker.opening import migrate_store

    done = migrate_store(settings.load())
    typer.echo(f"Applied: {', '.join(done)}." if done else "The database is up to date.")
