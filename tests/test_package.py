"""What a user gets: the files of the wheel and of the source distribution, and the version."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
from pathlib import Path, PurePosixPath
from zipfile import ZipFile

import pytest

import heartline
from heartline.__main__ import DOCUMENTATION
from tests.patience import PATIENCE

ROOT = Path(__file__).parent.parent
SOURCES = ROOT / "src"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both, built by the backend itself, so that nothing is downloaded."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(folder)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert built.returncode == 0, built.stderr
    return folder


@pytest.fixture(scope="session")
def wheel(distributions: Path) -> set[str]:
    (path,) = distributions.glob("*.whl")
    with ZipFile(path) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="session")
def sdist(distributions: Path) -> set[str]:
    """Its files, without the folder that holds them all."""
    (path,) = distributions.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        return {name.partition("/")[2] for name in archive.getnames()}


def test_the_wheel_holds_the_package_and_nothing_else(wheel: set[str]) -> None:
    modules = {str(path.relative_to(SOURCES)) for path in SOURCES.rglob("*.py")}
    about = f"heartline-{heartline.__version__}.dist-info"
    described = {f"{about}/{name}" for name in ("METADATA", "WHEEL", "RECORD", "licenses/LICENSE")}
    assert wheel == modules | described | {"heartline/py.typed"}


def test_the_source_distribution_holds_what_it_takes_to_test_it(sdist: set[str]) -> None:
    """The sources, the tests and the documentation, but nothing that an editor or a run left behind."""
    places = {PurePosixPath(name).parts[0] for name in sdist}
    assert places == {
        ".gitignore",  # hatchling builds by it
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "LICENSE",
        "Makefile",
        "PKG-INFO",
        "README.md",
        "SECURITY.md",
        "docs",
        "examples",
        "fuzz",
        "pyproject.toml",
        "src",
        "tests",
    }
    kinds = {PurePosixPath(name).suffix for name in sdist if name.startswith(("src/", "docs/", "examples/"))}
    assert kinds <= {".py", ".typed", ".md", ".svg", ".css"}
    assert {f"src/{path.relative_to(SOURCES)}" for path in SOURCES.rglob("*.py")} < sdist


def test_the_metadata_has_the_version_of_the_package(distributions: Path) -> None:
    (path,) = distributions.glob("*.whl")
    with ZipFile(path) as archive:
        metadata = archive.read(f"heartline-{heartline.__version__}.dist-info/METADATA").decode()
    assert f"\nVersion: {heartline.__version__}\n" in metadata
    assert "\nRequires-Python: >=3.11\n" in metadata
    extras = {line.split(": ")[1] for line in metadata.splitlines() if line.startswith("Provides-Extra: ")}
    assert extras == {"federated", "demo"}, "the tools of development are dependency groups"
    urls = dict(re.findall(r"^Project-URL: (\w+), (\S+)$", metadata, re.MULTILINE))
    assert urls.keys() == {"Documentation", "Source", "Changelog"}
    assert urls["Documentation"] == DOCUMENTATION
