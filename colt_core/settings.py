"""Validated, frozen descriptions: the base of `Recipe`, `Experiment` and `Study`; mistakes are told in one line."""

import json
import math
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Annotated, Any, NoReturn, Self

import numpy as np
import torch
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, ValidationError, field_validator

LEVELS = 30  # of JSON in JSON; pydantic itself gives up at 255
BITS = 1024  # of a whole number: a float has no more, and Python refuses to write much larger ones
MOST_ROUNDS = 10_000
WANTED = {  # by pydantic's names, in words of a file that people write
    "dict_type": "be a mapping", "list_type": "be a list", "tuple_type": "be a list", "string_type": "be text",
    "too_short": "name at least 1", "model_type": "be a mapping",
}  # fmt: skip
NUMBERS = (int, float, int | float, int | None, float | None)


class Settings(BaseModel):
    """A frozen pydantic model that refuses unknown keys and reports all mistakes in one clear line (`ValueError`).

    Numbers of NumPy and of PyTorch become plain ones, so that a hash does not depend on where they came from.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def __init__(self, /, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as problem:
            raise ValueError(_told(type(self), problem)) from None

    @field_validator("*", mode="before")
    @classmethod
    def _made_plain(cls, value: Any, info: Any) -> Any:
        value = plain_value(value)
        if isinstance(value, dict) and (odd := [key for key in value if not isinstance(key, str)]):
            raise ValueError(f"keys must be text, not {odd[0]!r}")
        if isinstance(value, bool) and cls.model_fields[info.field_name].annotation in NUMBERS:
            raise ValueError(f"must be a number, not {value}")
        if isinstance(value, int) and value.bit_length() > BITS:
            raise ValueError(f"is too large: a whole number has at most {BITS} bits")
        return value

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy with some fields changed, validated again (pydantic itself would not)."""
        return self.changed(**(update or {}))

    def changed(self, **update: Any) -> Self:
        """Return a copy with some fields changed, validated again."""
        return type(self)(**({name: getattr(self, name) for name in type(self).model_fields} | update))


# --- values ------------------------------------------------------------------------------------------------------


def _refuse(*_: Any, **__: Any) -> NoReturn:
    raise TypeError("settings cannot be changed; make others with changed(...)")


class FrozenDict(dict[str, Any]):
    """A dict that can be read only: what stands in it is part of a hash that has been taken."""

    __setitem__ = __delitem__ = __ior__ = clear = pop = popitem = setdefault = update = _refuse  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:  # else copies and pickles would fill an empty one
        return type(self), (dict(self),)


class FrozenList(list[Any]):
    """A list that can be read only."""

    __setitem__ = __delitem__ = __iadd__ = __imul__ = _refuse  # type: ignore[assignment]
    append = clear = extend = insert = pop = remove = reverse = sort = _refuse  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (list(self),)


def frozen(value: Any) -> Any:
    """Return a copy, which can be read only, of a value that JSON can hold.

    Raises
    ------
    ValueError
        In one line, for any other value.
    """
    try:
        text = json.dumps(value, allow_nan=False, ensure_ascii=False, default=_jsonable)
        text.encode()  # half a surrogate pair can be written to no file
        return _frozen(json.loads(text))
    except (TypeError, ValueError, RecursionError) as problem:
        raise ValueError(f"must be JSON: {first_line(problem)}") from None


def _frozen(value: Any, level: int = 0) -> Any:
    if level > LEVELS:
        raise ValueError(f"it has more than {LEVELS} levels")
    if isinstance(value, dict):
        return FrozenDict({key: _frozen(inner, level + 1) for key, inner in value.items()})
    if isinstance(value, list):
        return FrozenList(_frozen(inner, level + 1) for inner in value)
    return value


def _jsonable(value: Any) -> Any:
    if isinstance(value, Settings):
        return value.model_dump(mode="json")
    if (plain := plain_value(value)) is value:
        raise TypeError(f"a {type(value).__name__} is none")
    return plain


