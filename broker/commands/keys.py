"""Key files: a partner's public key read strictly, and a new pair made for whoever needs one."""

import json
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from joserfc.errors import JoseError, SecurityWarning
from joserfc.jwk import ECKey, RSAKey

from broker.assertion import fit_key
from broker.commands.opening import read_text
from broker.errors import BrokerError, Refused

PRIVATE: Final = "private.pem"
PUBLIC: Final = "public.pem"
_KINDS: Final[tuple[type[ECKey] | type[RSAKey], ...]] = (ECKey, RSAKey)
_PARTS: Final = ("kty", "crv", "x", "y", "n", "e")
_NOT_A_KEY: Final = (
    "is not a key that can be used: give a P-384 or an RSA key of 2048 bits or more, as PEM or JWK"
)


class FileThere(BrokerError):
    """A file that would be written is there already. The message names it."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key as it is registered: its id, its JWK, the algorithms that it can sign with."""

    kid: str
    jwk: Mapping[str, Any]
    algorithms: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """A private key with what an assertion says of it."""

    pem: str
    kid: str
    algorithm: str


def read_public(path: Path, kid: str | None = None) -> PublicKey:
    """Read a public key as PEM or JWK. Raises Refused, also for a private key: it stays at home.

    Its id is the one given, else the JWK's own, else its thumbprint (RFC 7638).
    """
    key = _read(path)
    if key.is_private:
        raise Refused(
            f"{path} is a private key, which only its owner may have: give the public one "
            f"(openssl pkey -in {path.name} -pubout makes it)."
        )
    jwk = _fit(path, key)
    found = kid or key.kid or key.thumbprint()
    if not 0 < len(found) <= 255 or not all("!" <= letter <= "~" for letter in found):
        raise Refused(f"{found!r} cannot be a key id: use 1 to 255 visible ASCII characters.")
    return PublicKey(found, jwk, _algorithms(key))


def read_private(path: Path, kid: str | None = None) -> PrivateKey:
    """Read a private key as PEM. Raises Refused."""
    key = _read(path)
    if not key.is_private:
        raise Refused(f"{path} is a public key: to sign, the private one is needed.")
    _fit(path, key)
    pem = key.as_pem(private=True).decode("ascii")
    return PrivateKey(pem, kid or key.kid or key.thumbprint(), _algorithms(key)[0])


def new_pair(folder: Path) -> tuple[Path, Path, str]:
    """Make a P-384 pair in a folder and return both paths and the key id; never overwrites one.

    Only its owner can read the private key.
    """
    private, public = folder / PRIVATE, folder / PUBLIC
    for path in (private, public):
        if path.exists():
            raise FileThere(f"{path} is there already: name another folder, or move it away.")
    key = ECKey.generate_key("P-384")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for path, mode in ((private, 0o600), (public, 0o644)):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(key.as_pem(private=path is private))
    return private, public, key.thumbprint()


def _read(path: Path) -> ECKey | RSAKey:
    text = read_text(path)
    data: Any = text
    if text.lstrip().startswith("{"):
        try:
            data = json.loads(text)
        except (ValueError, RecursionError):
            raise Refused(f"{path} is neither PEM nor JSON.") from None
    for kind in _KINDS:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", SecurityWarning)  # a weak key is refused below
                return kind.import_key(data)
        except (JoseError, ValueError, TypeError, KeyError):
            continue
    raise Refused(f"{path} {_NOT_A_KEY}.")


def _fit(path: Path, key: ECKey | RSAKey) -> dict[str, Any]:
    """Return what a JWK must have and nothing else of it. Raises Refused for a weak key."""
    jwk = {name: value for name, value in key.as_dict(private=False).items() if name in _PARTS}
    if fit_key(jwk) is None:
        raise Refused(f"{path} {_NOT_A_KEY}.")
    return jwk


def _algorithms(key: ECKey | RSAKey) -> tuple[str, ...]:
    return ("ES384",) if isinstance(key, ECKey) else ("RS384", "RS512")
