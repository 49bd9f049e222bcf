"""The doors for a referral's moves: keys, versions and repeats around `broker.moves`."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from broker import move_content, moves, redirecting, referral, standing, task_updates
from broker.access import Caller
from broker.answers import FHIR, ROLE, Answer, Claimed
from broker.attachments.enclosing import cannot_fetch
from broker.core import Core
from broker.crashpoints import crashpoint
from broker.directory import Directory
from broker.errors import NotFound, PreconditionRequired, Refused, Stale
from broker.moves import Mover, Redirection
from broker.reading import read_object
from broker.referral import Move, State
from broker.store import messages, referrals
from broker.store.tx import Connection, Tx
from fhir_profiles import strict_json

# A move, who made it, and the HMAC of what it carried.
_Last = tuple[str, str, str]
NOT_HERE = "There is no such referral for this organisation."


@dataclass(frozen=True, slots=True)
class Asked:
    """A move that somebody asks for: which, with what content, and against which version."""

    caller: Caller
    subject: str
    move: str
    key: str | None
    body: bytes = field(repr=False)
    version: int | None = None


class Moving:
    """Moves referrals. The state machine decides; this writes it down and tells who must hear."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def view(
        self, subject: str, organisation: str, doors: Mapping[str, str]
    ) -> tuple[dict[str, Any], int]:
        """Return where a referral stands for this organisation, and its version."""

        def read(connection: Connection) -> tuple[Any, dict[referral.Door, str]]:
            row = referrals.get(connection, subject)
            return row, {} if row is None else standing.ways(connection, row, doors)

        row, ways = await self._core.store.read(read)
        if row is None:
            raise NotFound(NOT_HERE)
        directory = await self._core.directory.current()
        return standing.view(row, organisation, directory, datetime.now(UTC), ways), row.version

    async def move(self, asked: Asked) -> Answer:
        """Make a move; durable on return. The answer is the referral as it then stands, and first
        what whoever moved it must read.

        A repeat of the last move by the same organisation with the same content gets the same
        answer, whatever its If-Match. Raises NotFound, Refused, PreconditionRequired, Stale,
        Conflict.
        """
        move = referral.MOVES.get(asked.move)
        if move is None or move.door is not referral.Door.MOVE:
            doors = [m.name for m in referral.MOVES.values() if m.door is referral.Door.MOVE]
            raise NotFound(f"There is no move {asked.move!r}. There are: {', '.join(doors)}.")
        request = f"POST /referrals/{asked.subject}/{asked.move}"
        organisation = asked.caller.organisation
        async with self._core.answers.claim(
            organisation, asked.key, request, asked.body
        ) as claimed:
            return claimed.known or await self._move(asked, move, claimed)

    async def update(self, asked: Asked, stands: Mapping[str, Any]) -> None:
        """Make the move that leads to where a Task would have the referral; durable on return. The
        body is the Task; `stands` is how it stood when it was last told, if it was.

        Raises as `move`, and Refused for what the Task says that no move says.
        """
        said = task_updates.read(read_object(asked.body), asked.subject, stands)
        organisation = asked.caller.organisation
        request = f"PUT Task/{asked.subject}"
        async with self._core.answers.claim(
            organisation, asked.key, request, asked.body, FHIR
        ) as claimed:
            if claimed.known is not None:
                return
            row = await self._core.store.read(lambda c: referrals.get(c, asked.subject))
            if row is None:
                raise NotFound(NOT_HERE)
            check_version(asked.version, row.version, f"/referrals/{asked.subject}")
            directory = await self._core.directory.current()
            move, content = task_updates.move_to(
                said,
                State(row.state),
                moves.relations(row, organisation, directory),
                moves.context(row, organisation, directory, datetime.now(UTC)),
            )
            body = strict_json.dumps(content)
            await self._move(replace(asked, move=move.name, body=body), move, claimed)

    async def _move(self, asked: Asked, move: Move, claimed: Claimed) -> Answer:
        content = read_object(asked.body) if asked.body else {}
        problems = move_content.check(move.carries, content)
        if problems:
            raise Refused.all_of(problems)
        organisation = asked.caller.organisation
        last = (move.name, organisation, moves.said_hmac(self._core.vault, move, content))
        found = await self._core.store.read(
            lambda c: moves.find(c, self._core.vault, asked.subject)
        )
        if found is None:
            raise NotFound(NOT_HERE)
        repeated = await self._repeated(asked.subject, last)
        if repeated is not None:
            return repeated
        check_version(asked.version, found.row.version, f"/referrals/{asked.subject}")
        now = datetime.now(UTC)
        directory = await self._core.directory.current()
        mover = Mover(self._core.vault, directory, self._core.source, now)
        context = moves.context(found.row, organisation, directory, now)
        referral.check_diagnosis(move, content, context)
        redirection = None
        if move.name == redirecting.MOVE:
            mover.check(found, move, organisation)
            before = await self._core.store.read(
                lambda c: redirecting.read(c, self._core.vault, found)
            )
            redirection = redirecting.redirected(
                mover, found, before, content, asked.caller.client_id
            )
            await self._check_fetched(redirection, directory, now)
        ready = mover.ready(
            found, move, content, organisation, asked.caller.client_id, redirection=redirection
        )
        view = standing.view(ready.row_after, organisation, directory, now)
        answer = Answer(200, strict_json.dumps({"read_first": ready.read_first, **view}))
        kept = self._core.answers.seal(found.key, ready.event_id, organisation, answer, now)

        def write(tx: Tx) -> None:
            ready.write(tx)
            self._core.answers.keep(tx, claimed, kept)

        try:
            await self._core.store.write(write)
        except Stale:  # by this very move perhaps, asked for twice at once
            repeated = await self._repeated(asked.subject, last)
            if repeated is None:
                raise
            return repeated
        crashpoint("decision.written")
        return answer

    async def _check_fetched(
        self, redirection: Redirection, directory: Directory, now: datetime
    ) -> None:
        """Raise Refused where what goes along could not be fetched at the new place."""
        if redirection.message.attachments:
            problems = await cannot_fetch(
                self._core.store, redirection.to, "destination", directory, now
            )
            if problems:
                raise Refused.all_of(problems)

    async def _repeated(self, subject: str, last: _Last) -> Answer | None:
        """Return the answer to the last move, if it was this one by this organisation."""

        def read(connection: Connection) -> Answer | None:
            row = referrals.get(connection, subject)
            if row is None or (row.last_move, row.last_move_by, row.last_move_hmac) != last:
                return None
            known = messages.payload(connection, self._core.vault, row.last_event_id, ROLE)
            return Answer(200, known.body) if known else None

        return await self._core.store.read(read)


def check_version(named: int | None, current: int, where: str) -> None:
    """Raise PreconditionRequired or Stale unless the version decided on is the current one."""
    if named is None:
        raise PreconditionRequired(
            f"Say which version you decided on: send If-Match with the ETag of GET {where}."
        )
    if named != current:
        raise Stale(
            f"It has moved on: it is at version {current}, you decided on "
            f"{named if named >= 0 else 'one that it never had'}. Read it again, then decide."
        )
