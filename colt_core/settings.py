"""Validated, frozen descriptions: the base of `Recipe`, `Experiment` and `Study`."""

from collections.abc import Mapping
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
