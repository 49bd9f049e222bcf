"""README.md and docs/bars.md say how a partner connects; what they say is run here as it stands."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from joserfc.jwk import ECKey

from broker import settings
from broker.assertion import ALGORITHMS, ASSERTION_TYPE, read_jwt, signed_assertion
from sandbox.process import free_port

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BARS = (ROOT / "docs" / "bars.md").read_text(encoding="utf-8")
TIMEOUT = 180
# In CI what is missing is a failure, not a skip.
REQUIRED = os.environ.get("BROKER_TEST_REQUIRE_SERVICES") == "1"
needs_curl = pytest.mark.skipif(shutil.which("curl") is None and not REQUIRED, reason="needs curl")

# What a reader's shell would do without being told: stop at the first refusal, and end what was
# started when the terminal is closed.
PREAMBLE = """
set -euo pipefail
trap 'kill $(jobs -p) 2>/dev/null; wait' EXIT
curl() { command curl --fail-with-body "$@"; }
"""


def blocks(page: str) -> list[str]:
    return re.findall(r"^```bash\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


def run(commands: list[str], folder: Path) -> str:
    """Run what a page shows, and return what it printed."""
    port = free_port()
    script = PREAMBLE + "\n".join(commands)
    script = script.replace("http://127.0.0.1:8080", f"http://127.0.0.1:{port}")
    script = script.replace('"$PWD/.venv/bin:$PATH"', f'"{Path(sys.executable).parent}:$PATH"')
    (folder / "sandbox").symlink_to(ROOT / "sandbox")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("BROKER_")}
    environment |= {"BROKER_PORT": str(port), "BROKER_ADMIN_PORT": "0"}
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@pytest.mark.slow
@needs_curl
def test_what_a_bars_sender_is_shown_works_as_it_stands(tmp_path: Path) -> None:
    said = run([blocks(README)[0], blocks(BARS)[0]], tmp_path)
    assert said.count('"response":{"identifier":') == 2
    assert "Held by the broker, not yet with the service." in said


@pytest.mark.slow
@needs_curl
def test_every_command_that_the_readme_shows_works_as_it_stands(tmp_path: Path) -> None:
    said = run(blocks(README), tmp_path)
    assert "Riverside Medical Practice" in said
    assert '"outcome":"filed"' in said
    assert '"state":"accepted"' in said
    assert '"kind":"notice"' in said
    assert '"resourceType":"Task"' in said.splitlines()[-1]


def test_the_readme_names_all_that_an_assertion_must_carry() -> None:
    key = ECKey.generate_key("P-384").as_pem(private=True)
    header, claims = read_jwt(signed_assertion(key, "c", "u", "FPH01", "ES384", "k"))
    for name in (header.keys() | claims.keys()) - {"typ", "iat"}:  # these may be left out
        assert f"`{name}`" in README
    for value in (ASSERTION_TYPE, *ALGORITHMS):
        assert value in README


def test_the_readme_names_every_setting_with_its_default_and_meaning() -> None:
    rows = [
        f"| `{name}` | {f'`{default}`' if default else ''} | {meaning} |"
        for name, default, meaning in settings.table()
    ]
    shown = [line for line in README.splitlines() if line.startswith("| `BROKER_")]
    assert rows == shown
