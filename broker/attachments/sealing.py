"""An attachment as a file: sealed in chunks that open only whole and in order.

The STREAM construction (Hoang, Reyhanitabar, Rogaway, Vizár: Online Authenticated-Encryption, 2015)
with AES-256-GCM: each chunk's nonce is its index and whether it is the last. So no chunk can be
altered, moved, left out or added, and the file cannot end early. Each file has a key of its own.
"""

import hashlib
import struct
from collections.abc import Iterator
from typing import BinaryIO, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from broker.vault import Tampered

FORMAT: Final = b"referral-broker attachment 1\n"
CHUNK: Final = 65_536
"""Bytes of plaintext in each chunk but the last, which has one at least."""
_TAG: Final = 16
_INDEX: Final = struct.Struct(">xxxxxxxI?")


def sealed_size(size: int) -> int:
    """Return how long the file of a plaintext of this size is."""
    return len(FORMAT) + size + _TAG * -(-size // CHUNK)


class Sealer:
    """Seals into a file what is written, piece by piece; keeps its size and its SHA-256."""

    def __init__(self, file: BinaryIO, key: bytes, identity: str) -> None:
        self._file = file
        self._cipher, self._bound = AESGCM(key), FORMAT + identity.encode()
        self._digest = hashlib.sha256()
        self._waiting = bytearray()
        self._index = 0
        self.size = 0
        file.write(FORMAT)

    @property
    def digest(self) -> str:
        """The SHA-256 of all that was written, in hexadecimal."""
        return self._digest.hexdigest()

    def write(self, part: bytes) -> None:
        """Seal every chunk that is full and not the last."""
        self._digest.update(part)
        self.size += len(part)
        self._waiting += part
        while len(self._waiting) > CHUNK:
            self._seal(bytes(self._waiting[:CHUNK]), is_last=False)
            del self._waiting[:CHUNK]

    def finish(self) -> None:
        """Seal what waits as the last chunk."""
        self._seal(bytes(self._waiting), is_last=True)
        self._waiting.clear()

    def _seal(self, chunk: bytes, *, is_last: bool) -> None:
        nonce = _INDEX.pack(self._index, is_last)
        self._file.write(self._cipher.encrypt(nonce, chunk, self._bound))
        self._index += 1


def opened(file: BinaryIO, key: bytes, identity: str) -> Iterator[bytes]:
    """Yield the plaintext, chunk by chunk. Raises Tampered at the first that is not as it was
    sealed; what came before is of the file, but perhaps not all of it."""
    if file.read(len(FORMAT)) != FORMAT:
        raise Tampered(f"the file of attachment {identity} does not begin as one")
    cipher, bound = AESGCM(key), FORMAT + identity.encode()
    index, sealed = 0, file.read(CHUNK + _TAG)
    while True:
        following = file.read(CHUNK + _TAG)
        try:
            yield cipher.decrypt(_INDEX.pack(index, not following), sealed, bound)
        except (InvalidTag, ValueError) as error:
            raise Tampered(f"chunk {index} of attachment {identity} does not open") from error
        if not following:
            return
        index, sealed = index + 1, following


def prove(file: BinaryIO, key: bytes, identity: str, digest: str) -> None:
    """Raise Tampered unless a file is whole and holds what this is the SHA-256 of."""
    found = hashlib.sha256()
    for chunk in opened(file, key, identity):
        found.update(chunk)
    if found.hexdigest() != digest:
        raise Tampered(f"attachment {identity} holds something else than was uploaded")
