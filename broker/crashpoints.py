"""Named places at which a fault test kills the process, as a power cut would.

`CRASHPOINT=intake.committed:3` in the environment: the third time that place is reached the
process gets SIGKILL. Without it a crash point costs one comparison.
"""

import itertools
import os
import signal

POINTS = (
    "intake.parsed",
    "intake.sealed",
    "store.recorded",
    "store.before-commit",
    "store.committed",
    "intake.before-answer",
    "attachment.synced",
    "attachment.named",
    "relay.read",
    "relay.before-publish",
    "relay.published",
    "relay.committed",
    "hints.read",
    "hints.fanned-out",
    "hints.committed",
    "dispatch.read",
    "dispatch.composed",
    "dispatch.fanned-out",
    "worker.claimed",
    "worker.before-send",
    "worker.sent",
    "worker.settled",
    "receipt.before-write",
    "receipt.written",
    "decision.written",
    "withdrawal.written",
    "correction.written",
    "deadlines.raised",
    "replay.begun",
    "replay.published",
    "replay.made",
    "replay.resent",
    "replay.set-back",
    "backup.copied",
    "attachments.copied",
    "restore.copied",
    "restore.begun",
    "restore.named",
    "restore.received",
    "restore.compared",
    "restore.reconciled",
    "restore.ended",
    "migrate.backed-up",
    "migrate.applied",
    "migrate.before-commit",
)

_name, _, _nth = os.environ.get("CRASHPOINT", "").partition(":")
_wanted = int(_nth or "1")
_seen = itertools.count(1)

if _name and _name not in POINTS:
    raise RuntimeError(f"CRASHPOINT names {_name!r}; the points are {', '.join(POINTS)}")


def crashpoint(name: str) -> None:
    """Die here if this is the place and the time that CRASHPOINT names."""
    if name == _name and next(_seen) == _wanted:
        os.kill(os.getpid(), signal.SIGKILL)
