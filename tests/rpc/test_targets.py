"""A serializer bound to classes: what it is told of the value it decodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import trio

import heartline
from heartline.errors import InvalidArguments
from heartline.wire import CborSerializer, Segment
from tests.rpc.helpers import QUIET
from tests.wire.helpers import known

CBOR = CborSerializer()


class Celsius:
    """What is a mere number without its class."""

    def __init__(self, degrees: float) -> None:
        self.degrees = degrees


class Bound:
    """CBOR, with the numbers of temperatures; it keeps what it was told."""

    name = "bound"
    content_id = 200
    is_text = False

    def __init__(self) -> None:
        self.targets: list[Any] = []

    def encode(self, value: Any, segments: list[Segment]) -> bytes:
        many = value if isinstance(value, (list, tuple)) else [value]
        numbers = [item.degrees if isinstance(item, Celsius) else item for item in many]
        return CBOR.encode(numbers if many is value else numbers[0], segments)

    def decode(self, data: bytes, segments: Sequence[Segment] = (), target: Any = Any) -> Any:
        self.targets.append(target)
        value = CBOR.decode(data, segments)
        if target is Celsius:
            return Celsius(value)
        if target == tuple[Celsius, int]:
            return [Celsius(value[0]), *value[1:]]
        return value


@heartline.service
class Heater:
    async def warm(self, start: Celsius, by: int) -> Celsius:
        return Celsius(start.degrees + by)

    async def mean(self, *values: int) -> float:
        return sum(values) / len(values)


async def test_a_serializer_is_told_the_annotations() -> None:
    bound = Bound()
    with known(bound):
        async with (
            heartline.open_server(
                "memory://", services=[Heater()], serializer="bound", heartbeat=QUIET
            ) as server,
            heartline.open_connection(server.urls[0], serializer="bound", heartbeat=QUIET) as client,
        ):
            heater = client.service(Heater)
            warm = await heater.warm(Celsius(20.0), 2)
            assert type(warm) is Celsius
            assert warm.degrees == 22
            assert bound.targets == [tuple[Celsius, int], Celsius]

            bound.targets.clear()
            assert await client.service("Heater").warm(Celsius(20.0), 2) == 22
            assert await heater.mean(1, 2) == 1.5
            assert bound.targets == [tuple[Celsius, int], Any, Any, float]

            bound.targets.clear()
            with pytest.raises(InvalidArguments, match="argument 'start': Expected `Celsius`, got `float`"):
                await heater.warm(20.0, by=2)  # type: ignore[arg-type]
            assert bound.targets == [Any]


async def test_channels_and_topics_have_no_annotation() -> None:
    bound = Bound()
    with known(bound):
        async with (
            heartline.open_server("memory://", serializer="bound", heartbeat=QUIET) as server,
            heartline.open_connection(server.urls[0], serializer="bound", heartbeat=QUIET) as client,
            client.subscribe("weather", on_gap="raise") as weather,
        ):
            bound.targets.clear()
            await server.publish("weather", Celsius(3.0))
            with trio.fail_after(10):
                assert (await anext(weather)).value == 3
            await client.send(Celsius(4.0))
            assert await server.connections[client.id].receive() == 4
            assert bound.targets == [Any, Any]
