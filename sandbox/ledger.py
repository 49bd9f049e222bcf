"""A partner's own ledger: what it sent with what answer, what it was sent and what it did with it.

One JSON object per line, only ever appended. It is the partner's word, kept apart from the broker:
tests and the demo compare the two sides' ledgers with each other and with what the broker says.
"""

import asyncio
import json
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar

T = TypeVar("T")
Entry = dict[str, Any]

_LOOK_EVERY: Final = 0.02


class Ledger:
    """Append-only and on disk: an entry that was written is there after any crash.

    Words used for `what`. What a partner does at the broker (`does`: post, decide) is an `invoke`
    and, under the same `op`, how it ended: `ok`, `fail` (refused for good) or `unknown` (it may
    have happened or not; so it is too where the invoke stands alone). What it is sent: received,
    received-again, confirmed, lied; misbehaved (as a sentinel asked), refused (a bad signature),
    followed (a redirection, which nobody should), missed (a look, a collection or a receipt that
    came to nothing). `mono` is monotonic seconds, the same clock for every process of one machine.
    """

    def __init__(self, path: Path, owner: str) -> None:
        self.path = path
        self.owner = owner
        self._entries = [json.loads(line) for line in _whole_lines(path)]
        self._file = path.open("ab", buffering=0)

    def write(self, what: str, **facts: Any) -> Entry:
        """Append an entry. On disk on return, so a partner writes before it answers."""
        entry: Entry = {
            "seq": len(self._entries) + 1,
            "at": datetime.now(UTC).isoformat(),
            "mono": time.monotonic(),
            "partner": self.owner,
            "what": what,
            **facts,
        }
        self._file.write(json.dumps(entry, separators=(",", ":"), default=str).encode() + b"\n")
        os.fsync(self._file.fileno())
        self._entries.append(entry)
        return entry

    def entries(self, what: str = "", **facts: Any) -> list[Entry]:
        """Return the entries of this kind with these facts, oldest first."""
        return [
            entry
            for entry in self._entries
            if (not what or entry["what"] == what)
            and all(entry.get(name) == value for name, value in facts.items())
        ]

    def first(self, what: str = "", **facts: Any) -> Entry | None:
        """Return the first such entry, if there is one."""
        return next(iter(self.entries(what, **facts)), None)

    def close(self) -> None:
        """Stop writing."""
        self._file.close()


def _whole_lines(path: Path) -> list[bytes]:
    """Return every line that was written whole; a torn last one was never answered for."""
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")
    if lines[-1]:
        path.write_bytes(b"".join(line + b"\n" for line in lines[:-1]))
    return lines[:-1]


async def until(look: Callable[[], T | None], seconds: float = 10.0) -> T | None:
    """Return the first thing found that is not None and not false; None once time is up."""
    loop = asyncio.get_running_loop()
    ends = loop.time() + seconds
    while True:
        found = look()
        if found:
            return found
        if loop.time() >= ends:
            return None
        await asyncio.sleep(_LOOK_EVERY)
