"""A body whose patient does not agree: the few fields of it that are still looked at."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from fhir_profiles.faults import Fault, to_problems
from fhir_profiles.values import Line, OdsCode


class Sender(BaseModel):
    """Who posts, by its code alone."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    ods: OdsCode
    """ODS code of the organisation of your token."""


class Looked(BaseModel, ABC):
    """All that is looked at. A pillar adds where its sender stands, and what else it must know."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    reference: Line
    """Your own reference for what you post."""

    @property
    @abstractmethod
    def sender(self) -> Sender: ...


@dataclass(frozen=True, slots=True)
class Refusal:
    """Who posted it and under which reference; or the faults in what was looked at."""

    organisation: str = ""
    reference: str = ""
    faults: tuple[Fault, ...] = ()


def refusal(raw: Mapping[str, Any], consent: str, model: type[Looked]) -> Refusal | None:
    """Read a body whose field `consent` is false; None where it is anything else. Never raises."""
    if raw.get(consent) is not False:
        return None
    try:
        looked = model.model_validate(raw)
    except ValidationError as error:
        return Refusal(faults=tuple(to_problems(error, model)))
    return Refusal(looked.sender.ods, looked.reference)
