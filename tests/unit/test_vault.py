"""The key ring and the vault: keys are made once, kept to their owner, and rotated in peace."""

import copy
import json
import os
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from broker.events import uuid7
from broker.vault import Binding, FileKeyRing, RingProblem, Tampered, Vault
from tests.samples import a_vault, ring_document

BINDING = Binding(uuid7(), "content", 1, "FA001", "application/fhir+json")
SECOND = {"id": "kek-2", "key": "44" * 32}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys" / "ring.json"


def written(path: Path, document: Any) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    path.chmod(0o600)
    return path


# -- the file ------------------------------------------------------------------------------------


def test_a_new_ring_is_its_owners_alone_and_loads_as_it_was_made(path: Path) -> None:
    before = os.umask(0)
    try:
        made = FileKeyRing.create(path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [p.name for p in path.parent.iterdir()] == ["ring.json"]
    loaded = FileKeyRing.load(path)
    assert loaded.checks() == made.checks()
    assert [key.thumbprint() for key in loaded.token_keys] == [
        key.thumbprint() for key in made.token_keys
    ]
    sealed = Vault(made).seal(Vault(made).new_key("k"), b"body", BINDING)
    assert b"body" not in sealed


def test_no_two_rings_have_a_key_in_common(tmp_path: Path) -> None:
    rings = [FileKeyRing.create(tmp_path / name / "ring.json") for name in "ab"]
    found = [key for ring in rings for key in ring.checks()]
    assert len(set(found)) == len(found)
    assert rings[0].reference_key() != rings[1].reference_key()
    assert len(rings[0].reference_key()) == len(rings[0].kek(rings[0].current_kek)) == 32


def test_creating_a_ring_never_overwrites_one(path: Path) -> None:
    made = FileKeyRing.create(path)
    before = path.read_bytes()
    with pytest.raises(FileExistsError):
        FileKeyRing.create(path)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["ring.json"]
    assert FileKeyRing.load(path).checks() == made.checks()


def test_of_many_that_create_a_ring_at_once_one_wins_and_its_ring_is_whole(path: Path) -> None:
    def create() -> FileKeyRing | None:
        try:
            return FileKeyRing.create(path)
        except FileExistsError:
            return None

    with ThreadPoolExecutor(4) as pool:
        made = [run.result() for run in [pool.submit(create) for _ in range(8)]]
    (winner,) = [ring for ring in made if ring is not None]
    assert FileKeyRing.load(path).checks() == winner.checks()


def test_a_link_to_elsewhere_is_not_followed_by_creating(path: Path, tmp_path: Path) -> None:
    path.parent.mkdir()
    path.symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(FileExistsError):
        FileKeyRing.create(path)
    assert not (tmp_path / "elsewhere.json").exists()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o610])
def test_a_ring_that_others_can_reach_is_refused_with_what_to_do(path: Path, mode: int) -> None:
    FileKeyRing.create(path)
    path.chmod(mode)
    with pytest.raises(RingProblem) as caught:
        FileKeyRing.load(path)
    assert str(caught.value) == (
        f"The key ring at {path} can be read by others. Run: chmod 600 {path}"
    )


def test_a_ring_that_is_not_there_says_why_it_matters(path: Path) -> None:
    with pytest.raises(RingProblem) as caught:
        FileKeyRing.load(path)
    said = str(caught.value)
    assert said.startswith(f"There is no key ring at {path}. Restore it from where you keep it")
    assert "BROKER_KEYS_DIR" in said


Change = Callable[[dict[str, Any]], Any]

BROKEN: list[tuple[str, Change]] = [
    ("no kek", lambda ring: ring.pop("kek")),
    ("no pseudonym", lambda ring: ring.pop("pseudonym")),
    ("no reference", lambda ring: ring.pop("reference")),
    ("no token", lambda ring: ring.pop("token")),
    ("empty kek", lambda ring: ring["kek"].clear()),
    ("empty reference", lambda ring: ring["reference"].clear()),
    ("empty token", lambda ring: ring["token"].clear()),
    ("kek is no list", lambda ring: ring.update(kek={})),
    ("kek is text", lambda ring: ring.update(kek="kek")),
    ("kek without id", lambda ring: ring["kek"][0].pop("id")),
    ("kek without key", lambda ring: ring["kek"][0].pop("key")),
    ("kek is not hexadecimal", lambda ring: ring["kek"][0].update(key="zz" * 32)),
    ("kek too short", lambda ring: ring["kek"][0].update(key="11" * 16)),
    ("kek too long", lambda ring: ring["kek"][0].update(key="11" * 33)),
    ("kek is a number", lambda ring: ring["kek"][0].update(key=11)),
    ("two keks of one id", lambda ring: ring["kek"].append({"id": "kek-1", "key": "55" * 32})),
    ("reference too short", lambda ring: ring["reference"][0].update(key="")),
    ("pseudonym too short", lambda ring: ring["pseudonym"][0].update(key="22")),
    ("token is no key", lambda ring: ring["token"][0].update(pem="nothing")),
    ("token without pem", lambda ring: ring["token"][0].pop("pem")),
]


