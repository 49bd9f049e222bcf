"""What every door and every loop works with: one of each per process."""

from dataclasses import dataclass

from broker.answers import Answers
from broker.current_directory import CurrentDirectory
from broker.store.store import Store
from broker.vault import Vault


@dataclass(frozen=True, slots=True)
class Core:
    """The store, the keys, the directory in force, the answers given; `source` names this broker.

    `source` stands in every event as its CloudEvents source.
    """

    store: Store
    vault: Vault
    directory: CurrentDirectory
    answers: Answers
    source: str
