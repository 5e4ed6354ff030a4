"""A calculator over the network: a first service, and four calls to it.

With no arguments this program is server and client at once, joined by a TCP connection to itself:

    python examples/calculator.py

Or be them in two terminals:

    python examples/calculator.py serve tcp://127.0.0.1:4000
    python examples/calculator.py add tcp://127.0.0.1:4000 1 2
"""

import logging
import sys

import trio

import heartline


@heartline.service
class Calculator:
    """What the server offers: an ordinary class, whose public methods can be called from far away."""

    async def add(self, a: float, b: float) -> float:
        """Arguments are checked against the annotations before this runs."""
        return a + b

    async def divide(self, a: float, b: float) -> float:
        """May raise, and the caller will hear of it."""
        return a / b

    async def ponder(self, question: str) -> int:
        """Takes far too long."""
        print(f"  server: pondering {question!r} ...")
        try:
            await trio.sleep(3600)
        finally:
            print("  server: nobody waits for the answer any more, so I stop")
        return 42


async def use(calculator: Calculator) -> None:
    """Call the methods of a calculator, wherever it is; every one of them can fail in its own way."""
    print("1 + 2 =", await calculator.add(1, 2))

    try:
        await calculator.divide(1, 0)
    except heartline.RemoteError as error:
        print("1 / 0 raised over there:", error)

    try:
        await calculator.add("one", 2)  # type: ignore[arg-type]  # the server does not take it either
    except heartline.InvalidArguments as error:
        print("'one' + 2 was not even tried:", error)

    # Deadlines are Trio's own. This one travels with the call, and ends the work at the server too.
    with trio.move_on_after(0.2):
        await calculator.ponder("life, the universe and everything")
    print("no answer within 0.2 s, so life goes on")


async def demonstrate() -> None:
    """A server and its client. What the two blocks opened is closed when they end, whatever happens."""
    async with heartline.open_server("tcp://127.0.0.1:0", services=[Calculator()]) as server:
        print("serving at", server.urls[0])
        async with heartline.open_connection(server.urls[0]) as connection:
            # The proxy looks like a Calculator to you, your editor and your type checker.
            await use(connection.service(Calculator))


async def serve(url: str) -> None:
    """The server alone, until Ctrl-C."""
    async with heartline.open_server(url, services=[Calculator()]) as server:
        print("serving at", server.urls[0], flush=True)
        await trio.sleep_forever()


async def add(url: str, a: float, b: float) -> None:
    """The client alone: one call."""
    async with heartline.open_connection(url) as connection:
        print(await connection.service(Calculator).add(a, b))


def main() -> None:
    """Do what the command line says."""
    # A server logs the traceback of whatever a method raises; here it would only be in the way.
    logging.getLogger("heartline").setLevel(logging.ERROR)
    try:
        match sys.argv[1:]:
            case []:
                trio.run(demonstrate)
            case ["serve", url]:
                trio.run(serve, url)
            case ["add", url, a, b]:
                trio.run(add, url, float(a), float(b))
            case ["-h" | "--help"]:
                print(__doc__)
            case _:
                sys.exit(__doc__)
    except (heartline.HeartlineError, ValueError) as error:
        sys.exit(f"calculator: {error}")
    except KeyboardInterrupt:
        pass  # the usual way to stop a server


if __name__ == "__main__":
    main()
