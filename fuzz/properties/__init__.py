"""The properties: in these modules every function with ``@given`` is one, and its name says what holds."""
