"""Benchmarks against real peers in one run: `python -m tests.benchmarks --help`.

A scenario module says what is measured, a peer module how one library does it, and `_process` runs
each side in a process of its own. Peers take turns within every repeat, so that a machine that slows down
half-way slows all of them, and only ratios of one run are worth quoting.
"""
