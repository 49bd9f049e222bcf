"""Formats that may never change: what was derived, chained, sealed or keyed once must fit for ever.

A test here that fails means that the code is wrong, not the test.
"""

import hashlib
import hmac
import json
import re
import time
import uuid
from base64 import urlsafe_b64decode
from datetime import UTC, datetime, timedelta, timezone

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from broker.audit import GENESIS, Entry, chain
from broker.events import Destination, caused_id, delivery_id, digest, uuid7
from broker.vault import Binding, FileKeyRing, MessageKey, Tampered, Vault
from tests.samples import a_vault, ring_document

CAUSE = "01a20000-0000-7000-8000-000000000001"

# -- ids -----------------------------------------------------------------------------------------


def test_a_uuid7_has_the_shape_version_and_variant_of_rfc_9562() -> None:
    for _ in range(200):
        made = uuid7()
        assert re.fullmatch(
            r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", made
        )
        parsed = uuid.UUID(made)
        assert (parsed.version, parsed.variant) == (7, uuid.RFC_4122)


def test_a_uuid7_begins_with_the_millisecond_in_which_it_was_made() -> None:
    before = time.time_ns() // 1_000_000
    made = uuid.UUID(uuid7()).int >> 80
    assert before <= made <= time.time_ns() // 1_000_000


def test_later_uuid7s_sort_behind_earlier_ones() -> None:
    made = []
    for _ in range(4):
        made.append(uuid7())
        time.sleep(0.002)
    assert made == sorted(made)


def test_no_two_uuid7s_are_the_same() -> None:
    assert len({uuid7() for _ in range(5_000)}) == 5_000


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ((CAUSE, "notices", "A81001", "overdue", 0), "48733ebf-d9b7-8b7d-8c5d-ef28a0fcd3ed"),
        ((CAUSE, "notices", "A81001", "overdue", 1), "a2a0fa05-84bf-8b61-b3d9-5b5c99c618a2"),
        (("c", "Hôpital", "RX1/eyes", "kind", 12), "246cfa72-c054-830e-8e86-3afcde345425"),
        (("", "", "", "", 0), "d410616b-f7ac-8e43-bbf9-e946ead6636f"),
    ],
)
def test_what_is_caused_has_the_same_id_for_ever(
    parts: tuple[str, str, str, str, int], expected: str
) -> None:
    assert caused_id(*parts) == expected
    framed = b"".join(
        len(part).to_bytes(4, "big") + part for part in (str(p).encode() for p in parts)
    )
    value = int.from_bytes(hashlib.sha256(framed).digest()[:16], "big")
    assert uuid.UUID(expected).int | 0xF << 76 | 0x3 << 62 == value | 0xF << 76 | 0x3 << 62
    assert (uuid.UUID(expected).version, uuid.UUID(expected).variant) == (8, uuid.RFC_4122)


def test_where_one_part_of_a_cause_ends_and_the_next_begins_counts() -> None:
    assert caused_id("ab", "c", "d", "e") != caused_id("a", "bc", "d", "e")
    assert caused_id("a", "b", "c", "d", 1) != caused_id("a", "b", "c", "d1", 0)


@pytest.mark.parametrize(
    ("consumer", "destination", "expected"),
    [
        ("record_update", Destination("A81001"), "494b0af1-7e08-5a96-9a61-a82f394103b5"),
        (
            "referral_delivery",
            Destination("RX1", "macular"),
            "b48dc142-3765-5ffa-b807-1bb425c38192",
        ),
    ],
)
def test_a_delivery_has_the_same_id_for_ever(
    consumer: str, destination: Destination, expected: str
) -> None:
    assert delivery_id(consumer, CAUSE, destination) == expected
    assert uuid.UUID(expected).version == 5


def test_a_destination_is_written_with_its_service_if_it_has_one() -> None:
    assert str(Destination("A81001")) == "A81001"
    assert str(Destination("RX1", "macular")) == "RX1/macular"


