"""Command line: `python -m tests.benchmarks SCENARIO`."""

from __future__ import annotations

import argparse
import dataclasses
import json
import signal
import sys
from collections.abc import Callable

from tests.benchmarks import broadcast, durable, federated, hooks, idle, rpc, timers, upload
from tests.benchmarks._process import PeerFailed
from tests.benchmarks._report import QUIET, Report, busy_cores, say, table

SCENARIOS = {
    "rpc": rpc,
    "hooks": hooks,
    "upload": upload,
    "broadcast": broadcast,
    "durable": durable,
    "idle": idle,
    "timers": timers,
    "federated": federated,
}

EXAMPLES = """\
scenarios and their peers:
{scenarios}

examples:
  python -m tests.benchmarks rpc                  every peer, about a minute
  python -m tests.benchmarks all --quick          every scenario, rougher figures
  python -m tests.benchmarks rpc --peer heartline --peer grpcio
  python -m tests.benchmarks idle --json          one JSON object on stdout

Ratios are heartline's against the peer: above 1 is better for heartline. They need heartline among the
peers measured. Exit codes: 0 measured, 1 a peer could not be installed, started or measured, 2 usage,
130 interrupted.
"""


def _parser() -> argparse.ArgumentParser:
    listed = "\n".join(f"  {name:<10}{', '.join(module.PEERS)}" for name, module in SCENARIOS.items())
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks",
        description="Measure heartline against real peers in one run.",
        epilog=EXAMPLES.format(scenarios=listed),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("scenario", choices=[*SCENARIOS, "all"], help="what to measure")
    parser.add_argument(
        "--peer", action="append", metavar="NAME", help="measure only this peer; repeatable (default: all)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter repeats")
    return parser


def _plan(parser: argparse.ArgumentParser, scenario: str, wanted: list[str] | None) -> dict[str, list[str]]:
    """Return the peers to measure by scenario; a usage error ends the program with exit code 2."""
    chosen = SCENARIOS if scenario == "all" else {scenario: SCENARIOS[scenario]}
    known = list(dict.fromkeys(peer for module in chosen.values() for peer in module.PEERS))
    for peer in wanted or ():
        if peer not in known:
            parser.error(f"unknown peer {peer!r} for {scenario}: choose from {', '.join(known)}")
    plan = {
        name: [peer for peer in module.PEERS if not wanted or peer in wanted]
        for name, module in chosen.items()
    }
    for name in [name for name, peers in plan.items() if not peers]:
        say(f"{name} is left out: it measures none of {', '.join(wanted or ())}")
        del plan[name]
    return plan


def _measure(run: Callable[..., Report], peers: list[str], *, quick: bool) -> Report:
    """Run one scenario and look at what else the machine was doing."""
    before = busy_cores()
    report = run(peers, quick=quick)
    busy = max(before, busy_cores())
    if busy > QUIET:
        say(f"warning: other programs kept {busy} cores busy; do not quote these {report.scenario} ratios")
    return dataclasses.replace(report, busy_cores=busy)


def main(arguments: list[str] | None = None) -> int:
    """Run the scenarios and print their figures."""
    parser = _parser()
    options = parser.parse_args(arguments)
    plan = _plan(parser, options.scenario, options.peer)
    # SIGTERM unwinds like an exception, so that no child process is left.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    reports = []
    for name, peers in plan.items():
        try:
            reports.append(_measure(SCENARIOS[name].run, peers, quick=options.quick))
        except PeerFailed as error:
            say(f"error: {name}: {error}")
            return 1
        except KeyboardInterrupt:
            return 130
        if not options.json:
            print(table(reports[-1]), end="\n\n", flush=True)
    if options.json:
        objects = [report.as_json() for report in reports]
        print(json.dumps({"scenario": "all", "scenarios": objects} if len(plan) > 1 else objects[0]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
