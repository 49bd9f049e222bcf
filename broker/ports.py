"""The ports: what the broker asks of adapters, consumers, outlets and key rings.

Adapters and consumers know only these names, `broker.events`, `broker.errors` and `fhir_profiles`;
consumers `broker.addressing` too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, Protocol

from pydantic import BaseModel

from broker.errors import Problem
from broker.events import (
    Destination,
    Event,
    Kind,
    Priority,
    Recorded,
    Role,
    Route,
    SubjectKind,
)
from fhir_profiles.bars.outgoing import Place

# -- adapters ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Party:
    """An organisation as a message names it."""

    ods: str
    name: str
    telephone: str = ""
    service: str = ""


@dataclass(frozen=True, slots=True)
class Seek:
    """What kind of destination a message needs; routing turns it into one, with the reason why.

    `named` is what the sender (or the patient's choice) named; else `receiver_type` and
    `subspecialty` are looked for in the ICB of `practice`, else of the postcode's area. `words`
    is what a person calls that which is looked for, in the plural: reasons and refusals say it.
    What is named must be of `pillar`, if one is given. `is_referrer`: it is whoever sent the
    referral that the request is the answer to, whom only the broker knows. Where the broker named
    it and not the sender, `because` says why.
    `field` is where the body says what is sought, where that is not as `FieldPaths` has it.
    """

    role: Role
    receiver_type: str
    subspecialty: str = ""
    named: Destination | None = None
    practice: str | None = None
    postcode: str | None = None
    words: str = ""
    pillar: str = ""
    is_referrer: bool = False
    because: str = ""
    field: str = ""


@dataclass(frozen=True, slots=True)
class Clinical:
    """An extra clock of a pathway: `kind` (seen, treated …) by `due`, from the rule `source`."""

    kind: str
    due: datetime
    source: str


@dataclass(frozen=True, slots=True)
class Want:
    """One message that a request asks for, before it is known where it goes.

    A want that is not `required` and cannot be routed is left out: the sender is told with
    `if_left_out`, a sentence that begins "No task was sent." and to which routing adds whom to
    telephone. What is `chosen_by_patient` goes to no other organisation without their word. Of a
    child, or of who is at risk, it never `closes_alone`, whatever its pathway says.
    """

    key: str
    kind: Kind
    pathway: str
    pathway_version: str
    priority: Priority
    seeks: tuple[Seek, ...]
    happened: datetime | date
    required: bool = True
    if_left_out: str = ""
    clocks: tuple[Clinical, ...] = ()
    reason_code: str = ""
    chosen_by_patient: bool = False
    closes_alone: bool = True


@dataclass(frozen=True, slots=True)
class FieldPaths:
    """How the sender's own body calls what a problem of intake or routing is about.

    `deciding` are the fields that say what kind of place is sought, and in which area.
    """

    named: str = ""
    practice: str = ""
    sought: str = ""
    deciding: tuple[str, ...] = ()
    reference: str = "reference"


@dataclass(frozen=True, slots=True)
class Closes:
    """The referral whose loop a request closes, as its receiver names it: by its id or that of its
    message, or by the `reference` that its sender, an ODS code, gave it.

    It `ends` it, with `outcome` as what is told of that, or `hands_back` to its sender what is left
    to do; or only tells its course, and leaves it open, in progress. `diagnosis` is what a patient
    with a suspected cancer was told. `tells_all`: who gets the request's own message hears nothing
    beside of the move that it makes. Where `refuses_late` is true, one that was over already is
    refused, else it is a warning. With a `pathway`, a referral on another one is refused. `field`
    is where the body names it.
    """

    field: str
    referral: str = ""
    sender: str = ""
    reference: str = ""
    pathway: str = ""
    ends: bool = True
    hands_back: bool = False
    outcome: str = ""
    diagnosis: str = ""
    tells_all: bool = False
    refuses_late: bool = False


@dataclass(frozen=True, slots=True)
class Talks:
    """What a clinical message belongs to. Its sender says of which `kind` it is, and names by its
    id a referral or message that it is `about`, or the message that it is `in_reply_to`.

    The broker adds what that is: the `message` that is spoken about, its kind and, of a referral,
    the `referral`; the `about_subject`; the `content` that lends the patient, who is known by the
    pseudonym `patient`; the `thread` that it goes on; and the question that it `meets`.
    """

    kind: str
    about: str = ""
    in_reply_to: str = ""
    is_answer: bool = False
    is_chase: bool = False
    message: str = ""
    message_kind: Kind | None = None
    referral: str = ""
    about_subject: str = ""
    content: bytes | None = field(default=None, repr=False)
    patient: tuple[str, str] | None = None
    thread: str = ""
    meets: str = ""


@dataclass(frozen=True, slots=True)
class Enclosed:
    """An attachment that a body names: its id and SHA-256, and where the body names it."""

    id: str
    sha256: str
    field: str


@dataclass(frozen=True, slots=True)
class Attached:
    """What the broker knows of an attachment: what it is, how large, and where it is fetched."""

    id: str
    sha256: str
    content_type: str
    size: int
    url: str


@dataclass(frozen=True, slots=True)
class Needs:
    """What intake must know of a request before it is translated.

    `organisation` is the ODS code that the body says it comes from, `reference` the sender's own.
    `consent` False: nothing is sent and nothing clinical is kept. `warnings` are told to the
    sender and carried on the message. `advice` are sentences that the sender must read, most
    important first. `escalates` is true where a refusal must begin "Nothing was sent.". `closes` is
    the referral that this ends, or tells the course of; `talks` what it is part of a conversation
    about; `based_on` the message that it goes on from, with what was `said_before`. `attachments`
    are refused unless all are there as named. `nhs_number` is used for a keyed pseudonym only.
    `practice` is the registered practice, if it is known.
    """

    organisation: str
    reference: str
    subject: SubjectKind
    wants: tuple[Want, ...]
    consent: bool
    purpose: str = "direct-care"
    label: str = "N"
    nhs_number: str | None = None
    identity_verified: bool = True
    practice: str | None = None
    escalates: bool = False
    warnings: tuple[Problem, ...] = ()
    advice: tuple[str, ...] = ()
    closes: Closes | None = None
    talks: Talks | None = None
    based_on: str | None = None
    said_before: tuple[str, ...] = ()
    attachments: tuple[Enclosed, ...] = ()


@dataclass(frozen=True, slots=True)
class Withheld:
    """All that is read of a body whose patient refused: who posted it, under which reference.

    `kind` is what its first message would have been. `problems` refuse it; `read_first` is what
    the sender must be told of what was not sent.
    """

    kind: Kind
    organisation: str
    reference: str
    problems: tuple[Problem, ...] = ()
    read_first: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Context:
    """What translation may use beside the request: ids, parties and the one time that counts.

    `message_ids`, `destinations` and `priorities` have one entry per want that goes out, by key.
    `referral` is the id of the referral that the request `closes`, if it names one; `talks` is what
    a clinical message belongs to, `based_on` the message that a referral goes on from, with
    what was `said_before`;
    `attachments` are those that it names, by id.
    """

    message_ids: Mapping[str, str]
    sender: Party
    practice: Party | None
    destinations: Mapping[str, tuple[tuple[Party, Role], ...]]
    correlation_id: str
    now: datetime
    warnings: tuple[Problem, ...] = ()
    priorities: Mapping[str, Priority] = field(default_factory=dict)
    referral: str | None = None
    talks: Talks | None = None
    based_on: str | None = None
    said_before: tuple[str, ...] = ()
    attachments: Mapping[str, Attached] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Draft:
    """One translated message: `content` is its FHIR Bundle, not yet addressed (see
    `fhir_profiles.bundle`), `focus` the fullUrl of the resource that it is about.

    `checked` is the content as it was read and checked when it came in; what has none is of our own
    making. `attachments` are the ids of those that it names."""

    key: str
    content: bytes = field(repr=False)
    focus: str
    checked: Mapping[str, Any] | None = field(default=None, repr=False)
    attachments: tuple[str, ...] = ()


class Translator(Protocol):
    """What makes messages of a request that was understood. Pure: same input, same bytes."""

    @property
    def paths(self) -> FieldPaths: ...

    def translate(self, request: Any, context: Context) -> Sequence[Draft]: ...

    def danger(self, raw: Mapping[str, Any]) -> str | None:
        """Say in a sentence whom to telephone, if a body that is refused speaks of a red flag, an
        escalation or an urgent priority. Reads what it can of any body and never raises."""
        ...


class Adapter(Translator, Protocol):
    """Pure translation between one pillar's own words and FHIR. The same input, the same bytes.

    `name` is its pillar's, with a word after a dot where the pillar has several doors
    (`pharmacy.referrals`). `door` is the path it is posted to, `examples` complete bodies by name,
    which the OpenAPI page shows and the tests post unmodified.
    """

    @property
    def name(self) -> str: ...

    @property
    def door(self) -> str: ...

    @property
    def examples(self) -> Mapping[str, Mapping[str, Any]]: ...

    @property
    def accepts(self) -> type[BaseModel]: ...

    def needs(self, request: Any, now: datetime) -> Needs:
        """Return what it needs; `now` is when it is sent, or that which it corrects first was."""
        ...

    def withheld(self, raw: Mapping[str, Any]) -> Withheld | None:
        """Read the few fields that are still looked at where the patient refused; else None."""
        ...

    def sought(self, raw: Mapping[str, Any]) -> Seek | None:
        """Return whom a body is for, as far as it can be read of it. Never raises."""
        ...


# -- consumers -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Endpoint:
    """How a destination is reached: `inbox`; `webhook` or `bars` with a URL. Looked up at each
    attempt.

    A BaRS endpoint's `url` is the base of its FHIR API; where it wants a token, that is got at
    `token_url` by the `client` that the broker is there. What was learnt of it before
    `refreshed_at` (the operator's word) is not gone by any more.
    """

    destination: Destination
    channel: str
    url: str = ""
    token_url: str = ""
    client: str = ""
    refreshed_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Delivery:
    """One attempt at one obligation. `id` is the same for ever, over every attempt.

    `sender` is whose message it is, and `target` the (system, value) that BaRS names the place by.
    """

    id: str
    event: Recorded
    kind: Kind
    destination: Destination
    role: Role
    attempt: int
    digest: str
    body: bytes = field(repr=False)
    endpoint: Endpoint
    sender: Party = field(default_factory=lambda: Party("", ""))
    target: tuple[str, str] = ("", "")


@dataclass(frozen=True, slots=True)
class Receipt:
    """A destination's word that it has stored a delivery: it names delivery, digest and itself."""

    delivery: str
    digest: str
    ods: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What handling brought: a receipt or, after a bare 2xx, none; and what follows from it.

    `via` is by whose word it was received: a webhook's own receipt, or what a BaRS endpoint answers
    stands for. `answer` is what the destination said, where that is to be kept.
    """

    receipt: Receipt | None = None
    status: int | None = None
    follow_ups: tuple[Event, ...] = ()
    via: str = "webhook"
    answer: bytes | None = field(default=None, repr=False)


class Outlet(Protocol):
    """The way out over the network. The only one: address rules, limits and time-outs are its."""

    async def post(self, delivery: Delivery) -> Outcome:
        """Send once. Raises Retry or Reject."""
        ...


@dataclass(frozen=True, slots=True)
class Original:
    """The referral that a notice tells of, with what came or went out of it.

    `went_as` is the id of the message Bundle by which the service that must act got it, `given_id`
    the one that this service gave its request in answer, if it did.
    """

    event: Recorded
    content: bytes = field(repr=False)
    sender: Destination
    performer: Place
    went_as: str
    given_id: str | None = None


@dataclass(frozen=True, slots=True)
class Bars:
    """What is known of a delivery to a place that speaks BaRS: what both ends are called there.

    `original` is the referral that is told of, where there is one.
    """

    sender: Place
    receiver: Place
    pathway: str
    original: Original | None = None


@dataclass(frozen=True, slots=True)
class Alike:
    """Another message of the same patient, kind and pathway, as far as this receiver may know of
    it: when it was accepted, whether of the same sender, and its id where it is a party of it."""

    accepted_at: datetime
    is_of_same_sender: bool
    message: str | None = None


@dataclass(frozen=True, slots=True)
class Addressed:
    """To whom a content Bundle is composed, and by whom and why it was sent.

    With `bars`, it is composed as a message of BaRS, where BaRS has one for it. `alike` are what
    its receiver is told to look out for.
    """

    delivery: str
    receiver: Party
    role: Role
    sender: Party
    kind: Kind
    bars: Bars | None = None
    alike: tuple[Alike, ...] = ()


class Consumer(Protocol):
    """One kind of destination."""

    @property
    def name(self) -> str: ...

    @property
    def types(self) -> frozenset[str]: ...

    def destinations(self, event: Recorded) -> Sequence[Route]: ...

    def compose(self, event: Recorded, content: bytes, to: Addressed) -> bytes:
        """Return the whole body that this destination gets. Pure; called once per delivery."""
        ...

    async def handle(self, delivery: Delivery, outlet: Outlet) -> Outcome:
        """Attempt it once. Raises Retry or Reject."""
        ...


# -- keys ----------------------------------------------------------------------------------------


class KeyRing(Protocol):
    """Holds the keys that wrap message keys and make pseudonyms. Never in the database."""

    @property
    def current_kek(self) -> str: ...

    def kek(self, key_id: str) -> bytes: ...

    def pseudonym_keys(self) -> Sequence[tuple[str, bytes]]: ...

    def reference_key(self) -> bytes: ...

    def topic_secret(self) -> tuple[str, bytes]: ...
