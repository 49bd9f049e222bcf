"""What the OpenAPI page says of a door beyond its path: headers, bodies, and what it answers."""

from collections.abc import Iterable
from typing import Any, Final

from broker.api.outcomes import BASE
from broker.api.outcomes import MEDIA_TYPE as FHIR_MEDIA_TYPE
from broker.api.problems import MEDIA_TYPE
from broker.choosing import Verdict
from broker.errors import ANSWERS
from broker.events import Kind, Priority, Role

Schema = dict[str, Any]

KEY: Final[Schema] = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": True,
    "schema": {"type": "string", "minLength": 1, "maxLength": 255},
    "description": "New for each new message, the same when you send it again.",
}
VERSION: Final[Schema] = {
    "name": "If-Match",
    "in": "header",
    "required": True,
    "schema": {"type": "string"},
    "description": 'The ETag of the version that you decided on, such as W/"1".',
}
OPEN: Final[Schema] = {"security": []}
"""For a door that asks for no token."""


def header(name: str, description: str, *, required: bool = True, **schema: Any) -> Schema:
    """Return the words for a header."""
    return {
        "name": name,
        "in": "header",
        "required": required,
        "schema": {"type": "string", **schema},
        "description": description,
    }


def takes(*headers: Schema, body: Schema | None = None, required: bool = True) -> Schema:
    """Return the `openapi_extra` of a door that demands these headers and reads this body."""
    extra: Schema = {"parameters": list(headers)} if headers else {}
    if body is not None:
        extra["requestBody"] = {
            "required": required,
            "content": {"application/json": {"schema": body}},
        }
    return extra


def answers(status: int, name: str) -> Schema:
    """Return the `openapi_extra` of a door whose success has a schema of this name."""
    schema = {"$ref": f"#/components/schemas/{name}"}
    return {"responses": {str(status): {"content": {"application/json": {"schema": schema}}}}}


def text(description: str = "", **more: Any) -> Schema:
    return {"type": "string", **({"description": description} if description else {}), **more}


def one_of(codes: Iterable[str], description: str = "") -> Schema:
    return text(description, enum=list(codes))


def closed(optional: str = "", /, **properties: Schema) -> Schema:
    """Return an object of these members and no other; `optional` names those that may be absent."""
    return {
        "type": "object",
        "properties": properties,
        "required": [name for name in properties if name not in optional.split()],
        "additionalProperties": False,
    }


def _listed(items: Schema, description: str) -> Schema:
    return {"type": "array", "items": items, "description": description}


