"""Relay: events a second from the ledger to Kafka, against a producer that has the records already.

Both write the same records to three nodes in the same batches, never two of one key at once, and
wait until every replica in sync has them. The relay reads them from the ledger, opens and seals
them and keeps its place besides. They take turns; the figure is the median of the rounds' ratios.
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from aiokafka import AIOKafkaProducer

from benchmarks import rig, setups
from benchmarks.load import closed_loop
from benchmarks.setups import Fresh
from broker import cloudevents, replay
from broker.log import Quarantined, Record
from broker.log_kafka.connection import connection
from broker.log_kafka.publisher import BATCH_BYTES, Publisher
from broker.main import Broker, open_broker
from broker.relay import Relay
from broker.settings import Settings
from broker.topics import LARGEST_RECORD, TOPIC_OF

NAME: Final = "relay"
AIM: Final = 0.25
CONNECTIONS: Final = 16
_LOAD_SECONDS: Final = 2.0


def main(arguments: Sequence[str]) -> None:
    """Run the benchmark."""
    parser = rig.options(__doc__)
    parser.add_argument("--events", type=int, default=4_000, help="in the ledger, at least")
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args(arguments)
    with setups.services(setups.KAFKA) as fresh:
        asyncio.run(_run(chosen, fresh))


async def _run(chosen: argparse.Namespace, fresh: Fresh) -> None:
    with tempfile.TemporaryDirectory(dir=chosen.folder) as place:
        folder = Path(place)
        machine = rig.machine(folder)
        async with rig.broker(folder / "broker", fresh(), role="api") as world:
            door = await rig.pharmacy_door(world)
            accepted = 0
            with rig.clients() as clients:
                while accepted < chosen.events:
                    load = (f"R{accepted}", CONNECTIONS, 0.0, _LOAD_SECONDS)
                    accepted += (await clients.run(closed_loop, door, *load)).all_requests
        settings = rig.settings(world)
        async with open_broker(settings) as broker:
            rounds = [await _round(broker, settings, number) for number in range(chosen.rounds)]
    ratio = round(statistics.median(one["ratio"] for one in rounds), 3)
    rig.Result(NAME, ratio, f"≥ {AIM}", ratio >= AIM, {"rounds": rounds}).tell(
        chosen.results, machine
    )


async def _round(broker: Broker, settings: Settings, number: int) -> dict[str, Any]:
    await broker.store.write(lambda tx: replay.rebuild(tx, 0, "benchmark"))
    kept = _Kept(settings)
    relay = Relay(broker.core, kept)
    await kept.publish([])  # its way to Kafka is not measured
    started = time.perf_counter()
    while await relay.run_once():
        pass
    ours = time.perf_counter() - started
    await relay.close()
    theirs = await _bare(settings, kept.batches)
    records = sum(map(len, kept.batches))
    one = {
        "records": records,
        "bytes": sum(len(record.data) for batch in kept.batches for record in batch),
        "relay_per_second": round(records / ours, 1),
        "producer_per_second": round(records / theirs, 1),
        "ratio": round(theirs / ours, 4),
    }
    print(f"round {number + 1}: {one}", flush=True)
    return one


class _Kept:
    """The publisher that the broker has, and what it was given."""

    def __init__(self, settings: Settings) -> None:
        prefix = settings.kafka_prefix
        self.batches: list[Sequence[Record]] = []
        self._publisher = Publisher(connection(settings), lambda kind: prefix + TOPIC_OF[kind])

    async def publish(self, records: Sequence[Record]) -> Sequence[Quarantined]:
        if records:
            self.batches.append(records)
        return await self._publisher.publish(records)

    async def close(self) -> None:
        await self._publisher.close()


async def _bare(settings: Settings, batches: Sequence[Sequence[Record]]) -> float:
    """Return how long a producer takes that has nothing else to do."""
    ready = [[_turn(settings, turn) for turn in _turns(batch)] for batch in batches]
    async with AIOKafkaProducer(
        **connection(settings),
        enable_idempotence=True,
        acks="all",
        max_request_size=LARGEST_RECORD,
        max_batch_size=BATCH_BYTES,
    ) as producer:
        started = time.perf_counter()
        for batch in ready:
            for turn in batch:
                sent = [
                    await producer.send(topic, value, key, headers=headers)
                    for topic, value, key, headers in turn
                ]
                await asyncio.gather(*sent)
        return time.perf_counter() - started


def _turns(batch: Sequence[Record]) -> list[list[Record]]:
    """Part a batch so that no part has two records of one subject."""
    seen: dict[str, int] = defaultdict(int)
    turns: dict[int, list[Record]] = defaultdict(list)
    for record in batch:
        turns[seen[record.subject]].append(record)
        seen[record.subject] += 1
    return list(turns.values())


def _turn(settings: Settings, records: Sequence[Record]) -> list[tuple[Any, ...]]:
    return [
        (
            settings.kafka_prefix + TOPIC_OF[record.type],
            record.data,
            cloudevents.key(record),
            cloudevents.headers(record),
        )
        for record in records
    ]


if __name__ == "__main__":
    main(sys.argv[1:])
