"""One pass of validation reports every problem: the checks of single fields and the rules.

A `Block` is a frozen pydantic model that refuses unknown fields. Rules over several fields are
methods marked with `@rule`; they run together with the checks of the single fields, also when some
of those have failed, and all that they find is raised at once, each with its own path. Validate
with `context={"now": aware datetime}`; `faults.to_problems` makes sentences of what is raised.
"""

import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any, ClassVar, Self, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    ModelWrapValidatorHandler,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic_core import InitErrorDetails

from fhir_profiles.faults import is_standard
from fhir_profiles.values import now_of, refusal


@dataclass(frozen=True, slots=True)
class Finding:
    """What a rule found: where (relative to its block), a code, what is wrong, what to do."""

    where: tuple[str | int, ...]
    code: str
    detail: str
    todo: str = ""


_Rule = TypeVar("_Rule", bound=Callable[..., Iterator[Finding]])


def rule(function: _Rule) -> _Rule:
    """Mark a method `(self, now)` as a rule over several fields of its block.

    A rule that reads a field which is itself wrong ends there, silently: what it would say
    follows from the other mistake.
    """
    function.__dict__["is_rule"] = True
    return function


class Block(BaseModel):
    """A part of a native body. Frozen; an unknown field is refused; all problems come at once."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    rules: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        found = [rule for base in reversed(cls.__mro__) for rule in vars(base).get("rules", ())]
        found += [name for name, it in vars(cls).items() if getattr(it, "is_rule", False)]
        cls.rules = tuple(dict.fromkeys(found))

    @model_validator(mode="wrap")
    @classmethod
    def _with_rules(
        cls, value: Any, handler: ModelWrapValidatorHandler[Self], info: ValidationInfo
    ) -> Self:
        try:
            block = handler(value)
        except ValidationError as error:
            if not cls.rules or not isinstance(value, Mapping):
                raise
            raise cls._together(error, value, info) from None
        if not cls.rules:
            return block
        found = list(block._found(now_of(info)))
        if found:
            raise ValidationError.from_exception_data(
                cls.__name__, [_line(finding) for finding in found]
            )
        return block

    @classmethod
    def _together(
        cls, error: ValidationError, value: Mapping[str, Any], info: ValidationInfo
    ) -> ValidationError:
        """Return the error with what the rules find in the fields that are right."""
        lines = error.errors(include_url=False)
        wrong = {line["loc"][0] for line in lines if line["loc"]}
        right = {
            name: _adapter(cls, name).validate_python(value[name], context=info.context)
            for name in cls.model_fields
            if name in value and name not in wrong
        }
        block = cls.model_construct(**right)
        for name in wrong & cls.model_fields.keys():
            block.__dict__.pop(str(name), None)
        found = [finding for finding in block._found(now_of(info)) if finding.where[0] not in wrong]
        return ValidationError.from_exception_data(
            cls.__name__, [_same_line(line) for line in lines] + [_line(each) for each in found]
        )

    def _found(self, now: datetime) -> Iterator[Finding]:
        for name in self.rules:
            try:
                yield from getattr(self, name)(now)
            except _FieldIsWrong:
                continue

    if not typing.TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            if name in type(self).model_fields:
                raise _FieldIsWrong(name)
            return super().__getattr__(name)


class _FieldIsWrong(AttributeError):
    """A rule reads a field that did not pass its own checks."""


@cache
def _adapter(block: type[Block], name: str) -> TypeAdapter[Any]:
    return TypeAdapter(block.model_fields[name].rebuild_annotation())


def _line(finding: Finding) -> InitErrorDetails:
    error = refusal(finding.code, finding.detail, finding.todo)
    return InitErrorDetails(type=error, loc=finding.where, input=None)


def _same_line(line: Any) -> InitErrorDetails:
    if is_standard(line):
        return InitErrorDetails(
            type=line["type"], loc=line["loc"], input=line["input"], ctx=line.get("ctx", {})
        )
    context = line.get("ctx", {})
    error = refusal(line["type"], context.get("detail", line["msg"]), context.get("todo", ""))
    return InitErrorDetails(type=error, loc=line["loc"], input=None)
