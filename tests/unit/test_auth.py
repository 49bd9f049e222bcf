"""Callers prove who they are in one way only, once per proof, and lose it at once when revoked."""

import asyncio
import base64
import hmac
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlencode

import httpx2
import pytest
from fastapi import FastAPI
from joserfc.jwk import ECKey, RSAKey
from joserfc.jws import JWSRegistry
from sqlalchemy import select, update

from broker.api.token import LARGEST_FORM, router
from broker.assertion import ASSERTION_TYPE, REFUSALS, signed_assertion
from broker.auth import Authority
from broker.errors import Unauthenticated
from broker.settings import Settings
from broker.store import clients
from broker.store import tables as t
from broker.store.store import Store
from broker.vault import FileKeyRing
from tests.databases import Database, SettableClock
from tests.samples import ring_document

RSA = RSAKey.generate_key(2048)
EC = ECKey.generate_key("P-384")
EC_NEXT = ECKey.generate_key("P-384")
EC_OTHER = ECKey.generate_key("P-384")
EC_SMALL = ECKey.generate_key("P-256")
EC_LARGE = ECKey.generate_key("P-521")
CLIENT = "supplier-1"
SETTINGS = Settings(public_url="https://broker.example.nhs.uk", source="urn:referral-broker:test")
TOKEN_URL = "https://broker.example.nhs.uk/oauth2/token"


def public(key: ECKey | RSAKey) -> dict[str, Any]:
    return dict(key.as_dict(private=False))


def b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def as_secret(key: ECKey) -> bytes:
    """The published key, taken for an HMAC secret: what a careless verifier would do."""
    return key.as_pem(private=False)


def compact(header: bytes, claims: bytes, key: Any = EC, alg: str = "ES384") -> str:
    """A JWS of exactly these bytes, signed as `alg` says whatever the header says."""
    signing_input = f"{b64(header)}.{b64(claims)}".encode()
    if key is None:
        signature = b""
    elif isinstance(key, bytes):
        signature = hmac.digest(key, signing_input, f"sha{alg[2:]}")
    else:
        signature = JWSRegistry.algorithms[alg].sign(signing_input, key)
    return f"{signing_input.decode()}.{b64(signature)}"


