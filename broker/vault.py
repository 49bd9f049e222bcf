"""The vault: seals every payload under its message's key, and makes keyed pseudonyms.

A message's key is wrapped by a key of the ring (KEK) and stands in another table than what it
seals: rotating re-wraps that table only, deleting its row erases the message.
"""

import hashlib
import hmac
import json
import os
import secrets
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from joserfc import jwe
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OctKey

from broker.errors import BrokerError
from broker.events import uuid7
from broker.folders import make_folder, sync
from broker.ports import KeyRing


class _Registry(jwe.JWERegistry):
    """What is sealed here has no length of its own: what was taken in was bounded at the door. The
    library would seal what is longer, and open it no more."""

    max_ciphertext_length = sys.maxsize


_REGISTRY: Final = _Registry(algorithms=["dir", "A256GCM"], strict_check_header=False)


class Tampered(BrokerError):
    """Sealed bytes do not open: altered, moved to another row, or under another key."""


class RingProblem(BrokerError):
    """The key ring cannot be used. The message says how to mend it."""


@dataclass(frozen=True, slots=True)
class Binding:
    """What sealed bytes belong to. They do not open as anything else's."""

    owner: str
    role: str
    version: int
    organisation: str
    content_type: str

    def __str__(self) -> str:
        return "|".join(
            (self.owner, self.role, str(self.version), self.organisation, self.content_type)
        )


@dataclass(frozen=True, slots=True)
class MessageKey:
    """The key that covers one message: its payloads, its remembered answer, its attachments."""

    id: str
    kek_id: str
    wrapped: bytes
    raw: bytes = field(repr=False)

    @property
    def jwk(self) -> OctKey:
        """The key as JOSE wants it; not imported, which would first try it as every other kind."""
        return OctKey(self.raw, self.raw)


class Vault:
    """Seals and opens. Holds nothing but the key ring."""

    def __init__(self, ring: KeyRing) -> None:
        self._ring = ring

    def new_key(self, key_id: str) -> MessageKey:
        """Make a key for a message, wrapped under the ring's current KEK."""
        raw = secrets.token_bytes(32)
        kek_id = self._ring.current_kek
        return MessageKey(key_id, kek_id, self._wrap(kek_id, raw, key_id), raw)

    def unwrap(self, key_id: str, kek_id: str, wrapped: bytes) -> MessageKey:
        """Return a message's key. Raises Tampered."""
        return MessageKey(key_id, kek_id, wrapped, self._unwrap(kek_id, wrapped, key_id))

    def seal(self, key: MessageKey, body: bytes, binding: Binding) -> bytes:
        """Seal bytes as JWE (RFC 7516) `dir`/A256GCM with what they belong to in the header."""
        header = {"alg": "dir", "enc": "A256GCM", "kid": key.id, "b": str(binding)}
        sealed = jwe.encrypt_compact(header, body, key.jwk, registry=_REGISTRY)
        return sealed.encode("ascii")

    def open(self, key: MessageKey, sealed: bytes, binding: Binding) -> bytes:
        """Open sealed bytes as what they are asked for. Raises Tampered."""
        try:
            opened = jwe.decrypt_compact(sealed, key.jwk, registry=_REGISTRY)
        except (JoseError, ValueError, InvalidTag) as error:
            raise Tampered(f"{binding.role} of {binding.owner} does not open") from error
        if opened.protected.get("b") != str(binding) or opened.plaintext is None:
            raise Tampered(f"what stands as {binding.role} of {binding.owner} is something else")
        return opened.plaintext

    def seal_secret(self, secret: bytes, name: str) -> tuple[str, bytes]:
        """Seal something that belongs to no message, under the current KEK: (KEK id, sealed)."""
        kek_id = self._ring.current_kek
        return kek_id, self._wrap(kek_id, secret, name)

    def open_secret(self, kek_id: str, sealed: bytes, name: str) -> bytes:
        """Open what `seal_secret` sealed. Raises Tampered."""
        return self._unwrap(kek_id, sealed, name)

    def seal_for(self, topic: str, body: bytes, event_id: str, content_type: str) -> bytes:
        """Seal what is published on a topic, for whoever holds that topic's key: JWE `dir`/A256GCM
        whose header names the event (`event`) and what its data is (`cty`)."""
        key_id, key = self.topic_key(topic)
        header = {"alg": "dir", "enc": "A256GCM", "kid": key_id, "cty": content_type}
        header["event"] = event_id
        sealed = jwe.encrypt_compact(header, body, OctKey(key, key), registry=_REGISTRY)
        return sealed.encode("ascii")

    def topic_key(self, topic: str) -> tuple[str, bytes]:
        """Return the key of one topic and its id: HKDF-SHA-256 (RFC 5869) of the ring's current
        topic secret, so that who may read one topic reads no other."""
        secret_id, secret = self._ring.topic_secret()
        info = f"referral-broker|topic|{topic}".encode()
        key = HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(secret)
        return f"{secret_id}|{topic}", key

    def pseudonym(self, value: str) -> tuple[str, str]:
        """Return (key id, keyed pseudonym) of something that identifies a patient."""
        key_id, key = self._ring.pseudonym_keys()[-1]
        return key_id, _mac(key, "pseudonym", value.encode())

    def pseudonyms(self, value: str) -> list[str]:
        """Return every pseudonym that it may stand under: also those of keys before this one."""
        return [_mac(key, "pseudonym", value.encode()) for _, key in self._ring.pseudonym_keys()]

    @property
    def has_rotated(self) -> bool:
        """Whether something may stand under a pseudonym of an older key."""
        return len(self._ring.pseudonym_keys()) > 1

    def mac(self, scope: str, value: bytes) -> str:
        """Return the HMAC of a key, reference or body under the key that is never rotated."""
        return _mac(self._ring.reference_key(), scope, value)

    def _wrap(self, kek_id: str, raw: bytes, name: str) -> bytes:
        nonce = os.urandom(12)
        return nonce + AESGCM(self._ring.kek(kek_id)).encrypt(nonce, raw, name.encode())

    def _unwrap(self, kek_id: str, wrapped: bytes, name: str) -> bytes:
        try:
            return AESGCM(self._ring.kek(kek_id)).decrypt(wrapped[:12], wrapped[12:], name.encode())
        except (InvalidTag, ValueError) as error:
            raise Tampered(f"the key {name} does not open under {kek_id}") from error