def plain_value(value: Any, level: int = 0) -> Any:
    """Return a value with plain numbers in place of NumPy's and PyTorch's, as deep as settings go."""
    if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and not value.ndim):
        return value.item()
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        return value.item()
    if level > LEVELS or not isinstance(value, dict | list | tuple):
        return value
    if isinstance(value, dict):
        return {plain_value(key): plain_value(inner, level + 1) for key, inner in value.items()}
    return type(value)(plain_value(inner, level + 1) for inner in value) if type(value) in (list, tuple) else value


def as_number(value: Any) -> Any:
    """Refuse what pydantic would make a number of: text, true and false."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"must be a number, not {shown(value)}")
    return value


JsonDict = Annotated[dict[str, Any], AfterValidator(frozen)]
Number = Annotated[float, BeforeValidator(as_number)]


# --- checks ------------------------------------------------------------------------------------------------------


def plain_number(name: str, value: Any) -> float:
    """Return what is a number, NumPy's and PyTorch's too, as a plain one; else raise a `ValueError` with its name."""
    plain = plain_value(value)
    if isinstance(plain, bool) or not isinstance(plain, int | float):
        raise ValueError(f"{name} must be a number, not {shown(value)}")
    return float(plain)


def check_whole(name: str, value: Any, least: int) -> None:
    """Raise a `ValueError` unless `value` is a whole number from `least` on."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ValueError(f"{name} must be a whole number from {least}, not {shown(value)}")


def check_fraction(name: str, value: float) -> None:
    """Raise a `ValueError` unless `value` lies strictly between 0 and 1."""
    if not 0 < plain_number(name, value) < 1:
        raise ValueError(f"{name} must lie strictly between 0 and 1, not {value}")


def check_rounds(rate: float, target: float) -> None:
    """Raise a `ValueError` where pruning at `rate` would take all but for ever to come to the sparsity `target`."""
    if 1 - rate == 1 or math.log1p(-target) / math.log1p(-rate) > MOST_ROUNDS:
        raise ValueError(f"rate {rate} is too small: more than {MOST_ROUNDS:,} rounds to sparsity {target}")


def first_line(problem: object) -> str:
    """Return the first line of what an error says; where it says nothing, its kind."""
    return next(iter(str(problem).splitlines()), type(problem).__name__)


def one_line(value: Any) -> str:
    """Return a value as text in one line, in which a terminal and a page see nothing but characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in str(value)).split())


def shown(value: Any) -> str:
    """Return a value as an error shows it: in one line, and not at length."""
    try:
        text = one_line(repr(value))
    except (RecursionError, ValueError):  # nested too deeply, or a number of more digits than Python writes
        text = f"this {type(value).__name__}"
    return text if len(text) <= 200 else f"{text[:199]}…"


def meant(name: str, known: Iterable[str], most: int = 1) -> str:
    """Return how an error goes on where a name is close to known ones: "; did you mean 'cifar10'?"."""
    close = get_close_matches(str(name), list(known), most)
    return f"; did you mean {', '.join(map(repr, close))}?" if close else ""


def _told(kind: type[BaseModel], problem: ValidationError) -> str:
    lines = []
    for error in problem.errors():
        where = ".".join(str(part) for part in error["loc"])
        if error["type"] == "extra_forbidden":
            known = kind.model_fields
            lines.append(f"unknown key {where!r}; allowed: {', '.join(known)}{meant(where, known)}")
        elif error["type"] == "value_error":
            lines.append(f"{where}: {error['ctx']['error']}" if where else str(error["ctx"]["error"]))
        elif error["type"] == "missing":
            lines.append(f"{where} is missing")
        elif (wanted := WANTED.get(error["type"])) is not None:
            lines.append(f"{where} must {wanted}, not {shown(error['input'])}")
        else:
            lines.append(f"{where}: {error['msg']}, not {shown(error['input'])}")
    return f"{kind.__name__}: {one_line('; '.join(lines))}"