@dataclass
class Desk:
    """An authority on a real store, with three clients, and what they would send."""

    database: Database
    clock: SettableClock
    ring: FileKeyRing = field(default_factory=lambda: FileKeyRing(ring_document()))

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Begin again on the same file, as after a crash: nothing is remembered but what is."""
        self.store = self.database.open()
        self.authority = self.worker(self.store)

    def worker(self, store: Store) -> Authority:
        return Authority(store, self.ring, SETTINGS, now=self.clock.now)

    async def register(self) -> None:
        def fill(tx: Any) -> None:
            clients.put(tx, CLIENT, "Supplier One", ["RS512", "ES384"], ["inbox", "pharmacy"])
            clients.put_key(tx, CLIENT, "ec-1", public(EC))
            clients.put_key(tx, CLIENT, "rsa-1", public(RSA))
            clients.put_key(tx, CLIENT, "old-1", public(EC_OTHER))
            clients.revoke_key(tx, CLIENT, "old-1")
            clients.put_key(tx, CLIENT, "small-1", public(EC_SMALL))
            clients.put_grant(tx, CLIENT, "FA001")
            clients.put_grant(tx, CLIENT, "FA002")
            clients.put_grant(tx, CLIENT, "FA003")
            clients.revoke_grant(tx, CLIENT, "FA003")
            clients.put_grant(tx, CLIENT, "FA004", tx.now)
            clients.put(tx, "single", "One Pharmacy", ["RS384", "ES384"], ["pharmacy"])
            clients.put_key(tx, "single", "single-1", public(EC_NEXT))
            clients.put_key(tx, "single", "single-rsa", public(RSA))
            clients.put_grant(tx, "single", "FA009")
            clients.put(tx, "gone", "Gone", ["ES384"], ["pharmacy"])
            clients.put_key(tx, "gone", "ec-1", public(EC))
            clients.put_grant(tx, "gone", "FA001")
            tx.execute(update(t.client).where(t.client.c.id == "gone").values(disabled_at=tx.now))
            clients.put(tx, "idle", "Idle", ["ES384"], ["pharmacy"])
            clients.put_key(tx, "idle", "ec-1", public(EC))

        await self.store.write(fill)

    @property
    def seconds(self) -> int:
        return int(self.clock.now().timestamp())

    def header(self, **changes: Any) -> dict[str, Any]:
        return _changed({"alg": "ES384", "kid": "ec-1", "typ": "JWT"}, changes)

    def claims(self, **changes: Any) -> dict[str, Any]:
        made = {
            "iss": CLIENT,
            "sub": CLIENT,
            "aud": TOKEN_URL,
            "iat": self.seconds,
            "exp": self.seconds + 300,
            "jti": "3f7e0f5a-0001",
            "organisation": "FA001",
        }
        return _changed(made, changes)

    def assertion(
        self,
        header: dict[str, Any] | None = None,
        key: Any = EC,
        alg: str = "ES384",
        **claims: Any,
    ) -> str:
        raw = json.dumps(self.header(**(header or {}))).encode()
        return compact(raw, json.dumps(self.claims(**claims)).encode(), key, alg)

    def form(self, assertion: str | None = None, **changes: Any) -> dict[str, str]:
        made = {
            "grant_type": "client_credentials",
            "client_assertion_type": ASSERTION_TYPE,
            "client_assertion": self.assertion() if assertion is None else assertion,
        }
        return _changed(made, changes)

    async def token(self, **claims: Any) -> str:
        answer = await self.authority.issue(self.form(self.assertion(**claims)))
        assert answer.status == 200, answer
        return str(answer.body["access_token"])

    async def audit(self) -> list[Any]:
        return list(
            await self.store.read(lambda c: c.execute(select(t.audit).order_by(t.audit.c.seq)))
        )


def _changed(made: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    made |= changes
    return {name: value for name, value in made.items() if value is not MISSING}


MISSING = object()


@pytest.fixture
async def desk(sqlite_database: Database, clock: SettableClock) -> AsyncIterator[Desk]:
    made = Desk(sqlite_database, clock)
    await made.register()
    yield made


# -- assertions ----------------------------------------------------------------------------------

Make = Callable[[Desk], dict[str, str]]


def claimed(**claims: Any) -> Make:
    return lambda desk: desk.form(desk.assertion(**claims))


def headed(key: Any = EC, signs: str = "ES384", /, **header: Any) -> Make:
    return lambda desk: desk.form(desk.assertion(header, key, signs))


def posted(**fields: Any) -> Make:
    return lambda desk: desk.form(**fields)


def written(change: Callable[[str], str]) -> Make:
    """The right assertion, with its characters changed afterwards."""
    return lambda desk: desk.form(change(desk.assertion()))


def raw(change_header: str = "", change_claims: str = "") -> Make:
    """An assertion signed over JSON that no writer of ours would write."""

    def make(desk: Desk) -> dict[str, str]:
        header = json.dumps(desk.header())[:-1] + change_header + "}"
        claims = json.dumps(desk.claims())[:-1] + change_claims + "}"
        return desk.form(compact(header.encode(), claims.encode()))

    return make


def with_claims_of(**claims: Any) -> Make:
    """The claims of one assertion between the header and the signature of another."""

    def make(desk: Desk) -> dict[str, str]:
        first, second = desk.assertion().split("."), desk.assertion(**claims).split(".")
        return desk.form(f"{first[0]}.{second[1]}.{first[2]}")

    return make


def later(**offsets: int) -> Make:
    """Times in seconds from now."""

    def make(desk: Desk) -> dict[str, str]:
        times: dict[str, Any] = {name: desk.seconds + offset for name, offset in offsets.items()}
        return desk.form(desk.assertion(**times))

    return make


def public_pem_as_secret(alg: str) -> Make:
    return headed(as_secret(EC), alg, alg=alg)


BAD_ASSERTIONS: list[tuple[str, Make, str]] = [
    ("no grant type", posted(grant_type=MISSING), "grant-type"),
    ("another grant type", posted(grant_type="authorization_code"), "grant-type"),
    ("a secret beside the assertion", posted(client_secret="s3cret"), "two-methods"),
    ("no assertion", posted(client_assertion=MISSING), "assertion-type"),
    ("no assertion type", posted(client_assertion_type=MISSING), "assertion-type"),
    (
        "a SAML assertion type",
        posted(client_assertion_type=ASSERTION_TYPE.replace("jwt", "saml2")),
        "assertion-type",
    ),
    ("another client id in the form", posted(client_id="single"), "issuer"),
    # not one thing only
    ("two parts", written(lambda a: a.rpartition(".")[0]), "malformed"),
    ("four parts", written(lambda a: a + "." + a.split(".")[2]), "malformed"),
    ("five parts, as an encrypted token has", written(lambda a: a + ".a.b"), "malformed"),
    ("only dots", written(lambda _: ".."), "malformed"),
    ("padded base64", written(lambda a: a.replace(".", "=.", 1)), "malformed"),
    ("base64 that is not of the URL-safe kind", written(lambda a: "+" + a[1:]), "malformed"),
    ("white space inside", written(lambda a: a[:9] + "\n" + a[9:]), "malformed"),
    ("characters beyond ASCII", written(lambda a: "é" + a), "malformed"),
    ("a header that is a list", lambda d: d.form(compact(b"[]", b"{}")), "malformed"),
    (
        "claims that are a list",
        lambda d: d.form(compact(json.dumps(d.header()).encode(), b"[]")),
        "malformed",
    ),
    ("an algorithm named twice", raw(change_header=',"alg":"none"'), "malformed"),
    ("a key named twice", raw(change_header=',"kid":"rsa-1"'), "malformed"),
    ("a subject named twice", raw(change_claims=f',"sub":"{CLIENT}"'), "malformed"),
    ("an expiry named twice", raw(change_claims=',"exp":9999999999'), "malformed"),
    ("a name written twice in two ways", raw(change_claims=',"\\u0065xp":9'), "malformed"),
    ("an expiry that is not a number at all", raw(change_claims=',"nbf":NaN'), "malformed"),
    ("a number that nothing holds", raw(change_claims=',"x":1e99999999999999999999'), "malformed"),
    ("half of a surrogate pair", raw(change_claims=',"x":"\\ud800"'), "malformed"),
    ("a thousand levels", raw(change_claims=',"x":' + "[" * 1000 + "]" * 1000), "malformed"),
    ("nine thousand characters", claimed(x="x" * 9_000), "malformed"),
    # algorithms
    ("no signature, openly", headed(None, alg="none"), "algorithm"),
    ("no signature, in odd letters", headed(None, alg="nOnE"), "algorithm"),
    ("no algorithm", headed(alg=MISSING), "algorithm"),
    ("a list of algorithms", headed(alg=["ES384"]), "algorithm"),
    ("the public key as a secret, HS256", public_pem_as_secret("HS256"), "algorithm"),
    ("the public key as a secret, HS384", public_pem_as_secret("HS384"), "algorithm"),
    ("the public key as a secret, HS512", public_pem_as_secret("HS512"), "algorithm"),
    ("RS256", headed(RSA, "RS256", alg="RS256", kid="rsa-1"), "algorithm"),
    ("PS512", headed(RSA, "PS512", alg="PS512", kid="rsa-1"), "algorithm"),
    ("ES256", headed(EC_SMALL, "ES256", alg="ES256", kid="small-1"), "algorithm"),
    ("ES512", headed(EC_LARGE, "ES512", alg="ES512"), "algorithm"),
    ("EdDSA", headed(alg="EdDSA"), "algorithm"),
    # headers
    ("a key set elsewhere", headed(jku="https://evil.example/jwks.json"), "header"),
    ("a certificate elsewhere", headed(x5u="https://evil.example/c.pem"), "header"),
    ("a key of its own", headed(EC_OTHER, jwk=public(EC_OTHER)), "header"),
    ("a certificate of its own", headed(EC_OTHER, x5c=["MIIB"]), "header"),
    ("something critical", headed(crit=["exp"], exp=1), "header"),
    ("a payload that is not encoded", headed(b64=False, crit=["b64"]), "header"),
    ("a compressed payload", headed(zip="DEF"), "header"),
    ("the type of an access token", headed(typ="at+jwt"), "header"),
    ("a type that is no text", headed(typ=1), "header"),
    # keys
    ("no key id", headed(kid=MISSING), "kid"),
    ("an empty key id", headed(kid=""), "kid"),
    ("a number for a key id", headed(kid=1), "kid"),
    ("a line break in the key id", headed(kid="ec-1\n"), "kid"),
    ("an unknown key id", headed(kid="ec-9"), "key-unknown"),
    ("a file for a key id", headed(kid="../../../../dev/null"), "key-unknown"),
    ("SQL for a key id", headed(kid="'OR'1'='1"), "key-unknown"),
    ("a revoked key", headed(EC_OTHER, kid="old-1"), "key-unknown"),
    ("another client's key", headed(EC_NEXT, kid="single-1"), "key-unknown"),
    ("a registered key on another curve", headed(EC, kid="small-1"), "key-unfit"),
    # clients
    ("an unknown client", claimed(iss="nobody", sub="nobody"), "client-unknown"),
    ("a disabled client", claimed(iss="gone", sub="gone"), "client-unknown"),
    ("SQL for a client", claimed(iss="'--", sub="'--"), "client-unknown"),
    ("two clients", claimed(sub="single"), "issuer"),
    ("no issuer", claimed(iss=MISSING), "issuer"),
    ("no subject", claimed(sub=MISSING), "issuer"),
    ("a number for a client", claimed(iss=1, sub=1), "issuer"),
    (
        "an algorithm that others may use",
        headed(RSA, "RS384", alg="RS384", kid="rsa-1"),
        "algorithm-not-registered",
    ),
    # signatures
    ("another key's signature", headed(EC_OTHER), "signature"),
    ("other claims under the signature", with_claims_of(organisation="FA002"), "signature"),
    ("an RSA key under an EC algorithm", headed(kid="rsa-1"), "signature"),
    ("an EC key under an RSA algorithm", headed(RSA, "RS512", alg="RS512"), "signature"),
    ("an empty signature", written(lambda a: a.rpartition(".")[0] + "."), "signature"),
    ("half a signature", written(lambda a: a[:-64]), "signature"),
    (
        "a signature of zeros",
        written(lambda a: a.rpartition(".")[0] + "." + b64(bytes(96))),
        "signature",
    ),
    ("another hash in the header", headed(RSA, "RS256", alg="RS512", kid="rsa-1"), "signature"),
    # audiences
    ("no audience", claimed(aud=MISSING), "audience"),
    ("another audience", claimed(aud="https://other.example.nhs.uk/oauth2/token"), "audience"),
    ("the base URL for audience", claimed(aud="https://broker.example.nhs.uk"), "audience"),
    ("a slash after the audience", claimed(aud=TOKEN_URL + "/"), "audience"),
    ("capitals in the audience", claimed(aud=TOKEN_URL.replace("broker", "Broker")), "audience"),
    ("two audiences", claimed(aud=[TOKEN_URL, "https://other.example"]), "audience"),
    ("the same audience twice", claimed(aud=[TOKEN_URL, TOKEN_URL]), "audience"),
    ("no audience in a list", claimed(aud=[]), "audience"),
    # times
    ("no expiry", claimed(exp=MISSING), "claims"),
    ("an expiry of null", claimed(exp=None), "claims"),
    ("an expiry as text", claimed(exp="1900000000"), "claims"),
    ("true for an expiry", claimed(exp=True), "claims"),
    ("a negative expiry", claimed(exp=-1), "claims"),
    ("an expiry after all calendars", claimed(exp=10**15), "claims"),
    ("an issue time as text", claimed(iat="now"), "claims"),
    ("a beginning as text", claimed(nbf="now"), "claims"),
    ("an expiry 30 seconds ago", later(exp=-30, iat=-60), "expired"),
    ("an expiry in 332 seconds", later(exp=332, iat=40), "life"),
    ("a life of 301 seconds", later(exp=241, iat=-60), "life"),
    ("an end before the beginning", later(exp=10, iat=20), "life"),
    ("a long life without an issue time", claimed(iat=MISSING, exp=4_000_000_000), "life"),
    ("an issue time in 62 seconds", later(iat=62), "issued-ahead"),
    ("a beginning in 32 seconds", later(nbf=32), "issued-ahead"),
    # ids
    ("no id", claimed(jti=MISSING), "jti"),
    ("an empty id", claimed(jti=""), "jti"),
    ("a number for an id", claimed(jti=7), "jti"),
    ("an id of 256 characters", claimed(jti="x" * 256), "jti"),
    ("a space in the id", claimed(jti="a b"), "jti"),
    # organisations and scopes
    ("no organisation of several", claimed(organisation=MISSING), "organisation-missing"),
    ("an organisation of others", claimed(organisation="FA009"), "organisation-not-granted"),
    ("a revoked grant", claimed(organisation="FA003"), "organisation-not-granted"),
    ("a grant that has run out", claimed(organisation="FA004"), "organisation-not-granted"),
    ("an organisation in small letters", claimed(organisation="fa001"), "organisation-not-granted"),
    ("a list of organisations", claimed(organisation=["FA001"]), "organisation-not-granted"),
    ("an organisation of no letters", claimed(organisation=""), "organisation-not-granted"),
    ("no grant at all", claimed(iss="idle", sub="idle"), "organisation-none"),
    ("a scope that is not held", posted(scope="pharmacy operations"), "scope"),
    ("a scope for everything", posted(scope="*"), "scope"),
    ("two spaces between scopes", posted(scope="inbox  pharmacy"), "scope"),
]


@pytest.mark.parametrize(
    ("make", "reason"),
    [pytest.param(make, reason, id=name) for name, make, reason in BAD_ASSERTIONS],
)
async def test_a_bad_assertion_is_refused_for_the_right_reason(
    desk: Desk, make: Make, reason: str
) -> None:
    answer = await desk.authority.issue(make(desk))
    error, sentence = REFUSALS[reason]
    assert answer.reason == reason
    assert answer.status == (401 if error == "invalid_client" else 400)
    assert answer.body == {"error": error, "error_description": sentence}


def test_the_table_of_bad_assertions_knows_every_reason() -> None:
    tried = {reason for _, _, reason in BAD_ASSERTIONS}
    assert set(REFUSALS) - tried == {"form", "replayed"}


def test_every_refusal_is_a_sentence_in_the_characters_that_rfc_6749_allows() -> None:
    for _, sentence in REFUSALS.values():
        assert sentence.endswith(".")
        assert all(" " <= character <= "~" and character not in '"\\' for character in sentence)


def test_who_is_registered_cannot_be_told_from_the_refusal() -> None:
    alike = ["client-unknown", "algorithm-not-registered", "key-unknown", "key-unfit", "signature"]
    assert len({REFUSALS[reason] for reason in alike}) == 1


GOOD_ASSERTIONS: list[tuple[str, Make]] = [
    ("as it should be", posted()),
    ("no type", headed(typ=MISSING)),
    ("the type of RFC 7523", headed(typ="client-authentication+jwt")),
    ("RS512", headed(RSA, "RS512", alg="RS512", kid="rsa-1")),
    ("the audience alone in a list", claimed(aud=[TOKEN_URL])),
    ("no issue time", claimed(iat=MISSING)),
    ("a clock 29 seconds slow", later(exp=-28, iat=-300)),
    ("a clock 30 seconds fast", later(exp=330, iat=30)),
    ("times with fractions", raw(change_claims=',"nbf":1.5')),
    ("the client id in the form", posted(client_id=CLIENT)),
    ("an empty scope", posted(scope="")),
    ("an unknown field", posted(resource="https://else.example")),
    ("an unknown claim", claimed(note="x")),
]


@pytest.mark.parametrize("make", [pytest.param(make, id=name) for name, make in GOOD_ASSERTIONS])
async def test_a_good_assertion_gets_a_token_for_its_organisation(desk: Desk, make: Make) -> None:
    answer = await desk.authority.issue(make(desk))
    assert answer.status == 200, answer
    caller = await desk.authority.authenticate(f"Bearer {answer.body['access_token']}")
    assert (caller.client_id, caller.organisation) == (CLIENT, "FA001")
    assert set(caller.scopes) == {"inbox", "pharmacy"}
    assert caller.name == "Supplier One"


async def test_the_organisation_may_be_left_out_where_one_is_granted(desk: Desk) -> None:
    form = desk.form(
        desk.assertion(
            {"kid": "single-1"}, EC_NEXT, iss="single", sub="single", organisation=MISSING
        )
    )
    assert (await desk.authority.issue(form)).body["organisation"] == "FA009"


async def test_a_scope_in_the_form_narrows_the_token(desk: Desk) -> None:
    answer = await desk.authority.issue(desk.form(scope="pharmacy"))
    assert answer.body["scope"] == "pharmacy"
    caller = await desk.authority.authenticate(f"Bearer {answer.body['access_token']}")
    assert set(caller.scopes) == {"pharmacy"}


@pytest.mark.parametrize(
    ("key", "alg", "kid"), [(EC_NEXT, "ES384", "single-1"), (RSA, "RS384", "single-rsa")]
)
async def test_the_helper_signs_assertions_that_are_taken(
    desk: Desk, key: ECKey | RSAKey, alg: str, kid: str
) -> None:
    assertion = signed_assertion(
        key.as_pem(private=True), "single", TOKEN_URL, "FA009", alg, kid, now=desk.clock.now()
    )
    assert (await desk.authority.issue(desk.form(assertion))).status == 200


# -- once ----------------------------------------------------------------------------------------


async def test_an_assertion_is_good_once(desk: Desk) -> None:
    form = desk.form()
    assert (await desk.authority.issue(form)).status == 200
    again = await desk.authority.issue(form)
    assert (again.status, again.reason) == (401, "replayed")


async def test_an_assertion_is_good_once_over_a_restart(desk: Desk) -> None:
    form = desk.form()
    assert (await desk.authority.issue(form)).status == 200
    desk.store.close()
    desk.database.stores.clear()
    desk.restart()
    assert (await desk.authority.issue(form)).reason == "replayed"


async def test_of_twenty_at_once_at_two_workers_one_gets_a_token(desk: Desk) -> None:
    form = desk.form()
    workers = [desk.authority, desk.worker(desk.database.open())]
    answers = await asyncio.gather(*(workers[i % 2].issue(form) for i in range(20)))
    assert sorted(answer.reason for answer in answers) == [""] + ["replayed"] * 19


async def test_an_id_is_kept_for_as_long_as_the_assertion_could_be_taken(desk: Desk) -> None:
    form = desk.form()
    assert (await desk.authority.issue(form)).status == 200
    desk.clock.advance(timedelta(seconds=329))
    assert (await desk.authority.issue(desk.form(desk.assertion(jti="other")))).status == 200
    assert (await desk.authority.issue(form)).reason == "replayed"
    desk.clock.advance(timedelta(seconds=1))
    assert (await desk.authority.issue(form)).reason == "expired"


async def test_two_clients_may_choose_the_same_id(desk: Desk) -> None:
    assert (await desk.authority.issue(desk.form())).status == 200
    other = desk.assertion(
        {"kid": "single-1"}, EC_NEXT, iss="single", sub="single", organisation="FA009"
    )
    assert (await desk.authority.issue(desk.form(other))).status == 200


async def test_a_refused_assertion_is_not_used_up(desk: Desk) -> None:
    assert (await desk.authority.issue(desk.form(scope="operations"))).reason == "scope"
    assert (await desk.authority.issue(desk.form())).status == 200


# -- keys and revocation -------------------------------------------------------------------------


async def test_two_keys_are_valid_while_a_client_rotates(desk: Desk) -> None:
    await desk.store.write(lambda tx: clients.put_key(tx, CLIENT, "ec-2", public(EC_NEXT)))
    old = await desk.token()
    answer = await desk.authority.issue(
        desk.form(desk.assertion({"kid": "ec-2"}, EC_NEXT, jti="next"))
    )
    assert answer.status == 200
    assert await desk.store.write(lambda tx: clients.revoke_key(tx, CLIENT, "ec-1"))
    await desk.authority.authenticate(f"Bearer {answer.body['access_token']}")
    with pytest.raises(Unauthenticated, match="revoked"):
        await desk.authority.authenticate(f"Bearer {old}")


def _disable(tx: Any) -> None:
    tx.execute(update(t.client).where(t.client.c.id == CLIENT).values(disabled_at=tx.now))


@pytest.mark.parametrize(
    "revoke",
    [
        pytest.param(lambda tx: clients.revoke_key(tx, CLIENT, "ec-1"), id="the key"),
        pytest.param(lambda tx: clients.revoke_grant(tx, CLIENT, "FA001"), id="the grant"),
        pytest.param(_disable, id="the client"),
        pytest.param(
            lambda tx: clients.put_grant(tx, CLIENT, "FA001", tx.now), id="the grant's time"
        ),
    ],
)
async def test_what_is_revoked_is_refused_at_the_next_request(
    desk: Desk, revoke: Callable[[Any], Any]
) -> None:
    token = await desk.token()
    await desk.authority.authenticate(f"Bearer {token}")
    await desk.store.write(revoke)
    with pytest.raises(Unauthenticated, match="revoked"):
        await desk.authority.authenticate(f"Bearer {token}")


async def test_a_scope_taken_from_the_client_is_taken_from_its_tokens(desk: Desk) -> None:
    token = await desk.token()
    await desk.store.write(
        lambda tx: clients.put(tx, CLIENT, "Supplier One", ["ES384"], ["inbox", "optometry"])
    )
    caller = await desk.authority.authenticate(f"Bearer {token}")
    assert set(caller.scopes) == {"inbox"}


async def test_our_own_keys_rotate_without_ending_any_token(desk: Desk) -> None:
    token = await desk.token()
    newer = ECKey.generate_key("P-384")
    document = ring_document()
    document["token"].append({"id": "token-2", "pem": newer.as_pem(private=True).decode()})
    desk.ring = FileKeyRing(document)
    desk.restart()
    await desk.authority.authenticate(f"Bearer {token}")
    fresh = await desk.token(jti="after")
    header = json.loads(base64.urlsafe_b64decode(fresh.split(".")[0] + "=="))
    assert header["kid"] == newer.thumbprint()
    document["token"].pop(0)
    desk.ring = FileKeyRing(document)
    desk.restart()
    await desk.authority.authenticate(f"Bearer {fresh}")
    with pytest.raises(Unauthenticated):
        await desk.authority.authenticate(f"Bearer {token}")


# -- tokens --------------------------------------------------------------------------------------


def forged(key: Any = None, alg: str = "ES384", header: Any = None, **claims: Any) -> Any:
    """A token like ours, with something changed, signed with our own key if none is given."""

    async def make(desk: Desk) -> str:
        ours = desk.ring.token_keys[-1]
        made_header = {"alg": "ES384", "kid": ours.thumbprint(), "typ": "at+jwt"}
        made = {
            "iss": SETTINGS.source,
            "aud": SETTINGS.base_url,
            "sub": CLIENT,
            "client_id": CLIENT,
            "organisation": "FA001",
            "scope": "inbox pharmacy",
            "kid_used": "ec-1",
            "jti": "x",
            "iat": desk.seconds,
            "exp": desk.seconds + 300,
        }
        signer = ours if key is None else key
        return "Bearer " + compact(
            json.dumps(_changed(made_header, header or {})).encode(),
            json.dumps(_changed(made, claims)).encode(),
            signer if key is not NOTHING else None,
            alg,
        )

    return make


NOTHING = object()


def rewritten(change: Callable[[str], str]) -> Any:
    async def make(desk: Desk) -> str:
        return change(f"Bearer {await desk.token()}")

    return make


def public_token_key_as_secret() -> Any:
    async def make(desk: Desk) -> str:
        secret = as_secret(desk.ring.token_keys[-1])
        made: str = await forged(secret, "HS384", {"alg": "HS384"})(desk)
        return made

    return make


async def _an_assertion(desk: Desk) -> str:
    return f"Bearer {desk.assertion()}"


async def _other_organisation(desk: Desk) -> str:
    token, other = await desk.token(), await desk.token(jti="o", organisation="FA002")
    return f"Bearer {token.split('.')[0]}.{other.split('.')[1]}.{token.split('.')[2]}"


async def _twice_the_organisation(desk: Desk) -> str:
    ours = desk.ring.token_keys[-1]
    header = {"alg": "ES384", "kid": ours.thumbprint(), "typ": "at+jwt"}
    claims = b'{"organisation":"FA001","organisation":"FA002"}'
    return "Bearer " + compact(json.dumps(header).encode(), claims, ours)


BAD_TOKENS: list[tuple[str, Callable[[Desk], Awaitable[str]], str]] = [
    ("nothing", rewritten(lambda _: ""), "not a Bearer"),
    ("the scheme alone", rewritten(lambda _: "Bearer"), "not a Bearer"),
    ("the scheme and a space", rewritten(lambda _: "Bearer "), "not a Bearer"),
    ("a password", rewritten(lambda _: "Basic c3VwcGxpZXItMTpzZWNyZXQ="), "not a Bearer"),
    ("the token without its scheme", rewritten(lambda h: h.split()[1]), "not a Bearer"),
    ("a space before the token", rewritten(lambda h: h.replace(" ", "  ")), "not an access"),
    ("two tokens", rewritten(lambda h: f"{h}, {h}"), "not an access"),
    ("something after the token", rewritten(lambda h: h + "\x00"), "not an access"),
    ("half a surrogate pair", rewritten(lambda h: h + "\ud800"), "not an access"),
    ("half a signature", rewritten(lambda h: h[:-64]), "not an access"),
    ("no signature part", rewritten(lambda h: h.rpartition(".")[0]), "not an access"),
    ("a million characters", rewritten(lambda h: h + "x" * 1_000_000), "not an access"),
    ("a client's own assertion", _an_assertion, "not an access"),
    ("another organisation under the signature", _other_organisation, "not an access"),
    ("an organisation named twice", _twice_the_organisation, "not an access"),
    ("another issuer's key", forged(EC_OTHER), "not an access"),
    ("no signature, openly", forged(NOTHING, "ES384", {"alg": "none"}), "not an access"),
    ("our public key as a secret", public_token_key_as_secret(), "not an access"),
    ("an unknown key", forged(header={"kid": "other"}), "not an access"),
    ("no key id", forged(header={"kid": MISSING}), "not an access"),
    ("a key id that is no text", forged(header={"kid": ["x"]}), "not an access"),
    ("a key of its own", forged(EC_OTHER, header={"jwk": public(EC_OTHER)}), "not an access"),
    ("the type of an assertion", forged(header={"typ": "JWT"}), "not an access"),
    ("no type", forged(header={"typ": MISSING}), "not an access"),
    ("something critical", forged(header={"crit": ["exp"]}), "not an access"),
    ("another deployment's issuer", forged(iss="urn:referral-broker"), "not an access"),
    ("another deployment's audience", forged(aud="https://other.example"), "not an access"),
    ("our audience among others", forged(aud=[SETTINGS.base_url]), "not an access"),
    ("no client", forged(sub=MISSING), "not an access"),
    ("no key that was used", forged(kid_used=MISSING), "not an access"),
    ("scopes in a list", forged(scope=["inbox"]), "not an access"),
    ("no expiry", forged(exp=MISSING), "not an access"),
    ("true for an expiry", forged(exp=True), "not an access"),
    ("a life of an hour", forged(exp=4_000_000_000), "not an access"),
    ("an expiry long ago", forged(iat=1, exp=300), "has expired"),
    ("an unknown client", forged(sub="nobody"), "revoked"),
    ("a client that is disabled", forged(sub="gone"), "revoked"),
    ("a key that is revoked", forged(kid_used="old-1"), "revoked"),
    ("an organisation without a grant", forged(organisation="FA009"), "revoked"),
]


@pytest.mark.parametrize(
    ("make", "sentence"),
    [pytest.param(make, sentence, id=name) for name, make, sentence in BAD_TOKENS],
)
async def test_a_bad_token_is_refused_for_the_right_reason(
    desk: Desk, make: Callable[[Desk], Awaitable[str]], sentence: str
) -> None:
    header = await make(desk)
    with pytest.raises(Unauthenticated, match=sentence) as refused:
        await desk.authority.authenticate(header)
    assert refused.value.detail.endswith((".", "…"))


async def test_without_a_header_the_caller_is_told_how_to_sign_in(desk: Desk) -> None:
    with pytest.raises(Unauthenticated, match="POST /oauth2/token"):
        await desk.authority.authenticate(None)


async def test_a_token_made_like_ours_is_taken(desk: Desk) -> None:
    """The table above changes one thing in each: this is what it changes."""
    caller = await desk.authority.authenticate(await forged()(desk))
    assert caller.organisation == "FA001"


async def test_a_token_ends_after_five_minutes_though_it_was_verified_before(desk: Desk) -> None:
    token = await desk.token()
    desk.clock.advance(timedelta(seconds=299))
    await desk.authority.authenticate(f"bearer {token}")
    desk.clock.advance(timedelta(seconds=1))
    for _ in range(2):
        with pytest.raises(Unauthenticated, match="has expired"):
            await desk.authority.authenticate(f"Bearer {token}")


async def test_the_memory_of_verified_tokens_is_bounded_and_can_be_done_without(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.auth.MOST_VERIFIED", 2)
    tokens = [await desk.token(jti=str(number)) for number in range(5)]
    for token in tokens * 2:
        await desk.authority.authenticate(f"Bearer {token}")
    assert len(desk.authority._verified) == 2


# -- audit ---------------------------------------------------------------------------------------


async def test_a_token_and_a_refusal_are_in_the_audit_chain(desk: Desk) -> None:
    await desk.token()
    await desk.authority.issue(desk.form())
    issued, refused = await desk.audit()
    assert (issued.action, issued.actor, issued.organisation) == ("token.issued", CLIENT, "FA001")
    assert (issued.facts["kid"], issued.facts["scope"]) == ("ec-1", "inbox pharmacy")
    assert (refused.action, refused.actor) == ("token.refused", CLIENT)
    assert refused.facts == {"reason": "replayed", "left_out": "0"}


async def test_nothing_that_a_stranger_wrote_is_in_the_audit_chain(desk: Desk) -> None:
    evil = "evil-text"
    for form in (
        desk.form(evil),
        desk.form(grant_type=evil),
        desk.form(desk.assertion({"kid": evil})),
        desk.form(desk.assertion({"alg": evil})),
        desk.form(desk.assertion(iss=evil, sub=evil)),
        desk.form(desk.assertion(organisation=evil)),
        desk.form(scope=evil),
    ):
        assert (await desk.authority.issue(form)).status in {400, 401}
    entries = await desk.audit()
    assert len(entries) == 7
    assert {entry.actor for entry in entries} == {"unknown", CLIENT}
    assert evil not in str([tuple(entry) for entry in entries])


async def test_a_storm_of_refusals_is_one_entry_a_minute_that_says_how_many(desk: Desk) -> None:
    for _ in range(50):
        await desk.authority.issue(desk.form("a.b.c"))
    desk.clock.advance(timedelta(minutes=1))
    await desk.authority.issue(desk.form("a.b.c"))
    assert [entry.facts["left_out"] for entry in await desk.audit()] == ["0", "49"]


# -- the door ------------------------------------------------------------------------------------


@pytest.fixture
async def door(desk: Desk) -> AsyncIterator[httpx2.AsyncClient]:
    app = FastAPI()
    app.include_router(router)
    app.state.broker = SimpleNamespace(authority=desk.authority)
    transport = httpx2.ASGITransport(app)
    async with httpx2.AsyncClient(transport=transport, base_url=SETTINGS.base_url) as client:
        yield client


FORM = {"Content-Type": "application/x-www-form-urlencoded"}


async def test_the_door_gives_a_token_that_nobody_may_store(
    desk: Desk, door: httpx2.AsyncClient
) -> None:
    answer = await door.post("/oauth2/token", data=desk.form())
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    told = answer.json()
    assert (told["token_type"], told["expires_in"]) == ("Bearer", 300)
    await desk.authority.authenticate(f"Bearer {told['access_token']}")


@pytest.mark.parametrize(
    ("status", "headers", "change"),
    [
        pytest.param(400, {"Content-Type": "application/json"}, lambda b: b, id="JSON"),
        pytest.param(400, {"Content-Type": "multipart/form-data"}, lambda b: b, id="multipart"),
        pytest.param(400, {}, lambda b: b, id="no type"),
        pytest.param(400, FORM | {"Content-Encoding": "gzip"}, lambda b: b, id="compressed"),
        pytest.param(400, FORM, lambda b: b + b"&scope=a&scope=a", id="a field twice"),
        pytest.param(400, FORM, lambda b: b + b"&grant_type=x", id="a grant type twice"),
        pytest.param(400, FORM, lambda b: b + b"&%73cope=a&scope=", id="twice, one is empty"),
        pytest.param(400, FORM, lambda b: b + b"&x=%ff", id="not UTF-8"),
        pytest.param(400, FORM, lambda b: b + b"&x=\xff", id="not ASCII"),
        pytest.param(400, FORM, lambda b: b + b"&x", id="a field without ="),
        pytest.param(400, FORM, lambda b: b + b"&a=1" * 40, id="forty fields"),
        pytest.param(400, FORM, lambda _: b"", id="nothing"),
        pytest.param(413, FORM, lambda b: b + b"&x=" + b"x" * LARGEST_FORM, id="too large"),
    ],
)
async def test_the_door_refuses_what_is_not_one_form(
    desk: Desk,
    door: httpx2.AsyncClient,
    status: int,
    headers: dict[str, str],
    change: Callable[[bytes], bytes],
) -> None:
    body = change(urlencode(desk.form()).encode())
    answer = await door.post("/oauth2/token", content=body, headers=headers)
    assert answer.status_code == status
    assert answer.headers["cache-control"] == "no-store"
    assert set(answer.json()) == {"error", "error_description"}


async def test_the_door_answers_a_refusal_as_rfc_6749_says(
    desk: Desk, door: httpx2.AsyncClient
) -> None:
    answer = await door.post("/oauth2/token", data=desk.form("a.b.c"))
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")
    assert answer.headers["content-type"] == "application/json"
