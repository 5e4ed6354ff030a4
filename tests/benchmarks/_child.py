"""Entry point of a child process: `python -m tests.benchmarks._child MODULE FUNCTION JSON_ARGUMENTS`.

It also runs in other peers' virtual environments, so it imports nothing but the standard library.
"""

import importlib
import json
import os
import sys
import threading


def report(value: object) -> None:
    """Hand one JSON value to the parent."""
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def _end_with_parent() -> None:
    # The parent never writes: its end of the pipe closes when it ends, however it ends.
    os.read(0, 1)
    os._exit(1)


if __name__ == "__main__":
    module, function, arguments = sys.argv[1:]
    threading.Thread(target=_end_with_parent, daemon=True).start()
    getattr(importlib.import_module(module), function)(report, *json.loads(arguments))
