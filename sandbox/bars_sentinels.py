"""Sentinel targets: the DoS service id that a tester sends to decides what its receiver answers.

A tester needs nothing but a BaRS message of its own: one to the service 2000042201 is answered with
"422 - REC_UNPROCESSABLE_ENTITY", whatever is in it. All the services are of the organisation FZZ99.
What the receiver answers is not always what the sender gets: a refusal for good is passed on, but
what may pass is tried again by the broker, which then answers for itself.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

import yaml

from sandbox.bars_receiver import BarsReceiver, Call, Scripted, outcome

ORGANISATION: Final = "FZZ99"
SLOW_SECONDS: Final = 6.0
REFERENCE: Final = "SENTINEL-1"
TAKES: Final = "2000020001"
_NAME: Final = "Sentinel Pharmacy"
_TELEPHONE: Final = "0113 496 0199"
# A repeat of these cures nothing: BaRS's sender is to mend its message. Anything else may pass.
_FOR_GOOD: Final = frozenset({400, 405, 406, 409, 415, 422})
_HTML: Final = b"<html><body>Bad request</body></html>"


class Gets(StrEnum):
    """What the sender is answered."""

    ERROR = "error"
    TAKEN = "taken"
    HELD = "held"


MEANS: Final[Mapping[Gets, str]] = MappingProxyType(
    {
        Gets.ERROR: "the receiver's own status and outcome; the referral is over",
        Gets.TAKEN: "200: it is with the service",
        Gets.HELD: (
            "200: it is held by the broker, which tries again; 408 REC_TIMEOUT where the sender "
            "could not be told later, and is to ask again"
        ),
    }
)


@dataclass(frozen=True, slots=True)
class Target:
    """One service, what its receiver does with every message, and what the sender gets."""

    dos: str
    words: str
    gets: Gets
    scripted: Scripted | None = None
    after: float = 0.0

    @property
    def service(self) -> str:
        """Its code in the directory."""
        return f"{ORGANISATION}-{self.dos}"


_ERRORS: Final = (
    (400, "REC_BAD_REQUEST", "invalid", "a header is there but bad"),
    (400, "REC_BAD_REQUEST", "required", "a header or parameter is missing"),
    (400, "REC_BAD_REQUEST", "value", "something is in the wrong form"),
    (400, "REC_BAD_REQUEST", "invariant", "event, reason, category and status do not go together"),
    (400, "REC_BAD_REQUEST", "not-supported", "a feature that it does not have yet"),
    (401, "REC_UNAUTHORIZED", "security", "its access control does not know the broker"),
    (401, "REC_UNAUTHORIZED", "forbidden", "its access control does not let the broker in"),
    (403, "REC_FORBIDDEN", "forbidden", "the broker may not call it"),
    (403, "REC_FORBIDDEN", "security", "mutual TLS fails"),
    (404, "REC_NOT_FOUND", "not-found", "it does not know the resource"),
    (405, "REC_METHOD_NOT_ALLOWED", "not-supported", "it does not take this method"),
    (406, "REC_NOT_ACCEPTABLE", "processing", "it does not speak this version of BaRS Core"),
    (408, "REC_TIMEOUT", "timeout", "it took too long within"),
    (409, "REC_CONFLICT", "duplicate", "it has this very request already: proof that it arrived"),
    (409, "REC_CONFLICT", "conflict", "it has changed the referral meanwhile"),
    (415, "REC_UNSUPPORTED_MEDIA_TYPE", "not-supported", "it does not read this content type"),
    (
        422,
        "REC_UNPROCESSABLE_ENTITY",
        "not-supported",
        "it does not offer this use case",
    ),
    (422, "REC_UNPROCESSABLE_ENTITY", "too-costly", "it was asked for too much at once"),
    (425, "REC_TOO_EARLY", "duplicate", "it is still working on the first attempt"),
    (429, "REC_TOO_MANY_REQUESTS", "throttled", "it gets too many requests"),
    (500, "REC_SERVER_ERROR", "exception", "a bug of its own"),
    (500, "REC_SERVER_ERROR", "transient", "a fault of its own that passes"),
    (500, "REC_SERVER_ERROR", "no-store", "it cannot store it"),
    (500, "REC_SERVER_ERROR", "too-costly", "it has no room to work on it"),
    (501, "REC_NOT_IMPLEMENTED", "not-supported", "it has no such endpoint"),
    (503, "REC_SERVICE_UNAVAILABLE", "transient", "it is down for a while"),
)


def _rows() -> Iterator[Target]:
    yield Target(TAKES, "takes it, with a reference of its own", Gets.TAKEN)
    seconds = f"{SLOW_SECONDS:g} s"
    yield Target(
        "2000020002",
        f"takes it, and answers after {seconds}; has it already when it comes again",
        Gets.HELD,
        after=SLOW_SECONDS,
    )
    yield Target("2000000001", "breaks the connection off", Gets.HELD, Scripted(503, drops=True))
    yield Target(
        "2000000002",
        "somebody between answers 400: HTML, without the ids of the request",
        Gets.HELD,
        Scripted(400, _HTML, {"content-type": "text/html"}, echo=False),
    )
    numbers: Counter[int] = Counter()
    for status, code, issue, words in _ERRORS:
        numbers[status] += 1
        dos = f"20000{status}{numbers[status]:02}"
        gets = Gets.ERROR if status in _FOR_GOOD else Gets.HELD
        if (status, issue) == (409, "duplicate"):
            gets = Gets.TAKEN
        said = f"Sentinel {dos}: {words}."
        yield Target(
            dos, f"{status} {code} {issue}: {words}", gets, outcome(status, code, issue, said)
        )


TABLE: Final[Mapping[str, Target]] = MappingProxyType({one.dos: one for one in _rows()})
"""Every target, by its DoS service id."""


class SentinelReceiver(BarsReceiver):
    """The one receiver behind all of them: it goes by the service that a message is for."""

    def __init__(self) -> None:
        super().__init__(reference=REFERENCE)

    def answer(self, call: Call) -> Scripted:
        """Return what the target does with a message; what it offers it says as any receiver."""
        target = _target(call)
        if call.method != "POST" or target is None:
            return super().answer(call)
        if target.scripted is not None:
            return target.scripted
        said = super().answer(call)
        return replace(said, after=target.after) if said.status == 200 else said


def _target(call: Call) -> Target | None:
    try:
        return TABLE.get(call.decoded("nhsd-target-identifier")["value"])
    except (LookupError, TypeError, ValueError):
        return None


def as_table() -> list[tuple[str, str, str]]:
    """Return (DoS service id, what its receiver does, what the sender gets), the headings first."""
    rows = [("DoS service id", "what the receiver does", "what the sender gets")]
    return rows + [(one.dos, one.words, one.gets) for one in TABLE.values()]


def joined(directory: str, url: str) -> str:
    """Return a directory file with every target added to it, all reached at `url`."""
    whole: dict[str, list[Any]] = yaml.load(directory, yaml.BaseLoader)  # noqa: S506  texts only
    icb = whole["icbs"][0]["code"]
    organisation = {
        "ods": ORGANISATION,
        "name": _NAME,
        "pillar": "pharmacy",
        "icb": icb,
        "telephone": _TELEPHONE,
    }
    whole["organisations"].append(organisation)
    for one in TABLE.values():
        # It offers nothing to be found by: nothing goes here that does not name its DoS id.
        service = {
            "code": one.service,
            "organisation": ORGANISATION,
            "name": f"Sentinel target {one.dos}",
            "icb": icb,
            "postcode_areas": [],
            "telephone": _TELEPHONE,
            "dos": one.dos,
            "offers": [],
            "opening_hours": [],
        }
        endpoint = {
            "organisation": ORGANISATION,
            "service": one.service,
            "channel": "bars",
            "url": url,
            "takes": ["referral", "notice"],
        }
        whole["services"].append(service)
        whole["endpoints"].append(endpoint)
    return yaml.safe_dump(whole, sort_keys=False, allow_unicode=True)
