"""Links through a proxy that spoils them by a plan: nothing is lost, nothing doubled, all is in order."""

from __future__ import annotations

import random

import pytest

import heartline

from ._process import start, until
from ._proxy import Fault, open_proxy, spoil
from ._records import check

pytestmark = pytest.mark.slow

FAULTS = 24


@pytest.mark.parametrize("seed", [1, 2])
async def test_nothing_is_lost_over_dozens_of_faults(seed: int) -> None:
    plan = spoil(random.Random(seed), FAULTS, longest=30_000, spared=2)
    async with (
        start("server", url="tcp://127.0.0.1:0", history=1_000_000) as server,
        open_proxy(await server.read("url"), plan, seed=seed) as proxy,
        start("client", url=proxy.url, name="ann", seed=seed) as ann,
        start("client", url=proxy.url, name="bob", seed=seed + 1) as bob,
    ):
        await until(lambda: proxy.count >= FAULTS + 2)
        results = []
        for client in (ann, bob):
            await client.finish()
            results.append(await client.read("result"))
        async with heartline.open_connection(proxy.target) as own:
            notes = await own.service("Ledger").notes()
        for result in results:
            check(result, notes)
            assert result["resumed"] > 0
        assert set(proxy.faults) == set(Fault)
