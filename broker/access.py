"""May this caller do this to that? One pure function over one decision table; no is the default.

Every route of every door asks `decide`. What is not in the table is not allowed. A refusal about an
object that the caller need not know of reads as if it were not there.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from broker.directory_entries import Agreement
from broker.referral import MOVES, Door, Relation
from fhir_profiles.working_days import london

OPEN_ROUTES: Final = (
    "/health/live",
    "/health/ready",
    "/oauth2/token",
    "/docs",
    "/openapi.json",
    "/FHIR/R4/metadata",
    "/FHIR/R4/{definition}",
    "/FHIR/R4/{definition}/{id}",
)
"""The only paths that answer without a token. A test holds every other route to `decide`."""

NOT_THERE: Final = "There is nothing here for this caller."
DOORS_OWN: Final = "<door>:submit"


class Scope(StrEnum):
    """What a client may be registered for; each pillar's door has a scope of its own beside."""

    MESSAGES_READ = "messages:read"
    MESSAGES_WRITE = "messages:write"
    INBOX_READ = "inbox:read"
    INBOX_WRITE = "inbox:write"
    REFERRALS_READ = "referrals:read"
    REFERRALS_WRITE = "referrals:write"
    DIRECTORY_READ = "directory:read"
    ATTACHMENTS_READ = "attachments:read"
    ATTACHMENTS_WRITE = "attachments:write"
    FHIR_READ = "fhir:read"
    FHIR_WRITE = "fhir:write"
    BARS = "bars:process-message"


class Action(StrEnum):
    """Everything that can be done over HTTP."""

    SUBMIT = "message.submit"
    CORRECT = "message.correct"
    WITHDRAW = "message.withdraw"
    CLOSE = "message.close"
    RECORD_CALL = "message.telephone-call"
    TRACK = "message.track"
    LIST_MESSAGES = "messages.list"
    LIST_OVERDUE = "overdue.list"
    LIST_INBOX = "inbox.list"
    COLLECT = "inbox.collect"
    GIVE_RECEIPT = "inbox.receipt"
    ACKNOWLEDGE = "inbox.acknowledge"
    READ_REFERRAL = "referral.read"
    MOVE_REFERRAL = "referral.move"
    CONVERT_REFERRAL = "referral.convert"
    UPDATE_TASK = "task.update"
    READ_ORGANISATION = "organisation.read"
    READ_PATHWAYS = "pathways.read"
    LIST_SERVICES = "services.list"
    UPLOAD = "attachment.upload"
    FETCH = "attachment.fetch"
    READ_THREAD = "thread.read"
    READ_RESOURCE = "resource.read"
    SEARCH_RESOURCES = "resources.search"
    CREATE_RESOURCE = "resource.create"
    PROCESS_MESSAGE = "bars.process-message"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls: a client with a token that is for exactly one organisation."""

    client_id: str
    organisation: str
    scopes: frozenset[str]
    name: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether it is allowed, and why. `as_not_found`: answer 404, and do not say why."""

    allowed: bool
    reason: str
    as_not_found: bool = False


@dataclass(frozen=True, slots=True)
class Rule:
    """One row. Scope `DOORS_OWN`: that of the door. No relations: not about an object.

    `restricted` are the relations that hold for a restricted label too. `does` says what is done
    to the object. `starts` marks what begins a new disclosure, which an agreement out of force
    forbids; what was sent may be seen through.
    """

    scope: Scope | str
    relations: frozenset[Relation] = frozenset()
    restricted: frozenset[Relation] = frozenset()
    does: str = ""
    starts: bool = False


_SENDER: Final = frozenset({Relation.SENDER})
_ACTING: Final = frozenset({Relation.ACTING})
_RECEIVERS: Final = frozenset({Relation.ACTING, Relation.COPY, Relation.NOTICE})
_PARTIES: Final = _SENDER | _ACTING
_EVERYBODY: Final = _SENDER | _RECEIVERS
# Who may make which move stands in the referral's own table and nowhere else: here pass those who
# may make any, and the table answers the rest with what is allowed now.
_MOVERS: Final = frozenset().union(*(m.by for m in MOVES.values() if m.door is Door.MOVE))
_S = Scope

