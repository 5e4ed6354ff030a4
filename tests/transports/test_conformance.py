"""Every transport keeps Trio's rules and heartline's."""

from __future__ import annotations

import pytest

from heartline.testing import check_listener, check_stream

from .conftest import Case


@pytest.mark.slow
async def test_streams(case: Case) -> None:
    await check_stream(case.make_pair, case.make_clogged)


async def test_listeners(case: Case) -> None:
    await check_listener(case.listen, case.connect)
