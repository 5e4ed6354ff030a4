"""What an endpoint serves: the method that each target runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from heartline.errors import ConfigurationError
from heartline.rpc._log import MethodLog
from heartline.rpc._methods import MethodSpec, Mode, describe
from heartline.rpc._service import service_name

__all__ = ["Bound", "ServiceTable"]


@dataclass(frozen=True, slots=True)
class Bound:
    """A method of one service object, ready to be called."""

    spec: MethodSpec
    function: Callable[..., Any]
    mode: Mode
    """How the function runs: as the method was declared, or as the middleware around it needs."""
    log: MethodLog
    small: bool = False
    """Whether its arguments are short and anybody may send them: long ones are not even decoded."""


class ServiceTable:
    """The services of an endpoint: which function each target (``Service.method``) runs."""

    def __init__(self, hook: Callable[[Bound, str], Bound] | None = None) -> None:
        self._hook = hook
        self.methods: dict[bytes, Bound] = {}
        self.names: set[str] = set()

    def add(self, instance: Any, name: str | None = None) -> None:
        """Serve an object whose class is a service; raises :class:`ConfigurationError`."""
        cls = type(instance)
        if isinstance(instance, type):
            raise ConfigurationError(f"services are objects: {instance.__qualname__}(), not the class itself")
        specs = describe(cls)
        name = name or service_name(cls)
        if name in self.names:
            raise ConfigurationError(f"service {name!r} is served twice; give one of them another name")
        self.names.add(name)
        for spec in specs.values():
            target = f"{name}.{spec.name}"
            built_in = name.startswith("$")
            bound = Bound(spec, spec.bind(instance), spec.mode, MethodLog(target), small=built_in)
            # Built-in services are not wrapped as calls: a subscription has hooks of its own.
            if self._hook is not None and not built_in:
                bound = self._hook(bound, target)
            self.methods[target.encode()] = bound
