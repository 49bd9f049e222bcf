"""What a command works on: the settings and the store of a broker, whether or not it serves."""

import getpass
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from broker import doorbell, settings
from broker.answers import Answers
from broker.core import Core
from broker.current_directory import CurrentDirectory
from broker.errors import NotFound, Refused
from broker.settings import Settings
from broker.store.schema import WrongSchema
from broker.store.store import Store
from broker.store.tx import Tx
from broker.vault import FileKeyRing, Vault

T = TypeVar("T")
_UNFIT = re.compile(r"[^A-Za-z0-9._-]")


@dataclass(frozen=True, slots=True)
class Opened:
    """A store that is open beside the broker that may be serving from it."""

    settings: Settings
    store: Store

    def write(self, fn: Callable[[Tx], T]) -> T:
        """Run `fn` in a transaction. Durable on return, and the serving broker looks at once."""
        result = self.store.write_now(fn)
        self.ring()
        return result

    def ring(self) -> None:
        """Wake the broker that serves from this folder, if one does."""
        if self.settings.is_embedded:
            doorbell.ring(self.settings.data_dir)

    def vault(self) -> Vault:
        """Return the vault, its ring proved to be the one that the data was sealed with."""
        from broker.opening import open_ring

        ring: FileKeyRing = open_ring(self.settings, self.store)
        return Vault(ring)

    def core(self) -> Core:
        """Return what a serving broker works with, on this store."""
        vault = self.vault()
        directory, answers = CurrentDirectory(self.store), Answers(self.store, vault)
        return Core(self.store, vault, directory, answers, self.settings.source)


@contextmanager
def opened() -> Iterator[Opened]:
    """Open the store that the settings name. Makes nothing: where none is, WrongSchema says so."""
    from broker.opening import open_store

    found = settings.load()
    demand_database(found)
    with open_store(found) as store:
        yield Opened(found, store)


def demand_database(found: Settings) -> None:
    """Raise WrongSchema where the embedded database does not exist; looking must not make it."""
    if found.is_embedded and not database_file(found).exists():
        raise WrongSchema(
            f"There is no database in {found.data_dir}. Run: referral-broker migrate, or set "
            "BROKER_DATA_DIR to where it is."
        )


def database_file(found: Settings) -> Path:
    """Return where the embedded database is."""
    return Path(found.store_url.removeprefix("sqlite:///"))


def actor() -> str:
    """Return who runs this command, as the audit chain names him."""
    try:
        name = getpass.getuser()
    except (OSError, KeyError):  # a user id without a name, as in many containers
        name = str(os.getuid())
    return f"operator:{_UNFIT.sub('-', name)[:64]}"


def read_text(path: Path) -> str:
    """Return a file's text. Raises NotFound, or Refused where it is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except (FileNotFoundError, IsADirectoryError):
        raise NotFound(f"There is no file {path}.") from None
    except UnicodeDecodeError:
        raise Refused(f"{path} is not a text in UTF-8.") from None
