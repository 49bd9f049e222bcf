"""From pydantic's errors to sentences: what is wrong, where, and what to do about it."""

import difflib
import typing
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel, RootModel, Tag, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import core_schema

_STANDARD: Final = frozenset(typing.get_args(core_schema.ErrorType))


def is_standard(line: Any) -> bool:
    """Tell whether pydantic itself found this; what our rules find brings its own sentences.

    A rule may use a code that pydantic has too, as `missing`.
    """
    return line["type"] in _STANDARD and "detail" not in line.get("ctx", {})


@dataclass(frozen=True, slots=True)
class Fault:
    """One problem of a whole body; `field` is its path in the sender's own words."""

    field: str
    code: str
    detail: str
    todo: str = ""


def to_problems(error: ValidationError, model: type[BaseModel] | None = None) -> list[Fault]:
    """Return every problem as sentences, in the sender's own field names, in document order.

    With `model` given, what to do is told in the words of the field's own description.
    """
    return [_fault(*_of_form(line, model)) for line in error.errors(include_url=False)]


def to_fault(line: Any) -> Fault:
    """Return one line of a validation's errors as a sentence: for what is no body, as a query."""
    return _fault(line, None)


def path(where: tuple[str | int, ...]) -> str:
    """Return `("observations", 2, "unit")` as `observations[2].unit`."""
    out = ""
    for step in where:
        out += f"[{step}]" if isinstance(step, int) else f".{step}" if out else step
    return out


def _of_form(line: Any, model: type[BaseModel] | None) -> tuple[Any, type[BaseModel] | None]:
    """Return a line and its model; of a body of one of several forms, those of that form.

    Such a body's places begin with the form's tag, which is none of the sender's words.
    """
    if model is None or not issubclass(model, RootModel):
        return line, model
    first, *where = line["loc"]
    for choice in typing.get_args(model.model_fields["root"].annotation):
        form, *marks = typing.get_args(choice)
        if any(isinstance(mark, Tag) and mark.tag == first for mark in marks):
            return {**line, "loc": tuple(where)}, form
    return line, model


def _fault(line: Any, model: type[BaseModel] | None) -> Fault:
    where, kind, context = line["loc"], line["type"], line.get("ctx", {})
    field = path(where)
    if not is_standard(line):
        return Fault(field, kind, context.get("detail", line["msg"]), context.get("todo", ""))
    named = [step for step in where if isinstance(step, str)]
    name = f"`{named[-1]}`" if named else "The body"
    about = _description(model, where)
    is_null = kind != "missing" and line["input"] is None
    if is_null and not _is_required(model, where):
        return Fault(field, "null", f"{name}: null is no value here.", "Send one, or leave it out.")
    if kind == "missing" or (is_null and kind.endswith("_type")):
        return Fault(field, "missing", f"{name} is missing.", f"Send it: {about}" if about else "")
    if kind == "extra_forbidden":
        return Fault(field, "unknown-field", f"{name} is not a field here.", _nearest(model, where))
    if kind == "string_too_short":
        return Fault(field, "empty", f"{name} is empty.", _fill(model, where))
    if kind in {"literal_error", "enum"}:
        return Fault(
            field,
            "not-in-list",
            f"{name} is not one of the values that are known here.",
            f"Send {context['expected']}.",
        )
    detail, todo = _WORDS.get(kind, (line["msg"] + ".", ""))
    return Fault(
        field, _CODES.get(kind, "invalid"), f"{name}: {detail}", todo.format_map(_Known(context))
    )


class _Known(dict[str, Any]):
    def __missing__(self, key: str) -> str:
        return ""


_CODES: Final = {
    "string_too_long": "too-long",
    "too_long": "too-many",
    "too_short": "too-few",
    "string_type": "wrong-type",
    "bool_type": "wrong-type",
    "decimal_type": "wrong-type",
    "int_type": "wrong-type",
    "model_type": "wrong-type",
    "model_attributes_type": "wrong-type",
    "dict_type": "wrong-type",
    "tuple_type": "wrong-type",
    "list_type": "wrong-type",
}
_TIME: Final = ("this is not a time.", "Write it as 2026-10-02T09:30:00+01:00.")
_WORDS: Final = {
    "string_too_long": ("this text is too long.", "At most {max_length} characters."),
    "string_pattern_mismatch": ("this text is not of the form expected here.", ""),
    "too_long": ("there are too many of these.", "At most {max_length}."),
    "too_short": ("there are too few of these.", "At least {min_length}."),
    "string_type": ("this must be text.", "Put it in quotation marks."),
    "bool_type": ("this must be true or false.", "Send it without quotation marks."),
    "decimal_type": ("this must be a number.", "Send it without quotation marks."),
    "int_type": ("this must be a whole number.", "Send it without quotation marks."),
    "int_parsing": ("this must be a whole number.", "Write it in digits only."),
    "datetime_parsing": _TIME,
    "datetime_from_date_parsing": _TIME,
    "timezone_aware": ("this time does not say its offset.", _TIME[1]),
    "model_type": ("this must be an object.", "Send {{ … }} with the fields of this block."),
    "model_attributes_type": ("this must be an object.", "Send {{ … }} with its fields."),
    "tuple_type": ("this must be a list.", "Send [ … ], also for a single one."),
    "greater_than": ("this number is too small.", "It must be more than {gt}."),
    "greater_than_equal": ("this number is too small.", "It must be at least {ge}."),
    "less_than": ("this number is too large.", "It must be less than {lt}."),
    "less_than_equal": ("this number is too large.", "It must be at most {le}."),
}


def _fill(model: type[BaseModel] | None, where: tuple[str | int, ...]) -> str:
    if _is_required(model, where):
        return "Send it; it is required."
    return "Send it, or leave the field out."


def _is_required(model: type[BaseModel] | None, where: tuple[str | int, ...]) -> bool:
    field = _field(model, where)
    return field is not None and field.is_required()


def _nearest(model: type[BaseModel] | None, where: tuple[str | int, ...]) -> str:
    owner = _owner(model, where[:-1])
    near = difflib.get_close_matches(str(where[-1]), owner.model_fields, n=1) if owner else []
    return f"Did you mean `{near[0]}`?" if near else "Take it out; nothing is read from it."


def _description(model: type[BaseModel] | None, where: tuple[str | int, ...]) -> str:
    field = _field(model, where)
    return " ".join((field.description or "").split()) if field else ""


def _field(model: type[BaseModel] | None, where: tuple[str | int, ...]) -> FieldInfo | None:
    owner = _owner(model, where[:-1])
    return owner.model_fields.get(str(where[-1])) if owner and where else None


def _owner(model: type[BaseModel] | None, where: tuple[str | int, ...]) -> type[BaseModel] | None:
    """Return the model that holds the fields at this place, if there is one."""
    for step in where:
        if model is None or isinstance(step, int):
            continue
        field = model.model_fields.get(step)
        model = _model_in(field.annotation) if field else None
    return model


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (_model_in(argument) for argument in typing.get_args(annotation))
    return next((model for model in found if model is not None), None)
