"""Client assertions: a JWT by which a client proves who it is, read in one way only. No I/O.

Rules: RFC 7523 sections 2.2 and 3, RFC 7521 section 4.2, RFC 6749 section 5.2, RFC 8725 (JWT best
practice), and NHS England's signed-JWT pattern for application-restricted APIs.
"""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Final, Literal

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, RSAKey, import_key
from joserfc.util import urlsafe_b64decode

from broker.errors import BrokerError
from fhir_profiles import strict_json

ALGORITHMS: Final = ("RS384", "RS512", "ES384")
ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
LONGEST_LIFE: Final = 300
"""Seconds from `iat` (where it is given) or from now to `exp`."""
LEEWAY: Final = 30
"""Seconds by which clocks may differ, at `exp` and `nbf`."""
IAT_AHEAD: Final = 60
"""Seconds by which `iat` may lie in the future."""
LARGEST_TOKEN: Final = 8_192
SMALLEST_RSA: Final = 2_048
_LATEST: Final = 253_402_300_799  # 9999-12-31: beyond it there are no dates to compare

Error = Literal[
    "invalid_request",
    "invalid_client",
    "unsupported_grant_type",
    "invalid_scope",
]

_UNPROVEN: Final = (
    "The assertion is not signed as a registered client signs: check iss, kid, alg and the "
    "private key, or ask the operator of the broker which client, keys and algorithms it holds."
)

REFUSALS: Final[Mapping[str, tuple[Error, str]]] = MappingProxyType(
    {
        "form": (
            "invalid_request",
            "Send the fields as application/x-www-form-urlencoded, each once and in UTF-8.",
        ),
        "grant-type": (
            "unsupported_grant_type",
            "Send grant_type=client_credentials: the broker knows no other.",
        ),
        "two-methods": (
            "invalid_request",
            "Take client_secret out: clients sign in with client_assertion only.",
        ),
        "assertion-type": (
            "invalid_client",
            f"Sign in with a signed JWT: send client_assertion and client_assertion_type="
            f"{ASSERTION_TYPE}.",
        ),
        "malformed": (
            "invalid_client",
            "Send client_assertion as header.claims.signature, each in base64url without padding, "
            "the first two being JSON objects in which no name stands twice.",
        ),
        "header": (
            "invalid_client",
            "Keep to alg, kid and typ (JWT) in the header of the assertion: keys come from the "
            "registration, so jku, jwk, x5u, x5c and crit are refused.",
        ),
        "algorithm": ("invalid_client", "Sign the assertion with RS384, RS512 or ES384."),
        "kid": (
            "invalid_client",
            "Name the key that signs as kid in the header of the assertion.",
        ),
        "issuer": (
            "invalid_client",
            "Put the client id into both iss and sub of the assertion (and into client_id, if "
            "that is sent).",
        ),
        # The five that follow are told alike, so that nobody learns who is registered.
        "client-unknown": ("invalid_client", _UNPROVEN),
        "algorithm-not-registered": ("invalid_client", _UNPROVEN),
        "key-unknown": ("invalid_client", _UNPROVEN),
        "key-unfit": ("invalid_client", _UNPROVEN),
        "signature": ("invalid_client", _UNPROVEN),
        "audience": (
            "invalid_client",
            "Put the token URL of this broker, exactly as it is published, alone into aud.",
        ),
        "claims": (
            "invalid_client",
            "Give exp (and iat and nbf, if they are sent) as numbers of seconds since 1970.",
        ),
        "expired": (
            "invalid_client",
            "The assertion has expired: sign a new one for each request, by a clock that is right.",
        ),
        "life": (
            "invalid_client",
            "Let exp be later than iat by 5 minutes at most.",
        ),
        "issued-ahead": (
            "invalid_client",
            "The assertion begins in the future: set the clock that signs it.",
        ),
        "jti": (
            "invalid_client",
            "Give the assertion a jti of its own, such as a UUID: 1 to 255 visible ASCII "
            "characters.",
        ),
        "replayed": (
            "invalid_client",
            "This assertion was used before: sign a new one, with a new jti, for each request.",
        ),
        "organisation-missing": (
            "invalid_request",
            "This client acts for several organisations: name one by its ODS code in the claim "
            "organisation of the assertion.",
        ),
        "organisation-not-granted": (
            "invalid_request",
            "This client may not act for that organisation now: check the claim organisation, or "
            "ask the operator of the broker for the grant.",
        ),
        "organisation-none": (
            "invalid_request",
            "This client may not act for any organisation now: ask the operator of the broker for "
            "a grant.",
        ),
        "scope": (
            "invalid_scope",
            "Ask for scopes that this client holds, separated by one space, or for none to get "
            "all of them.",
        ),
    }
)
"""Each reason for which no token is given: the RFC 6749 error, and what to do.

A wrong organisation is `invalid_request` ("an unsupported parameter value"): the client is proven,
and RFC 8707's `invalid_target` speaks of a parameter that is not in use here.
"""