@pytest.mark.parametrize("change", [c for _, c in BROKEN], ids=[name for name, _ in BROKEN])
def test_a_ring_that_cannot_be_used_is_refused_in_a_sentence_that_tells_no_key(
    path: Path, change: Change
) -> None:
    document = copy.deepcopy(ring_document())
    change(document)
    with pytest.raises(RingProblem) as caught:
        FileKeyRing.load(written(path, document))
    refused(str(caught.value), path)


@pytest.mark.parametrize("text", ["", "{", "[]", "5", "null", '"ring"', '{"kek": [5]}'], ids=repr)
def test_a_file_that_is_no_ring_is_refused_in_a_sentence(path: Path, text: str) -> None:
    with pytest.raises(RingProblem) as caught:
        FileKeyRing.load(written(path, text))
    refused(str(caught.value), path)


def test_bytes_that_are_no_text_and_a_folder_are_refused_in_a_sentence(path: Path) -> None:
    written(path, "").write_bytes(b"\xff\xfe\x00")
    for what in (path, path.parent):
        what.chmod(0o700)
        with pytest.raises(RingProblem) as caught:
            FileKeyRing.load(what)
        refused(str(caught.value), what)


def refused(said: str, path: Path) -> None:
    """A refusal is one readable sentence, names the file, and tells nothing that is in it."""
    start = f"The key ring at {path} cannot be used: "
    assert said.startswith(start), said
    assert len(said) > len(start) + 10
    assert said.endswith("Restore it from where you keep it.")
    for secret in ("11" * 16, "22" * 16, "33" * 16, "55" * 16, "zz", "PRIVATE"):
        assert secret not in said
    for jargon in ("list index", "NoneType", "fromhex", "codec", "indices", "subscriptable"):
        assert jargon not in said


# -- rotation ------------------------------------------------------------------------------------


def test_the_last_kek_listed_wraps_and_every_listed_one_opens() -> None:
    before = a_vault()
    old = before.new_key(uuid7())
    sealed = before.seal(old, b"body", BINDING)
    rotated = Vault(FileKeyRing(ring_document(kek=[*ring_document()["kek"], SECOND])))
    new = rotated.new_key(uuid7())
    assert (old.kek_id, new.kek_id) == ("kek-1", "kek-2")
    again = rotated.unwrap(old.id, old.kek_id, old.wrapped)
    assert rotated.open(again, sealed, BINDING) == b"body"
    with pytest.raises(RingProblem, match=r"lacks kek-2: restore the ring that has it\."):
        before.unwrap(new.id, new.kek_id, new.wrapped)
    kek_id, secret = rotated.seal_secret(b"whsec", "secret-1")
    assert kek_id == "kek-2"
    assert rotated.open_secret(kek_id, secret, "secret-1") == b"whsec"


def test_rotating_the_keks_changes_no_mac_and_no_pseudonym() -> None:
    rotated = Vault(FileKeyRing(ring_document(kek=[*ring_document()["kek"], SECOND])))
    assert rotated.mac("key", b"value") == a_vault().mac("key", b"value")
    assert rotated.pseudonym("9434765919") == a_vault().pseudonym("9434765919")


def test_a_wrapped_key_opens_under_its_own_name_and_kek_only() -> None:
    vault = Vault(FileKeyRing(ring_document(kek=[*ring_document()["kek"], SECOND])))
    key = vault.new_key("one")
    for name, kek in (("two", "kek-2"), ("one", "kek-1")):
        with pytest.raises(Tampered, match=f"the key {name} does not open under {kek}"):
            vault.unwrap(name, kek, key.wrapped)


@pytest.mark.parametrize("length", [0, 5, 11, 12, 20, 28, 59])
def test_a_wrapped_key_that_was_cut_short_is_tampered_with(length: int) -> None:
    vault = a_vault()
    key = vault.new_key("one")
    with pytest.raises(Tampered):
        vault.unwrap("one", "kek-1", key.wrapped[:length])


