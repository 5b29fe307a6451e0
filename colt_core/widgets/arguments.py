"""The settings of a network as fields with names, which follow the network that is chosen."""

from typing import Any

import ipywidgets
import traitlets

from ..models import arguments_of
from ..settings import shown
from ..studies.reading import parsed

MORE = "settings"  # the field of arguments that a signature does not name
OTHER = "another ..."


class Arguments(ipywidgets.VBox):
    """A field for each argument of a network; an empty one is at its default.

    Attributes
    ----------
    value
        What has been set, as it was typed, by name: see `read`.
    """

    value = traitlets.Dict()

    def __init__(self) -> None:
        self.kinds: dict[str, Any] = {}
        super().__init__()

    def follow(self, network: str) -> None:
        """Show the fields of a network's arguments; what was set under a name that this one has too stays."""
        try:
            known, open_ended = arguments_of(network)
        except ValueError:  # no network yet: whoever asks for the experiment is told why
            known, open_ended = {}, False
        self.kinds = known | ({MORE: {}} if open_ended else {})
        fields = []
        for name, default in self.kinds.items():
            hint = "{name: value, ...}" if name == MORE else "" if default is None else str(default)
            field = ipywidgets.Text(
                description=name, placeholder=hint, continuous_update=False, layout={"width": "auto"}
            )
            field.value = self.value.get(name, "")
            field.observe(self._typed, "value")
            fields.append(field)
        self.children = tuple(fields)
        self._typed()

    def fill(self, network: str, arguments: dict[str, Any]) -> None:
        """Show a network's arguments as they are set."""
        with self.hold_trait_notifications():
            known, _ = arguments_of(network)
            told = {name: _written(value) for name, value in arguments.items() if name in known}
            if more := {name: value for name, value in arguments.items() if name not in known}:
                told[MORE] = _written(more)
            self.value = told
            self.follow(network)

    def read(self) -> dict[str, Any]:
        """Return the arguments.

        Raises
        ------
        ValueError
            In one line: text of another kind than the argument's default.
        """
        found: dict[str, Any] = {}
        for name, text in self.value.items():
            if name == MORE:
                more = parsed(text, "the network's other settings")
                if not isinstance(more, dict):
                    raise ValueError(f"the network's other settings must be {{name: value, ...}}, not {shown(text)}")
                found |= more
            else:
                found[name] = _read(name, text, self.kinds.get(name))
        return found

    def _typed(self, _: Any = None) -> None:
        self.value = {field.description: field.value.strip() for field in self.children if field.value.strip()}

    @property
    def disabled(self) -> bool:
        """Whether the fields cannot be changed."""
        return any(field.disabled for field in self.children)

    @disabled.setter
    def disabled(self, disabled: bool) -> None:
        for field in self.children:
            field.disabled = disabled


class Named(ipywidgets.VBox):
    """A choice among names, and any other, which is typed: a network or a data set of one's own.

    Attributes
    ----------
    value
        The name.
    """

    value = traitlets.Unicode()

    def __init__(self, names: list[str], text: str, example: str) -> None:
        wide = {"layout": {"width": "auto"}}
        self.names = names
        self.choice = ipywidgets.Dropdown(options=[*names, OTHER], description=text, **wide)
        self.typed = ipywidgets.Text(description="Its name", placeholder=example, continuous_update=False, **wide)
        super().__init__([self.choice])
        self.value = names[0]
        self.choice.observe(self._chosen, "value")
        self.typed.observe(self._chosen, "value")

    def _chosen(self, _: Any = None) -> None:
        other = self.choice.value == OTHER
        self.children = (self.choice, self.typed) if other else (self.choice,)
        self.value = self.typed.value.strip() if other else self.choice.value

    @traitlets.observe("value")
    def _given(self, _: Any) -> None:
        if self.value == (self.typed.value.strip() if self.choice.value == OTHER else self.choice.value):
            return
        if self.value in self.names:
            self.choice.value = self.value
        else:
            self.choice.value, self.typed.value = OTHER, self.value

    @property
    def disabled(self) -> bool:
        """Whether it cannot be changed."""
        return bool(self.choice.disabled)

    @disabled.setter
    def disabled(self, disabled: bool) -> None:
        self.choice.disabled = self.typed.disabled = disabled


def _written(value: Any) -> str:
    import yaml

    return yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("\n").removesuffix("\n...")


def _read(name: str, text: str, default: Any) -> Any:
    """Return an argument from its text; it must be of the kind of its default."""
    value = parsed(text, name)
    kind = type(default)
    whole = isinstance(value, int) and not isinstance(value, bool)
    fits = {bool: isinstance(value, bool), int: whole, float: whole or isinstance(value, float), str: True}
    if not fits.get(kind, True):
        words = {bool: "true or false", int: "a whole number", float: "a number"}
        raise ValueError(f"{name} must be {words[kind]}, not {shown(text)}")
    return text if kind is str else value
