"""A log in memory: what tests put in the place of Kafka."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from broker.log import Batch, Quarantined, Record

BATCH: Final = 64


@dataclass
class Memory:
    """What was written, in its order, and how far each group has come."""

    entries: list[Record | Quarantined] = field(default_factory=list)
    done: dict[str, int] = field(default_factory=dict)

    @property
    def records(self) -> list[Record]:
        """Every record that was published, repeats among them."""
        return [one for one in self.entries if isinstance(one, Record)]


class Publisher:
    """Writes to a log in memory; what is larger than `largest` bytes is refused."""

    def __init__(self, log: Memory, *, largest: int = 1_048_576) -> None:
        self._log = log
        self._largest = largest

    async def publish(self, records: Sequence[Record]) -> Sequence[Quarantined]:
        refused = []
        for record in records:
            if len(record.data) > self._largest:
                refused.append(Quarantined(record.id, "too-large"))
            else:
                self._log.entries.append(record)
        return refused

    async def close(self) -> None:
        return


class Reader:
    """Reads a log in memory, as the only one of its group."""

    def __init__(self, log: Memory, group: str) -> None:
        self._log = log
        self._group = group

    async def read(self) -> Batch:
        begin = self._log.done.get(self._group, 0)
        entries = self._log.entries[begin : begin + BATCH]
        end = begin + len(entries)

        async def commit() -> None:
            self._log.done[self._group] = max(end, self._log.done.get(self._group, 0))

        records = [one for one in entries if isinstance(one, Record)]
        return Batch(records, [one for one in entries if isinstance(one, Quarantined)], commit)

    async def lag(self) -> int:
        return len(self._log.entries) - self._log.done.get(self._group, 0)

    async def close(self) -> None:
        return
