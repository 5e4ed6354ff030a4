"""A subscription as its user holds it: an async context manager and iterator.

An update counts as handled, and is confirmed, when the next one is asked for or the block is left without an
exception.
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar, cast, final, get_args

import trio

from heartline.errors import ConfigurationError, HistoryGap, LocalProtocolError, SerializationError
from heartline.link import Core, NoPublicConstructor
from heartline.push._following import Following
from heartline.push._part import Push
from heartline.push._types import (
    POLICIES,
    STARTS,
    Gap,
    OnGap,
    Position,
    Since,
    SlowPolicy,
    Update,
    check_choice,
    check_topic_name,
)
from heartline.push._wire import decode_update
from heartline.wire import convert
from heartline.wire.serializers.annotations import check_target

__all__ = ["Subscription", "subscribe"]

Item_co = TypeVar("Item_co", covariant=True)


@final
class Subscription(Generic[Item_co], metaclass=NoPublicConstructor):
    """A subscription to a topic, made by :meth:`Connection.subscribe`; enter it with ``async with``, iterate.

    Iterating gives each :class:`Update`, and a :class:`Gap` where updates were lost for good (or raises
    :class:`HistoryGap` there, with ``on_gap="raise"``; iterate on). It raises :class:`SerializationError` for
    an update that cannot be decoded or converted (iterate on), :class:`SlowConsumer` or :class:`PushError`
    when the publisher ended the subscription, and the connection's reason when that is closed.

    Entering waits for a link and for the peer's answer, and raises what calls raise. If that is
    cancelled, nothing is left at the peer. One task iterates at a time; cancelling that loses nothing: the
    next iteration gives what this one would have given.
    """

    def __init__(self, following: Following, target: Any, on_gap: OnGap, most: int) -> None:
        self._following = following
        self._target = target
        self._on_gap = on_gap
        self._most = most
        self._entered = False
        # What was given to the user, and is handled when the user comes back.
        self._taken: int | None = None

    @property
    def topic(self) -> str:
        """The topic's name."""
        return self._following.topic

    @property
    def position(self) -> Position:
        """The place after the last update that was handled: a later subscription can begin there."""
        position = self._following.position
        if position is None:
            before = "its snapshot is handled" if self._entered else "it is entered"
            raise LocalProtocolError(f"the subscription has no position before {before}")
        return position

    async def __aenter__(self) -> Subscription[Item_co]:
        if self._entered:
            raise LocalProtocolError("a subscription is entered once; make another with subscribe()")
        self._entered = True
        await self._following.attach()
        return self

    async def __aexit__(self, error: type[BaseException] | None, *_rest: object) -> None:
        if error is None:
            self._settle()
        self._following.leave(LocalProtocolError(f"the subscription to {self.topic!r} was left"))
        if error is None:
            await trio.lowlevel.checkpoint()

    def __aiter__(self) -> Subscription[Item_co]:
        return self

    async def __anext__(self) -> Item_co:
        """The next update or gap; what was given before counts as handled."""
        await trio.lowlevel.checkpoint()
        if not self._entered:
            raise LocalProtocolError("enter the subscription first: async with connection.subscribe(...)")
        self._settle()
        await self._following.wait()
        return cast(Item_co, self._take())

    def _settle(self) -> None:
        """What was given to the user is handled."""
        if self._taken is not None:
            self._following.settle(self._taken)
            self._taken = None

    def _take(self) -> Update[Any] | Gap:
        self._taken, what, is_state = self._following.take()
        if isinstance(what, Gap):
            if self._on_gap == "raise":
                raise HistoryGap(what.topic, first=what.first, last=what.last, anew=what.anew)
            return what
        assert self._taken is not None
        # A state is another type than the updates that make it up.
        target = Any if is_state else self._target
        try:
            value = decode_update(what.payload, what.flags, target, self._most)
            if target is not Any and type(value) is not target:
                value = convert(value, target)
        except SerializationError as error:
            where = f"update {self._taken} of topic {self.topic!r}"
            raise SerializationError(f"{where}: {error}") from None
        return Update(self.topic, self._following.epoch, self._taken, value, is_state)


def subscribe(
    core: Core, topic: str, *, since: Since, policy: SlowPolicy, on_gap: OnGap, target: Any
) -> Subscription[Any]:
    """A subscription to be entered; raises :class:`ConfigurationError`."""
    check_topic_name(topic)
    try:
        target = check_target(target)
    except TypeError as error:
        raise ConfigurationError(f"type={target!r:.80} cannot be checked: {error}") from None
    if isinstance(since, Position):
        # Here and not when it is made, which happens for each update.
        if not isinstance(since.epoch, str) or type(since.offset) is not int:
            raise ConfigurationError(
                f"since must have an epoch (str) and an offset (int), not {since!r:.120}"
            )
    elif since is not None:
        check_choice("since", since, STARTS, or_else=", a Position or None")
    check_choice("policy", policy, POLICIES)
    check_choice("on_gap", on_gap, get_args(OnGap))
    if since == "snapshot" and policy == "keep newest":
        raise ConfigurationError(
            "since='snapshot' does not go with 'keep newest': a state needs every update"
        )
    following = Following(core, core.part(Push), topic, since, policy)
    return Subscription._create(following, target, on_gap, core.setup.limits.items)