@pytest.mark.parametrize("spoilt", [b"", b"....", b"a.b.c", b"\xff" * 40, b"e30..AA.AA.AA"])
def test_what_is_no_sealed_text_is_tampered_with(spoilt: bytes) -> None:
    vault = a_vault()
    with pytest.raises(Tampered):
        vault.open(vault.new_key("one"), spoilt, BINDING)


def test_another_messages_key_opens_nothing() -> None:
    vault = a_vault()
    one, other = vault.new_key("one"), vault.new_key("other")
    with pytest.raises(Tampered, match="does not open"):
        vault.open(other, vault.seal(one, b"body", BINDING), BINDING)


def test_whatever_was_sealed_opens_however_long_it_is() -> None:
    vault = a_vault()
    key, body = vault.new_key("one"), os.urandom(8 * 1024 * 1024)
    assert vault.open(key, vault.seal(key, body, BINDING), BINDING) == body


def test_a_key_never_shows_itself() -> None:
    key = a_vault().new_key("one")
    assert key.raw.hex() not in repr(key)
    assert repr(key.raw) not in repr(key)


# -- check values --------------------------------------------------------------------------------


def test_check_values_tell_nothing_of_the_keys() -> None:
    document = ring_document()
    checks = FileKeyRing(document).checks()
    assert {key_id: purpose for key_id, (purpose, _) in checks.items()} == {
        "kek-1": "kek",
        "pseudonym-1": "pseudonym",
        "reference-1": "reference",
        "topic-1": "topic",
    }
    purposes = ("kek", "pseudonym", "reference", "topic")
    keys = [key["key"] for name in purposes for key in document[name]]
    for _, value in checks.values():
        assert len(value) == 32
        assert all(value not in key and key not in value for key in keys)


@pytest.mark.parametrize("purpose", ["kek", "pseudonym", "reference", "topic"])
def test_a_different_key_under_the_same_name_has_a_different_check_value(purpose: str) -> None:
    document = copy.deepcopy(ring_document())
    document[purpose][0]["key"] = "10" + document[purpose][0]["key"][2:]
    before, after = FileKeyRing(ring_document()).checks(), FileKeyRing(document).checks()
    differing = {key_id for key_id in before if before[key_id] != after[key_id]}
    assert differing == {f"{purpose}-1"}


def test_the_same_key_under_another_name_has_another_check_value() -> None:
    twins = [*ring_document()["kek"], {"id": "kek-2", "key": "11" * 32}]
    checks = FileKeyRing(ring_document(kek=twins)).checks()
    assert checks["kek-1"] != checks["kek-2"]


@pytest.mark.parametrize("purpose", ["kek", "pseudonym", "topic"])
def test_every_key_that_ever_stood_in_the_ring_is_checked(purpose: str) -> None:
    second = {"id": f"{purpose}-2", "key": "44" * 32}
    before = FileKeyRing(ring_document()).checks()
    ring = FileKeyRing(ring_document(**{purpose: [*ring_document()[purpose], second]}))
    assert ring.checks().items() >= before.items()
    assert ring.checks()[f"{purpose}-2"][0] == purpose


def test_the_last_pseudonym_key_listed_is_the_one_in_use() -> None:
    second = {"id": "pseudonym-2", "key": "44" * 32}
    ring = FileKeyRing(ring_document(pseudonym=[*ring_document()["pseudonym"], second]))
    assert Vault(ring).pseudonym("9434765919")[0] == "pseudonym-2"


def test_a_patient_is_still_known_by_the_pseudonyms_of_keys_that_were_in_use_before() -> None:
    document = ring_document()
    before = Vault(FileKeyRing(copy.deepcopy(document))).pseudonym("9990000018")[1]
    document["pseudonym"].append({"id": "pseudonym-2", "key": "55" * 32})
    vault = Vault(FileKeyRing(document))
    assert vault.pseudonyms("9990000018") == [before, vault.pseudonym("9990000018")[1]]


def test_a_ring_in_which_the_reference_key_was_rotated_is_refused() -> None:
    second = {"id": "reference-2", "key": "44" * 32}
    document = ring_document(reference=[*ring_document()["reference"], second])
    with pytest.raises(ValueError, match="two 'reference' keys, and that one is never rotated"):
        FileKeyRing(document)