def _mac(key: bytes, scope: str, value: bytes) -> str:
    framed = len(scope).to_bytes(2, "big") + scope.encode() + value
    return hmac.new(key, framed, hashlib.sha256).hexdigest()


def _keys(document: Any, purpose: str) -> dict[str, bytes]:
    """Return the keys of one purpose by id, in their order. Raises ValueError, telling no key."""
    try:
        found = [(str(key["id"]), bytes.fromhex(key["key"])) for key in document[purpose]]
    except (LookupError, TypeError, ValueError):
        raise ValueError(f"its {purpose!r} keys cannot be read") from None
    if not found:
        raise ValueError(f"it lists no {purpose!r} key")
    if len(dict(found)) < len(found):
        raise ValueError(f"it lists two {purpose!r} keys of one id")
    if any(len(key) != 32 for _, key in found):
        raise ValueError(f"a {purpose!r} key is not 32 bytes long")
    return dict(found)


class FileKeyRing:
    """A key ring in one JSON file that only its owner can read.

    `kek` keys wrap, the last one listed being current; `pseudonym` and `reference` keys make
    HMACs (`reference` is never rotated); the keys of topics come from the last of `topic`; `token`
    signs our access tokens.
    """

    def __init__(self, document: dict[str, list[dict[str, str]]]) -> None:
        """Raises ValueError, which says what is wrong and tells no key."""
        self._keks = _keys(document, "kek")
        self._pseudonyms = _keys(document, "pseudonym")
        references = _keys(document, "reference")
        self._topics = _keys(document, "topic")
        if len(references) > 1:
            raise ValueError("it lists two 'reference' keys, and that one is never rotated")
        self._current = list(self._keks)[-1]
        self._reference = list(references.items())[-1]
        try:
            self.token_keys = [ECKey.import_key(key["pem"]) for key in document["token"]]
        except (JoseError, LookupError, TypeError, ValueError):
            raise ValueError("its 'token' keys cannot be read") from None
        if not self.token_keys:
            raise ValueError("it lists no 'token' key")

    @classmethod
    def load(cls, path: Path) -> "FileKeyRing":
        """Read a ring. Raises RingProblem."""
        try:
            ring = cls(json.loads(path.read_text()))
        except FileNotFoundError:
            raise RingProblem(
                f"There is no key ring at {path}. Restore it from where you keep it, or point "
                "BROKER_KEYS_DIR at it: without it nothing that was stored can be read."
            ) from None
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            if isinstance(error, json.JSONDecodeError | UnicodeDecodeError):
                why = "it is not JSON"
            raise RingProblem(
                f"The key ring at {path} cannot be used: {why}. Restore it from where you keep it."
            ) from None
        if path.stat().st_mode & 0o077:
            raise RingProblem(
                f"The key ring at {path} can be read by others. Run: chmod 600 {path}"
            )
        return ring

    @classmethod
    def create(cls, path: Path) -> "FileKeyRing":
        """Make a new ring in a file that did not exist. Never overwrites one."""
        token = ECKey.generate_key("P-384")
        document = {
            "kek": [{"id": f"kek-{uuid7()}", "key": secrets.token_hex(32)}],
            "pseudonym": [{"id": f"pseudonym-{uuid7()}", "key": secrets.token_hex(32)}],
            "reference": [{"id": f"reference-{uuid7()}", "key": secrets.token_hex(32)}],
            "topic": [{"id": f"topic-{uuid7()}", "key": secrets.token_hex(32)}],
            "token": [{"id": token.thumbprint(), "pem": token.as_pem(private=True).decode()}],
        }
        make_folder(path.parent, 0o700)
        # Written whole under another name, then linked: never half a ring, never over another.
        draft = path.with_suffix(f".{os.getpid()}.draft")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "w") as file:
                json.dump(document, file, indent=1)
                file.flush()
                os.fsync(file.fileno())
            os.link(draft, path)
        finally:
            draft.unlink()
        sync(path.parent)  # the name survives a power cut too
        return cls(document)

    @property
    def current_kek(self) -> str:
        return self._current

    def kek(self, key_id: str) -> bytes:
        if key_id not in self._keks:
            raise RingProblem(f"The key ring lacks {key_id}: restore the ring that has it.")
        return self._keks[key_id]

    def pseudonym_keys(self) -> list[tuple[str, bytes]]:
        return list(self._pseudonyms.items())

    def reference_key(self) -> bytes:
        return self._reference[1]

    def topic_secret(self) -> tuple[str, bytes]:
        return list(self._topics.items())[-1]

    def checks(self) -> dict[str, tuple[str, str]]:
        """Return for each key its purpose and a value that proves it without telling it."""
        keys = {key_id: ("kek", key) for key_id, key in self._keks.items()}
        keys |= {key_id: ("pseudonym", key) for key_id, key in self._pseudonyms.items()}
        keys |= {key_id: ("topic", key) for key_id, key in self._topics.items()}
        keys[self._reference[0]] = ("reference", self._reference[1])
        return {
            key_id: (purpose, _mac(key, "key-check", key_id.encode())[:32])
            for key_id, (purpose, key) in keys.items()
        }
