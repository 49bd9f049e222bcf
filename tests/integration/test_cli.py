"""The commands, run as an operator runs them, on a database of their own."""

import base64
import io
import json
import shutil
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import structlog
import typer
from joserfc.jwk import ECKey, RSAKey
from sqlalchemy import update
from standardwebhooks import Webhook

from broker import cli, doorbell, registry
from broker.assertion import signed_assertion
from broker.commands import opening
from broker.opening import open_ring
from broker.store import claims, clients, deliveries, endpoints, messages, trail, work
from broker.store import directory as stored
from broker.store import tables as t
from consumers.record_update import RecordUpdate
from tests.shell import DIRECTORY, PHARMACY, PRACTICE, Place, consultation, directory_with

pytestmark = pytest.mark.slow

PATIENT = ("Okafor", "Adaeze", "9990000018", "LS1 4AP", "Canal Row", "07700 900123", "1984-02-29")
MISSING = "0190f1a2-0000-7000-8000-000000000000"
SHORT_RSA = """-----BEGIN PUBLIC KEY-----
MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQC8EcoRATGGmswQHPmV/9mDSUhC
6yv80n1wqrBtbGZ1+oDCYe8LVKU0+TxJumfacpvU0zMFa/QS6cvYadNQaBnYg+fe
bo4ytdiA9qoxEeD0DpOQ+FVx2nbC+dSBCMuiF57g0HauyMCq98VCB8CWYVIN5Yhl
hX7rtD2n0XyJNfYXgwIDAQAB
-----END PUBLIC KEY-----
"""
REASON = "The practice has shut its doors; Dr Nobody said so"


