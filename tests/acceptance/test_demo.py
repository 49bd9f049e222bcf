"""The demo: it tells its whole story and ends with 0, and it finds out what is not true."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox import bars_sentinels
from sandbox.process import command, environment
from sandbox.sentinels import TABLE
from sandbox.stage import ACTS

SEEN = "✓"
NOT_SEEN = "✗ NOT SEEN"
START = "import sys; from broker.cli import main; sys.exit(main(['demo']))"


def run(
    arguments: list[str], folder: Path, seconds: float = 300
) -> subprocess.CompletedProcess[str]:
    """Run something in an empty folder, with nothing set that a newcomer would not have set."""
    return subprocess.run(
        arguments,
        cwd=folder,
        env=environment({}),
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=seconds,
        check=False,
    )


@pytest.mark.slow
def test_the_whole_story_is_seen(tmp_path: Path) -> None:
    done = run(command("demo"), tmp_path)
    said = done.stdout
    assert done.returncode == 0, said + done.stderr
    assert not done.stderr
    assert NOT_SEEN not in said
    parts = re.split(r"^(\S.*)$", said, flags=re.MULTILINE)
    told = dict(zip(parts[1::2], parts[2::2], strict=False))
    for title, _ in ACTS:
        assert SEEN in told[title], f"{title}: {told[title]}"
        assert re.search(rf"{re.escape(title)}\s+│\s+\d+\.\d", said), f"{title} has no time"
    assert list(tmp_path.iterdir()) == []


SABOTAGE = {
    "a practice confirms what it did not get": """
        from sandbox import acts, sentinels, stage
        sentinels.DEFAULT = sentinels.TABLE["XXTEST-LIE-DIGEST"]
        acts._PATIENCE = 3.0
        stage.ACTS = [act for act in stage.ACTS if act[0].startswith("A routine")]
        """,
    "a practice forgets what it confirmed": """
        from sandbox import partner, stage, trouble
        write = partner.Partner.store
        def store(self, arrival):
            return arrival.reference.endswith("7") or write(self, arrival)
        partner.Partner.store = store
        trouble._PATIENCE = 20.0
        stage.ACTS = [act for act in stage.ACTS if "killed" in act[0]]
        """,
    "nobody is told of what became of a referral": """
        from sandbox import acts, partner, stage
        async def decide(self, arrival, behaviour): pass
        partner.Partner.decide = decide
        acts._PATIENCE = 3.0
        stage.ACTS = [act for act in stage.ACTS if "completed" in act[0]]
        """,
    "an audit entry is altered": """
        from sandbox import stage, trouble, world
        async def altered(world, story):
            import sqlite3
            await world.pharmacy.submit(world.pharmacy.consultation())
            with sqlite3.connect(world.folder / "data" / "broker.db") as found:
                found.execute("UPDATE audit SET organisation = 'G99009' WHERE seq = 3")
            found.close()
            await trouble.audited(world, story)
        stage.ACTS = [("The audit chain is verified", altered)]
        """,
}


@pytest.mark.slow
@pytest.mark.parametrize("what", SABOTAGE)
def test_what_is_not_true_is_told_in_red_and_ends_with_1(tmp_path: Path, what: str) -> None:
    lines = [line.removeprefix(" " * 8) for line in SABOTAGE[what].strip("\n").splitlines()]
    done = run([sys.executable, "-P", "-c", "\n".join([*lines, START])], tmp_path)
    assert NOT_SEEN in done.stdout, done.stdout + done.stderr
    assert done.returncode == 1


def test_every_sentinel_value_is_printed(tmp_path: Path) -> None:
    done = run(command("demo", "--sentinels"), tmp_path)
    assert done.returncode == 0, done.stderr
    assert set(TABLE) <= set(re.findall(r"XXTEST-[A-Z-]+", done.stdout))
    assert set(bars_sentinels.TABLE) <= set(re.findall(r"[0-9]{10}", done.stdout))


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """A demo that serves, and what it printed until it was ready."""
    process = subprocess.Popen(
        command("demo", "--serve"),
        cwd=tmp_path,
        env=environment({}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
    )
    lines: list[str] = []
    assert process.stdout is not None
    for line in process.stdout:
        lines.append(line.rstrip("\n"))
        if line.startswith("Stop everything"):
            break
    yield process, lines
    process.terminate()  # not killed: the broker that it started must end with it
    process.stdout.close()
    process.wait(30)


@pytest.mark.slow
def test_served_it_can_be_called_as_it_says(
    served: tuple[subprocess.Popen[str], list[str]], tmp_path: Path
) -> None:
    process, lines = served
    exports = [one for one in lines if one.startswith("export ")]
    # A newcomer's shell: the command of the clone is not on its PATH.
    here = str(Path(sys.executable).parent)
    path = os.pathsep.join(one for one in os.environ["PATH"].split(os.pathsep) if one != here)

    def shell(*commands: str) -> str:
        done = subprocess.run(
            ["bash", "-euc", "\n".join([*exports, *commands])],
            cwd=tmp_path,
            env={**environment({}), "PATH": path},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        return done.stdout

    def line(beginning: str, *parts: str) -> str:
        return next(
            one for one in lines if one.startswith(beginning) and all(part in one for part in parts)
        )

    pharmacy = line("TOKEN=", "FPH01")
    posted = json.loads(shell(pharmacy, line("curl", "POST", "consultation.json")))
    message = posted["messages"][0]["id"]
    shown = shell(pharmacy, f"MESSAGE={message}", line("curl", "GET", "/messages/$MESSAGE"))
    assert shown.startswith("HTTP/1.1 200")
    withdrawn = shell(pharmacy, f"MESSAGE={message}", line("curl", "/withdrawal"))
    assert json.loads(withdrawn)["withdraws"] == message
    referred = json.loads(shell(line("TOKEN=", "TPX01"), line("curl", "POST", "referral.json")))
    assert referred["messages"][0]["referral"].startswith("/referrals/")
    inbox = json.loads(shell(line("TOKEN=", "G99001"), line("curl", "/inbox?state=all")))
    assert message in {one["message"] for one in inbox["deliveries"]}
    spa = json.loads(shell(line("TOKEN=", "RXX01"), line("curl", "/inbox?service=")))
    assert "deliveries" in spa
    system = lines[lines.index(line("# A practice's BaRS system")) + 1 :]
    for target, status in ((bars_sentinels.TAKES, 200), ("2000042201", 422)):
        told = [f"TARGET={target}" if one.startswith("TARGET=") else one for one in system[:5]]
        assert shell(*told).startswith(f"HTTP/1.1 {status}")
    assert shell("referral-broker overdue")
    assert shell("referral-broker check --json")

    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
