"""Sphinx: everything offline, warnings are errors, and no reference may lead nowhere."""

from __future__ import annotations

import builtins
import enum
import re
import sys
from pathlib import Path
from typing import Any

from sphinx import addnodes

import heartline

sys.path.insert(0, str(Path(__file__).parent.parent))
from tests.public import is_made_by_heartline, public_names

project = "heartline"
author = "the heartline authors"
project_copyright = "the heartline authors"
version = release = heartline.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "docs._shown_by"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"heartline {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
maximum_signature_line_length = 90
python_use_unqualified_type_names = True

nitpicky = True
# Other projects' names: there is no network while the documentation is built, so they stay plain text.
nitpick_ignore_regex = [
    ("py:.*", r"(trio|ssl|random|struct|collections|contextlib|typing|numpy|np|os|enum|abc|pathlib)\..*"),
    # The standard library's, as they stand in annotations.
    ("py:.*", r"(Any|Awaitable|Callable|Iterator|AsyncIterator|Iterable|Sequence|Mapping|Protocol|Path)"),
    # Aliases of unions, spelt out where they are explained.
    ("py:class", r"Since|WaitFor|SlowPolicy|OnGap|ConfigSource"),
    # Type variables.
    ("py:class", r"(heartline\..*\.)?([A-Z]|Item)(_co)?"),
]

# What becomes of the alias ``heartline.federated.Model`` in signatures.
MODEL = re.compile(
    r"list\[~?numpy\.ndarray\[tuple\[~?typing\.Any, \.\.\.\], ~?numpy\.dtype\[~?typing\.Any\]\]\]"
)


def _public_names() -> dict[str, str]:
    """Where each public name is documented, by how else it may be written.

    Annotations name the private module in which a class is defined, and docstrings leave ``heartline`` out.
    """
    names: dict[str, str] = {}
    # The shortest last: what ``heartline`` and another module export is documented as ``heartline``'s.
    for public, thing in sorted(public_names().items(), key=lambda item: item[0].count("."), reverse=True):
        module, _, name = public.rpartition(".")
        names[name] = public
        names[f"{getattr(thing, '__module__', module)}.{name}"] = public
    return names


def _collect_public_names(_app: Any, env: Any, _docnames: list[str]) -> None:
    env.heartline_names = _public_names()


def _resolve_public_name(app: Any, env: Any, node: Any, contnode: Any) -> Any:
    target = node.get("reftarget", "")
    owner, _, member = target.rpartition(".")
    public = env.heartline_names.get(target)
    if public is None and owner in env.heartline_names:
        public = f"{env.heartline_names[owner]}.{member}"
    if public is None or public == target:
        return None
    domain = env.get_domain("py")
    return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", public, node, contnode)


def _tidy_signature(
    _app: Any, what: str, name: str, thing: Any, _options: Any, signature: str | None, returns: str | None
) -> tuple[str, str | None] | None:
    if signature is None:
        return None
    is_enum = isinstance(thing, type) and issubclass(thing, enum.Enum)
    is_protocol = getattr(thing, "_is_protocol", False)
    if what == "class" and (is_made_by_heartline(thing) or is_enum or is_protocol):
        return "", None
    # msgspec's word for an empty default that is made anew each time; it is no Python.
    signature = MODEL.sub("~heartline.federated.Model", signature.replace("<factory>", "..."))
    return signature, returns and MODEL.sub("~heartline.federated.Model", returns)


def _leave_builtins_plain(_app: Any, doctree: Any) -> None:
    """In an annotation ``type`` is Python's, and no field of that name of some class here."""
    for node in doctree.findall(addnodes.pending_xref):
        if node.get("refdomain") == "py" and hasattr(builtins, node["reftarget"]):
            node.attributes.pop("refspecific", None)  # with it any attribute of that name would do
            node["py:class"] = None


def setup(app: Any) -> None:
    app.connect("doctree-read", _leave_builtins_plain)
    app.connect("env-before-read-docs", _collect_public_names)
    app.connect("missing-reference", _resolve_public_name)
    app.connect("autodoc-process-signature", _tidy_signature)