class NotProven(BrokerError):
    """No token is given. `reason` is one of REFUSALS; `client` a registered client's id, or ''."""

    def __init__(self, reason: str, client: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.client = client
        self.error, self.sentence = REFUSALS[reason]

    @property
    def status(self) -> int:
        return 401 if self.error == "invalid_client" else 400


@dataclass(frozen=True, slots=True)
class Assertion:
    """An assertion as it was read. Nothing in it is proven until its signature is."""

    token: str
    algorithm: str
    kid: str
    client: str
    claims: Mapping[str, Any]


def read_assertion(form: Mapping[str, str]) -> Assertion:
    """Read the assertion out of a token request's form. Raises NotProven."""
    if form.get("grant_type") != "client_credentials":
        raise NotProven("grant-type")
    if form.get("client_secret"):
        raise NotProven("two-methods")
    token = form.get("client_assertion")
    if form.get("client_assertion_type") != ASSERTION_TYPE or not token:
        raise NotProven("assertion-type")
    try:
        header, claims = read_jwt(token)
    except ValueError:
        raise NotProven("malformed") from None
    algorithm, kid = header.get("alg"), header.get("kid")
    if algorithm not in ALGORITHMS:
        raise NotProven("algorithm")
    if set(header) - {"alg", "kid", "typ"} or not _is_jwt(header.get("typ", "JWT")):
        raise NotProven("header")
    if not _is_name(kid):
        raise NotProven("kid")
    client = claims.get("iss")
    if (
        not _is_name(client)
        or claims.get("sub") != client
        or form.get("client_id", client) != client
    ):
        raise NotProven("issuer")
    return Assertion(token, str(algorithm), str(kid), str(client), claims)


def read_jwt(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return (header, claims) of a compact JWS, each read strictly. Raises ValueError."""
    parts = token.split(".")
    if len(token) > LARGEST_TOKEN or len(parts) != 3:
        raise ValueError("not a compact JWS")
    try:
        header, claims = (
            strict_json.loads(urlsafe_b64decode(part.encode("ascii"))) for part in parts[:2]
        )
    except ArithmeticError:
        raise ValueError("a number that nothing holds") from None
    if not isinstance(header, dict) or not isinstance(claims, dict):
        raise ValueError("not JSON objects")
    return header, claims


def is_signed(token: str, key: ECKey | RSAKey, algorithm: str) -> bool:
    """Whether this key signed the token with this algorithm, which is the caller's to name."""
    try:
        jws.deserialize_compact(token, key, algorithms=[algorithm])
    except (JoseError, ValueError, TypeError):
        return False
    return True


def fit_key(jwk: Mapping[str, Any]) -> ECKey | RSAKey | None:
    """Return a registered public key, or None where it is too weak or of another kind.

    Fit are RSA of 2048 bits or more and the curve P-384.
    """
    try:
        if jwk.get("kty") == "RSA" and _bits(jwk) < SMALLEST_RSA:
            return None
        key = import_key(dict(jwk))
    except (JoseError, ValueError, TypeError, KeyError):
        return None
    if isinstance(key, ECKey) and key.curve_name != "P-384":
        return None
    return key if isinstance(key, ECKey | RSAKey) else None


def _bits(jwk: Mapping[str, Any]) -> int:
    return int.from_bytes(urlsafe_b64decode(str(jwk["n"]).encode("ascii")), "big").bit_length()


def check_claims(assertion: Assertion, audience: str, now: datetime) -> datetime:
    """Check what a proven assertion claims; return until when its jti must be kept.

    Raises NotProven.
    """
    claims, client = assertion.claims, assertion.client
    if claims.get("aud") not in (audience, [audience]):
        raise NotProven("audience", client)
    expires = _seconds(claims, "exp", client)
    issued = _seconds(claims, "iat", client) if "iat" in claims else None
    begins = _seconds(claims, "nbf", client) if "nbf" in claims else None
    at = Decimal(now.timestamp())
    if expires + LEEWAY <= at:
        raise NotProven("expired", client)
    if expires > at + LONGEST_LIFE + LEEWAY:
        raise NotProven("life", client)
    if issued is not None and not 0 < expires - issued <= LONGEST_LIFE:
        raise NotProven("life", client)
    if issued is not None and issued > at + IAT_AHEAD:
        raise NotProven("issued-ahead", client)
    if begins is not None and begins > at + LEEWAY:
        raise NotProven("issued-ahead", client)
    if not _is_name(claims.get("jti")):
        raise NotProven("jti", client)
    return datetime.fromtimestamp(int(expires) + 1 + LEEWAY, UTC)


def signed_assertion(
    private_key_pem: str | bytes,
    client_id: str,
    token_url: str,
    organisation: str | None,
    alg: str,
    kid: str,
    *,
    now: datetime | None = None,
    seconds: int = LONGEST_LIFE,
) -> str:
    """Return a new assertion, good once and for 5 minutes: for commands, the sandbox and tests."""
    kind = ECKey if alg.startswith("ES") else RSAKey
    issued = int((now or datetime.now(UTC)).timestamp())
    claims = {
        "iss": client_id,
        "sub": client_id,
        "aud": token_url,
        "iat": issued,
        "exp": issued + seconds,
        "jti": str(uuid.uuid4()),
    }
    if organisation is not None:
        claims["organisation"] = organisation
    header = {"alg": alg, "kid": kid, "typ": "JWT"}
    key = kind.import_key(private_key_pem)
    return jws.serialize_compact(header, strict_json.dumps(claims), key, algorithms=[alg])


def _seconds(claims: Mapping[str, Any], name: str, client: str) -> Decimal:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise NotProven("claims", client)
    if not 0 <= value <= _LATEST:
        raise NotProven("claims", client)
    return Decimal(value)


def _is_name(value: object) -> bool:
    """1 to 255 visible ASCII characters."""
    return isinstance(value, str) and 0 < len(value) <= 255 and all("!" <= c <= "~" for c in value)


def _is_jwt(value: object) -> bool:
    return isinstance(value, str) and value.lower() in ("jwt", "client-authentication+jwt")
