"""Every transport keeps Trio's rules and heartline's."""

from __future__ import annotations

import pytest

from heartline.testing import _conformance, check_listener, check_stream
from tests.patience import PATIENCE

from .conftest import Case


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_conformance, "PATIENCE", PATIENCE)


@pytest.mark.slow
async def test_streams(case: Case) -> None:
    await check_stream(case.make_pair, case.make_clogged)


async def test_listeners(case: Case) -> None:
    await check_listener(case.listen, case.connect)
