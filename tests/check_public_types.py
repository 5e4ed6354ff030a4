"""Checks that users see types: public names fully typed, and code that uses them understood by type checkers.

Run it with the Python that heartline is installed for. The package pyright brings its program along; Node.js,
which runs it, comes from the system or with the extra ``pyright[nodejs]``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
from tests.public import PUBLIC_MODULES  # noqa: E402

USAGE = ROOT / "tests" / "typing_checks" / "usage.py"


def run(*command: str) -> subprocess.CompletedProcess[str]:
    """Run a module of this Python, which is also the one that pyright looks into."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    environment = os.environ | {"PATH": path, "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"}
    return subprocess.run(
        [sys.executable, "-m", *command],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment,
        check=False,
    )


def check_usage() -> list[str]:
    """What either type checker says about code that uses heartline."""
    problems = []
    for checker in ("mypy", "pyright"):
        result = run(checker, str(USAGE))
        if result.returncode:
            problems.append(f"{checker}:\n{result.stdout}{result.stderr}")
    return problems


def check_completeness() -> list[str]:
    """The public names, and what they refer to, whose type a type checker would have to guess."""
    result = run("pyright", "--verifytypes", "heartline", "--ignoreexternal", "--outputjson")
    try:
        report: dict[str, Any] = json.loads(result.stdout)
    except ValueError:
        return [f"pyright did not run:\n{result.stdout}{result.stderr}"]
    errors = [diagnostic["message"] for diagnostic in report["generalDiagnostics"]]
    completeness = report["typeCompleteness"]
    print(f"{completeness['completenessScore']:.1%} of the public types are known")
    seen = {module["name"] for module in completeness["modules"]}
    errors += [f"{name} was not looked at" for name in PUBLIC_MODULES if name not in seen]
    if completeness["completenessScore"] == 1 and not errors:
        return []
    return errors + [line for symbol in completeness["symbols"] for line in _causes(symbol)]


def _causes(symbol: dict[str, Any]) -> list[str]:
    """Why this symbol is not known; not that another one is not."""
    return [
        f"{symbol['name']}: {' '.join(diagnostic['message'].split())}"
        for diagnostic in symbol["diagnostics"]
        if "docstring" not in diagnostic["message"] and "partially unknown" not in diagnostic["message"]
    ]


def main() -> int:
    """Print every problem; the exit code says whether there is one."""
    problems = check_usage() + check_completeness()
    print(*problems, sep="\n")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
