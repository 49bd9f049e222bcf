"""What the judge says: what it counted, every violation with its slice of history, and what it
could not judge."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

INVARIANTS = (*(f"I{number}" for number in range(1, 15)), "I18", "I19", "I20")


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing that cannot be: which invariant it breaks, what was seen, and what led to it."""

    invariant: str
    said: str
    history: tuple[str, ...]

    def __str__(self) -> str:
        return "".join([f"{self.invariant}: {self.said}", *(f"\n      {a}" for a in self.history)])


class Verdict:
    """Every violation, what was counted, and which invariants this run could show nothing of.

    `about` returns the slice of history in which some ids occur.
    """

    def __init__(self, counts: Counter[str], about: Callable[[Sequence[str]], tuple[str, ...]]):
        self.counts = counts
        self.violations: list[Violation] = []
        self.not_judged: dict[str, str] = {}
        self.in_part: dict[str, str] = {}
        self._about = about
        self._flagged: set[tuple[str, str]] = set()

    def flag(self, invariant: str, said: str, *ids: str | None) -> None:
        """Write a violation down once, with what the ledgers and the audit say of these ids."""
        if (invariant, said) in self._flagged:
            return
        self._flagged.add((invariant, said))
        named = [one for one in ids if one]
        self.violations.append(Violation(invariant, said, self._about(named)))

    def skip(self, invariant: str, why: str) -> None:
        """Say that an invariant was not judged at all."""
        self.not_judged[invariant] = why

    def narrow(self, invariant: str, why: str) -> None:
        """Say that an invariant was judged in part only."""
        self.in_part[invariant] = why

    @property
    def invariants(self) -> set[str]:
        """The invariants that were broken."""
        return {one.invariant for one in self.violations}

    def __str__(self) -> str:
        counted = ", ".join(f"{count} {name}" for name, count in sorted(self.counts.items()))
        judged = ", ".join(
            f"{one} ({self.in_part[one]})" if one in self.in_part else one
            for one in INVARIANTS
            if one not in self.not_judged
        )
        missing = ", ".join(f"{one} ({why})" for one, why in self.not_judged.items())
        left_out = f"; not judged: {missing}" if missing else ""
        found = "".join(f"\n  {one}" for one in self.violations)
        return f"{counted}\njudged: {judged}{left_out}\n{len(self.violations)} violations{found}"
