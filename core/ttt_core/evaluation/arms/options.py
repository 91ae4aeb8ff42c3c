"""An arm's options as they are typed: `qttt:supervision=recurrence,gate=false`."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import JsonValue, ValidationError
from pydantic.fields import FieldInfo

from ttt_core.config import AdaptationConfig, Settings, unknown_name
from ttt_core.errors import ConfigError

O = TypeVar("O", bound=Settings)  # noqa: E741


class NoOptions(Settings):
    """An arm with nothing to choose."""


class RecipeOptions(AdaptationConfig):
    """Every field of `AdaptationConfig`: the arm's recipe, or the one that its budget is made of.

    `steps` and `gate` of the engine's own configuration do not count: an arm's options say all.
    """

    @property
    def recipe(self) -> AdaptationConfig:
        """The recipe."""
        fields = AdaptationConfig.model_fields
        return AdaptationConfig(**{name: getattr(self, name) for name in fields})


def split_spec(spec: str) -> tuple[str, dict[str, str]]:
    """Take `name:option=value,option=value` apart.

    Raises:
        ConfigError: It is not of that form, or says an option twice.
    """
    name, _, rest = spec.strip().partition(":")
    found: dict[str, str] = {}
    for part in filter(None, map(str.strip, rest.split(","))):
        option, equals, value = (piece.strip() for piece in part.partition("="))
        if not (option and equals and value):
            raise ConfigError(f"options of an arm are written {name}:option=value, not {part!r}")
        if option in found:
            raise ConfigError(f"arm {name!r} has option {option!r} twice; say it once")
        found[option] = value
    return name.strip(), found


def make_options(kind: type[O], arm: str, given: dict[str, str]) -> O:
    """Read an arm's options.

    Raises:
        ConfigError: There is no such option, or it cannot have that value.
    """
    for option in given:
        if option not in kind.model_fields:
            lead = f"arm {arm!r} takes" if kind.model_fields else f"arm {arm!r} takes none"
            raise ConfigError(unknown_name("option", option, kind.model_fields, lead))
    try:
        return kind.model_validate(
            {name: _value(text, kind.model_fields[name]) for name, text in given.items()}
        )
    except ValidationError as error:
        said = (
            ".".join(map(str, one["loc"][:1])) + f": {one['msg'].removeprefix('Value error, ')}"
            for one in error.errors(include_url=False)
        )
        reasons = "; ".join(dict.fromkeys(one.removeprefix(": ") for one in said))
        raise ConfigError(f"arm {arm!r}: {reasons}") from None


def spec_of(arm: str, options: Settings) -> str:
    """Return the shortest way to type an arm with these options."""
    kind, parts = type(options), []
    for name, field in kind.model_fields.items():
        value = getattr(options, name)
        if value != field.get_default(call_default_factory=True):
            parts.append(f"{name}={_typed(value)}")
    return ":".join(filter(None, (arm, ",".join(parts))))


def settings_of(options: Settings) -> dict[str, JsonValue]:
    """Return all options as JSON."""
    return options.model_dump(mode="json")


def _value(text: str, field: FieldInfo) -> Any:
    if text.lower() == "none":
        return None
    return text.split("+") if "tuple" in str(field.annotation) else text


def _typed(value: object) -> str:
    if isinstance(value, tuple):
        return "+".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) or value is None else str(value)
