"""A FHIR Task as its client would have it: read as the move of a referral that leads there.

The same moves as at `POST /referrals/{id}/{move}`, in FHIR's words: the state is `businessStatus`
(or `status`, where that says enough), why is `statusReason`, what is said is a `note`, and whatever
else a move carries is an `input`, named by its item. Pure.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from broker import move_content, referral
from broker.errors import Conflict, Problem, Refused
from broker.move_content import Item
from broker.referral import Context, Door, Move, Relation, State
from fhir_profiles import codes

STATES: Final = "referral-state"
ITEMS: Final = "move-item"
# What a client may say; all else of a Task is the broker's.
_SAID: Final = ("status", "businessStatus", "statusReason", "priority", "note", "input")
_BROKERS: Final = frozenset(
    {
        *("resourceType", "id", "meta", "text", "implicitRules", "language", "identifier"),
        *("groupIdentifier", "intent", "code", "focus", "for", "lastModified", "requester"),
        *("owner", "contained", "authoredOn"),
    }
)


@dataclass(frozen=True, slots=True)
class Update:
    """What a Task says: the state that it is to be in, and what a move to there may carry."""

    state: State | None
    status: str
    reason: str
    notes: Sequence[str]
    inputs: Mapping[str, str]


def read(task: Mapping[str, Any], subject: str, stood: Mapping[str, Any] | None) -> Update:
    """Read a Task. `stood` is how it stands now, where there is one: its notes are no news.

    Raises Refused, naming everything that is not understood.
    """
    problems = list(_wrong(task, subject))
    state, notes = _state(task), _texts(task)
    if _given(task, "businessStatus") and state is None:
        todo = f"One coding of {codes.system(STATES).url}: {', '.join(State)}."
        detail = "This is no state of a referral."
        problems.append(Problem("Task.businessStatus", "not-in-list", detail, todo))
    inputs: dict[str, str] = {}
    for number, one in enumerate(_list(task, "input")):
        name, value = _item(one), _value(one)
        if name not in codes.system(ITEMS) or value is None:
            known = f"{codes.system(ITEMS).url}: {', '.join(codes.system(ITEMS).displays)}"
            todo = f"Its type is one coding of {known}; its value a string, code or dateTime."
            detail = "This is nothing that a move carries, or has no value."
            problems.append(Problem(f"Task.input[{number}]", "not-in-list", detail, todo))
        else:
            inputs[name] = value
    if problems:
        raise Refused.all_of(problems)
    if stood is not None and stood.get("priority") != task.get("priority") and "priority" in task:
        inputs.setdefault("priority", str(task["priority"]))
    old = _texts(stood or {})
    return Update(
        state,
        str(task.get("status", "")),
        _reason(task) if _reason(task) != _reason(stood or {}) else "",
        notes[len(old) :] if notes[: len(old)] == old else notes,
        inputs,
    )


def move_to(
    said: Update, state: State, relations: Sequence[Relation], context: Context
) -> tuple[Move, dict[str, str]]:
    """Return the move that leads from `state` to where a Task would have it, and what it carries.

    Raises Refused where what it must carry is missing, and Conflict where nothing leads there.
    """
    wrong: list[list[Problem]] = []
    possible = [
        move
        for by in relations
        for move in referral.allowed(state, by, context)
        if move.door is Door.MOVE and _leads(said, state, referral.apply(state, move, by, context))
    ]
    for move in possible:
        content = _content(said, move)
        if move.to is None and not content:
            continue  # a Task as it stood asks for nothing
        problems = move_content.check(move.carries, content)
        if not problems:
            return move, content
        wrong.append([_as_task(one) for one in problems])
    if wrong:
        raise Refused.all_of(min(wrong, key=len))
    named = ", ".join(
        dict.fromkeys(one.name for by in relations for one in referral.allowed(state, by, context))
    )
    raise Conflict(
        f"This referral is {referral.STAGES[state].words}: no move of yours leads to where the "
        f"Task would have it. Yours are: {named or 'none'}."
    )


def _leads(said: Update, before: State, after: State) -> bool:
    if said.state is not None:
        return after is said.state
    return referral.STAGES[after].task_status == said.status and after is not before


def _content(said: Update, move: Move) -> dict[str, str]:
    """Return what a move carries of what the Task says: a note is its one text, unless named."""
    content = dict(said.inputs)
    texts = [item for item in move.carries if item.codes is None and not item.is_time]
    spoken = "\n".join(said.notes)
    needed = [item for item in texts if item.required and item.name not in content]
    if spoken and needed:
        content[needed[0].name] = spoken
    elif spoken and any(item.name == "note" for item in texts):
        content.setdefault("note", spoken)
    for item in move.carries:
        if item.codes is not None and item.name not in content and said.reason:
            code = _code(item, said.reason)
            if code is not None:
                content[item.name] = code
    return content


def _code(item: Item, said: str) -> str | None:
    """Return the code of an item that a reason gives, by the code itself or by its words."""
    return next((code for code, words in (item.codes or {}).items() if said in {code, words}), None)


def _as_task(problem: Problem) -> Problem:
    where = "Task.statusReason" if problem.field == "reason" else f"Task.input({problem.field})"
    return Problem(where, problem.code, problem.detail, problem.todo)


# -- reading -------------------------------------------------------------------------------------


def _wrong(task: Mapping[str, Any], subject: str) -> Iterator[Problem]:
    if task.get("resourceType") != "Task":
        yield Problem("Task", "invalid", "This is no Task.", "Send the Task as it is to be.")
        return
    if task.get("id") != subject:
        yield Problem("Task.id", "invalid", "It is another Task than the address names.")
    for name in task.keys() - _BROKERS - {*_SAID}:
        if not name.startswith("_"):
            yield Problem(
                f"Task.{name}",
                "unknown-field",
                "No move of a referral says this.",
                f"Leave it out. What is read: {', '.join(_SAID)}.",
            )
    if not (_given(task, "businessStatus") or isinstance(task.get("status"), str)):
        yield Problem("Task.status", "missing", "It does not say where the referral is to be.")


def _given(task: Mapping[str, Any], name: str) -> bool:
    return bool(task.get(name))


def _list(resource: Any, name: str) -> list[Any]:
    found = resource.get(name) if isinstance(resource, Mapping) else None
    return found if isinstance(found, list) else []


def _codings(concept: Any) -> Iterator[Mapping[str, Any]]:
    yield from (one for one in _list(concept, "coding") if isinstance(one, Mapping))


def _state(task: Mapping[str, Any]) -> State | None:
    url = codes.system(STATES).url
    for coding in _codings(task.get("businessStatus")):
        if coding.get("system") == url and coding.get("code") in set(State):
            return State(coding["code"])
    return None


def _reason(task: Mapping[str, Any]) -> str:
    concept = task.get("statusReason")
    for coding in _codings(concept):
        if isinstance(coding.get("code"), str):
            return str(coding["code"])
    text = concept.get("text") if isinstance(concept, Mapping) else None
    return text if isinstance(text, str) else ""


def _texts(task: Mapping[str, Any]) -> list[str]:
    return [
        one["text"]
        for one in _list(task, "note")
        if isinstance(one, Mapping) and isinstance(one.get("text"), str)
    ]


def _item(one: Any) -> str:
    concept = one.get("type") if isinstance(one, Mapping) else None
    url = codes.system(ITEMS).url
    return next(
        (str(coding.get("code")) for coding in _codings(concept) if coding.get("system") == url), ""
    )


def _value(one: Any) -> str | None:
    values = [one.get(name) for name in ("valueString", "valueCode", "valueDateTime")]
    return next((value for value in values if isinstance(value, str)), None)
