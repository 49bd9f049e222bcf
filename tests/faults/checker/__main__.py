"""`python -m tests.faults.checker`."""

import sys

from . import main

sys.exit(main())
