"""Properties that must hold for any input, for as long as one cares to run them.

The test suite runs each with a few examples; ``python -m fuzz TARGET --minutes N`` runs them until the time
is over. What fails is kept in ``fuzz/corpus`` and tried again by both, first.
"""
