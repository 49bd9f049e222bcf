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
│   ├── TooLarge · UnsupportedMediaType · TimedOut
│   └── BadRequest · NotYours · MethodNotAllowed · NotAcceptable · Duplicate · NotOffered
│       NotImplementedHere                 at FHIR's doors only
├── Unavailable        the store cannot take it now; safe to send again; says if anything was kept
├── Retry              a delivery failed and may succeed later            (raised by consumers)
└── Reject             a delivery failed for good, with a code            (raised by consumers)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, Literal, Self


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a request: where (in the sender's own words), what, and what to do.

    `instead` are the places, as `ODS/SERVICE`, of which one may be named where this one is refused.
    """

    field: str
    code: str
    detail: str
    todo: str = ""
    instead: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return it as every door answers it, and `from_json` reads it."""
        said: dict[str, Any] = {
            "field": self.field,
            "code": self.code,
            "detail": self.detail,
            "todo": self.todo,
        }
        return said | ({"instead": list(self.instead)} if self.instead else {})

    @staticmethod
    def from_json(said: Mapping[str, Any]) -> "Problem":
        return Problem(**{**said, "instead": tuple(said.get("instead", ()))})


class BrokerError(Exception):
    """Anything the broker raises on purpose."""


class Refused(BrokerError):
    """The request is refused and has left no trace."""

    code = "invalid"

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

    def as_json(self) -> dict[str, Any]:
        """Return all that `from_json` needs to say the same again."""
        return {
            "code": self.code,
            "detail": self.detail,
            "problems": [one.as_json() for one in self.problems],
        }

    @staticmethod
    def from_json(said: Mapping[str, Any]) -> "Refused":
        """Return a refusal that was remembered; it is answered by its code, as it was then."""
        again = Refused(said["detail"], [Problem.from_json(one) for one in said["problems"]])
        again.code = said["code"]
        return again

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


class UnknownTarget(NotFound):
    """No service of the directory is called so, and nobody received it."""

    code = "unknown-target"


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


class BadRequest(Refused):
    """A header or parameter is missing or wrong, or what was sent does not fit together.

    Each problem's code is the FHIR issue type: `required`, `value`, `invariant` …
    """

    code = "bad-request"


class NotYours(Refused):
    """A header names another organisation than the one that the token is for."""

    code = "not-yours"


class NotAcceptable(Refused):
    """The answer cannot be given in the form or version that was asked for."""

    code = "not-acceptable"


class Duplicate(Conflict):
    """This very request was taken before: to a BaRS sender the proof that it arrived."""

    code = "duplicate"


class NotOffered(Refused):
    """The use case or the version is none that the service addressed takes."""

    code = "not-offered"


class NotImplementedHere(Refused):
    """FHIR or BaRS knows this; the broker does not offer it."""

    code = "not-implemented"


class MethodNotAllowed(Refused):
    """There is something here, but not for this method."""

    code = "method-not-allowed"


class TimedOut(Refused):
    """The place that it is for has not answered in time. Safe to send again as it was."""

    code = "timed-out"


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
    "steps-lost",
]


class Fatal(BrokerError):
    """This process cannot go on: it ends, and whoever looks after it starts it again."""


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
    """How one error is told: HTTP status, the native problem's title; at FHIR's doors the issue
    type and the code of `http-error-codes`, whose prefix says whose fault it is: SEND_ the
    sender's, that was seen before the request was looked at; REC_ found by who received it.

    `is_native` is false for what only FHIR's doors say.
    """

    status: int
    title: str
    fhir_issue: str
    nhs_code: str
    is_native: bool = True


ANSWERS: dict[str, Answer] = {
    "malformed": Answer(400, "The body cannot be read", "structure", "REC_BAD_REQUEST"),
    "key-required": Answer(400, "An Idempotency-Key is needed", "required", "REC_BAD_REQUEST"),
    "bad-request": Answer(
        400, "The request does not fit together", "invalid", "REC_BAD_REQUEST", is_native=False
    ),
    "unauthenticated": Answer(401, "Sign in first", "login", "SEND_UNAUTHORIZED"),
    "not-yours": Answer(401, "Not in this name", "forbidden", "REC_UNAUTHORIZED", is_native=False),
    "forbidden": Answer(403, "Not allowed", "forbidden", "SEND_FORBIDDEN"),
    "unknown-target": Answer(
        404, "No such service", "not-found", "PROXY_NOT_FOUND", is_native=False
    ),
    "not-found": Answer(404, "Not found", "not-found", "REC_NOT_FOUND"),
    "method-not-allowed": Answer(
        405, "Not with this method", "not-supported", "REC_METHOD_NOT_ALLOWED", is_native=False
    ),
    "not-acceptable": Answer(
        406, "Not to be had in this form", "processing", "REC_NOT_ACCEPTABLE", is_native=False
    ),
    "timed-out": Answer(408, "It took too long", "timeout", "REC_TIMEOUT"),
    "conflict": Answer(409, "This contradicts what is already known", "conflict", "REC_CONFLICT"),
    "duplicate": Answer(409, "It was taken before", "duplicate", "REC_CONFLICT", is_native=False),
    "gone": Answer(410, "Erased", "deleted", "REC_NOT_FOUND"),
    "stale": Answer(412, "Someone else was first", "conflict", "REC_CONFLICT"),
    "too-large": Answer(413, "The body is too large", "too-long", "REC_BAD_REQUEST"),
    "unsupported-media-type": Answer(
        415, "Wrong content type", "not-supported", "REC_UNSUPPORTED_MEDIA_TYPE"
    ),
    "invalid": Answer(422, "The request is refused", "invalid", "REC_UNPROCESSABLE_ENTITY"),
    "not-offered": Answer(
        422, "Not offered here", "not-supported", "REC_UNPROCESSABLE_ENTITY", is_native=False
    ),
    "too-early": Answer(
        425, "The same request is still being worked on", "duplicate", "REC_TOO_EARLY"
    ),
    "precondition-required": Answer(428, "An If-Match is needed", "required", "REC_BAD_REQUEST"),
    "internal": Answer(500, "The broker failed", "exception", "REC_SERVER_ERROR"),
    "not-implemented": Answer(
        501, "Not offered here", "not-supported", "REC_NOT_IMPLEMENTED", is_native=False
    ),
    "unavailable": Answer(
        503, "Not available now; send it again", "transient", "REC_SERVICE_UNAVAILABLE"
    ),
}


class KeyRequired(Refused):
    """A native POST needs an Idempotency-Key."""

    code = "key-required"
