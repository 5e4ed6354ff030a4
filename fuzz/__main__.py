"""``python -m fuzz TARGET --minutes N``."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence

from fuzz.runner import TARGETS, load, run
from fuzz.world.seeds import replay, run_seeds

EXAMPLES = """\
examples:
  python -m fuzz codec                    the frame codec, for one minute
  python -m fuzz values --minutes 60      serializers and raw segments, for an hour
  python -m fuzz session --minutes 10     two sessions and a link; bytes in any state; heartbeats
  python -m fuzz hostile --minutes 10     strangers that say anything after their handshake
  python -m fuzz federation --minutes 10  a whole federation under faults; a script that fails is shortened
  python -m fuzz world --minutes 10       the same with a fresh seed for each run, on all cores
  python -m fuzz replay 12345             one of those runs, with its log
"""


def _minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = math.nan
    if not 0 < minutes < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number of minutes above 0, not {text!r}")
    return minutes


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the arguments, run the target, give the status for the shell."""
    parser = argparse.ArgumentParser(
        prog="python -m fuzz",
        description="Run the properties of one target on generated input until the time is over.",
        epilog=EXAMPLES + "\nends with 0 if all held, 1 if one failed, 2 on wrong arguments, 130 on Ctrl-C",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    targets = [*sorted(TARGETS), "world", "replay"]
    parser.add_argument("target", choices=targets, help="what to run: %(choices)s", metavar="TARGET")
    parser.add_argument("seed", type=int, nargs="?", metavar="SEED", help="of the run to replay")
    parser.add_argument("--minutes", type=_minutes, default=1.0, metavar="N", help="default: %(default)s")
    arguments = parser.parse_args(argv)
    if (arguments.target == "replay") != (arguments.seed is not None):
        parser.error("replay takes the SEED of a world, and nothing else does")
    if arguments.target == "replay":
        return replay(arguments.seed)
    if arguments.target == "world":
        return run_seeds(seconds=arguments.minutes * 60)
    return run(load(arguments.target), seconds=arguments.minutes * 60)


if __name__ == "__main__":
    sys.exit(main())
