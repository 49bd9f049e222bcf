"""A second look at what failed in a whole run: alone, where nothing else loads the machine.

One of thousands of tests of servers and clocks may fail by chance once in many runs. Up to MOST of
them are run again, one after the other, and named for good in what the run prints: such a test, or
what it tests, has a fault that is to be mended. What a fault run found is never looked at again:
that it does not come every time is its nature.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
FAILED: Final = ROOT / ".pytest_cache" / "v" / "cache" / "lastfailed"
MOST: Final = 3
NEVER: Final = "tests/faults/"


def why_not(failed: Sequence[str]) -> str:
    """Return why these tests are not run again, or nothing."""
    if not failed:
        return "It is not known which tests failed."
    if len(failed) > MOST:
        return f"{len(failed)} tests failed: more than {MOST} are no chance."
    found = [test for test in failed if test.startswith(NEVER)]
    return f"A fault was found: {', '.join(found)}." if found else ""


def main() -> None:
    """Run again what failed in the run before; exit 0 where all of it passes now."""
    failed = sorted(json.loads(FAILED.read_text())) if FAILED.exists() else []
    reason = why_not(failed)
    if reason:
        sys.exit(f"=== Nothing is run again. {reason}")
    again = subprocess.run([sys.executable, "-m", "pytest", "-n0", *failed], cwd=ROOT, check=False)
    if again.returncode == 0:
        print("=== FAILED ONCE, AND PASSED ALONE. Each of these is to be mended:")
        print("\n".join(f"===   {test}" for test in failed), flush=True)
    sys.exit(again.returncode)


if __name__ == "__main__":
    main()
