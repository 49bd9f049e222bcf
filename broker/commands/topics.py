"""`referral-broker topics`: the topics in Kafka, and the keys with which they are read."""

import asyncio
import logging
from typing import Annotated, Final

import typer
from joserfc.jwk import OctKey

from broker import settings
from broker.audit import Entry
from broker.commands import showing
from broker.commands.opening import actor, opened
from broker.errors import NotFound, Refused
from broker.settings import PREFIX, Settings
from broker.topics import TOPICS

HELP: Final = """Make and check the topics in Kafka, and give a reader the key of one.

[bold]Examples[/bold]

  referral-broker topics create
  referral-broker topics check
  referral-broker topics key fhir.Task.v1 --reader "Northfield ICB data platform" > task.jwk
"""

app = typer.Typer(help=HELP, no_args_is_help=True)


@app.callback()
def topics() -> None:
    """Make and check the topics in Kafka, and give a reader the key of one."""
    # What goes wrong is said in a sentence of ours: the client's own are not shown beside it.
    logging.getLogger("aiokafka").addHandler(logging.NullHandler())


@app.command()
def create() -> None:
    """Make the topics that are not there, and check all of them. What is there is not changed."""
    from broker.log_kafka import topics as kafka
    from broker.log_kafka.connection import connection

    found = _with_kafka()
    reach, wanted = connection(found), kafka.wanted(found)

    async def make() -> list[str]:
        made = await kafka.create(reach, wanted)
        await kafka.check(reach, wanted)
        return made

    made = asyncio.run(make())
    showing.say(f"Made: {', '.join(made)}." if made else "Every topic is there.")


@app.command()
def check() -> None:
    """Say what of the topics could lose what was published: exit code 2, with how to mend it."""
    from broker.log_kafka import topics as kafka
    from broker.log_kafka.connection import connection

    found = _with_kafka()
    asyncio.run(kafka.check(connection(found), kafka.wanted(found)))
    showing.say("Every topic is as it should be.")


@app.command()
def key(
    topic: Annotated[str, typer.Argument(help="The topic, as `topics create` names it.")],
    reader: Annotated[str, typer.Option(help="Who gets it: kept in the audit.")],
) -> None:
    """Print the key of one topic as a JWK, for a reader that may have all that is published there.

    It opens every record of that topic and of no other, from the last rotation of the ring's topic
    secret on. That it was given, and to whom, stands in the audit.
    """
    if topic not in {one.name for one in TOPICS}:
        raise NotFound(f"There is no topic {topic}: {', '.join(one.name for one in TOPICS)}.")
    if not reader.strip() or len(reader) > 200 or not reader.isprintable():
        raise Refused("Say who gets the key, in up to 200 letters: --reader NAME.")
    with opened() as broker:
        key_id, raw = broker.vault().topic_key(topic)
        facts = {"key": key_id, "reader": reader}
        entry = Entry("topic-key.given", actor(), "", "topic", topic, facts)
        broker.write(lambda tx: tx.audit(entry))
    jwk = OctKey.import_key(raw).as_dict(private=True)
    showing.as_json(dict(jwk) | {"kid": key_id, "alg": "dir", "enc": "A256GCM", "use": "enc"})


def _with_kafka() -> Settings:
    found = settings.load()
    if not found.has_kafka:
        raise Refused(f"There is no Kafka: set {PREFIX}KAFKA_SERVERS (and what README.md names).")
    return found
