"""A learner's end of the wire, without a connection: versions, orders, and what is remembered of them."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from heartline.federated import LearnerStub, ModelPush, Order, StaleOrder, TrainResult
from tests.federated.helpers import AsyncAdder, Sleeper, model


def push(version: int, *values: float, run: str = "r", last: bool = False) -> ModelPush:
    return ModelPush(run=run, version=version, model=model(*values), last=last)


def order(id: str, version: int = 0, run: str = "r") -> Order:
    return Order(run=run, version=version, round=version + 1, config={}, id=id)


async def test_a_learner_does_not_go_back_to_an_older_model(nursery: trio.Nursery) -> None:
    learner = AsyncAdder()
    stub = LearnerStub(learner, None, nursery)
    for run, version in (("r", 3), ("r", 2), ("r", 4), ("other", 0), ("other", 1)):
        assert not stub.receive(push(version, run=run))
    assert learner.versions == [3, 4, 0, 1]
    assert stub.receive(push(0, run="other", last=True)), "an older trainer says all the same that it is over"
    assert learner.versions == [3, 4, 0, 1]


async def test_an_order_waits_for_its_version(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    stub = LearnerStub(AsyncAdder(), None, nursery)
    stub.receive(push(0, 0.0))

    @nursery.start_soon
    async def push_later() -> None:
        await trio.sleep(3)
        stub.receive(push(1, 5.0))

    result = await stub.train(order("a", version=1))
    assert trio.current_time() == pytest.approx(3, abs=0.01)
    assert result.model[0].tolist() == [6.0]


async def test_an_order_for_an_older_version_is_refused(nursery: trio.Nursery) -> None:
    learner = AsyncAdder()
    stub = LearnerStub(learner, None, nursery)
    stub.receive(push(7, 0.0))
    for method in (stub.train, stub.evaluate):
        with pytest.raises(StaleOrder, match="the learner has version 7, the order is for version 3"):
            await method(order("a", version=3))
    assert learner.trained == []


async def test_one_training_at_a_time(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    stub = LearnerStub(Sleeper(10), None, nursery)
    stub.receive(push(0, 0.0))
    async with trio.open_nursery() as callers:
        for name in "abc":
            callers.start_soon(stub.train, order(name))
    assert trio.current_time() == pytest.approx(30, abs=0.01)


async def test_a_repeated_order_gets_the_same_result(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    """While the work goes on, and afterwards; of one order only, the last."""
    learner = Sleeper(10)
    stub = LearnerStub(learner, None, nursery)
    stub.receive(push(0, 0.0))
    results: list[TrainResult] = []

    async def call(name: str) -> None:
        results.append(await stub.train(order(name)))

    async with trio.open_nursery() as callers:
        callers.start_soon(call, "a")
        await trio.sleep(4)
        callers.start_soon(call, "a")
    await call("a")
    assert results[0] is results[1] is results[2]
    assert len(learner.trained) == 1
    assert trio.current_time() == pytest.approx(10, abs=0.01)
    await call("b")
    await call("a")
    assert len(learner.trained) == 3, "what is remembered is one result"
    assert results[4] is not results[0]


class Panic(BaseException):
    """As extensions raise it."""


@pytest.mark.parametrize("kind", [RuntimeError, Panic])
async def test_a_repeated_order_gets_the_same_error(kind: type[BaseException], nursery: trio.Nursery) -> None:
    class Broken(AsyncAdder):
        async def train(self, model: Any, config: Any) -> Any:
            self.trained.append(0.0)
            raise kind("out of memory")

    learner = Broken()
    stub = LearnerStub(learner, None, nursery)
    stub.receive(push(0, 0.0))
    for _ in range(3):
        with pytest.raises(kind, match="out of memory"):
            await stub.train(order("a"))
    assert len(learner.trained) == 1


async def test_the_last_caller_calls_the_work_off(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    learner = Sleeper(10)
    stub = LearnerStub(learner, None, nursery)
    stub.receive(push(0, 0.0))
    with trio.CancelScope() as last:
        async with trio.open_nursery() as callers:
            callers.start_soon(stub.train, order("a"))
            with trio.move_on_after(1):
                await stub.train(order("a"))
            assert learner.cancelled == 0
            last.cancel()
    await wait_all_tasks_blocked()
    assert learner.cancelled == 1
    assert (await stub.train(order("a"))).model[0].tolist() == [1.0]
