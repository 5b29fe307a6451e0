"""Validated, frozen descriptions: the base of `Recipe`, `Experiment` and `Study`; mistakes are told in one line."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError


class Settings(BaseModel):
    """A frozen pydantic model that refuses unknown keys and reports all mistakes in one clear line (`ValueError`)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as problem:
            raise ValueError(_one_line(type(self), problem)) from None

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy with some fields changed, validated again (pydantic itself would not)."""
        return self.changed(**(update or {}))

    def changed(self, **update: Any) -> Self:
        """Return a copy with some fields changed, validated again."""
        return type(self)(**({name: getattr(self, name) for name in type(self).model_fields} | update))


def check_fraction(name: str, value: float) -> None:
    """Raise a `ValueError` unless `value` lies strictly between 0 and 1."""
    if not 0 < value < 1:
        raise ValueError(f"{name} must lie strictly between 0 and 1, not {value}")


def imported(name: str, what: str) -> Any:
    """Return what "package.module:name" names: how users' own networks, methods and objectives travel as text.

    Raises
    ------
    ValueError
        In one line, where there is no such module, or nothing of that name in it.
    """
    module, _, attribute = name.partition(":")
    try:
        found: Any = import_module(module)
    except ImportError as problem:
        raise ValueError(f"{what} {name!r} cannot be imported: {first_line(problem)}") from None
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise ValueError(f"{what} {name!r} cannot be imported: {module} has no {attribute}")
        found = getattr(found, part)
    return found


def first_line(problem: object) -> str:
    """Return the first line of what an error says; where it says nothing, its kind."""
    return next(iter(str(problem).splitlines()), type(problem).__name__)


def _one_line(kind: type[BaseModel], problem: ValidationError) -> str:
    lines = []
    for error in problem.errors():
        where = ".".join(str(part) for part in error["loc"])
        if error["type"] == "extra_forbidden":
            lines.append(f"unknown key {where!r}; allowed: {', '.join(kind.model_fields)}")
        elif error["type"] == "value_error":
            lines.append(f"{where}: {error['ctx']['error']}" if where else str(error["ctx"]["error"]))
        else:
            lines.append(f"{where}: {error['msg']}, not {error['input']!r}")
    return f"{kind.__name__}: " + "; ".join(lines)
