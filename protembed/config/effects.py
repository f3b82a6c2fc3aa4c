"""When an option has an effect: only beside certain values of others."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Condition:
    """What an option needs to have an effect.

    Attributes:
        needed: Clause that says what it needs, with names of options in backticks.
        holds: Function that checks the values of all options of the command, by name.
    """

    needed: str
    holds: Callable[[Mapping[str, Any]], bool]


def only_with(option: str, *values: str) -> Condition:
    """Require that another option has one of these values, or none yet; it holds in commands without that option.

    >>> condition = only_with("schedule", "stable")
    >>> condition.needed, condition.holds({"schedule": "cosine"}), condition.holds({})
    ('`schedule` stable', False, True)
    """
    return Condition(f"`{option}` {' or '.join(values)}", lambda given: given.get(option) in (None, *values))


def only_without(option: str) -> Condition:
    """Require that another option is not given.

    >>> only_without("init_from").holds({"init_from": "a.run"})
    False
    """
    return Condition(f"a command without `{option}`", lambda given: given.get(option) is None)


def only_with_any(*options: str) -> Condition:
    """Require that one of several other options is given.

    >>> only_with_any("sites", "structures").holds({"sites": None, "structures": []})
    False
    """
    names = " or ".join(f"`{option}`" for option in options)
    return Condition(names, lambda given: any(given.get(option) for option in options))
