"""Names of identifier and code systems: the same one in another spelling, and misspelt ones.

What senders write differs in scheme, case and a slash at the end (BaRS, traps 3 to 5): that is the
same system. What is a letter or two away from a known system is a slip of the pen, and nobody else
would find what was named so.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

_DIGITS: Final = re.compile(r"[0-9]")
FARTHEST: Final = 2
"""Letters by which a name may differ from a known one and still be taken for a misspelling."""


@dataclass(frozen=True, slots=True)
class Meant:
    """The known system that a name means: `is_misspelt` where it is only close to its name."""

    system: str
    is_misspelt: bool


class Systems:
    """Known systems, to be found by what others call them."""

    def __init__(self, known: Iterable[str]) -> None:
        self._known: Mapping[str, str] = {normal(one): one for one in known}
        self._look = lru_cache(maxsize=4096)(self._find)

    def meant_by(self, name: str) -> Meant | None:
        """Return the known system that is meant, or None: it is another one."""
        return self._look(name)

    def _find(self, name: str) -> Meant | None:
        wanted = normal(name)
        if wanted in self._known:
            return Meant(self._known[wanted], is_misspelt=False)
        for known, system in self._known.items():
            if is_close(wanted, known):
                return Meant(system, is_misspelt=True)
        return None


def normal(name: str) -> str:
    """Return a system's name without what does not tell systems apart: scheme, case, end slash."""
    text = name.strip().casefold().rstrip("/")
    return text.removeprefix("https://").removeprefix("http://")


def is_same(one: str, other: str) -> bool:
    """Whether two names are one system's, in whatever spelling. A misspelt one is another."""
    return one == other or normal(one) == normal(other)


def is_close(one: str, other: str, farthest: int = FARTHEST) -> bool:
    """Whether no more than so many letters were put in, left out or changed, and no digit.

    A name with another number in it is another name.
    """
    if abs(len(one) - len(other)) > farthest or _DIGITS.findall(one) != _DIGITS.findall(other):
        return False
    row = list(range(len(other) + 1))
    for place, letter in enumerate(one, start=1):
        above, row[0] = row[0], place
        for at, wanted in enumerate(other, start=1):
            changed = above + (letter != wanted)
            above, row[at] = row[at], min(changed, row[at] + 1, row[at - 1] + 1)
        if min(row) > farthest:
            return False
    return row[-1] <= farthest
