"""An example that needs the extra "demo" says so when it is not there."""

from __future__ import annotations

import sys

import pytest

from tests.examples.programs import EXAMPLES, run


@pytest.mark.parametrize("program", ["chaos.py", "federated_digits.py"])
@pytest.mark.parametrize("module", ["rich", "numpy", "sklearn", "matplotlib"])
def test_without_its_packages_an_example_says_what_to_install(program: str, module: str) -> None:
    path = f"import sys, runpy; sys.modules[{module!r}] = None; sys.path.insert(0, {str(EXAMPLES)!r})"
    code = f"{path}; runpy.run_path({str(EXAMPLES / program)!r}, run_name='__main__')"
    result = run([sys.executable, "-c", code])
    assert result.returncode == 1
    [line] = result.stderr.splitlines()
    assert line.endswith("pip install -e '.[demo]'")
