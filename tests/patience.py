"""The one limit of the suite for anything that takes real time."""

PATIENCE = 300.0
"""Seconds for what a process, a socket or a thread does.

A hang shall fail with a word about what it waited for, before pytest's own limit ends the run. No test takes
a tenth of it on a quiet machine, so that a slow or busy one passes too.
"""
