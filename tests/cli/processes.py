"""The command as a process, and a terminal for it."""

from __future__ import annotations

import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

Start = Callable[..., "subprocess.Popen[bytes]"]

posix_only = pytest.mark.skipif(os.name == "nt", reason="needs signals and a pseudo-terminal")

MAIN = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # A background job inherits SIG_IGN.
from ttt_core.__main__ import main
sys.exit(main())
"""

TTT = (sys.executable, "-c", MAIN)

PATIENCE = 240
"""Seconds before a test gives up on a signal that does not come; none waits so long for luck."""


class Terminal:
    """A pseudo-terminal, and what a process has shown on it."""

    def __init__(self) -> None:
        self.ours, self.theirs = os.openpty()
        self.shown = b""

    def wait_for(self, pattern: bytes, process: subprocess.Popen[bytes]) -> None:
        """Read what `process` shows until it matches `pattern`."""
        deadline = time.monotonic() + PATIENCE
        while not re.search(pattern, self.shown):
            if not self._read(1):
                assert process.poll() is None, f"ended after {self.shown[-800:]!r}"
                assert time.monotonic() < deadline, f"no {pattern!r} in {self.shown[-800:]!r}"

    def rest(self) -> str:
        """Everything shown, after the process has ended."""
        while select.select([self.ours], [], [], 0)[0]:
            self._read(0)
        return self.shown.decode(errors="replace")

    def type(self, text: bytes) -> None:
        """Press keys."""
        os.write(self.ours, text)

    def _read(self, seconds: float) -> bool:
        if not select.select([self.ours], [], [], seconds)[0]:
            return False
        self.shown += os.read(self.ours, 65536)
        return True
