"""`referral-broker serve` as a real process: it starts, answers, hears of commands, and stops."""

import json
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest

from broker.store import claims, deliveries, work
from broker.store import tables as t
from consumers.record_update import RecordUpdate
from sandbox.process import free_port
from tests.shell import COMMAND, DIRECTORY, PHARMACY, PRACTICE, Place, consultation, directory_with

STARTS_WITHIN = 60.0
STOPS_WITHIN = 15.0
SENTENCE = "The broker serves on "


@dataclass
class Serving:
    """A broker that serves in a process of its own, and what it wrote."""

    place: Place
    process: subprocess.Popen[bytes]
    out: Path
    err: Path
    started: float = field(default_factory=time.monotonic)

    @property
    def url(self) -> str:
        """Where it says that it serves."""
        return self.out.read_text().removeprefix(SENTENCE).split()[0].rstrip(",.")

    @property
    def logs(self) -> list[dict[str, Any]]:
        """Every line of its log."""
        return [json.loads(line) for line in self.err.read_text().splitlines()]

    def get(self, path: str, **headers: str) -> httpx2.Response:
        """Ask the API."""
        return httpx2.get(self.url + path, headers=headers, trust_env=False, timeout=20)

    def wait(self) -> None:
        """Wait until it has said that it serves."""
        while not self.out.read_text().endswith("\n"):
            assert self.process.poll() is None, self.err.read_text()
            assert time.monotonic() < self.started + STARTS_WITHIN, self.err.read_text()
            time.sleep(0.05)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Ask it to stop, and wait until it has."""
        self.process.send_signal(how)
        assert self.process.wait(STOPS_WITHIN) == 0, self.err.read_text()


@contextmanager
def serving(place: Place, **variables: str) -> Iterator[Serving]:
    """Serve from a place; killed at the end if it still runs."""
    out, err = place.folder / "serve.out", place.folder / "serve.err"
    with out.open("wb") as stdout, err.open("wb") as stderr:
        process = subprocess.Popen(
            [*COMMAND, "serve"],
            env={**place.environment, **variables},
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
        )
    made = Serving(place, process, out, err)
    try:
        made.wait()
        yield made
    finally:
        process.kill()
        process.wait()


def run(place: Place, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command as a process of its own."""
    return subprocess.run(
        [*COMMAND, *arguments],
        env={**place.environment, **variables},
        capture_output=True,
        text=True,
        timeout=STARTS_WITHIN,
        check=False,
    )


def a_place(folder: Path, template: Path, **variables: str) -> Place:
    """A place with a migrated database."""
    (folder / "data").mkdir()
    shutil.copyfile(template, folder / "data" / "broker.db")
    settings = {
        "BROKER_DATA_DIR": str(folder / "data"),
        "BROKER_KEYS_DIR": str(folder / "keys"),
        "BROKER_PORT": "0",
        "BROKER_ADMIN_PORT": "0",
        **variables,
    }
    return Place(folder, settings)


@pytest.fixture
def place(tmp_path: Path, sqlite_template: Path) -> Place:
    """A place with a migrated database and nothing in it, on a free port."""
    return a_place(tmp_path, sqlite_template)


class Hanging:
    """A destination that takes connections and requests, and never answers."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/inbound"
        self.called: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.called.append(connection)

    def wait(self, times: int = 1, seconds: float = 30.0) -> None:
        """Wait until it has been called so often."""
        ends = time.monotonic() + seconds
        while len(self.called) < times:
            assert time.monotonic() < ends, f"called {len(self.called)} times, not {times}"
            time.sleep(0.02)

    def close(self) -> None:
        """Let everybody go."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)
        for connection in self.called:
            connection.close()


@pytest.fixture
def hanging() -> Iterator[Hanging]:
    """A destination that never answers."""
    made = Hanging()
    yield made
    made.close()


@pytest.fixture
def sent(tmp_path: Path, sqlite_template: Path, hanging: Hanging) -> Place:
    """A place where a consultation is due to be sent to a destination that hangs."""
    place = a_place(
        tmp_path,
        sqlite_template,
        BROKER_ALLOW_PLAIN_HTTP="true",
        BROKER_SEND_TIMEOUT="45",
        BROKER_POLL_SECONDS="3600",
    )
    file = tmp_path / "directory.yaml"
    file.write_text(directory_with(hanging.url))
    place.run("directory", "load", str(file))
    place.run("partner", "key", "--webhook", PRACTICE)
    return place


