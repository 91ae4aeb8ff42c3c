"""The command `ttt`, also as `python -m ttt_core`."""

from __future__ import annotations

import os
import sys

_EXTRA = ("typer", "rich")
_HINT = "ttt needs typer and rich, which are not installed; run: pip install 'context-ttt[cli]'\n"


def main() -> int:
    """Run the command line and return its exit code."""
    try:
        from ttt_core.cli.app import run
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise
        sys.stderr.write(_HINT)
        return 2
    except KeyboardInterrupt:
        return 130
    # Before torch and transformers are imported: they read these once.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    return run()


if __name__ == "__main__":
    sys.exit(main())