_TIME: Final = text(format="date-time")
_FLAG: Final[Schema] = {"type": "boolean"}
_FINDING: Final = closed(
    "instead",
    field=text("Where it stands in what you sent, in your own words."),
    code=text(),
    detail=text("What is wrong."),
    todo=text("What to do."),
    instead=_listed(text(), "The services, ODS/SERVICE, of which one may be named instead."),
)
_SENT: Final = closed(
    "status priority priority_in_words referral thread candidates",
    id=text(),
    kind=one_of([Kind.UPDATE, Kind.REFERRAL]),
    status=one_of(["withheld"], "Only where the patient does not agree: nothing was sent."),
    url=text("What becomes of it is read there."),
    priority=one_of(Priority),
    priority_in_words=text(),
    referral=text("Of a referral: where it stands is read there."),
    thread=text("Of a clinical message: what else was said is read there."),
    destinations=_listed(
        closed(
            organisation=text("ODS code."),
            service={"type": ["string", "null"]},
            name=text(),
            role=one_of([Role.ACTING, Role.COPY]),
            reason=text("Why it goes there."),
        ),
        "Where it goes.",
    ),
    candidates=_listed(
        closed(
            organisation=text("ODS code."),
            service=text(),
            name=text(),
            rank={"type": "integer"},
            verdict=one_of(Verdict),
            in_words=text(),
        ),
        "Among which services the receiver was chosen, it first; none where you named it.",
    ),
    deadlines=_listed(
        closed(
            kind=text(),
            by=_TIME,
            in_words=text(),
            whose_turn=text("ODS code of who must act."),
            rule=text(),
            overdue=_FLAG,
        ),
        "By when who must act, soonest first.",
    ),
)
_ACCEPTED: Final = closed(
    "correlation_id",
    read_first=_listed(text(), "Show these to the clinician before anything else."),
    messages=_listed(_SENT, "What was made of it; the update before the task."),
    warnings=_listed(_FINDING, "What is doubtful. It was sent all the same; the receiver sees it."),
    accepted_at=_TIME,
    correlation_id=text("Joins the messages of one post."),
)
_CORRECTED: Final = closed(
    **_ACCEPTED["properties"],
    replaces=text("The message that stands no longer."),
    cancelled=_listed(text(), "The referrals that were cancelled with it."),
    version={"type": "integer", "description": "As the ETag has it."},
)
_NATIVE: Final = {code: answer for code, answer in ANSWERS.items() if answer.is_native}
_PROBLEM: Final = closed(
    type=text(),
    title=text(),
    status={"type": "integer"},
    code=one_of([*_NATIVE, "refused"]),
    detail=text("One that begins “Nothing was sent. Telephone …” is to be shown to the clinician."),
    problems=_listed(_FINDING, "Everything that is wrong, at once."),
)
_OPERATION_OUTCOME: Final[Schema] = {
    "type": "object",
    "properties": {
        "resourceType": one_of(["OperationOutcome"]),
        "issue": _listed(
            {
                "type": "object",
                "properties": {
                    "severity": one_of(["error", "warning"]),
                    "code": text("FHIR's issue type."),
                    "details": {"type": "object"},
                    "diagnostics": text("What is wrong, and what to do."),
                    "expression": _listed(text(), "Where it stands: FHIRPath, or http.<name>."),
                },
                "required": ["severity", "code"],
            },
            "Everything that is wrong, at once.",
        ),
    },
    "required": ["resourceType", "issue"],
}
_SCHEMAS: Final = {
    "Accepted": _ACCEPTED,
    "Corrected": _CORRECTED,
    "Problem": _PROBLEM,
    "OperationOutcome": _OPERATION_OUTCOME,
}
_REFUSED: Final[Schema] = {
    "description": "Refused, or not available now: "
    + ", ".join(f"{answer.status} `{code}`" for code, answer in _NATIVE.items())
    + ". After 408, 425, 429 and 5xx send it again as it was, with the same key.",
    "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
}


_FHIR: Final[Schema] = {"content": {FHIR_MEDIA_TYPE: {"schema": {"type": "object"}}}}
_OUTCOME: Final[Schema] = {
    "description": "Refused, or not available now, by an OperationOutcome with a code of NHS "
    "England's `http-error-codes`: "
    + ", ".join(f"{answer.status} `{answer.nhs_code}`" for answer in ANSWERS.values())
    + ".",
    "content": {FHIR_MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/OperationOutcome"}}},
}


def _fhir(path: Schema) -> None:
    for operation in path.values():
        responses = operation["responses"]
        responses.pop("422", None)
        for status, response in responses.items():
            said = response["description"]  # its content is what the framework supposes
            responses[status] = {"description": said, **_FHIR}
        responses["default"] = _OUTCOME


def complete(document: Schema) -> None:
    """Tell of every door how it refuses, in the place of what the framework supposes."""
    for route, path in document["paths"].items():
        if route.startswith(BASE):
            _fhir(path)
            continue
        for operation in path.values():
            if operation.get("security") == OPEN["security"]:
                continue
            operation["responses"].pop("422", None)
            operation["responses"]["default"] = _REFUSED
    schemas = document["components"]["schemas"]
    for framework in ("HTTPValidationError", "ValidationError"):
        schemas.pop(framework, None)
    schemas.update(_SCHEMAS)
