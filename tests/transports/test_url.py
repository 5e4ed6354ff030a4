"""URLs: either understood exactly, or refused with the field, the value and the way out."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from hypothesis import example, given
from hypothesis import strategies as st
from trio.testing import MockClock

from heartline.errors import ConfigurationError
from heartline.transports._url import NetworkURL, parse_memory, parse_network
from heartline.transports.unix import MAX_PATH, parse_path
from tests.opening import open_listeners, open_stream

BAD_ANYWHERE = [
    ("", "no scheme"),
    ("tcp", "no scheme"),
    ("127.0.0.1:4000", "no scheme"),
    ("tcp:127.0.0.1:4000", "no scheme"),
    ("://127.0.0.1:4000", "no scheme"),
    ("t cp://127.0.0.1:4000", "no scheme"),
    ("quux://127.0.0.1:4000", "known are memory, tcp, tls, unix, ws, wss"),
    ("tcp://", "no host"),
    ("tcp://:4000", "no host"),
    ("ws:///path", "no host"),
    ("tcp://127.0.0.1", "no port"),
    ("tcp://127.0.0.1:", "no port"),
    ("tls://[::1]", "no port"),
    ("ws://127.0.0.1:", "no port"),
    ("tcp://127.0.0.1:port", "bad port, 'port'"),
    ("tcp://127.0.0.1:-1", "bad port, '-1'"),
    ("tcp://127.0.0.1:65536", "bad port, '65536'"),
    ("tcp://127.0.0.1:١٢", "bad port"),
    ("tcp://127.0.0.1: 80", "bad port"),
    ("tcp://127.0.0.1:80 ", "bad port"),
    ("tcp://127.0.0.1:80\n", "bad port"),
    ("tcp://::1:80", "brackets"),
    ("tcp://[::1:80", "bad IPv6"),
    ("tcp://[::1]80", "bad IPv6"),
    ("tcp://[127.0.0.1]:80", "bad IPv6"),
    ("tcp://[]:80", "bad IPv6"),
    ("tcp://user@127.0.0.1:80", "user information"),
    ("ws://user:secret@127.0.0.1:80/", "user information"),
    ("tcp://127.0.0.1:80/", "has a path, '/'"),
    ("tls://127.0.0.1:80/a/b", "has a path, '/a/b'"),
    ("tcp://a b:80", "bad host name"),
    ("tcp://a..b:80", "bad host name"),
    ("tcp://-a:80", "bad host name"),
    ("tcp://bücher.example:80", "xn--"),
    (f"tcp://{'a' * 64}:80", "bad host name"),
    (f"tcp://{'a.' * 126}aa:80", "bad host name"),
    ("ws://127.0.0.1:80/a b", "bad path"),
    ("ws://127.0.0.1:80/a#b", "bad path"),
    ("ws://127.0.0.1:80/ü", "bad path"),
    ("ws://127.0.0.1:80?a", "has a query without a path; only clients of ws://"),
    ("ws://127.0.0.1:0?a", "has a query without a path"),
    ("tcp://127.0.0.1?a", "has a query without a path"),
    ("unix://", "absolute path"),
    ("unix://relative", "absolute path"),
    ("unix:///", "does not name a file"),
    ("unix:///dir/", "does not name a file"),
    ("unix:///a\0b", "does not name a file"),
    ("unix:///\ud800", "no file name"),
    ("unix:///" + "a" * MAX_PATH, f"allows {MAX_PATH}"),
    ("unix:///" + "é" * (MAX_PATH // 2 + 1), f"allows {MAX_PATH}"),
    ("memory://a/b", "needs a name"),
    ("memory://a:1", "needs a name"),
    ("memory://a\n", "needs a name"),
]
BAD_TO_CONNECT = [("tcp://127.0.0.1:0", "bad port, '0'; it is 1 to 65535"), ("memory://", "needs a name")]
BAD_TO_LISTEN = [("ws://127.0.0.1:0/a?b", "has a query")]


@pytest.mark.parametrize(("url", "words"), BAD_ANYWHERE + BAD_TO_CONNECT)
async def test_bad_urls_to_connect(url: str, words: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        await open_stream(url)
    assert words in str(raised.value)
    assert repr(url)[1:-1][:40] in str(raised.value)


@pytest.mark.parametrize(("url", "words"), BAD_ANYWHERE + BAD_TO_LISTEN)
async def test_bad_urls_to_listen(url: str, words: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        await open_listeners(url)
    assert words in str(raised.value)


async def test_a_url_is_a_str() -> None:
    with pytest.raises(ConfigurationError, match="is not a str"):
        await open_stream(b"tcp://127.0.0.1:4000")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("url", "parsed"),
    [
        ("tcp://127.0.0.1:80", NetworkURL("tcp", "127.0.0.1", 80)),
        ("TCP://Host_1.example.:65535", NetworkURL("tcp", "Host_1.example.", 65535)),
        ("tcp://[::1]:80", NetworkURL("tcp", "::1", 80)),
        ("tcp://[fe80::1%eth0]:80", NetworkURL("tcp", "fe80::1%eth0", 80)),
        (f"tcp://{'a' * 63}:1", NetworkURL("tcp", "a" * 63, 1)),
    ],
)
def test_good_urls(url: str, parsed: NetworkURL) -> None:
    assert parse_network(url, listening=False) == parsed


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("ws://a", "ws://a:80/"),
        ("ws://[::1]/x/y?z=1", "ws://[::1]:80/x/y?z=1"),
        ("ws://a:81/%20", "ws://a:81/%20"),
    ],
)
def test_websocket_urls_have_defaults(url: str, text: str) -> None:
    assert str(parse_network(url, listening=False, default_port=80, has_path=True)) == text


def test_the_longest_unix_path_is_allowed(socket_dir: Path) -> None:
    longest = f"{socket_dir}/".ljust(MAX_PATH, "x")
    assert parse_path(f"unix://{longest}") == longest


urls = st.one_of(
    st.text(),
    st.builds("{}://{}".format, st.sampled_from(["tcp", "tls", "ws", "unix", "memory", "nope"]), st.text()),
    st.builds(
        "{}://{}:{}{}".format,
        st.sampled_from(["tcp", "ws"]),
        st.one_of(st.text(max_size=5), st.sampled_from(["127.0.0.1", "[::1]", "a.b", "[::1%x]", "0"])),
        st.one_of(st.integers(-1, 70_000).map(str), st.text(max_size=5)),
        st.one_of(st.just(""), st.text(max_size=10).map("/{}".format)),
    ),
)


@given(urls, st.booleans(), st.booleans())
@example("ws://0:1/", False, True)
def test_parsing_refuses_or_keeps_all(url: str, listening: bool, has_path: bool) -> None:
    """What was understood can be written down and understood again; all else is a ConfigurationError."""
    try:
        parsed = parse_network(url, listening=listening, has_path=has_path)
    except ConfigurationError:
        return
    assert parse_network(str(parsed), listening=listening, has_path=has_path) == parsed
    assert 0 <= parsed.port <= 65535
    assert parsed.host


@given(urls, st.booleans())
def test_memory_and_unix_parsing_only_refuses(url: str, listening: bool) -> None:
    for parse in (parse_path, lambda url: parse_memory(url, listening=listening)):
        try:
            parsed = parse(url)
        except ConfigurationError:
            continue
        assert url.endswith(parsed)


@given(st.text())
def test_an_unknown_scheme_is_refused_without_io(rest: str) -> None:
    async def main() -> None:
        for opening in (open_stream, open_listeners):
            with pytest.raises(ConfigurationError):
                await opening(f"nope://{rest}")

    trio.run(main, clock=MockClock(autojump_threshold=0))
