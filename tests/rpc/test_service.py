"""Declarations: which methods of which objects can be called, and what is refused while it is declared."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any, NoReturn, Self

import msgspec
import pytest

from heartline import method, service
from heartline.errors import ConfigurationError
from heartline.rpc import ServiceTable
from heartline.rpc._methods import Mode, describe
from heartline.rpc._service import MAX_NAME, service_name


def targets(*instances: Any) -> set[str]:
    table = ServiceTable()
    for instance in instances:
        table.add(instance)
    return {target.decode() for target in table.methods}


@service
class Base:
    def base(self) -> int:
        return 1

    def both(self) -> str:
        return "base"

    def _private(self) -> None: ...
    def __dunder(self) -> None: ...


class Undecorated:
    def hidden(self) -> None: ...


class TestNames:
    def test_the_class_name_is_the_default(self) -> None:
        assert service_name(Base) == "Base"
        assert targets(Base()) == {"Base.base", "Base.both"}

    def test_a_name_and_a_version(self) -> None:
        @service(name="calculator", version="2.0.1")
        class Whatever:
            def add(self) -> None: ...

        assert targets(Whatever()) == {"calculator@2.0.1.add"}

    def test_versions_stand_side_by_side(self) -> None:
        @service(name="calc", version="1")
        class One:
            def old(self) -> None: ...

        @service(name="calc", version="2")
        class Two:
            def new(self) -> None: ...

        @service(name="calc")
        class Unversioned:
            def any(self) -> None: ...

        assert targets(One(), Two(), Unversioned()) == {"calc@1.old", "calc@2.new", "calc.any"}

    def test_the_name_of_another_alphabet(self) -> None:
        @service(name="计算器")
        class Calculator:
            def añadir(self) -> None: ...

        assert targets(Calculator()) == {"计算器.añadir"}

    def test_a_name_is_served_once(self) -> None:
        with pytest.raises(ConfigurationError, match="'Base' is served twice"):
            targets(Base(), Base())

    @pytest.mark.parametrize("name", ["", "line\nbreak", "\ud800", "x" * (MAX_NAME + 1), 7, b"bytes"])
    @pytest.mark.parametrize("what", ["name", "version"])
    def test_what_cannot_stand_on_the_wire(self, what: str, name: Any) -> None:
        with pytest.raises(ConfigurationError, match=f"service {what} .* 1 to 256 printable characters"):
            service(**{what: name})(type("Fine", (), {}))

    @pytest.mark.parametrize("name", ["a.b", ".", "$push", "a@b", "@"])
    def test_what_names_are_not_for(self, name: str) -> None:
        with pytest.raises(
            ConfigurationError, match=r"has a dot, which separates|@ is for versions and a leading"
        ):
            service(name=name)(type("Fine", (), {}))

    def test_the_longest_name(self) -> None:
        service(name="x" * MAX_NAME)(type("Fine", (), {}))

    def test_only_classes_are_services(self) -> None:
        with pytest.raises(ConfigurationError, match="classes"):
            service(lambda: None)  # type: ignore[call-overload]

    @pytest.mark.parametrize("option", ["idempotent", "thread"])
    def test_an_option_is_true_or_false(self, option: str) -> None:
        with pytest.raises(ConfigurationError, match=f"method {option} must be True or False, not 'x'"):
            method(**{option: "x"})  # type: ignore[call-overload]


class TestWhatIsPublic:
    def test_a_subclass_is_no_service_by_itself(self) -> None:
        class Heir(Base): ...

        with pytest.raises(ConfigurationError, match=r"Heir is not a service: decorate it with @"):
            targets(Heir())

    def test_decorated_bases_count_and_others_do_not(self) -> None:
        @service
        class Heir(Undecorated, Base):
            def own(self) -> None: ...

        assert targets(Heir()) == {"Heir.base", "Heir.both", "Heir.own"}

    def test_an_override_is_what_runs(self) -> None:
        class Between(Base):
            async def both(self) -> str:  # type: ignore[override]
                return "between"

        @service
        class Heir(Between):
            def base(self) -> int:
                return 2

        specs = describe(Heir)
        assert specs["base"].function is Heir.__dict__["base"]
        assert specs["both"].mode is Mode.TASK, "the signature and the mode are those of the override"

    def test_overridden_by_none_it_is_private(self) -> None:
        @service
        class Heir(Base):
            both = None  # type: ignore[assignment]

        assert targets(Heir()) == {"Heir.base"}

    def test_overridden_by_what_cannot_be_called_it_is_refused(self) -> None:
        class Between(Base):
            both = property(lambda self: "between")

        @service
        class Heir(Between): ...

        with pytest.raises(ConfigurationError, match=r"Heir\.both: a property cannot be called remotely"):
            targets(Heir())

    def test_data_types_and_what_an_instance_has_are_not_for_calling(self) -> None:
        @service
        class Odd:
            __slots__ = ("on_instance",)
            attribute = 5
            nested = Undecorated

            def __init__(self) -> None:
                self.on_instance = lambda: 1

            def __getattr__(self, name: str) -> Any:
                return lambda: 1

            @property
            def prop(self) -> int:
                return 1

            @functools.cached_property
            def cached(self) -> int:
                return 1

            def __call__(self) -> None: ...
            def real(self) -> None: ...

        assert targets(Odd()) == {"Odd.real"}

    def test_the_instance_cannot_replace_a_method(self) -> None:
        instance = Base()
        instance.base = lambda: 666  # type: ignore[method-assign]
        table = ServiceTable()
        table.add(instance)
        assert table.methods[b"Base.base"].function() == 1

    def test_a_class_is_not_an_instance(self) -> None:
        with pytest.raises(ConfigurationError, match=r"Base\(\), not the class"):
            targets(Base)

    def test_descriptions_are_kept_per_class(self) -> None:
        @service
        class Heir(Base):
            def own(self) -> None: ...

        assert describe(Base) is describe(Base)
        assert describe(Heir).keys() == {"base", "both", "own"}


class TestMethodOptions:
    @pytest.mark.parametrize("timeout", [0, -1, float("nan"), "1"])
    def test_timeouts(self, timeout: Any) -> None:
        with pytest.raises(ConfigurationError, match="method timeout must be seconds above 0"):
            method(timeout=timeout)

    def test_async_methods_need_no_thread(self) -> None:
        with pytest.raises(ConfigurationError, match="is async: thread=True is for sync methods"):

            @method(thread=True)
            async def f(self: Any) -> None: ...

    @pytest.mark.parametrize(
        "thing", [property(lambda self: 1), staticmethod(print), classmethod(print), 5, print, Base]
    )
    def test_of_functions_only(self, thing: Any) -> None:
        with pytest.raises(ConfigurationError, match="@method is for functions"):
            method(thing)

    def test_private_methods_have_no_options(self) -> None:
        with pytest.raises(ConfigurationError, match="public name"):

            @method
            def _private(self: Any) -> None: ...

    def test_both_forms(self) -> None:
        @service()
        class S:
            @method
            def a(self) -> None: ...
            @method(idempotent=True, timeout=2, thread=True)
            def b(self) -> None: ...

        specs = describe(S)
        assert not specs["a"].options.idempotent
        assert specs["a"].mode is Mode.INLINE
        options = specs["b"].options
        assert (options.idempotent, options.timeout, options.thread) == (True, 2, True)
        assert specs["b"].mode is Mode.THREAD


def refused(function: Any, match: str) -> None:
    """Serving a class with this method is refused with a message that names the method."""
    cls = service(type("Refused", (), {"f": function}))
    with pytest.raises(ConfigurationError, match=match) as info:
        targets(cls())
    assert str(info.value).startswith("Refused.f: ")


class TestRefusedSignatures:
    def test_generators(self) -> None:
        def generator(self: Any) -> Iterator[int]:
            yield 1

        async def async_generator(self: Any) -> AsyncIterator[int]:
            yield 1

        refused(generator, "generators cannot be served; return a list, or publish to a topic")
        refused(async_generator, "generators cannot be served; return a list, or publish to a topic")

    def test_a_local_type_in_a_text_annotation(self) -> None:
        class Local: ...

        def f(self: Any, x: Local) -> None: ...

        refused(f, "an annotation cannot be resolved .*Local.*must name a type")

    @pytest.mark.parametrize("text", ["int |", "no.such", "msgspec.nothing", "1 / 0"])
    def test_annotations_that_fail(self, text: str) -> None:
        def f(self: Any, x: Any) -> None: ...

        f.__annotations__["x"] = text
        refused(f, "an annotation cannot be resolved")

    @pytest.mark.parametrize("hint", [Self, set[int] | list[int], bytes | str, Undecorated | Base, "'text'"])
    @pytest.mark.parametrize("name", ["x", "return"])
    def test_annotations_that_cannot_be_checked(self, name: str, hint: Any) -> None:
        def f(self: Any, x: Any) -> None: ...

        f.__annotations__[name] = hint
        refused(f, "cannot be checked|cannot be resolved")

    def test_methods_have_self(self) -> None:
        def no_parameters() -> None: ...
        def only_named(*, self: Any) -> None: ...
        def rest(*self: Any) -> None: ...

        for function in (no_parameters, only_named, rest):
            refused(function, "the first parameter of a method is self")

    def test_fine_ones(self) -> None:
        @service
        class Fine:
            def never(self) -> NoReturn:
                raise ValueError

            def much(self, n: Annotated[int, msgspec.Meta(ge=0)], *rest: int, **named: float) -> object: ...

        assert describe(Fine)["much"].arguments([1, 2], {"x": 1.5}) == ((1, 2), {"x": 1.5})
