"""Limits: every field is checked, and the error names it."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from heartline.errors import ConfigurationError
from heartline.wire import Limits
from heartline.wire.limits import LEAST_ITEMS

MIB = 1024 * 1024
FIELDS = [field.name for field in dataclasses.fields(Limits)]
SECONDS = ("handshake_timeout", "resume_window")
WHOLE = [name for name in FIELDS if name not in SECONDS]

SMALL = {
    "frame_size": 5000,
    "message_size": 5000,
    "channels": 2,
    "window": 100,
    "calls": 1,
    "replay_buffer": 100,
    "write_buffer": 100,
}


@pytest.mark.parametrize("name", [name for name in FIELDS if name != "resume_window"])
def test_nothing_is_no_bound(name: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"Limits.{name} must be a (whole )?number above 0, not 0"):
        Limits(**{name: 0})


@pytest.mark.parametrize("value", [1.5, True])
def test_a_count_of_bytes_is_a_whole_number(value: Any) -> None:
    with pytest.raises(
        ConfigurationError, match=rf"Limits.window must be a whole number above 0, not {value}"
    ):
        Limits(window=value)


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("value", [-1, None, "8", True, math.nan, -math.inf, [1]])
def test_a_bad_value_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Limits(**{name: value})
    assert f"Limits.{name} " in str(caught.value)
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("value", [1.5, 1e6, math.inf])
def test_counts_are_whole_numbers(name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"Limits.{name} "):
        Limits(**{name: value})


@pytest.mark.parametrize("name", sorted({*WHOLE} - {"frame_size", "message_size", "items", "memory"}))
def test_one_is_enough(name: str) -> None:
    assert getattr(Limits(**{name: 1}), name) == 1


@pytest.mark.parametrize("name", SECONDS)
@pytest.mark.parametrize("value", [1, 0.001, math.inf])
def test_seconds_may_be_a_fraction_or_without_end(name: str, value: Any) -> None:
    assert getattr(Limits(**{name: value}), name) == value


def test_a_session_may_end_with_its_link() -> None:
    assert Limits(resume_window=0).resume_window == 0


def test_the_first_byte_of_a_frame_stays_zero() -> None:
    assert Limits(frame_size=16 * MIB - 1).frame_size == 0xFF_FFFF
    with pytest.raises(ConfigurationError, match=r"Limits.frame_size must be below 16 MiB, not 16777216"):
        Limits(frame_size=16 * MIB)


def test_a_value_holds_as_many_items_as_a_small_message_can_have() -> None:
    assert Limits(items=LEAST_ITEMS).items == LEAST_ITEMS
    with pytest.raises(ConfigurationError, match=r"Limits\.items must be at least 16384, not 16383"):
        Limits(items=LEAST_ITEMS - 1)


def test_a_message_holds_at_least_one_frame() -> None:
    assert Limits(frame_size=5, message_size=5).message_size == 5
    with pytest.raises(ConfigurationError, match=r"message_size \(4\) must be at least frame_size \(5\)"):
        Limits(frame_size=5, message_size=4)


def test_each_share_of_the_memory_holds_a_message() -> None:
    small = Limits(memory=25_000, **SMALL)
    assert (small.share, small.message_size) == (5000, 5000)
    with pytest.raises(ConfigurationError, match=r"memory \(24999\) .* 5 times message_size \(5000\)"):
        Limits(memory=24_999, **SMALL)


@pytest.mark.parametrize("name", ["channels", "window", "calls", "replay_buffer", "write_buffer"])
def test_one_share_of_the_memory_holds_what_has_a_setting(name: str) -> None:
    settings = {**SMALL, "calls": 4, "replay_buffer": 999, "write_buffer": 1}
    settled = 3 * 100 + 4 * 4096 + 1000
    assert Limits(memory=5 * settled, **settings).share == settled
    with pytest.raises(ConfigurationError, match=rf"at least 5 times the \d+ bytes of .*{name}"):
        Limits(memory=5 * settled, **{**settings, name: settings[name] + 1})


def test_limits_are_made_once_and_by_name() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Limits().frame_size = 1  # type: ignore[misc]
    with pytest.raises(TypeError):
        Limits(1)  # type: ignore[call-arg]
    assert Limits() == Limits()