def test_a_digest_is_the_sha_256_of_the_plaintext_in_lower_case_hexadecimal() -> None:
    assert digest(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


# -- the audit chain -----------------------------------------------------------------------------

AT = datetime(2026, 11, 23, 10, 0, 0, 123456, tzinfo=UTC)
FIRST = Entry(
    action="message.accepted",
    actor="client-1",
    organisation="FA001",
    object_kind="message",
    object_id=CAUSE,
    facts={"door": "pharmacy", "à": "ü\u2028"},
)
FIRST_HASH = "79f912c0f088893c6764c7279bc5685bf2204d477b0b44e2fb4fee053836a1db"


def test_the_chain_hashes_the_same_entries_to_the_same_values_for_ever() -> None:
    assert chain(GENESIS, 1, AT, FIRST) == FIRST_HASH
    second = Entry("audit.verified", "cli", "", "audit", "")
    assert chain(FIRST_HASH, 2, AT, second) == (
        "ec05f65bf2ed535f758aa1332688f4f96a40a290e9c507aa6835126cb17dccfd"
    )


def test_the_chain_hashes_exactly_this_text() -> None:
    said = (
        f'["{"0" * 64}",1,"2026-11-23T10:00:00.123456Z","client-1","FA001","message.accepted",'
        f'"message","{CAUSE}",{{"door":"pharmacy","\\u00e0":"\\u00fc\\u2028"}}]'
    )
    assert hashlib.sha256(said.encode("ascii")).hexdigest() == FIRST_HASH


def test_the_chain_hashes_a_moment_the_same_however_its_offset_is_written() -> None:
    elsewhere = AT.astimezone(timezone(timedelta(hours=5, minutes=30)))
    assert chain(GENESIS, 1, elsewhere, FIRST) == FIRST_HASH


def test_the_order_in_which_facts_were_named_does_not_count() -> None:
    turned = Entry(
        FIRST.action,
        FIRST.actor,
        FIRST.organisation,
        FIRST.object_kind,
        FIRST.object_id,
        dict(reversed(FIRST.facts.items())),
    )
    assert chain(GENESIS, 1, AT, turned) == FIRST_HASH


# -- keyed values --------------------------------------------------------------------------------


def test_an_idempotency_key_has_the_same_mac_for_ever() -> None:
    vault = a_vault()
    expected = "ec601c81a903926ddfa3b93691f6867a3866c0e4aa996df12a251597b0757d22"
    assert vault.mac("key", b"body") == expected
    framed = b"\x00\x03" + b"key" + b"body"
    key = bytes.fromhex(ring_document()["reference"][0]["key"])
    assert hmac.new(key, framed, hashlib.sha256).hexdigest() == expected
    assert vault.mac("", b"") == "35570d3a4b63748fb3c8fb381775d92a06a6abedc77bf09314b4ec3a7dd858c0"


def test_where_the_scope_of_a_mac_ends_and_its_value_begins_counts() -> None:
    assert a_vault().mac("key", b"body") != a_vault().mac("ke", b"ybody")


def test_a_pseudonym_is_the_same_for_ever_and_names_its_key() -> None:
    assert a_vault().pseudonym("9434765919") == (
        "pseudonym-1",
        "e36cfba010bdce2e47fe8a195045dfbae1c16033afd1bd6da7233bc2b8d0457a",
    )


def test_the_check_values_of_a_ring_are_the_same_for_ever() -> None:
    assert FileKeyRing(ring_document()).checks() == {
        "kek-1": ("kek", "43d25480d3ce61c69abf0070dd2f67a9"),
        "pseudonym-1": ("pseudonym", "05cd37f321d4fe26015b219658850b88"),
        "reference-1": ("reference", "bda9bb8b68a6cbbe134be34057f2c068"),
        "topic-1": ("topic", "c174db325c5881308802eb82c819ff2d"),
    }


def test_the_key_of_a_topic_is_the_same_for_ever_and_is_what_rfc_5869_makes_of_the_secret() -> None:
    secret = bytes.fromhex(ring_document()["topic"][0]["key"])
    # HKDF-SHA-256 without a salt, and one block of output.
    pseudorandom = hmac.new(bytes(32), secret, hashlib.sha256).digest()
    info = b"referral-broker|topic|fhir.Task.v1\x01"
    key = hmac.new(pseudorandom, info, hashlib.sha256).digest()
    assert a_vault().topic_key("fhir.Task.v1") == ("topic-1|fhir.Task.v1", key)
    assert key.hex() == "40e09bd50b6a6f0ba4bf331d8a85535a5c7d6d79930492c5b64b836b2a55800b"


# -- sealed bytes --------------------------------------------------------------------------------

KEY_ID = "01a20000-0000-7000-8000-00000000000a"
OWNER = "01a20000-0000-7000-8000-00000000000b"
KEY = MessageKey(KEY_ID, "kek-1", b"", bytes(range(32)))
BINDING = Binding(OWNER, "content", 1, "FA001", "application/fhir+json")
BODY = '{"resourceType":"Bundle","note":"für immer"}'.encode()
SEALED_ONCE = (
    b"eyJhbGciOiJkaXIiLCJlbmMiOiJBMjU2R0NNIiwia2lkIjoiMDFhMjAwMDAtMDAwMC03MDAwLTgwMDAtMDAwMDAwMDAw"
    b"MDBhIiwiYiI6IjAxYTIwMDAwLTAwMDAtNzAwMC04MDAwLTAwMDAwMDAwMDAwYnxjb250ZW50fDF8RkEwMDF8YXBwbGlj"
    b"YXRpb24vZmhpcitqc29uIn0..TciM2LH3gMBlJt0-.VdblAAWQF1A4jIqjkitNZGI76Kfuqu73xGWJsIov70xbOwT5AAS"
    b"oJovNSxb6.aqidALDqIxzSRHZpOlu4fQ"
)
WRAPPED_ONCE = bytes.fromhex(
    "587f9fa0f4ad4e8bc2a052a0faaffdd1135e7b93cb66e0e98823b762e40709b2e5defe0ad43e4506969e9e38"
    "cf228b97aac88072e213687993a3827c"
)


def segment(part: bytes) -> bytes:
    return urlsafe_b64decode(part + b"=" * (-len(part) % 4))


def test_what_was_sealed_in_2026_opens_for_ever() -> None:
    assert a_vault().open(KEY, SEALED_ONCE, BINDING) == BODY


def test_a_key_that_was_wrapped_in_2026_unwraps_for_ever() -> None:
    vault = a_vault()
    unwrapped = vault.unwrap(KEY_ID, "kek-1", WRAPPED_ONCE)
    assert unwrapped.raw == KEY.raw
    assert vault.open(unwrapped, SEALED_ONCE, BINDING) == BODY


def test_sealed_bytes_are_compact_jwe_that_any_implementation_opens() -> None:
    for sealed in (SEALED_ONCE, a_vault().seal(KEY, BODY, BINDING)):
        header, key, nonce, ciphertext, tag = sealed.split(b".")
        assert json.loads(segment(header)) == {
            "alg": "dir",
            "enc": "A256GCM",
            "kid": KEY_ID,
            "b": f"{OWNER}|content|1|FA001|application/fhir+json",
        }
        assert key == b""
        assert (len(segment(nonce)), len(segment(tag))) == (12, 16)
        opened = AESGCM(KEY.raw).decrypt(segment(nonce), segment(ciphertext) + segment(tag), header)
        assert opened == BODY


def test_no_two_sealings_are_alike() -> None:
    vault: Vault = a_vault()
    assert vault.seal(KEY, BODY, BINDING) != vault.seal(KEY, BODY, BINDING)
    keys = [vault.new_key(KEY_ID) for _ in range(2)]
    assert keys[0].raw != keys[1].raw
    assert keys[0].wrapped != keys[1].wrapped


@pytest.mark.parametrize(
    "binding",
    [
        Binding(KEY_ID, "content", 1, "FA001", "application/fhir+json"),
        Binding(OWNER, "in", 1, "FA001", "application/fhir+json"),
        Binding(OWNER, "content", 2, "FA001", "application/fhir+json"),
        Binding(OWNER, "content", 1, "FA002", "application/fhir+json"),
        Binding(OWNER, "content", 1, "FA001", "application/json"),
    ],
    ids=["owner", "role", "version", "organisation", "content type"],
)
def test_sealed_bytes_open_only_as_what_they_were_sealed_as(binding: Binding) -> None:
    with pytest.raises(Tampered, match="is something else"):
        a_vault().open(KEY, SEALED_ONCE, binding)
