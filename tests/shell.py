"""A folder with a broker in it, as an operator at a shell has it, and messages to work on."""

import asyncio
import copy
import io
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from broker import cli, registry
from broker.access import Caller, Scope
from broker.intake import Posted
from broker.main import Broker, open_broker
from broker.opening import open_ring, open_store
from broker.settings import Settings
from broker.store.store import Store
from broker.vault import Vault

REPOSITORY = Path(__file__).parents[1]
DIRECTORY = REPOSITORY / "sandbox" / "directory.yaml"
PHARMACY = "FPH01"
PRACTICE = "G99002"
COMMAND = [sys.executable, "-P", "-c", "import sys; from broker.cli import main; sys.exit(main())"]


@dataclass(frozen=True)
class Place:
    """Where one broker keeps its things, and how it is set."""

    folder: Path
    variables: Mapping[str, str]

    @property
    def settings(self) -> Settings:
        """The settings as the commands read them from the environment."""
        given = {
            name.removeprefix("BROKER_").lower(): value for name, value in self.variables.items()
        }
        return Settings.model_validate(given)

    @property
    def environment(self) -> dict[str, str]:
        """This process's environment with this broker's settings and no others."""
        kept = {name: text for name, text in os.environ.items() if not name.startswith("BROKER_")}
        return {**kept, "COLUMNS": "240", **self.variables}

    @contextmanager
    def store(self) -> Iterator[Store]:
        """Open the store, as a command does."""
        with open_store(self.settings) as store:
            yield store

    def vault(self, store: Store) -> Vault:
        """The vault with this broker's own keys."""
        return Vault(open_ring(self.settings, store))

    def post(self, *bodies: Mapping[str, Any]) -> list[str]:
        """Take consultations in and fan them out, as if posted; return the messages' ids."""
        return asyncio.run(self._post(bodies))

    async def _post(self, bodies: tuple[Mapping[str, Any], ...]) -> list[str]:
        async with open_broker(self.settings) as broker:
            made = [await _accept(broker, body) for body in bodies]
            while await broker.dispatch.run_once():
                pass
        return [message["id"] for answer in made for message in answer["messages"]]

    def dispatch(self) -> None:
        """Fan out what is in the ledger, as the serving broker does at once."""

        async def run() -> None:
            async with open_broker(self.settings) as broker:
                while await broker.dispatch.run_once():
                    pass

        asyncio.run(run())

    def run(self, *arguments: str) -> str:
        """Run a command in this process, which must succeed, and return what it printed."""
        out, err = io.StringIO(), io.StringIO()
        before = dict(os.environ)
        try:
            os.environ.clear()
            os.environ.update(self.environment)
            with redirect_stdout(out), redirect_stderr(err):
                code = cli.main(arguments)
        finally:
            os.environ.clear()
            os.environ.update(before)
            structlog.reset_defaults()  # it logs to a stream that is gone
        assert code == 0, err.getvalue()
        return out.getvalue()

    def read(self, fn: Callable[[Any], Any]) -> Any:
        """Run `fn` on a reading connection."""
        with self.store() as store:
            return store.read_now(fn)

    def write(self, fn: Callable[[Any], Any]) -> Any:
        """Run `fn` in a transaction."""
        with self.store() as store:
            return store.write_now(fn)


async def _accept(broker: Broker, body: Mapping[str, Any]) -> dict[str, Any]:
    caller = Caller("pharmasys", PHARMACY, frozenset(Scope))
    posted = Posted(
        caller=caller,
        adapter=registry.load().adapters["pharmacy"],
        key=str(body["reference"]),
        body=json.dumps(body).encode(),
    )
    answer = await broker.intake.accept(posted)
    body_of: dict[str, Any] = json.loads(answer.body)
    return body_of


def consultation(
    reference: str, practice: str = PRACTICE, *, example: str = "uncomplicated-uti", **changes: Any
) -> dict[str, Any]:
    """A complete consultation about a patient of a practice."""
    examples = registry.load().adapters["pharmacy"].examples
    body = copy.deepcopy(dict(examples[example]))
    return body | {"reference": reference, "practice": {"ods": practice}} | changes


def directory_with(url: str) -> str:
    """The example directory, its one webhook going to this URL."""
    return DIRECTORY.read_text().replace("http://127.0.0.1:9902/inbound", url)