# Restricted (R) and very restricted (V) are seen by those named as parties: the sender and the
# acting receiver. Only what was delivered to somebody stays theirs to collect and confirm: a
# message that nobody can collect would be lost, and its label was weighed before it was delivered.
TABLE: Final[Mapping[Action, Rule]] = MappingProxyType(
    {
        Action.SUBMIT: Rule(DOORS_OWN, starts=True),
        Action.CORRECT: Rule(DOORS_OWN, _SENDER, _SENDER, "correct this message", starts=True),
        Action.WITHDRAW: Rule(_S.MESSAGES_WRITE, _SENDER, _SENDER, "withdraw this message"),
        Action.CLOSE: Rule(_S.MESSAGES_WRITE, _SENDER, _SENDER, "close this message"),
        Action.RECORD_CALL: Rule(
            _S.MESSAGES_WRITE, _SENDER, _SENDER, "record a call about this message"
        ),
        Action.TRACK: Rule(_S.MESSAGES_READ, _EVERYBODY, _PARTIES, "track this message"),
        Action.LIST_MESSAGES: Rule(_S.MESSAGES_READ),
        Action.LIST_OVERDUE: Rule(_S.MESSAGES_READ),
        Action.LIST_INBOX: Rule(_S.INBOX_READ),
        Action.COLLECT: Rule(_S.INBOX_READ, _RECEIVERS, _RECEIVERS, "collect this delivery"),
        Action.GIVE_RECEIPT: Rule(_S.INBOX_WRITE, _RECEIVERS, _RECEIVERS, "confirm this delivery"),
        Action.ACKNOWLEDGE: Rule(
            _S.INBOX_WRITE,
            _ACTING | {Relation.COPY},
            _ACTING | {Relation.COPY},
            "decide on this delivery",
        ),
        Action.READ_REFERRAL: Rule(_S.REFERRALS_READ, _EVERYBODY, _PARTIES, "read this referral"),
        Action.MOVE_REFERRAL: Rule(_S.REFERRALS_WRITE, _MOVERS, _MOVERS, "move this referral"),
        Action.CONVERT_REFERRAL: Rule(
            _S.REFERRALS_WRITE, _PARTIES, _PARTIES, "make a referral of this request"
        ),
        Action.UPDATE_TASK: Rule(_S.FHIR_WRITE, _MOVERS, _MOVERS, "move this referral"),
        Action.READ_ORGANISATION: Rule(_S.DIRECTORY_READ),
        Action.READ_PATHWAYS: Rule(_S.DIRECTORY_READ),
        Action.LIST_SERVICES: Rule(_S.DIRECTORY_READ),
        Action.UPLOAD: Rule(_S.ATTACHMENTS_WRITE),
        # A part of what was delivered, and so theirs to collect like the rest of it.
        Action.FETCH: Rule(_S.ATTACHMENTS_READ, _RECEIVERS, _RECEIVERS, "fetch this attachment"),
        Action.READ_THREAD: Rule(_S.MESSAGES_READ, _EVERYBODY, _PARTIES, "read this thread"),
        Action.READ_RESOURCE: Rule(_S.FHIR_READ, _EVERYBODY, _PARTIES, "read this resource"),
        # Asked before it is searched; what is found is what may be read: see `readable`.
        Action.SEARCH_RESOURCES: Rule(_S.FHIR_READ),
        Action.CREATE_RESOURCE: Rule(_S.FHIR_WRITE, starts=True),
        # What a message may do to a referral is asked of the referral's own table.
        Action.PROCESS_MESSAGE: Rule(_S.BARS, starts=True),
    }
)

UNRESTRICTED: Final = frozenset({"U", "L", "M", "N"})
"""HL7 confidentiality codes under which every relation of a row holds. Any other is restricted."""

PURPOSES: Final = frozenset({"direct-care"})


def decide(
    caller: Caller | None,
    action: Action,
    *,
    relation: Relation,
    agreement: Agreement | None,
    purpose: str,
    label: str,
    now: datetime,
    door: str = "",
) -> Decision:
    """Decide whether the caller may do this; the reason is for its eyes and for the audit.

    `door` is the pillar's door that is knocked at, where there is one.

    `relation` is what the caller's organisation is to the object: NONE where it is nothing to it,
    and where no such object was found, so that both read the same. `agreement` None: it was sent
    under none, which this release does not demand.
    """
    rule = TABLE[action]
    if caller is None:
        return Decision(False, "A valid token is needed.")
    # Asked before the object is looked at, so the answer tells nothing about any object.
    scope = submit_scope(door) if rule.scope == DOORS_OWN else rule.scope
    if scope not in caller.scopes:
        return Decision(False, f"This client has not been given the scope {scope}.")
    if rule.relations:
        refusal = _about_object(rule, relation, label)
        if refusal is not None:
            return refusal
    if purpose not in PURPOSES:
        return Decision(False, f"{purpose} is not a purpose for which this broker may be used.")
    if rule.starts and agreement is not None and not _holds(agreement, caller, now):
        reason = f"The agreement {agreement.code} is not in force for {caller.organisation}."
        return Decision(False, reason)
    who = relation if rule.relations else caller.organisation
    return Decision(True, f"{scope} as {who}.")


def readable() -> tuple[frozenset[Relation], frozenset[Relation]]:
    """Return who may read a resource: one whose label is UNRESTRICTED, and any other."""
    rule = TABLE[Action.READ_RESOURCE]
    return rule.relations, rule.restricted


def submit_scope(door: str) -> str:
    """Return the scope that a door asks for: one for all of a pillar's (`pharmacy.referrals`)."""
    return f"{door.partition('.')[0]}:submit"


def scopes(doors: Iterable[str]) -> list[str]:
    """Return every scope that a client may be given, with these doors."""
    return sorted({*Scope, *(submit_scope(door) for door in doors)})


def as_table() -> list[tuple[str, ...]]:
    """Return the decision table as rows of words, the headings first."""
    rows: list[tuple[str, ...]] = [("action", "scope", "who", "who, if restricted", "agreement")]
    for action, rule in TABLE.items():
        rows.append(
            (
                action,
                rule.scope,
                _names(rule.relations) or "own organisation",
                _names(rule.restricted) or "own organisation",
                "in force" if rule.starts else "",
            )
        )
    return rows


def _about_object(rule: Rule, relation: Relation, label: str) -> Decision | None:
    """Return the refusal if this relation may not do this to the object."""
    restricted = label not in UNRESTRICTED
    permitted = rule.restricted if restricted else rule.relations
    if relation in permitted:
        return None
    # Whoever may read the thing knows that it is there, and is better served by being told that
    # this is not theirs to do. To everybody else nothing is here.
    may_see = _PARTIES if restricted else _EVERYBODY
    if relation in may_see:
        who = " or the ".join(one.words for one in Relation if one in permitted)
        return Decision(False, f"Only the {who} may {rule.does}.")
    return Decision(False, NOT_THERE, as_not_found=True)


def _holds(agreement: Agreement, caller: Caller, now: datetime) -> bool:
    return caller.organisation in agreement.parties and agreement.is_in_force(london(now).date())


def _names(relations: frozenset[Relation]) -> str:
    return ", ".join(relation.words for relation in Relation if relation in relations)