# -- starting --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def served(
    tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path
) -> Iterator[tuple[Serving, str]]:
    """A broker that serves, made from nothing, with the URL of its metrics."""
    folder = tmp_path_factory.mktemp("served")
    place = Place(
        folder,
        {
            "BROKER_DATA_DIR": str(folder / "data"),
            "BROKER_KEYS_DIR": str(folder / "keys"),
            "BROKER_PORT": "0",
            "BROKER_ADMIN_PORT": str(free_port()),
            "BROKER_POLL_SECONDS": "3600",
        },
    )
    with serving(place) as made:
        yield made, f"http://127.0.0.1:{place.variables['BROKER_ADMIN_PORT']}"


@pytest.mark.slow
class TestABrokerThatServes:
    def test_makes_what_it_needs_and_is_ready(self, served: tuple[Serving, str]) -> None:
        broker, _ = served
        assert broker.get("/health/live").text == "live"
        assert broker.get("/health/ready").text == "ready"
        assert (broker.place.folder / "keys" / "ring.json").stat().st_mode & 0o777 == 0o600

    def test_says_once_where_to_people_and_to_machines(self, served: tuple[Serving, str]) -> None:
        broker, metrics = served
        assert broker.out.read_text() == (
            f"{SENTENCE}{broker.url}, metrics on {metrics}/metrics. "
            "Stop it with Ctrl-C or SIGTERM.\n"
        )
        said = [line for line in broker.logs if line["event"] == "serving"]
        assert [line["address"] for line in said] == [broker.url]

    def test_shows_metrics_on_the_admin_port_only(self, served: tuple[Serving, str]) -> None:
        broker, metrics = served
        found = httpx2.get(f"{metrics}/metrics", trust_env=False)
        assert found.status_code == 200
        assert found.headers["content-type"].startswith("text/plain")
        for line in (
            'broker_queue_age_seconds{priority="stat"} 0.0',
            'broker_deliveries{state="dead"} 0.0',
            'broker_ledger_unread_events{reader="dispatch"} 0.0',
            "broker_requests_total",
        ):
            assert line in found.text
        assert broker.get("/metrics").status_code == 404

    @pytest.mark.parametrize("path", ["/", "/metrics/", "/health", "/docs", "/openapi.json"])
    def test_has_nothing_else_on_the_admin_port(
        self, served: tuple[Serving, str], path: str
    ) -> None:
        assert httpx2.get(served[1] + path, trust_env=False).status_code == 404
        assert httpx2.post(f"{served[1]}/metrics", trust_env=False).status_code == 404

    def test_says_on_the_admin_port_too_that_it_lives_and_is_ready(
        self, served: tuple[Serving, str]
    ) -> None:
        for path, said in (("live", "live"), ("ready", "ready")):
            assert httpx2.get(f"{served[1]}/health/{path}", trust_env=False).text == said

    def test_names_no_server_and_logs_no_query(self, served: tuple[Serving, str]) -> None:
        broker, _ = served
        answer = broker.get("/messages?reference=Okafor-9990000018")
        assert "server" not in answer.headers
        ends = time.monotonic() + 10.0  # it is written after the answer is sent
        while not any(line["event"] == "request" for line in broker.logs):
            assert time.monotonic() < ends
            time.sleep(0.05)
        assert "Okafor" not in broker.err.read_text()

    def test_does_not_share_its_folder(self, served: tuple[Serving, str]) -> None:
        broker, _ = served
        ran = run(broker.place, "serve")
        assert (ran.returncode, ran.stdout) == (2, "")
        assert ran.stderr.startswith("Another broker serves from ")
        assert ran.stderr.count("\n") == 1
        assert broker.get("/health/ready").text == "ready"

    def test_goes_by_a_directory_loaded_beside_it_and_gives_tokens_at_once(
        self, served: tuple[Serving, str], tmp_path: Path
    ) -> None:
        broker, _ = served
        private, public = (str(tmp_path / name) for name in ("private.pem", "public.pem"))
        broker.place.run("partner", "new-key", str(tmp_path))
        who = ("pharmasys", "--name", "PharmaSys", "--organisation", PHARMACY)
        broker.place.run("partner", "add", *who, "--scope", "directory:read", "--key", public)
        asked = ("token", "pharmasys", "--key", private, "--url", broker.url)
        bearer = f"Bearer {broker.place.run(*asked).strip()}"
        path = "/organisations/G99001"
        assert broker.get(path, authorization=bearer).status_code == 404

        broker.place.run("directory", "load", str(DIRECTORY))
        found = broker.get(path, authorization=bearer)
        assert found.status_code == 200 and found.json()["name"] == "Riverside Medical Practice"

        broker.place.run("partner", "revoke", "pharmasys")
        assert broker.get(path, authorization=bearer).status_code == 401
        ran = run(broker.place, *asked)
        assert (ran.returncode, ran.stdout) == (1, "") and "No token" in ran.stderr

    def test_stays_up_when_a_client_sends_what_is_not_http(
        self, served: tuple[Serving, str]
    ) -> None:
        broker, _ = served
        host, port = broker.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=20) as client:
            client.sendall(b"Okafor\r\n\r\n")
            assert client.recv(100).startswith(b"HTTP/1.1 400")
        assert broker.get("/health/live").text == "live"
        assert "Okafor" not in broker.err.read_text()
        assert any(line["event"] == "library.uvicorn.error" for line in broker.logs)


