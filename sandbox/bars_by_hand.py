"""`python -m sandbox.bars_by_hand`: a BaRS message to send by hand, or the headers to go with it.

    … headers SERVICE CASE                 header lines for curl -H @FILE: a new X-Request-Id
    … referral SENDER RECEIVER SERVICE     a new referral of Application 5
    … cancellation MESSAGE ANSWER          what ends it: both are files, as sent and as answered

SENDER and RECEIVER are ODS codes, SERVICE is an id in the Directory of Services, CASE a UUID: the
X-Correlation-Id of all that is about one referral.
"""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from sandbox import bars


def _headers(service: str, case: str) -> str:
    found = bars.headers(service) | {"X-Correlation-Id": case}
    return "\n".join(f"{name}: {value}" for name, value in found.items())


def _referral(sender: str, receiver: str, service: str) -> str:
    return json.dumps(bars.referral(sender=sender, receiver=receiver, service=service), indent=2)


def _cancellation(message: str, answer: str) -> str:
    sent, answered = (
        json.loads(Path(one).read_text(encoding="utf-8")) for one in (message, answer)
    )
    return json.dumps(bars.cancellation(sent, answered), indent=2)


_PRINTED: Final[dict[tuple[str, int], Callable[..., str]]] = {
    ("headers", 2): _headers,
    ("referral", 3): _referral,
    ("cancellation", 2): _cancellation,
}


def printed(said: Sequence[str]) -> str | None:
    """Return what a command line asks for; None where it asks for nothing that there is."""
    made: Any = _PRINTED.get((said[0], len(said) - 1)) if said else None
    return None if made is None else made(*said[1:])


if __name__ == "__main__":
    found = printed(sys.argv[1:])
    sys.stdout.write(f"{found}\n" if found is not None else f"{__doc__}")
    sys.exit(0 if found is not None else 2)
