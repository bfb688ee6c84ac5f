"""Check the arguments of the Python interface against its annotations."""

import functools
import inspect
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from typing import Any, ParamSpec, TypeVar, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from models.errors import UsageError, shown

_Given = ParamSpec("_Given")
_Result = TypeVar("_Result")


def checked(function: Callable[_Given, _Result]) -> Callable[_Given, _Result]:
    """Let a function raise UsageError for arguments that its annotations do not allow, naming all of them.

    A string is not a sequence here: one handle instead of a list would be taken for its letters. Of a dataclass, each
    field is checked.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*args: _Given.args, **kwargs: _Given.kwargs) -> _Result:
        problems = list(_problems("", signature.bind(*args, **kwargs).arguments, function))
        if problems:
            said = "".join(f"\n  {one}" for one in problems)
            raise UsageError(f"arguments of {function.__name__} that cannot be used:{said}")
        return function(*args, **kwargs)

    return call


def _problems(prefix: str, values: dict[str, Any], annotated: Callable[..., Any]) -> Iterator[str]:
    """Yield what is wrong with the arguments of a function, or the fields of a dataclass."""
    types = _types_of(annotated)
    for name, value in values.items():
        try:
            types[name].validate_python(value, strict=True)
        except ValidationError as error:
            yield f"{prefix}{name}={shown(repr(value))}: {_reason(value, error)}"
            continue
        if is_dataclass(type(value)) and not callable(value):
            yield from _problems(
                f"{prefix}{name}.", {one.name: getattr(value, one.name) for one in fields(value)}, type(value)
            )


def _reason(value: object, error: ValidationError) -> str:
    found = error.errors(include_url=False, include_context=False)
    if any(one["type"] == "sequence_str" for one in found):
        return f"should be a list, such as [{shown(repr(value))}]"
    places = [one["loc"] for one in found if one["type"] in ("string_too_short", "too_short")]
    if places:
        item = next((part for part in places[0] if isinstance(part, int)), None)
        return "should not be empty" if item is None else f"item {item + 1} should not be empty"
    return " or ".join(dict.fromkeys(one["msg"].removeprefix("Input ") for one in found))


@functools.cache
def _types_of(annotated: Callable[..., Any]) -> dict[str, TypeAdapter[Any]]:
    hints = get_type_hints(annotated, include_extras=True)
    config = ConfigDict(arbitrary_types_allowed=True)
    return {
        name: TypeAdapter(hint) if is_dataclass(hint) else TypeAdapter(hint, config=config)
        for name, hint in hints.items()
        if name != "return"
    }