class TestABrokerThatCannotServe:
    """One sentence, exit code 2, and nothing that looks like a stack."""

    def refused(self, place: Place, said: str, **variables: str) -> None:
        ran = run(place, "serve", **variables)
        assert (ran.returncode, ran.stdout) == (2, ""), ran.stderr
        assert said in ran.stderr and "Traceback" not in ran.stderr
        sentences = [line for line in ran.stderr.splitlines() if not line.startswith("{")]
        assert len(sentences) == 1, ran.stderr

    def test_has_a_variable_that_is_no_setting(self, place: Place) -> None:
        self.refused(place, "BROKER_PROT is not a setting", BROKER_PROT="1")

    @pytest.mark.slow
    def test_has_a_port_that_is_taken(self, place: Place) -> None:
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = str(other.getsockname()[1])
            said = f"127.0.0.1:{port} cannot be listened on: Address already in use"
            self.refused(place, f"{said}. Stop what uses it, or set BROKER_PORT", BROKER_PORT=port)
            self.refused(
                place,
                f"{said}. Stop what uses it, or set BROKER_ADMIN_PORT",
                BROKER_ADMIN_PORT=port,
            )
            self.refused(place, "cannot be listened on", BROKER_HOST="203.0.113.1")

    @pytest.mark.slow
    @pytest.mark.parametrize("host", ["0.0.0.0", "0", "::"])  # noqa: S104
    def test_listens_everywhere_and_could_tell_nobody_where(self, place: Place, host: str) -> None:
        said = "set BROKER_PUBLIC_URL to the URL that partners call"
        self.refused(place, said, BROKER_HOST=host)

    @pytest.mark.slow
    def test_has_lost_its_key_ring(self, sent: Place) -> None:
        sent.settings.ring_path.unlink()
        self.refused(sent, "There is no key ring at")

    @pytest.mark.slow
    def test_has_a_file_that_is_no_database(self, place: Place) -> None:
        (place.folder / "data" / "broker.db").write_bytes(b"nothing" * 1_000)
        self.refused(place, "The database cannot be opened")


# -- stopping --------------------------------------------------------------------------------------


