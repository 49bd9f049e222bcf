"""What is said of an error, before it is known at which door."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from broker.errors import Problem


@dataclass(frozen=True, slots=True)
class Told:
    """An error by its code in `broker.errors.ANSWERS`, or by a status and a title of its own."""

    code: str
    detail: str
    problems: Sequence[Problem] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    status: int | None = None
    title: str = ""
