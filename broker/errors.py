"""Everything that can go wrong, in one tree, with the one table that says how it is answered.

BrokerError
├── Refused            the request is wrong; nothing was stored; `problems` say what and where
│   ├── Malformed          not JSON that can be read in one way only
│   ├── Conflict           contradicts what is already known (state, key, reference)
│   │   └── Stale              the If-Match is not the current version
│   ├── PreconditionRequired   an If-Match is needed
│   ├── NotFound           not there, or not yours: the same answer
│   ├── Gone               erased by retention
│   ├── Unauthenticated    no valid token
│   ├── Forbidden          a valid token that may not do this
│   ├── TooEarly           the same key is in flight
│   └── TooLarge · UnsupportedMediaType
├── Unavailable        the store cannot take it now; safe to send again; says if anything was kept
├── Retry              a delivery failed and may succeed later            (raised by consumers)
└── Reject             a delivery failed for good, with a code            (raised by consumers)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar, Literal, Self


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a request: where (in the sender's own words), what, and what to do."""

    field: str
    code: str
    detail: str
    todo: str = ""


class BrokerError(Exception):
    """Anything the broker raises on purpose."""


class Refused(BrokerError):
    """The request is refused and has left no trace."""

    code: ClassVar[str] = "invalid"

    def __init__(
        self, detail: str, problems: Sequence[Problem] = (), *, retry_after: int | None = None
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.problems = tuple(problems)
        self.retry_after = retry_after

    @classmethod
    def all_of(cls, problems: Sequence[Problem], *before: str) -> Self:
        """Return the refusal for all of these, counted; `before` are sentences to read first."""
        count = len(problems)
        counted = f"{count} problem{'s' if count != 1 else ''} found; nothing was stored."
        return cls(" ".join([*before, counted]), problems)

    def after(self, sentence: str) -> Self:
        """Return the same refusal with a sentence to read first."""
        detail = f"{sentence} {self.detail}"
        return type(self)(detail, self.problems, retry_after=self.retry_after)


class Malformed(Refused):
    """The body cannot be read in one way only."""

    code = "malformed"


class Conflict(Refused):
    """The request contradicts what is already known."""

    code = "conflict"


class Stale(Conflict):
    """The If-Match names a version that is not the current one."""

    code = "stale"


class PreconditionRequired(Refused):
    """The request must say with If-Match which version it is about."""

    code = "precondition-required"


class NotFound(Refused):
    """There is nothing here for this caller. Whether it exists is not said."""

    code = "not-found"


class Gone(Refused):
    """It was here and has been erased under the retention rules."""

    code = "gone"


class Unauthenticated(Refused):
    """The caller has not proved who it is."""

    code = "unauthenticated"


class Forbidden(Refused):
    """The caller is known and may not do this."""

    code = "forbidden"


class TooEarly(Refused):
    """A request with the same key is still being worked on."""

    code = "too-early"


class TooLarge(Refused):
    """The body is over the limit."""

    code = "too-large"


class UnsupportedMediaType(Refused):
    """The body is not of a type that this door reads."""

    code = "unsupported-media-type"


class Unavailable(BrokerError):
    """The store cannot take this now. Safe to send again: the detail says if anything was kept."""

    code: ClassVar[str] = "unavailable"

    def __init__(self, detail: str, *, retry_after: int = 5) -> None:
        super().__init__(detail)
        self.detail = detail
        self.retry_after = retry_after


DeliveryCode = Literal[
    "answered-4xx",
    "answered-5xx",
    "redirected",
    "connection-failed",
    "connection-lost",
    "timed-out",
    "address-refused",
    "answer-too-large",
    "not-connected",
    "does-not-take",
    "closed",
    "receipt-mismatch",
    "payload-erased",
    "handler-failed",
    "intermediary",
    "no-token",
    "not-offered",
]


class Retry(BrokerError):
    """A delivery failed and may succeed later. `not_before` obeys a Retry-After."""

    def __init__(
        self, code: DeliveryCode, *, status: int | None = None, not_before: datetime | None = None
    ) -> None:
        super().__init__(code)
        self.code: DeliveryCode = code
        self.status = status
        self.not_before = not_before


class Reject(BrokerError):
    """A delivery failed for good. The code is from a closed list; `answer` is what the destination
    said, where that is to be kept."""

    def __init__(
        self, code: DeliveryCode, *, status: int | None = None, answer: bytes | None = None
    ) -> None:
        super().__init__(code)
        self.code: DeliveryCode = code
        self.status = status
        self.answer = answer


@dataclass(frozen=True, slots=True)
class Answer:
    """How one error is told: HTTP status, the native problem's title, the FHIR issue type."""

    status: int
    title: str
    fhir_issue: str


ANSWERS: dict[str, Answer] = {
    "malformed": Answer(400, "The body cannot be read", "structure"),
    "key-required": Answer(400, "An Idempotency-Key is needed", "required"),
    "invalid": Answer(422, "The request is refused", "invalid"),
    "unauthenticated": Answer(401, "Sign in first", "login"),
    "forbidden": Answer(403, "Not allowed", "forbidden"),
    "not-found": Answer(404, "Not found", "not-found"),
    "conflict": Answer(409, "This contradicts what is already known", "conflict"),
    "gone": Answer(410, "Erased", "deleted"),
    "stale": Answer(412, "Someone else was first", "conflict"),
    "too-large": Answer(413, "The body is too large", "too-long"),
    "unsupported-media-type": Answer(415, "Wrong content type", "not-supported"),
    "too-early": Answer(425, "The same request is still being worked on", "duplicate"),
    "precondition-required": Answer(428, "An If-Match is needed", "required"),
    "unavailable": Answer(503, "Not available now; send it again", "transient"),
}


class KeyRequired(Refused):
    """A native POST needs an Idempotency-Key."""

    code = "key-required"