@pytest.mark.slow
class TestABrokerThatIsToldToStop:
    @pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
    def test_ends_with_0_by_either_signal(self, place: Place, how: signal.Signals) -> None:
        with serving(place) as broker:
            broker.stop(how)
            assert [line["event"] for line in broker.logs][-2:] == ["stopping", "stopped"]
            assert "Traceback" not in broker.err.read_text()

    def test_ends_in_time_while_a_destination_hangs_and_sends_it_again_later(
        self, sent: Place, hanging: Hanging
    ) -> None:
        (message,) = sent.post(consultation("RP-1"))
        with serving(sent) as broker:
            hanging.wait()
            broker.stop()
            assert broker.logs[-1]["event"] == "stopped"
        (row,) = sent.read(lambda connection: deliveries.of_message(connection, message))
        assert row.state == "due"
        with serving(sent) as broker:
            hanging.wait(times=2)
            broker.stop()

    def test_ends_in_time_while_every_slot_hangs(self, sent: Place, hanging: Hanging) -> None:
        reading = {"method": "clinic", "systolic": 196, "diastolic": 124, "unit": "mm[Hg]"}
        crisis = {
            "blood_pressures": [reading],
            "clinical_summary": "196/124 twice, ten minutes apart. No symptoms.",
            "outcome": "gp-same-day",
            "urgency": "same-day",
            "plan": "Please see today.",
        }
        sent.post(
            *(
                consultation(f"RP-{number}", example="blood-pressure-check", **crisis)
                for number in range(2)
            )
        )
        few = {"BROKER_SLOTS": "2", "BROKER_SLOTS_PER_DESTINATION": "2"}
        with serving(sent, **few) as broker:
            hanging.wait(times=2)
            broker.stop()

    def test_ends_in_time_while_clients_are_slow_or_silent(self, place: Place) -> None:
        with serving(place) as broker:
            host, port = broker.url.removeprefix("http://").split(":")
            clients = [socket.create_connection((host, int(port))) for _ in range(3)]
            try:
                clients[0].sendall(b"POST /oauth2/token HTTP/1.1\r\nHost: x\r\n")
                clients[1].sendall(
                    b"POST /oauth2/token HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n"
                    b"Content-Type: application/x-www-form-urlencoded\r\n\r\ngrant"
                )
                time.sleep(0.5)
                broker.stop()
            finally:
                for client in clients:
                    client.close()
            assert "Traceback" not in broker.err.read_text()

    def test_tells_who_is_still_sending_to_send_it_again(self, place: Place) -> None:
        with serving(place) as broker:
            host, port = broker.url.removeprefix("http://").split(":")
            with socket.create_connection((host, int(port)), timeout=STOPS_WITHIN) as client:
                client.sendall(
                    b"POST /oauth2/token HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n"
                    b"Content-Type: application/x-www-form-urlencoded\r\n\r\ngrant"
                )
                time.sleep(0.5)
                broker.process.send_signal(signal.SIGTERM)
                said = b""
                while part := client.recv(4096):
                    said += part
            assert broker.process.wait(STOPS_WITHIN) == 0
        head, _, body = said.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503") and b"\r\nretry-after:" in head.lower()
        assert json.loads(body)["code"] == "unavailable"
        assert "CancelledError" not in broker.err.read_text()
        assert [one["status"] for one in broker.logs if one["event"] == "request"] == [503]

    def test_answers_what_it_had_begun(self, place: Place) -> None:
        with serving(place) as broker:
            host, port = broker.url.removeprefix("http://").split(":")
            with socket.create_connection((host, int(port)), timeout=20) as client:
                client.sendall(
                    b"POST /oauth2/token HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n"
                    b"Content-Type: application/x-www-form-urlencoded\r\n\r\ngrant"
                )
                time.sleep(0.5)
                broker.process.send_signal(signal.SIGTERM)
                time.sleep(0.5)
                client.sendall(b"=x&a=")
                assert client.recv(100).startswith(b"HTTP/1.1 400")
            assert broker.process.wait(STOPS_WITHIN) == 0


@pytest.mark.slow
def test_a_process_whose_patience_ran_out_ends_with_0() -> None:
    hang = (
        "import threading, broker.serving as serving\n"
        "with serving._patience(0.1) as last:\n"
        "    last.start()\n"
        "    threading.Event().wait(600)\n"
    )
    ran = subprocess.run([*COMMAND[:-1], hang], capture_output=True, timeout=60, check=False)
    assert ran.returncode == 0 and b"stopped.unfinished" in ran.stdout + ran.stderr


# -- orders from beside ----------------------------------------------------------------------------


@pytest.mark.slow
def test_a_delivery_retried_from_a_shell_is_attempted_at_once(
    sent: Place, hanging: Hanging
) -> None:
    (message,) = sent.post(consultation("RP-1"))

    def put_off(tx: Any) -> str:
        (row,) = deliveries.of_message(tx.connection, message)
        later = tx.now.replace(year=tx.now.year + 1, day=1)
        tx.execute(t.delivery.update().values(due_at=later, attempt=1))
        claims.put_attempt(tx, row.id, 1, tx.now, "retrying", "timed-out", None)
        return str(row.id)

    delivery = sent.write(put_off)
    with serving(sent) as broker:
        time.sleep(1)
        assert hanging.called == []
        sent.run("deliveries", "retry", delivery)
        hanging.wait(seconds=5)
        broker.stop()


@pytest.mark.slow
def test_a_lease_is_prolonged_before_it_ends_while_a_destination_hangs(
    sent: Place, hanging: Hanging
) -> None:
    (message,) = sent.post(consultation("RP-1"))

    def leased_until() -> datetime:
        (row,) = sent.read(lambda connection: deliveries.of_message(connection, message))
        until: datetime = row.lease_until
        return until

    with serving(sent) as broker:
        hanging.wait()
        ends = leased_until()
        while leased_until() == ends and datetime.now(UTC) < ends:
            time.sleep(0.1)
        assert datetime.now(UTC) < ends
        broker.stop()


@pytest.mark.slow
def test_what_is_fanned_out_again_from_a_shell_is_sent_at_once(
    sent: Place, hanging: Hanging, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compose(*_: object) -> bytes:
        raise ValueError("a fault of ours")

    with monkeypatch.context() as fault:
        fault.setattr(RecordUpdate, "compose", compose)
        sent.post(consultation("RP-1"))
    (item,) = sent.read(lambda connection: work.open_items(connection, None, 2))
    with serving(sent) as broker:
        sent.run("deliveries", "fan-out", item.event_id)
        hanging.wait(seconds=5)
        broker.stop()