@dataclass(frozen=True)
class Ran:
    """What a command said, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass
class Shell:
    """Runs commands in this process, in one place, and keeps all that they print."""

    place: Place
    capture: pytest.CaptureFixture[str]
    monkeypatch: pytest.MonkeyPatch
    printed: list[str] = field(default_factory=list)

    def __call__(self, *arguments: str, stdin: str = "") -> Ran:
        self.monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        self.capture.readouterr()
        code = cli.main(arguments)
        said = self.capture.readouterr()
        self.printed += [said.out, said.err]
        return Ran(code, said.out, said.err)

    def ok(self, *arguments: str, stdin: str = "") -> Ran:
        """Run what must succeed."""
        ran = self(*arguments, stdin=stdin)
        assert ran.code == 0, ran.err
        return ran

    def audited(self) -> list[tuple[str, str]]:
        """What the audit chain says was done, and to what."""
        links = self.place.read(lambda connection: list(trail.links(connection)))
        return [(link.entry.action, link.entry.object_id) for link in links]


@pytest.fixture
def empty(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Shell]:
    """A shell where there is no database yet."""
    monkeypatch.chdir(tmp_path)
    for name in list(cli.settings.os.environ):
        if name.startswith("BROKER_") and not name.startswith("BROKER_TEST_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "240")
    variables = {
        "BROKER_DATA_DIR": str(tmp_path / "data"),
        "BROKER_KEYS_DIR": str(tmp_path / "keys"),
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    made = Shell(Place(tmp_path, variables), capsys, monkeypatch)
    yield made
    structlog.reset_defaults()  # the commands log to a stream that ends with the test
    for said in made.printed:
        for word in PATIENT:
            assert word not in said, "a command printed something of a patient"


@pytest.fixture
def shell(empty: Shell, sqlite_template: Path) -> Shell:
    """A shell on a migrated database with nothing in it."""
    (empty.place.folder / "data").mkdir()
    shutil.copyfile(sqlite_template, empty.place.folder / "data" / "broker.db")
    return empty


@pytest.fixture
def loaded(shell: Shell) -> Shell:
    """A shell on a database with the example directory in it."""
    shell.ok("directory", "load", str(DIRECTORY))
    return shell


@pytest.fixture
def dead(loaded: Shell) -> tuple[Shell, str, str]:
    """A shell where one delivery is dead: (shell, the message's id, the delivery's id)."""
    (message,) = loaded.place.post(consultation("RP-1"))

    def bury(tx: Any) -> str:
        (row,) = deliveries.of_message(tx.connection, message)
        claims.put_attempt(tx, row.id, 1, tx.now, "failed", "answered-4xx", 410)
        claims.bury(tx, row, "answered-4xx")
        work.put_item(
            tx,
            "delivery-dead",
            row.id,
            message_id=message,
            delivery_id=row.id,
            organisation=None,
            priority=row.priority,
        )
        return str(row.id)

    return loaded, message, loaded.place.write(bury)


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """A private and a public key file."""
    key = ECKey.generate_key("P-384")
    private, public = tmp_path / "own.pem", tmp_path / "told.pem"
    private.write_bytes(key.as_pem(private=True))
    public.write_bytes(key.as_pem(private=False))
    return private, public


def add(shell: Shell, client: str = "pharmasys", *more: str) -> Ran:
    """Register a client that may post for the pharmacy."""
    return shell(
        "partner",
        "add",
        client,
        *("--name", "PharmaSys"),
        *("--organisation", PHARMACY),
        *("--scope", "pharmacy:submit"),
        *more,
    )


def listed(shell: Shell) -> dict[str, Any]:
    """What `partner list` says, by client."""
    return {one["client"]: one for one in shell.ok("partner", "list", "--json").json}


# -- the commands as a whole -----------------------------------------------------------------------


class TestEveryCommand:
    def names(self, app: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
        yield path
        for name, command in sorted(getattr(app, "commands", {}).items()):
            yield from self.names(command, (*path, name))

    def test_has_help_and_so_has_each_of_its_options(
        self, empty: Shell, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(registry, "commands", dict)

        def described(command: Any) -> Iterator[str]:
            assert command.help, command.name
            for parameter in command.params:
                if parameter.name != "help":
                    text = getattr(parameter, "help", None)
                    assert text and text.rstrip().endswith("."), parameter.name
                    yield text
            for inner in getattr(command, "commands", {}).values():
                yield from described(inner)

        assert len(list(described(typer.main.get_command(cli.build())))) > 25

    def test_answers_help_without_settings_or_database(self, empty: Shell) -> None:
        every = list(self.names(typer.main.get_command(cli.build())))
        assert len(every) > 20
        for path in every:
            assert "Usage: referral-broker" in empty.ok(*path, "--help").out
        assert not (empty.place.folder / "data").exists()

    @pytest.mark.parametrize(
        "command",
        [
            ("partner", "list"),
            ("directory", "show"),
            ("deliveries", "list"),
            ("overdue",),
            ("audit", "verify"),
            ("directory", "load", str(DIRECTORY)),
        ],
    )
    def test_says_where_no_database_is_and_makes_none(
        self, empty: Shell, command: tuple[str, ...]
    ) -> None:
        ran = empty(*command)
        assert ran.code == 2
        assert "There is no database in" in ran.err and "referral-broker migrate" in ran.err
        assert not (empty.place.folder / "data").exists()

    def test_refuses_a_setting_that_does_not_exist_in_one_sentence(
        self, shell: Shell, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("BROKER_PROT", "1")
        ran = shell("partner", "list")
        assert (ran.code, ran.out) == (2, "")
        assert ran.err == "BROKER_PROT is not a setting; see the table in README.md\n"

    def test_refuses_a_public_url_at_which_nobody_could_sign_in(
        self, shell: Shell, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("BROKER_PUBLIC_URL", "broker.example.nhs.uk")
        ran = shell("overdue")
        assert ran.code == 2
        assert ran.err == "BROKER_PUBLIC_URL: write it as https://host[:port][/path]\n"

    def test_says_in_one_sentence_that_a_folder_cannot_be_written(
        self, empty: Shell, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (empty.place.folder / "file").write_text("")
        monkeypatch.setenv("BROKER_DATA_DIR", str(empty.place.folder / "file" / "data"))
        ran = empty("migrate")
        assert ran.code == 2
        assert ran.err.count("\n") == 1 and "Traceback" not in ran.err

    def test_says_in_one_sentence_that_the_database_server_is_not_there(
        self, empty: Shell, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("BROKER_DATABASE_URL", "postgresql://broker@127.0.0.1:1/broker")
        ran = empty("migrate")
        assert ran.code == 2
        assert ran.err.startswith("The database cannot be opened") and ran.err.count("\n") == 1

    def test_that_is_plugged_in_by_entry_point_is_there(
        self, empty: Shell, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        group = typer.Typer()

        @group.command()
        def inner() -> None:
            """Say something."""
            typer.echo("inner was run")

        @group.command()
        def other() -> None:
            """Say something else."""

        def single() -> None:
            """Say something."""
            typer.echo("single was run")

        plugged = {"more": lambda: group, "single": lambda: single}
        monkeypatch.setattr(registry, "commands", lambda: plugged)
        assert empty.ok("more", "inner").out == "inner was run\n"
        assert empty.ok("single").out == "single was run\n"

    def test_cannot_be_replaced_by_one_that_is_plugged_in(
        self, empty: Shell, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(registry, "commands", lambda: {"serve": lambda: print})
        ran = empty("--help")
        assert ran.code == 2 and "The command serve is plugged in" in ran.err


class TestMigrate:
    def test_makes_the_database_once_and_can_be_repeated(self, empty: Shell) -> None:
        assert empty.ok("migrate").out.startswith("Applied: 0001")
        assert empty.ok("migrate").out == "The database is up to date.\n"
        empty.ok("partner", "list")

    def test_refuses_a_database_of_a_newer_release(
        self, shell: Shell, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("BROKER_PORT", "0")  # whoever else listens on this machine
        with shell.place.store() as store, store.writer.begin() as connection:
            connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
        for command in (("migrate",), ("partner", "list"), ("serve",)):
            ran = shell(*command)
            assert ran.code == 2
            assert "which this release does not know" in ran.err and "Traceback" not in ran.err


# -- the directory ---------------------------------------------------------------------------------


class TestTheDirectory:
    def test_is_loaded_as_a_whole_with_an_audit_entry(self, shell: Shell) -> None:
        ran = shell.ok("directory", "load", str(DIRECTORY))
        assert "Version 1 of the directory is in force." in ran.out
        assert "organisation" in ran.out and "G99001" in ran.out
        version, found = shell.place.read(stored.load)
        assert version == 1 and "G99001" in found.organisations
        assert shell.audited() == [("directory.loaded", "1")]

    def test_a_dry_run_shows_the_difference_and_changes_nothing(self, shell: Shell) -> None:
        ran = shell.ok("directory", "load", str(DIRECTORY), "--dry-run", "--json")
        assert ran.json["loaded"] is False and ran.json["version"] == 0
        added = {"action": "added", "kind": "organisation", "key": "G99001", "details": []}
        assert added in ran.json["changes"]
        assert shell.place.read(stored.version) == 0
        assert shell.audited() == []

    def test_loaded_again_changes_nothing(self, loaded: Shell) -> None:
        ran = loaded.ok("directory", "load", str(DIRECTORY))
        assert "Nothing changes." in ran.out
        assert loaded.place.read(stored.version) == 1
        assert len(loaded.audited()) == 1

    def test_a_change_is_shown_field_by_field(self, loaded: Shell, tmp_path: Path) -> None:
        file = tmp_path / "new.yaml"
        file.write_text(directory_with("https://hilltop.example/in"))
        ran = loaded.ok("directory", "load", str(file))
        assert "url http://127.0.0.1:9902/inbound → https://hilltop.example/in" in ran.out
        assert "Version 2" in ran.out

    @pytest.mark.parametrize("dry_run", [("--dry-run",), ()])
    def test_that_leaves_somebody_with_deliveries_says_so(
        self, loaded: Shell, tmp_path: Path, dry_run: tuple[str, ...]
    ) -> None:
        loaded.place.post(consultation("RP-1"))
        closed = f"- ods: {PRACTICE}\n    status: closed"
        text = DIRECTORY.read_text().replace(f"- ods: {PRACTICE}", closed)
        file = tmp_path / "new.yaml"
        file.write_text(text)
        command = ("directory", "load", str(file), *dry_run)
        assert loaded.ok(*command, "--json").json["stranded"] == {PRACTICE: 1}
        assert f"deliveries list --organisation {PRACTICE}" in loaded.ok(*command).err
        file.write_text(text.replace(closed, f"{closed}\n    successor: G99001"))
        assert loaded.ok(*command).err == ""

    def test_a_file_with_problems_loads_nothing_and_names_each_with_its_place(
        self, loaded: Shell, tmp_path: Path
    ) -> None:
        file = tmp_path / "bad.yaml"
        text = DIRECTORY.read_text().replace("successor: G99001", "successor: G00000")
        file.write_text(
            text.replace("pillar: optometry\n    icb: QXX", "icb: QZZ\n    pilar: x", 1)
        )
        ran = loaded("directory", "load", str(file))
        assert (ran.code, ran.out) == (1, "")
        assert "2 problems; nothing was loaded" in ran.err
        assert "organisations[6].pillar: pillar is missing." in ran.err
        assert "organisations[6].pilar: There is no field pilar here." in ran.err
        assert loaded.place.read(stored.version) == 1

    @pytest.mark.parametrize("content", [None, b"\xff\xfe\x00", b"a: [", b"- 1"])
    def test_a_file_that_is_none_is_refused(
        self, loaded: Shell, tmp_path: Path, content: bytes | None
    ) -> None:
        file = tmp_path / "odd.yaml"
        if content is not None:
            file.write_bytes(content)
        ran = loaded("directory", "load", str(file))
        assert (ran.code, ran.out) == (1, "") and "Traceback" not in ran.err
        assert loaded.place.read(stored.version) == 1

    def test_rings_the_doorbell_of_the_broker_that_serves(
        self, shell: Shell, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rung: list[Path] = []
        monkeypatch.setattr(doorbell, "ring", rung.append)
        shell.ok("directory", "load", str(DIRECTORY), "--dry-run")
        assert rung == []
        shell.ok("directory", "load", str(DIRECTORY))
        assert rung == [shell.place.settings.data_dir]

    def test_shows_every_organisation_and_how_it_is_reached(self, loaded: Shell) -> None:
        out = loaded.ok("directory", "show").out
        assert "Hilltop Surgery" in out and "RXX01-SPA by inbox" in out
        found = loaded.ok("directory", "show", "--json").json
        assert found["version"] == 1
        assert len(found["entries"]["organisation"]) == DIRECTORY.read_text().count("  - ods: ")

    def test_shows_all_that_is_known_of_one(self, loaded: Shell) -> None:
        assert "On-call ophthalmologist" in loaded.ok("directory", "show", "RXX01").out
        found = loaded.ok("directory", "show", "RXX01", "--json").json
        assert {one["code"] for one in found["service"]} >= {"RXX01-SPA", "RXX01-MACULAR"}

    def test_says_when_an_organisation_is_not_there(self, loaded: Shell) -> None:
        ran = loaded("directory", "show", "Z9")
        assert (ran.code, ran.out) == (1, "")
        assert ran.err == "The directory has no organisation Z9.\n"


# -- partners --------------------------------------------------------------------------------------


class TestAPartner:
    def test_is_added_with_its_key_and_grant(self, loaded: Shell, pair: tuple[Path, Path]) -> None:
        assert add(loaded, "pharmasys", "--key", str(pair[1])).code == 0
        kid = ECKey.import_key(pair[1].read_bytes()).thumbprint()
        assert listed(loaded) == {
            "pharmasys": {
                "client": "pharmasys",
                "name": "PharmaSys",
                "organisations": [PHARMACY],
                "scopes": ["pharmacy:submit"],
                "algorithms": ["ES384"],
                "keys": [kid],
                "disabled_at": None,
            }
        }
        actions = [action for action, _ in loaded.audited()]
        assert actions[1:] == ["client.added", "client-key.added", "grant.added"]
        assert "pharmasys" in loaded.ok("partner", "list").out

    def test_that_is_there_already_is_not_added_again(self, loaded: Shell) -> None:
        assert add(loaded).code == 0
        ran = add(loaded, "pharmasys", "--organisation", "TPX01")
        assert ran.code == 1 and "There is a client pharmasys already" in ran.err
        assert listed(loaded)["pharmasys"]["organisations"] == [PHARMACY]

    @pytest.mark.parametrize(
        ("wrong", "said"),
        [
            (["--organisation", "fph01"], "fph01 is not an ODS code"),
            (["--organisation", "Z9"], "The directory has no organisation Z9"),
        ],
    )
    def test_with_something_wrong_leaves_nothing(
        self, loaded: Shell, wrong: list[str], said: str
    ) -> None:
        ran = add(loaded, "pharmasys", *wrong)
        assert ran.code == 1 and said in ran.err
        assert listed(loaded) == {} and len(loaded.audited()) == 1

    def test_with_a_scope_that_does_not_exist_is_refused(self, loaded: Shell) -> None:
        ran = add(loaded, "pharmasys", "--scope", "everything")
        assert ran.code == 1 and "There is no scope everything." in ran.err
        assert listed(loaded) == {}

    def test_may_be_added_before_a_directory_is_loaded(self, shell: Shell) -> None:
        assert add(shell).code == 0

    def test_with_an_id_that_no_assertion_can_name_is_refused(self, loaded: Shell) -> None:
        ran = add(loaded, "pharma sys")
        assert ran.code == 1 and "visible ASCII" in ran.err
        assert listed(loaded) == {}


class TestAKey:
    def test_is_read_from_a_jwk_with_its_own_id(self, loaded: Shell, tmp_path: Path) -> None:
        add(loaded)
        file = tmp_path / "key.json"
        jwk = ECKey.generate_key("P-384").as_dict(private=False) | {"kid": "key-2", "use": "sig"}
        file.write_text(json.dumps(jwk))
        loaded.ok("partner", "key", "pharmasys", str(file))
        kept = loaded.place.read(lambda connection: clients.keys(connection, "pharmasys"))
        assert kept == {"key-2": {name: jwk[name] for name in ("kty", "crv", "x", "y")}}

    def test_is_added_beside_those_that_are_there(self, loaded: Shell, tmp_path: Path) -> None:
        add(loaded)
        for number in ("1", "2"):
            folder = tmp_path / number
            loaded.ok("partner", "new-key", str(folder))
            loaded.ok("partner", "key", "pharmasys", str(folder / "public.pem"), "--kid", number)
        assert listed(loaded)["pharmasys"]["keys"] == ["1", "2"]

    def test_does_not_take_the_place_of_another_with_its_id(
        self, loaded: Shell, tmp_path: Path
    ) -> None:
        add(loaded)
        for number, code in (("1", 0), ("1", 0), ("2", 1)):
            folder = tmp_path / number
            if not folder.exists():
                loaded.ok("partner", "new-key", str(folder))
            file = str(folder / "public.pem")
            assert loaded("partner", "key", "pharmasys", file, "--kid", "same").code == code

    def test_that_is_private_weak_or_none_is_refused(
        self, loaded: Shell, tmp_path: Path, pair: tuple[Path, Path]
    ) -> None:
        add(loaded)
        file = tmp_path / "key"
        private_jwk = ECKey.generate_key("P-384").as_dict(private=True)
        for content in (
            pair[0].read_text(),
            json.dumps(private_jwk),
            ECKey.generate_key("P-256").as_pem(private=False).decode(),
            SHORT_RSA,
            '{"kty": "oct", "k": "AAAA"}',
            "{",
            "nothing",
        ):
            file.write_text(content)
            ran = loaded("partner", "key", "pharmasys", str(file))
            assert ran.code == 1 and "Traceback" not in ran.err, content
        assert listed(loaded)["pharmasys"]["keys"] == []

    def test_that_signs_otherwise_than_the_client_may_is_refused_unless_allowed(
        self, loaded: Shell, tmp_path: Path
    ) -> None:
        add(loaded)
        file = tmp_path / "rsa.pem"
        file.write_bytes(RSAKey.generate_key(2048).as_pem(private=False))
        ran = loaded("partner", "key", "pharmasys", str(file))
        assert ran.code == 1 and "may use ES384 only" in ran.err
        loaded.ok("partner", "key", "pharmasys", str(file), "--alg", "RS512")
        found = listed(loaded)["pharmasys"]
        assert found["algorithms"] == ["ES384", "RS512"] and len(found["keys"]) == 1

    def test_for_a_client_that_is_not_there_is_refused(
        self, loaded: Shell, pair: tuple[Path, Path]
    ) -> None:
        ran = loaded("partner", "key", "nobody", str(pair[1]))
        assert ran.code == 1 and "There is no client nobody" in ran.err

    def test_pair_is_made_with_a_private_key_that_only_its_owner_can_read(
        self, empty: Shell, tmp_path: Path
    ) -> None:
        made = empty.ok("partner", "new-key", str(tmp_path / "new"), "--json").json
        private = Path(made["private"])
        assert private.stat().st_mode & 0o777 == 0o600
        assert ECKey.import_key(Path(made["public"]).read_bytes()).thumbprint() == made["kid"]
        assert signed_assertion(private.read_bytes(), "c", "u", None, "ES384", made["kid"])
        before = private.read_bytes()
        ran = empty("partner", "new-key", str(tmp_path / "new"))
        assert ran.code == 2 and "is there already" in ran.err
        assert private.read_bytes() == before


class TestAGrant:
    def test_is_given_and_withdrawn(self, loaded: Shell) -> None:
        add(loaded)
        loaded.ok("partner", "grant", "pharmasys", "TPX01")
        assert listed(loaded)["pharmasys"]["organisations"] == [PHARMACY, "TPX01"]
        loaded.ok("partner", "revoke", "pharmasys", "--organisation", PHARMACY)
        assert listed(loaded)["pharmasys"]["organisations"] == ["TPX01"]
        again = loaded("partner", "revoke", "pharmasys", "--organisation", PHARMACY)
        assert again.code == 1
        assert ("grant.revoked", "pharmasys") in loaded.audited()

    def test_ends_with_its_last_day_in_london(self, loaded: Shell) -> None:
        add(loaded)
        loaded.ok("partner", "grant", "pharmasys", "TPX01", "--until", "2099-06-30")
        ends = loaded.place.read(
            lambda connection: (
                connection.execute(t.grant.select().where(t.grant.c.organisation == "TPX01"))
                .one()
                .valid_to
            )
        )
        assert ends.isoformat() == "2099-06-30T23:00:00+00:00"

    def test_that_would_have_ended_already_is_refused(self, loaded: Shell) -> None:
        add(loaded)
        ran = loaded("partner", "grant", "pharmasys", "TPX01", "--until", "2020-01-01")
        assert ran.code == 1 and "2020-01-01 is past" in ran.err
        assert listed(loaded)["pharmasys"]["organisations"] == [PHARMACY]

    def test_for_nobody_or_to_nobody_is_refused(self, loaded: Shell) -> None:
        add(loaded)
        assert loaded("partner", "grant", "nobody", "TPX01").code == 1
        assert loaded("partner", "grant", "pharmasys", "Z9").code == 1


class TestRevoking:
    def test_a_key_leaves_the_others(self, loaded: Shell, tmp_path: Path) -> None:
        add(loaded)
        for kid in ("a", "b"):
            loaded.ok("partner", "new-key", str(tmp_path / kid))
            file = str(tmp_path / kid / "public.pem")
            loaded.ok("partner", "key", "pharmasys", file, "--kid", kid)
        loaded.ok("partner", "revoke", "pharmasys", "--key", "a")
        assert listed(loaded)["pharmasys"]["keys"] == ["b"]

    def test_a_client_shuts_it_out_and_it_begins_anew_with_nothing(
        self, loaded: Shell, pair: tuple[Path, Path]
    ) -> None:
        add(loaded, "pharmasys", "--key", str(pair[1]))
        loaded.ok("partner", "revoke", "pharmasys")
        found = listed(loaded)["pharmasys"]
        assert found["disabled_at"] and not found["keys"] and not found["organisations"]
        assert add(loaded, "pharmasys").code == 0
        found = listed(loaded)["pharmasys"]
        assert (found["disabled_at"], found["keys"]) == (None, [])

    def test_both_at_once_or_what_is_not_there_is_refused(self, loaded: Shell) -> None:
        add(loaded)
        both = ("--organisation", PHARMACY, "--key", "x")
        assert loaded("partner", "revoke", "pharmasys", *both).code == 1
        assert loaded("partner", "revoke", "pharmasys", "--key", "x").code == 1
        assert loaded("partner", "revoke", "nobody").code == 1
        assert listed(loaded)["pharmasys"]["organisations"] == [PHARMACY]


class TestImporting:
    def write(self, shell: Shell, *lines: str) -> str:
        file = shell.place.folder / "partners.csv"
        file.write_text("\n".join(lines) + "\n")
        return str(file)

    def test_registers_every_client_with_its_lines_added_up(
        self, loaded: Shell, pair: tuple[Path, Path]
    ) -> None:
        file = self.write(
            loaded,
            "client,name,organisations,scopes,key",
            f"pharmasys,PharmaSys,{PHARMACY},pharmacy:submit inbox:read,{pair[1].name}",
            "optosys,OptoSys,TPX01 RXX01,optometry:submit,",
            "pharmasys,,G99001,,",
        )
        assert loaded.ok("partner", "import", file).out == "2 clients imported.\n"
        found = listed(loaded)
        assert found["pharmasys"]["organisations"] == [PHARMACY, "G99001"]
        assert found["pharmasys"]["scopes"] == ["inbox:read", "pharmacy:submit"]
        assert len(found["pharmasys"]["keys"]) == 1
        assert found["optosys"]["organisations"] == ["RXX01", "TPX01"]

    def test_of_a_client_that_is_there_adds_and_takes_nothing_away(self, loaded: Shell) -> None:
        add(loaded)
        loaded.ok("partner", "grant", "pharmasys", "TPX01", "--until", "2099-01-01")
        file = self.write(loaded, "client,organisations", "pharmasys,TPX01 G99001")
        loaded.ok("partner", "import", file)
        found = listed(loaded)["pharmasys"]
        assert found["name"] == "PharmaSys" and found["scopes"] == ["pharmacy:submit"]
        assert found["organisations"] == [PHARMACY, "G99001", "TPX01"]
        ends = loaded.place.read(
            lambda connection: (
                connection.execute(t.grant.select().where(t.grant.c.organisation == "TPX01"))
                .one()
                .valid_to
            )
        )
        assert ends is not None, "a grant that ends was made endless"

    def test_names_every_problem_by_its_line_and_imports_nothing(
        self, loaded: Shell, pair: tuple[Path, Path]
    ) -> None:
        file = self.write(
            loaded,
            "client,name,organisations,scopes,algorithms,key",
            f"good,Good,{PHARMACY},pharmacy:submit,,",
            "a b,,FPH01,inbox:read,,",
            "other,,Z9 fph01,everything,HS256,",
            f"other,,,,,{pair[0].name}",
            f"rsa,,{PHARMACY},inbox:read,RS384,{pair[1].name}",
            f"new,,{PHARMACY},,,",
            f"good,Better,{PHARMACY},,,nothing.pem",
        )
        ran = loaded("partner", "import", file)
        assert (ran.code, ran.out) == (1, "")
        for said in (
            "line 3: client: ",
            "line 4: organisations: The directory has no organisation Z9.",
            "line 4: organisations: fph01 is not an ODS code",
            "line 4: scopes: There is no scope everything.",
            "line 4: algorithms: HS256 is not an algorithm",
            "line 5: key: ",
            "line 5: organisations: No organisation is named.",
            "line 6: key: The key",
            "line 7: scopes: new is new",
            "line 8: name: good stands above with another one.",
            "line 8: key: There is no file",
        ):
            assert said in ran.err, ran.err
        assert "11 problems; nothing was imported" in ran.err
        assert listed(loaded) == {} and len(loaded.audited()) == 1

    @pytest.mark.parametrize(
        ("lines", "said"),
        [
            (["client,organisation"], "There is no column 'organisation'"),
            (["name"], "The column client is missing"),
            (["client,organisations"], "There is no line with a client in it"),
            (["client,organisations", "a"], "line 2: It has more or fewer columns"),
            (["client,organisations", "a,b,c"], "line 2: It has more or fewer columns"),
            (["client,organisations", '"a'], "Not CSV"),
        ],
    )
    def test_of_a_file_of_the_wrong_shape_is_refused(
        self, loaded: Shell, lines: list[str], said: str
    ) -> None:
        ran = loaded("partner", "import", self.write(loaded, *lines))
        assert ran.code == 1 and said in ran.err
        assert listed(loaded) == {}


class TestASecret:
    def kept(self, shell: Shell) -> list[bytes]:
        with shell.place.store() as store:
            vault = shell.place.vault(store)
            rows = store.read_now(lambda connection: clients.secrets(connection, PRACTICE))
            return [vault.open_secret(row.kek_id, row.sealed, row.id) for row in rows]

    def test_is_made_shown_once_and_kept_sealed(self, loaded: Shell) -> None:
        ran = loaded.ok("partner", "key", "--webhook", PRACTICE)
        secret = ran.out.strip()
        assert secret.startswith("whsec_") and "once only" in ran.err
        assert Webhook(secret)._whsecret == self.kept(loaded)[0]
        for file in (loaded.place.folder / "data").iterdir():
            assert self.kept(loaded)[0] not in file.read_bytes()
            assert secret.encode() not in file.read_bytes()
        assert ("webhook-secret.added", PRACTICE) in loaded.audited()

    def test_is_read_from_standard_input_and_never_shown(self, loaded: Shell) -> None:
        raw = bytes(range(32))
        secret = "whsec_" + base64.b64encode(raw).decode()
        ran = loaded.ok("partner", "key", "--webhook", PRACTICE, "--stdin", stdin=f"{secret}\n")
        assert secret not in ran.out + ran.err
        assert self.kept(loaded) == [raw]

    def test_leaves_the_one_before_it_valid_and_no_more(self, loaded: Shell) -> None:
        made = [
            loaded.ok("partner", "key", "--webhook", PRACTICE, "--json").json["secret"]
            for _ in range(3)
        ]
        assert self.kept(loaded) == [Webhook(one)._whsecret for one in made[:0:-1]]

    @pytest.mark.parametrize("text", ["", "whsec_", "whsec_AAAA", "whsec_!!", "MfKQ9r8GKYqrTwjU"])
    def test_that_is_none_is_refused_without_repeating_it(self, loaded: Shell, text: str) -> None:
        ran = loaded("partner", "key", "--webhook", PRACTICE, "--stdin", stdin=text)
        assert ran.code == 1 and "This is not a secret for webhooks." in ran.err
        assert not text or text == "whsec_" or text not in ran.err
        assert self.kept(loaded) == []

    def test_for_an_organisation_that_is_not_there_is_refused(self, loaded: Shell) -> None:
        assert loaded("partner", "key", "--webhook", "Z9").code == 1


# -- deliveries ------------------------------------------------------------------------------------


class TestADelivery:
    def test_is_listed_most_urgent_first_until_it_is_done(
        self, dead: tuple[Shell, str, str]
    ) -> None:
        shell, message, delivery = dead
        (one,) = shell.ok("deliveries", "list", "--json").json
        assert (one["id"], one["message"], one["organisation"]) == (delivery, message, PRACTICE)
        assert (one["state"], one["code"], one["attempts"]) == ("dead", "answered-4xx", 0)
        assert delivery in shell.ok("deliveries", "list").out
        assert shell.ok("deliveries", "list", "--state", "done", "--json").json == []
        assert shell.ok("deliveries", "list", "--organisation", "G99001", "--json").json == []
        assert "There is no such delivery" in shell.ok("deliveries", "list", "--state", "due").out

    def test_is_shown_with_attempts_trail_and_policy(self, dead: tuple[Shell, str, str]) -> None:
        shell, message, delivery = dead
        found = shell.ok("deliveries", "show", delivery, "--json").json
        assert found["attempted"][0]["http_status"] == 410
        assert found["receipts"] == []
        assert found["trail"]["message"] == message
        line = found["trail"]["line"]
        assert "could not be delivered to Hilltop Surgery; it waits for an operator" in line
        assert "up to 1 hour" in found["policy"] and "72 hours" in found["policy"]
        out = shell.ok("deliveries", "show", delivery).out
        for said in ("Hilltop Surgery", "answered-4xx", "410", "72 hours", "Riverside Pharmacy"):
            assert said in out
        assert "18:30:00" in out and "+00:00" not in out, "every time is London's, and reads so"

    def test_of_a_list_that_is_cut_off_is_said_to_be_one_of_more(
        self, dead: tuple[Shell, str, str]
    ) -> None:
        shell, _, delivery = dead
        assert "more" not in shell.ok("deliveries", "list").err
        shell.place.post(consultation("RP-2"))
        ran = shell.ok("deliveries", "list", "--limit", "1", "--json")
        assert [one["id"] for one in ran.json] == [delivery]
        assert "There are more than these 1" in ran.err

    def test_is_shown_with_the_policy_of_what_waits_behind_it(
        self, dead: tuple[Shell, str, str]
    ) -> None:
        shell, _, delivery = dead
        inherit = update(t.delivery).where(t.delivery.c.id == delivery).values(priority_rank=1)
        shell.place.write(lambda tx: tx.execute(inherit) and None)
        policy = shell.ok("deliveries", "show", delivery, "--json").json["policy"]
        assert "if urgent" in policy and "up to 5 minutes" in policy

    @pytest.mark.parametrize("name", [MISSING, "nonsense", "1 OR 1=1"])
    def test_that_is_not_there_is_said_to_be_so(self, loaded: Shell, name: str) -> None:
        for command in (("show", name), ("retry", name), ("give-up", name, "--reason", "x")):
            ran = loaded("deliveries", *command)
            assert (ran.code, ran.out) == (1, "")
            assert "There is no delivery" in ran.err

    def test_is_retried_and_leaves_the_work_list(self, dead: tuple[Shell, str, str]) -> None:
        shell, _, delivery = dead
        shell.ok("deliveries", "retry", delivery)
        row = shell.place.read(lambda connection: deliveries.get(connection, delivery))
        assert (row.state, row.settled_at) == ("due", None)
        codes = [one["code"] for one in shell.ok("overdue", "--json").json]
        assert "delivery-dead" not in codes
        assert ("delivery.retried", delivery) in shell.audited()

    def test_is_retried_with_all_the_others_or_none_is(self, dead: tuple[Shell, str, str]) -> None:
        shell, _, delivery = dead
        assert shell("deliveries", "retry", delivery, MISSING).code == 1
        row = shell.place.read(lambda connection: deliveries.get(connection, delivery))
        assert row.state == "dead"
        assert "delivery.retried" not in [action for action, _ in shell.audited()]

    def test_that_waits_to_be_collected_is_not_retried(self, loaded: Shell) -> None:
        (message,) = loaded.place.post(consultation("RP-1", "G99001"))
        (row,) = loaded.place.read(lambda connection: deliveries.of_message(connection, message))
        ran = loaded("deliveries", "retry", row.id)
        assert ran.code == 1 and "waiting to be confirmed as stored" in ran.err


class TestGivingUp:
    def test_ends_the_delivery_and_tells_the_sender(self, dead: tuple[Shell, str, str]) -> None:
        shell, _, delivery = dead
        ran = shell.ok("deliveries", "give-up", delivery, "--reason", REASON)
        assert "The sender is told." in ran.out and REASON not in ran.out
        row = shell.place.read(lambda connection: deliveries.get(connection, delivery))
        assert (row.state, row.done_reason) == ("done", "given-up")
        assert "delivery-dead" not in [one["code"] for one in shell.ok("overdue", "--json").json]
        shell.place.dispatch()
        told = shell.ok("deliveries", "list", "--organisation", PHARMACY, "--json").json
        assert [(one["kind"], one["state"]) for one in told] == [("notice", "held")]

    def test_keeps_the_reason_sealed_and_nowhere_else(self, dead: tuple[Shell, str, str]) -> None:
        shell, _, delivery = dead
        shell.ok("deliveries", "give-up", delivery, "--reason", REASON)
        with shell.place.store() as store:
            vault = shell.place.vault(store)
            kept = store.read_now(lambda c: messages.payload(c, vault, delivery, "give-up"))
        assert kept is not None
        assert json.loads(kept.body) == {"reason": REASON, "by": opening.actor()}
        for file in (shell.place.folder / "data").iterdir():
            assert REASON.encode() not in file.read_bytes()
        assert ("delivery.given-up", delivery) in shell.audited()
        assert shell.ok("audit", "verify", "--json").json["holds"] is True

    def test_lets_the_lane_go_on(self, dead: tuple[Shell, str, str]) -> None:
        shell, _, delivery = dead
        behind = "0190f1a2-0000-7000-8000-00000000beef"

        def queue(tx: Any) -> None:
            row = dict(deliveries.get(tx.connection, delivery)._mapping)
            later = {"id": behind, "event_id": behind, "subject_seq": 99, "settled_at": None}
            waits = {"state": "held", "held_reason": "predecessor", "code": None}
            tx.execute(t.delivery.insert(), row | later | waits)

        shell.place.write(queue)
        shell.ok("deliveries", "give-up", delivery, "--reason", REASON)
        row = shell.place.read(lambda connection: deliveries.get(connection, behind))
        assert (row.state, row.held_reason) == ("due", None)

    def test_is_final(self, dead: tuple[Shell, str, str]) -> None:
        shell, _, delivery = dead
        shell.ok("deliveries", "give-up", delivery, "--reason", REASON)
        for command in (("retry", delivery), ("give-up", delivery, "--reason", REASON)):
            ran = shell("deliveries", *command)
            assert ran.code == 1 and "it is done (given-up)" in ran.err

    def test_stops_the_receipt_clock_and_the_sender_is_not_told_twice(
        self, dead: tuple[Shell, str, str]
    ) -> None:
        shell, message, delivery = dead
        shell.ok("deliveries", "give-up", delivery, "--reason", REASON)
        clocks = shell.place.read(lambda connection: work.deadlines_of(connection, [message]))
        (received,) = [one for one in clocks if one.kind == "received"]
        assert received.raised_at is not None and received.cleared_at is None

    @pytest.mark.parametrize("reason", ["", "  ", "x" * 4_001])
    def test_without_a_reason_changes_nothing(
        self, dead: tuple[Shell, str, str], reason: str
    ) -> None:
        shell, _, delivery = dead
        assert shell("deliveries", "give-up", delivery, "--reason", reason).code == 1
        row = shell.place.read(lambda connection: deliveries.get(connection, delivery))
        assert row.state == "dead"

    def test_of_a_notice_tells_nobody(self, dead: tuple[Shell, str, str]) -> None:
        shell, _, delivery = dead
        shell.ok("deliveries", "give-up", delivery, "--reason", REASON)
        shell.place.dispatch()
        (notice,) = shell.ok("deliveries", "list", "--organisation", PHARMACY, "--json").json
        ran = shell.ok("deliveries", "give-up", notice["id"], "--reason", REASON)
        assert "nobody is told" in ran.out
        shell.place.dispatch()
        assert shell.ok("deliveries", "list", "--json").json == []


class TestFanningOut:
    @pytest.fixture
    def missing(self, loaded: Shell, monkeypatch: pytest.MonkeyPatch) -> tuple[Shell, str]:
        """A shell where a message could not be composed: (shell, the message's id)."""

        def compose(*_: object) -> bytes:
            raise ValueError("a fault of ours")

        with monkeypatch.context() as fault:
            fault.setattr(RecordUpdate, "compose", compose)
            (message,) = loaded.place.post(consultation("RP-1"))
        return loaded, message

    def test_takes_the_event_from_the_list_and_makes_what_is_missing(
        self, missing: tuple[Shell, str]
    ) -> None:
        shell, message = missing
        (item,) = shell.ok("overdue", "--json").json
        assert (item["code"], item["message"]) == ("not-composed", message)
        assert item["event"] in shell.ok("overdue").out
        ran = shell.ok("deliveries", "fan-out", item["event"])
        assert ran.out == f"Deliveries made of the event {item['event']}: 1.\n"
        (one,) = shell.ok("deliveries", "list", "--json").json
        assert (one["message"], one["event"], one["state"]) == (message, item["event"], "due")
        assert shell.ok("overdue", "--json").json == []
        assert ("event.fanned-out", item["event"]) in shell.audited()

    def test_says_what_can_still_not_be_made(self, missing: tuple[Shell, str]) -> None:
        shell, _ = missing
        (item,) = shell.ok("overdue", "--json").json
        erase = t.message_key.delete()
        shell.place.write(lambda tx: tx.execute(erase) and None)
        ran = shell("deliveries", "fan-out", item["event"])
        assert ran.code == 1 and "could be made (unreadable): it stays on" in ran.err
        assert {one["event"] for one in shell.ok("overdue", "--json").json} == {item["event"]}

    @pytest.mark.parametrize("name", [MISSING, "nonsense"])
    def test_of_an_event_that_is_not_there_is_refused(self, loaded: Shell, name: str) -> None:
        ran = loaded("deliveries", "fan-out", name)
        assert (ran.code, ran.out) == (1, "") and "There is no event" in ran.err


# -- looking ---------------------------------------------------------------------------------------


class TestOverdue:
    def test_lists_what_a_person_must_look_at(self, dead: tuple[Shell, str, str]) -> None:
        shell, message, delivery = dead
        (one,) = shell.ok("overdue", "--json").json
        assert (one["code"], one["message"], one["delivery"]) == (
            "delivery-dead",
            message,
            delivery,
        )
        assert "delivery-dead" in shell.ok("overdue").out
        assert shell.ok("overdue", "--organisation", PHARMACY, "--json").json == []

    def test_says_when_there_is_more(self, dead: tuple[Shell, str, str]) -> None:
        shell, message, delivery = dead
        about: dict[str, Any] = {"message_id": message, "delivery_id": delivery}
        about |= {"organisation": None, "priority": "routine"}
        shell.place.write(lambda tx: work.put_item(tx, "receipt-mismatch", delivery, **about))
        ran = shell.ok("overdue", "--limit", "1", "--json")
        assert len(ran.json) == 1 and "There are more than these 1" in ran.err
        assert "more" not in shell.ok("overdue", "--limit", "2").err

    def test_says_when_nothing_is(self, loaded: Shell) -> None:
        assert loaded.ok("overdue").out == "Nothing is overdue.\n"

    def test_of_several_organisations_lists_what_any_of_them_must_look_at(
        self, dead: tuple[Shell, str, str]
    ) -> None:
        shell, message, delivery = dead
        about: dict[str, Any] = {"message_id": message, "delivery_id": delivery}
        about |= {"priority": "routine"}
        for ods in (PHARMACY, "TPX01", "G99004"):
            item = {"object_id": ods, "organisation": ods, **about}
            shell.place.write(lambda tx, item=item: work.put_item(tx, "x", **item))
        asked = ("--organisation", PHARMACY, "--organisation", "TPX01", "--json")
        found = shell.ok("overdue", *asked).json
        assert {one["organisation"] for one in found} == {PHARMACY, "TPX01"}
        # G99004 is closed: what it sent is its successor's affair, here as at GET /overdue.
        found = shell.ok("overdue", "--organisation", "G99001", "--json").json
        assert [one["organisation"] for one in found] == ["G99004"]

    @pytest.mark.parametrize("command", [("overdue",), ("deliveries", "list")])
    def test_of_a_code_typed_wrongly_never_says_only_that_there_is_nothing(
        self, loaded: Shell, command: tuple[str, ...]
    ) -> None:
        ran = loaded(*command, "--organisation", "G99-002")
        assert ran.code == 1 and ran.err == "G99-002 is not an ODS code: 1 to 9 of A-Z and 0-9.\n"
        ran = loaded.ok(*command, "--organisation", "G99020", "--json")
        assert ran.json == [] and ran.err == "The directory has no organisation G99020.\n"

    def test_takes_a_code_as_it_is_typed(self, dead: tuple[Shell, str, str]) -> None:
        shell, _, delivery = dead
        (one,) = shell.ok("deliveries", "list", "--organisation", "g99002", "--json").json
        assert one["id"] == delivery
        assert "Hilltop Surgery" in shell.ok("directory", "show", "g99002").out


class TestTheAuditChain:
    def test_holds(self, loaded: Shell) -> None:
        found = loaded.ok("audit", "verify", "--json").json
        assert (found["holds"], found["checked"], found["broken_at"]) == (True, 1, None)
        assert "The audit chain holds: 1 entries" in loaded.ok("audit", "verify").out

    @pytest.mark.parametrize(
        ("damage", "at"),
        [
            ("UPDATE audit SET actor = 'somebody' WHERE seq = 2", 2),
            ("DELETE FROM audit WHERE seq = 2", 2),
            ("DELETE FROM audit WHERE seq = 4", 4),
        ],
    )
    def test_that_does_not_hold_is_said_with_the_entry(
        self, loaded: Shell, damage: str, at: int
    ) -> None:
        add(loaded)
        loaded.ok("partner", "grant", "pharmasys", "TPX01")
        with loaded.place.store() as store, store.writer.begin() as connection:
            connection.exec_driver_sql(damage)
        ran = loaded("audit", "verify")
        assert ran.code == 1 and f"does not hold at entry {at}" in ran.err
        found = loaded("audit", "verify", "--json")
        assert found.code == 1 and found.json["broken_at"] == at
        if "UPDATE" in damage:
            assert found.json["entry"]["actor"] == "somebody"


class TestCheck:
    def states(self, shell: Shell, code: int) -> dict[str, str]:
        ran = shell("check", "--json")
        assert ran.code == code, ran.out
        found = ran.json
        assert all(one["mend"] or one["state"] != "warn" for one in found)
        worst: dict[str, str] = {}
        for one in found:
            if worst.get(one["check"]) in (None, "ok"):
                worst[one["check"]] = one["state"]
        return worst

    def call(self, shell: Shell, url: str) -> None:
        """Let the one webhook of the example go to this URL, signed."""
        file = shell.place.folder / "directory.yaml"
        file.write_text(directory_with(url))
        shell.ok("directory", "load", str(file))
        shell.ok("partner", "key", "--webhook", PRACTICE)

    def test_passes_where_all_is_well(self, loaded: Shell, pair: tuple[Path, Path]) -> None:
        add(loaded, "pharmasys", "--key", str(pair[1]))
        self.call(loaded, "https://hilltop.example/in")
        states = self.states(loaded, 0)
        # The example has one that is not connected, and a service that is paused.
        assert (states.pop("endpoints"), states.pop("services")) == ("warn", "warn")
        assert set(states.values()) == {"ok"} and len(states) >= 10
        said = loaded.ok("check").out
        assert "G99005" in said and "RYY01-OUTPATIENTS" in said and "RXX01-SPA" not in said

    def test_without_a_database_fails_and_makes_none(self, empty: Shell) -> None:
        assert self.states(empty, 1)["database"] == "fail"
        assert not (empty.place.folder / "data").exists()

    def test_of_an_empty_database_says_what_to_do_first(self, shell: Shell) -> None:
        states = self.states(shell, 1)
        assert (states["directory"], states["clients"], states["key ring"]) == (
            "fail",
            "warn",
            "warn",
        )
        assert "endpoints" not in states, "nothing is well with a directory that is not there"
        assert "referral-broker directory load" in shell("check").out
        assert not (shell.place.folder / "keys").exists(), "looking made a key ring"

    def test_finds_a_key_ring_that_is_not_the_one(self, loaded: Shell) -> None:
        loaded.ok("partner", "key", "--webhook", PRACTICE)
        ring = loaded.place.settings.ring_path
        ring.rename(ring.with_suffix(".kept"))
        assert self.states(loaded, 1)["key ring"] == "fail"
        ring.with_suffix(".kept").rename(ring)
        ring.chmod(0o644)
        assert self.states(loaded, 1)["key ring"] == "fail"

    def test_finds_a_disk_that_is_all_but_full(
        self, loaded: Shell, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert self.states(loaded, 1)["disk"] == "ok"
        usage = shutil.disk_usage(loaded.place.folder)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=63 << 20))
        assert self.states(loaded, 1)["disk"] == "fail"
        assert "63 MiB are free" in loaded("check").out

    def test_finds_partners_that_could_not_work(self, loaded: Shell) -> None:
        add(loaded)
        states = self.states(loaded, 1)
        assert (states["client keys"], states["webhook secrets"]) == ("warn", "fail")
        loaded.ok("partner", "revoke", "pharmasys", "--organisation", PHARMACY)
        assert self.states(loaded, 1)["client grants"] == "warn"

    @pytest.mark.parametrize(
        "url",
        ["http://hilltop.example/in", "http://127.0.0.1:9902/inbound", "https://10.0.0.1/in"],
    )
    def test_finds_a_webhook_that_will_never_be_called(
        self, loaded: Shell, monkeypatch: pytest.MonkeyPatch, url: str
    ) -> None:
        self.call(loaded, url)
        assert self.states(loaded, 1)["addresses"] == "fail"
        assert f"No call is ever made to the URL of {PRACTICE}." in loaded("check").out
        monkeypatch.setenv("BROKER_ALLOW_PLAIN_HTTP", "true")
        is_private = "10.0.0.1" in url
        states = self.states(loaded, 1 if is_private else 0)
        assert states["addresses"] == ("fail" if is_private else "ok")

    @pytest.mark.parametrize(
        ("name", "value", "code"),
        [
            ("BROKER_PORT", "many", 1),
            ("BROKER_NONSENSE", "1", 1),
            ("BROKER_PUBLIC_URL", "broker.example", 1),
            ("BROKER_PUBLIC_URL", "ftp://broker.example", 1),
            ("BROKER_PUBLIC_URL", "https://broker.example/?a=b", 1),
            ("BROKER_HOST", "0.0.0.0", 0),  # noqa: S104
            ("BROKER_PUBLIC_URL", "http://broker.example", 0),
            ("BROKER_ALLOW_PLAIN_HTTP", "true", 0),
        ],
    )
    def test_looks_at_the_settings(
        self, loaded: Shell, monkeypatch: pytest.MonkeyPatch, name: str, value: str, code: int
    ) -> None:
        self.call(loaded, "https://hilltop.example/in")
        monkeypatch.setenv(name, value)
        assert self.states(loaded, code)["settings"] == ("fail" if code else "warn")

    def test_names_what_is_plugged_in_wrongly(
        self, loaded: Shell, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken() -> None:
            raise registry.BadWiring("The adapter x does not fit.")

        monkeypatch.setattr(registry, "load", broken)
        assert self.states(loaded, 1)["registry"] == "fail"


class TestAToken:
    def test_of_a_broker_that_is_not_there_is_not_had(
        self, empty: Shell, pair: tuple[Path, Path]
    ) -> None:
        url = ("--url", "http://127.0.0.1:1")
        ran = empty("token", "pharmasys", "--key", str(pair[0]), *url)
        assert ran.code == 2 and "cannot be reached" in ran.err

    def test_that_cannot_be_given_now_is_to_be_asked_for_again(
        self, empty: Shell, pair: tuple[Path, Path]
    ) -> None:
        class Full(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.send_response(503)
                self.end_headers()

            def log_message(self, *_: Any) -> None: ...

        with HTTPServer(("127.0.0.1", 0), Full) as server:
            threading.Thread(target=server.handle_request).start()
            url = ("--url", f"http://127.0.0.1:{server.server_port}")
            ran = empty("token", "pharmasys", "--key", str(pair[0]), *url)
        assert ran.code == 2 and "try again" in ran.err and "not as a token" not in ran.err

    def test_needs_a_private_key_that_can_sign(
        self, empty: Shell, pair: tuple[Path, Path], tmp_path: Path
    ) -> None:
        weak = tmp_path / "weak.pem"
        weak.write_bytes(ECKey.generate_key("P-256").as_pem(private=True))
        for file in (pair[1], weak, tmp_path / "none.pem"):
            assert empty("token", "pharmasys", "--key", str(file)).code == 1


# -- BaRS receivers ------------------------------------------------------------------------------

BARS = "FPH01/FPH01-PHARMACY-FIRST"


class TestOurOwnKey:
    def test_is_printed_as_a_jwk_that_another_broker_registers(
        self, loaded: Shell, tmp_path: Path
    ) -> None:
        ran = loaded.ok("keys", "public")
        with loaded.place.store() as store:
            key = open_ring(loaded.place.settings, store).token_keys[-1]
        assert ran.json["kid"] == key.thumbprint()
        assert ran.json["alg"] == "ES384"
        assert "d" not in ran.json
        assert ECKey.import_key(ran.json).thumbprint() == key.thumbprint()
        file = tmp_path / "broker.jwk"
        file.write_text(ran.out)
        add(loaded, "another-broker", "--key", str(file))


class TestRefreshing:
    def speaking(self, shell: Shell, token_url: str) -> None:
        """Let the pharmacy's service speak BaRS."""
        file = shell.place.folder / "directory.yaml"
        inbox = "service: FPH01-PHARMACY-FIRST\n    channel: inbox"
        bars = (
            "service: FPH01-PHARMACY-FIRST\n    channel: bars\n"
            f"    url: https://pharmacy.example/FHIR/R4\n    token_url: {token_url}\n    client: us"
        )
        text = DIRECTORY.read_text()
        assert inbox in text
        file.write_text(text.replace(inbox, bars))
        shell.ok("directory", "load", str(file))

    def test_an_endpoint_leaves_a_mark_that_every_broker_reads(self, loaded: Shell) -> None:
        self.speaking(loaded, "https://pharmacy.example/token")
        marks = []
        for name in (BARS, BARS.lower()):
            assert "asked anew" in loaded.ok("endpoints", "refresh", name).out
            marks.append(loaded.place.read(lambda c: endpoints.refreshed_at(c, *BARS.split("/"))))
        assert marks[0] is not None and marks[1] is not None and marks[0] < marks[1]
        assert loaded.audited()[-2:] == [("endpoint.refreshed", BARS)] * 2

    @pytest.mark.parametrize("name", [BARS, "FPH01", "ZZZ", ""])
    def test_what_is_no_bars_endpoint_is_said_to_be_none(self, loaded: Shell, name: str) -> None:
        ran = loaded("endpoints", "refresh", name)
        assert ran.code == 1 and "There is no BaRS endpoint" in ran.err

    def test_a_token_url_that_will_never_be_called_is_found_by_check(self, loaded: Shell) -> None:
        self.speaking(loaded, "https://10.0.0.1/token")
        said = next(x for x in loaded("check").out.splitlines() if "No call is ever made" in x)
        assert BARS in said
