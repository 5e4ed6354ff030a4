"""``python -m heartline`` says what is there."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import trio

import heartline
from heartline import __main__ as program
from heartline.transports import known_schemes
from tests.patience import PATIENCE

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
@pytest.mark.parametrize(
    ("argument", "word"), [(None, "transports"), ("--help", "usage: python -m heartline")]
)
def test_it_runs(argument: str | None, word: str) -> None:
    command = [sys.executable, "-m", "heartline", *([argument] if argument else [])]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert ran.returncode == 0, ran.stderr
    assert not ran.stderr
    assert word in ran.stdout


def test_it_says_what_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    program.main([])
    printed = capsys.readouterr().out
    for fact in (heartline.__version__, trio.__version__, "cbor, json, msgpack", *known_schemes()):
        assert fact in printed


def test_an_extra_that_is_not_installed_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(program, "EXTRAS", {"some": ("json",), "more": ("json", "no_such_module")})
    program.main([])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["[some]", "installed"] in lines
    assert ["[more]", "not", "installed:", "no", "no_such_module"] in lines


def test_a_wrong_argument_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        program.main(["serve"])
    assert caught.value.code == 2
    assert "unrecognized arguments: serve" in capsys.readouterr().err


def test_it_knows_the_extras_and_pages() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(program.EXTRAS) == set(project["optional-dependencies"])
    for page in program.PAGES.values():
        assert (ROOT / "docs" / page.replace(".html", ".md")).exists()
