"""What figures are taken on: SQLite; PostgreSQL; PostgreSQL with a Kafka of three nodes.

Database and Kafka keep what they say they keep, as in production. All of it is on one machine.
"""

import argparse
import asyncio
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from tests.databases import running_postgresql
from tests.kafka import running_kafka

SQLITE: Final = "sqlite"
POSTGRESQL: Final = "postgresql"
KAFKA: Final = "kafka"
NODES: Final = 3
PARTITIONS: Final = 12
_SERVER: Final = {"autovacuum": "on", "shared_buffers": "512MB"}

Fresh = Callable[[], dict[str, str]]
"""Returns the broker's settings for an empty database and topics of its own."""


def run(
    parser: argparse.ArgumentParser,
    arguments: Sequence[str],
    benchmark: Callable[[argparse.Namespace, Fresh], Coroutine[Any, Any, None]],
    *,
    on: Sequence[str] = (SQLITE, POSTGRESQL, KAFKA),
) -> None:
    """Run a benchmark on the set-up of these that is chosen with `--on`."""
    parser.add_argument("--on", choices=on, default=SQLITE)
    chosen = parser.parse_args(arguments)
    with services(chosen.on) as fresh:
        asyncio.run(benchmark(chosen, fresh))


def named(name: str, on: str) -> str:
    """Return what a figure is called that was taken on a set-up."""
    return name if on == SQLITE else f"{name}-{on}"


@contextmanager
def services(on: str) -> Iterator[Fresh]:
    """Run what a set-up needs beside the broker."""
    if on == SQLITE:
        yield dict
        return
    with running_postgresql(_SERVER) as server:

        def database() -> dict[str, str]:
            return {"BROKER_DATABASE_URL": server.url(server.create("template0"))}

        if on == POSTGRESQL:
            yield database
            return
        with running_kafka(NODES) as kafka:
            yield lambda: database() | kafka.topics_of_its_own(PARTITIONS)
