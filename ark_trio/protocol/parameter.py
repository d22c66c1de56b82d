"""What becomes of a request parameter, declared beside its type: forwarded, acted on, without effect, or refused.

The declarations of `ChatBody` are the one table from which parsing, encoding and documentation come. A parameter is never
accepted and then dropped when it could change the answer.
"""

from collections.abc import Callable, Collection, Mapping
from enum import Enum
from operator import attrgetter
from typing import Any, Final

import attrs
from attrs import evolve, field, frozen

from ark_trio.protocol.fault import Fault
from ark_trio.protocol.structure import BOUNDS, SHAPE, STRUCTURE, Bounds

PARAMETER: Final = "parameter"


class Treatment(Enum):
    """What the gateway does with a parameter."""

    FORWARDED = "forwarded"
    ACTED_ON = "acted on"
    NO_EFFECT = "no effect"
    REFUSED = "refused"


@frozen(kw_only=True)
class Parameter:
    """One parameter of a request."""

    name: str = ""
    treatment: Treatment
    key: str = ""
    """The engine's input that carries it, if forwarded."""
    spread: Callable[[Any], Mapping[str, Any]] | None = None
    """Where more than one input may carry it, or another value than the client's: the inputs for a value."""
    arms: tuple[str, ...] = ()
    """The arms of Value that it may arrive in; empty: any JSON."""
    bounds: Bounds | None = None
    note: str = ""
    """For readers of the documentation, and for the caller if refused."""
    harmless: tuple[Any, ...] = ()
    """Values that are taken though the parameter is refused."""
    shape: Any = None
    """The JSON that it takes, as a type or a schema, where its attribute's type does not tell."""

    def inputs(self, value: Any) -> Mapping[str, Any]:
        """Return the engine's inputs for a value."""
        return {self.key: value} if self.spread is None else self.spread(value)


def forwarded(
    *arms: str,
    key: str = "",
    bounds: Bounds | None = None,
    parse: Callable[[Any], Any] | None = None,
    spread: Callable[[Any], Mapping[str, Any]] | None = None,
    default: Any = None,
    shape: Any = None,
    note: str = "",
) -> Any:
    """Declare a parameter that the engine gets, under `key` or its own name, or as `spread` has it."""
    parameter = Parameter(
        treatment=Treatment.FORWARDED,
        key=key,
        spread=spread,
        arms=arms,
        bounds=bounds,
        note=note,
        shape=shape,
    )
    return _declare(parameter, parse, default)


def acted_on(
    note: str,
    *,
    default: Any = None,
    bounds: Bounds | None = None,
    parse: Callable[[Any], Any] | None = None,
    shape: Any = None,
) -> Any:
    """Declare a parameter that the gateway itself obeys. `default=attrs.NOTHING` makes it required."""
    parameter = Parameter(treatment=Treatment.ACTED_ON, bounds=bounds, note=note, shape=shape)
    return _declare(parameter, parse, default)


def no_effect(note: str, *, parse: Callable[[Any], Any] | None = None, shape: Any = None) -> Any:
    """Declare a parameter that can't change the answer. Its type is checked: whoever errs in it errs elsewhere too."""
    parameter = Parameter(treatment=Treatment.NO_EFFECT, note=note, shape=shape)
    return _declare(parameter, parse, None)


def refused(why: str, *, unless: Collection[Any] = ()) -> Any:
    """Declare a parameter that is a 400, except null and the values `unless`, which ask for nothing special."""

    def refuse(value: Any) -> None:
        # Membership is not enough: 1 is in {True}.
        if value is not None and not any(
            value == harmless and type(value) is type(harmless) for harmless in unless
        ):
            raise Fault(why)

    parameter = Parameter(treatment=Treatment.REFUSED, note=why, harmless=tuple(unless))
    return _declare(parameter, refuse, None)


def parameters_of(body: type) -> Mapping[str, Parameter]:
    """Return what a body class declares, by name, in its order."""
    return {
        attribute.name: _named(attribute.metadata[PARAMETER], attribute.name)
        for attribute in attrs.fields(body)
    }


def values_to_forward(table: Mapping[str, Parameter]) -> Callable[[Any], dict[str, Any]]:
    """Return what tells, of a body, the forwarded parameters that the client set, by name."""
    names = [name for name, known in table.items() if known.treatment is Treatment.FORWARDED]
    values = attrgetter(*names)
    return lambda body: {
        name: value for name, value in zip(names, values(body), strict=True) if value is not None
    }


def engine_inputs(
    params: Mapping[str, Any], table: Mapping[str, Parameter]
) -> dict[str, tuple[str, Any]]:
    """Return the engine's inputs for parameters, and which parameter each comes from."""
    inputs: dict[str, tuple[str, Any]] = {}
    for name, given in params.items():
        for key, value in table[name].inputs(given).items():
            _, other = inputs.get(key, ("", None))
            if isinstance(other, dict):
                # What the client spelled out wins over what follows from another parameter.
                merged = {**other, **value} if name == key else {**value, **other}
                inputs[key] = (key, merged)
            else:
                inputs[key] = (name, value)
    return inputs


def _named(parameter: Parameter, name: str) -> Parameter:
    forwarded_key = parameter.key or name if parameter.treatment is Treatment.FORWARDED else ""
    return evolve(parameter, name=name, key=forwarded_key)


def _declare(parameter: Parameter, parse: Callable[[Any], Any] | None, default: Any) -> Any:
    metadata = {
        PARAMETER: parameter,
        STRUCTURE: parse,
        BOUNDS: parameter.bounds,
        SHAPE: parameter.shape,
    }
    return field(default=default, metadata=metadata)
