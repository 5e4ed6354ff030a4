"""What imports do not show: who reaches through an object into what is not its own.

The linter of imports holds the layers apart by name. These tests read the sources for the rest: attributes
that belong to the engine below, and private ones of another class.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

SOURCES = Path(__file__).parent.parent / "src" / "heartline"

ABOVE_LINK = ("connection", "endpoints", "federated", "push", "rpc", "server")

ENGINE = {"outbox", "session"}
"""Of a link, which has verbs for those who send."""

MAY_REACH = {
    # It has the session of a handshake in its hands, and joins it with the one of a link that is to go on.
    "server/_acceptor.py": {"session"},
}

OF_FACTORIES = {"_create"}
"""The way past ``NoPublicConstructor``, which has it for that."""

OF_OTHERS = {
    # A simulated run is the same each time because Trio's order of tasks is: its switch for that is private.
    "testing/_deterministic.py": {"_ALLOW_DETERMINISTIC_SCHEDULING"},
    # The only name of the type of an argument.
    "transports/tls.py": {"_SSLMethod"},
    # An enum's table of values: before Python 3.12 the enum itself cannot be asked for a plain number.
    "wire/frames.py": {"_value2member_map_"},
}


def test_nobody_above_the_link_reaches_into_its_session() -> None:
    reached = {}
    for package in ABOVE_LINK:
        for module, tree in modules(package):
            names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)} & ENGINE
            if names:
                reached[module] = names
    assert reached == MAY_REACH


def test_what_is_private_is_used_where_it_is_defined() -> None:
    used = {}
    for module, tree in modules("."):
        names = foreign(tree) - defined(tree) - OF_FACTORIES
        if names:
            used[module] = names
    assert used == OF_OTHERS


def modules(package: str) -> Iterator[tuple[str, ast.Module]]:
    """The modules of a package, with the packages inside it."""
    paths = sorted((SOURCES / package).rglob("*.py"))
    assert paths, f"there is no {package}"
    for path in paths:
        yield str(path.relative_to(SOURCES)), ast.parse(path.read_text())


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def is_own(node: ast.Attribute) -> bool:
    return isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")


def foreign(tree: ast.Module) -> set[str]:
    """Private attributes of anything but the object whose method it is."""
    attributes = (node for node in ast.walk(tree) if isinstance(node, ast.Attribute))
    return {node.attr for node in attributes if is_private(node.attr) and not is_own(node)}


def defined(tree: ast.Module) -> set[str]:
    """Attributes that the classes of a module have: what they set, and what they define."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and is_own(node):
            names.add(node.attr)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
    return names
