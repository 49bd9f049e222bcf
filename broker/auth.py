"""Who calls: OAuth2 client credentials with a signed JWT, and tokens that can be revoked at once.

A client proves itself with an assertion (`broker.assertion`) and gets an access token of ours, for
one organisation and 5 minutes. The token is only a claim: client, key and grant are looked up at
every request. Rules: RFC 6749 sections 4.4 and 5, RFC 7523, RFC 9068, RFC 6750.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol

import structlog
from joserfc import jws
from joserfc.jwk import ECKey

from broker.access import Caller
from broker.assertion import (
    Assertion,
    NotProven,
    check_claims,
    fit_key,
    is_signed,
    read_assertion,
    read_jwt,
)
from broker.audit import Entry
from broker.errors import Unauthenticated
from broker.events import uuid7
from broker.settings import Settings
from broker.store import clients
from broker.store.store import Store
from broker.store.tx import Tx
from fhir_profiles import strict_json

TOKEN_SECONDS: Final = 300
TOKEN_ALGORITHM: Final = "ES384"  # noqa: S105
TOKEN_TYPE: Final = "at+jwt"  # noqa: S105
MOST_VERIFIED: Final = 4_096
REFUSAL_ENTRY_EVERY: Final = timedelta(minutes=1)

_HOW: Final = "Get an access token from POST /oauth2/token and send it as Authorization: Bearer …"
_NOT_OURS: Final = f"This is not an access token of this broker. {_HOW}"
_EXPIRED: Final = "The access token has expired: get a new one from POST /oauth2/token."
_REVOKED: Final = (
    "The client, the key it signed in with or its grant to act for this organisation has been "
    "revoked or has run out. Get a new access token, or ask the operator of the broker."
)

log = structlog.get_logger()


def _utc_now() -> datetime:
    return datetime.now(UTC)


class TokenKeys(Protocol):
    """The keys that sign our tokens: the last one signs, each of them verifies."""

    @property
    def token_keys(self) -> Sequence[ECKey]: ...


@dataclass(frozen=True, slots=True)
class TokenAnswer:
    """What the token endpoint answers: a token, or an error of RFC 6749 section 5.2.

    `reason` is why no token is given, as a code of `broker.assertion.REFUSALS`: not for the caller.
    """

    status: int
    body: dict[str, str | int]
    reason: str = ""


@dataclass(frozen=True, slots=True)
class _Claims:
    """What a token of ours says, once its signature was verified."""

    client: str
    organisation: str
    scopes: frozenset[str]
    kid: str
    expires: int


@dataclass(slots=True)
class _Tally:
    """Refusals of one kind since the last entry about them."""

    entered_at: datetime
    left_out: int = 0


class Authority:
    """Gives out access tokens and tells who a caller is. Revocation works at once.

    `settings` give the token URL (the audience of assertions), the base URL (the audience of our
    tokens) and the source (their issuer). `now` must be the store's clock.
    """

    def __init__(
        self,
        store: Store,
        ring: TokenKeys,
        settings: Settings,
        *,
        now: Callable[[], datetime] = _utc_now,
    ) -> None:
        self._store = store
        self._audience = settings.base_url
        self._token_url = settings.token_url
        self._issuer = settings.source
        self._now = now
        self._keys = {key.thumbprint(): key for key in ring.token_keys}
        self._signer = ring.token_keys[-1]
        self._verified: OrderedDict[bytes, _Claims] = OrderedDict()
        self._tallies: dict[tuple[str, str], _Tally] = {}

    # -- giving out tokens -----------------------------------------------------------------------

    async def issue(self, form: Mapping[str, str]) -> TokenAnswer:
        """Answer a token request. An assertion is good once, also after a restart.

        Raises Unavailable where the store cannot keep that it was used.
        """
        try:
            return await self._issue(form)
        except NotProven as no:
            await self._note_refusal(no)
            body: dict[str, str | int] = {"error": no.error, "error_description": no.sentence}
            return TokenAnswer(no.status, body, no.reason)

    async def _issue(self, form: Mapping[str, str]) -> TokenAnswer:
        assertion = read_assertion(form)
        now = self._now()
        client, keys, granted = await self._store.read(
            lambda connection: (
                clients.get(connection, assertion.client),
                clients.keys(connection, assertion.client),
                clients.granted(connection, assertion.client, now),
            )
        )
        if client is None:
            raise NotProven("client-unknown")
        _prove(assertion, client.algorithms, keys)
        jti_until = check_claims(assertion, self._token_url, now)
        organisation = _organisation(assertion, granted)
        scope = " ".join(_scopes(form, assertion.client, client.scopes))
        token_id = uuid7()

        def use_up(tx: Tx) -> str | None:
            if tx.now >= jti_until:
                return "expired"
            if not clients.use_jti(tx, assertion.client, assertion.claims["jti"], jti_until):
                return "replayed"
            facts = {"kid": assertion.kid, "jti": token_id, "scope": scope}
            tx.audit(
                Entry(
                    "token.issued",
                    assertion.client,
                    organisation,
                    "client",
                    assertion.client,
                    facts,
                )
            )
            return None

        refused = await self._store.write(use_up)
        if refused is not None:
            raise NotProven(refused, assertion.client)
        issued = int(now.timestamp())
        token = self._sign(
            {
                "iss": self._issuer,
                "aud": self._audience,
                "sub": assertion.client,
                "client_id": assertion.client,
                "organisation": organisation,
                "scope": scope,
                "kid_used": assertion.kid,
                "jti": token_id,
                "iat": issued,
                "exp": issued + TOKEN_SECONDS,
            }
        )
        log.info("token.issued", client=assertion.client, organisation=organisation)
        return TokenAnswer(
            200,
            {
                "access_token": token,
                "token_type": "Bearer",
                "expires_in": TOKEN_SECONDS,
                "scope": scope,
                "organisation": organisation,
            },
        )

    def _sign(self, claims: dict[str, Any]) -> str:
        header = {"alg": TOKEN_ALGORITHM, "kid": self._signer.thumbprint(), "typ": TOKEN_TYPE}
        return jws.serialize_compact(
            header, strict_json.dumps(claims), self._signer, algorithms=[TOKEN_ALGORITHM]
        )

    async def _note_refusal(self, no: NotProven) -> None:
        """Log every refusal; enter it into the audit chain once a minute per client and reason.

        Anybody can be refused, as often as he likes, and an entry is kept for ever: so the next
        entry says how many were left out. Nothing that the caller wrote is in either.
        """
        log.warning("token.refused", client=no.client, code=no.reason)
        now, key = self._now(), (no.client, no.reason)
        tally = self._tallies.get(key)
        if tally is not None and now < tally.entered_at + REFUSAL_ENTRY_EVERY:
            tally.left_out += 1
            return
        self._tallies[key] = _Tally(now)
        facts = {"reason": no.reason, "left_out": str(tally.left_out if tally else 0)}
        actor = no.client or "unknown"
        entry = Entry("token.refused", actor, "", "client", actor, facts)
        await self._store.write(lambda tx: tx.audit(entry))

    # -- telling who calls -----------------------------------------------------------------------

    async def authenticate(self, authorization_header: str | None) -> Caller:
        """Return who calls, as client, key and grant stand at this moment.

        Raises Unauthenticated.
        """
        claims = self._verify(_bearer(authorization_header))
        now = self._now()
        standing = await self._store.look_up(
            lambda connection: clients.standing(
                connection, claims.client, claims.kid, claims.organisation, now
            )
        )
        if standing is None:
            raise Unauthenticated(_REVOKED)
        return Caller(
            client_id=claims.client,
            organisation=claims.organisation,
            scopes=claims.scopes & frozenset(standing.scopes),
            name=standing.name,
        )

    def _verify(self, token: str) -> _Claims:
        """Return what a token says. Its signature is verified once, its expiry every time."""
        digest = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
        claims = self._verified.get(digest)
        if claims is None:
            claims = self._read(token)
            self._verified[digest] = claims
            if len(self._verified) > MOST_VERIFIED:
                self._verified.popitem(last=False)
        if claims.expires <= self._now().timestamp():
            self._verified.pop(digest, None)
            raise Unauthenticated(_EXPIRED)
        return claims

    def _read(self, token: str) -> _Claims:
        try:
            header, claims = read_jwt(token)
        except ValueError:
            raise Unauthenticated(_NOT_OURS) from None
        kid = header.get("kid")
        key = self._keys.get(kid) if isinstance(kid, str) else None
        if (
            key is None
            or header != {"alg": TOKEN_ALGORITHM, "kid": kid, "typ": TOKEN_TYPE}
            or not is_signed(token, key, TOKEN_ALGORITHM)
        ):
            raise Unauthenticated(_NOT_OURS)
        texts = [claims.get(name) for name in ("sub", "organisation", "scope", "kid_used")]
        expires, issued = claims.get("exp"), claims.get("iat")
        if (
            claims.get("iss") != self._issuer
            or claims.get("aud") != self._audience
            or not all(isinstance(text, str) for text in texts)
            or type(expires) is not int
            or type(issued) is not int
            or not 0 < expires - issued <= TOKEN_SECONDS
        ):
            raise Unauthenticated(_NOT_OURS)
        client, organisation, scope, kid_used = map(str, texts)
        return _Claims(client, organisation, frozenset(scope.split()), kid_used, expires)


def _prove(
    assertion: Assertion, algorithms: Sequence[str], keys: Mapping[str, Mapping[str, Any]]
) -> None:
    """Prove that the client signed the assertion as it is registered. Raises NotProven."""
    if assertion.algorithm not in algorithms:
        raise NotProven("algorithm-not-registered", assertion.client)
    if assertion.kid not in keys:
        raise NotProven("key-unknown", assertion.client)
    key = fit_key(keys[assertion.kid])
    if key is None:
        raise NotProven("key-unfit", assertion.client)
    if not is_signed(assertion.token, key, assertion.algorithm):
        raise NotProven("signature", assertion.client)


def _organisation(assertion: Assertion, granted: Sequence[str]) -> str:
    """Return the one organisation that the token is for. Raises NotProven."""
    if not granted:
        raise NotProven("organisation-none", assertion.client)
    named = assertion.claims.get("organisation")
    if named is None:
        if len(granted) > 1:
            raise NotProven("organisation-missing", assertion.client)
        return granted[0]
    if named not in granted:
        raise NotProven("organisation-not-granted", assertion.client)
    return str(named)


def _scopes(form: Mapping[str, str], client: str, held: Sequence[str]) -> list[str]:
    """Return what the token may do: all that the client may, or less. Raises NotProven."""
    wanted = form.get("scope")
    if not wanted:
        return sorted(held)
    asked = set(wanted.split(" "))
    if not asked <= set(held):
        raise NotProven("scope", client)
    return sorted(asked)


def _bearer(header: str | None) -> str:
    if header is None:
        raise Unauthenticated(f"There is no Authorization header. {_HOW}")
    scheme, _, token = header.partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise Unauthenticated(f"The Authorization header is not a Bearer token. {_HOW}")
    return token
