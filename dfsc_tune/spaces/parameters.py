"""Parameters of a search space: the values they may take, their scale, and when they exist."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from dfsc_tune.settings import Settings

Value = float | int | str | bool
FREE = "ema_momentum"
"""The one setting that can be a `FreeParameter`."""


def same_value(one: Value, other: Value) -> bool:
    """Returns whether two values are equal as settings: 1 and 1.0 are, but 1 and True are not."""
    return isinstance(one, bool) == isinstance(other, bool) and one == other


class _Parameter(Settings):
    """The base of all kinds of parameters."""

    when: dict[str, tuple[Value, ...]] = Field(default_factory=dict)
    """The parameter exists only if each setting named here has the value, or one of the values,
    given for it; otherwise the setting keeps its fixed value, or the paper's value."""

    @field_validator("when", mode="before")
    @classmethod
    def _as_tuples(cls, when: Any) -> Any:
        if not isinstance(when, dict):
            return when
        return {key: tuple(x) if isinstance(x, list | tuple) else (x,) for key, x in when.items()}

    def exists(self, values: Mapping[str, Value]) -> bool:
        """Returns whether the parameter exists if the others have these values."""
        return all(
            name in values and any(same_value(values[name], x) for x in wanted)
            for name, wanted in self.when.items()
        )


class _Range(_Parameter):
    """The base of real and whole numbers between two bounds."""

    low: float
    high: float
    scale: str = "linear"

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.low >= self.high:
            raise ValueError(
                f"the range is empty: low ({self.low}) must lie below high ({self.high})"
            )
        if self.scale == "log" and self.low <= 0:
            raise ValueError("scale 'log' needs low above 0")
        if self.scale == "log_complement" and self.high >= 1:
            raise ValueError("scale 'log_complement' needs high below 1")
        return self

    def contains(self, value: Value) -> bool:
        """Returns whether the value can be suggested."""
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return is_number and self.low <= float(value) <= self.high

    def bounds(self) -> tuple[Value, ...]:
        """Returns values that are allowed only if all values between them are."""
        return (self.low, self.high)


class FloatParameter(_Range):
    """A real number between two bounds, both included.

    `log` spreads suggestions evenly over the logarithm; `log_complement` over that of 1 − x, for
    quantiles and momenta that matter near 1.
    """

    type: Literal["float"] = "float"
    scale: Literal["linear", "log", "log_complement"] = "linear"


class IntParameter(_Range):
    """A whole number between two bounds, both included."""

    type: Literal["int"] = "int"
    low: int
    high: int
    scale: Literal["linear", "log"] = "linear"

    def contains(self, value: Value) -> bool:
        """Returns whether the value can be suggested."""
        return isinstance(value, int) and super().contains(value)


class CategoricalParameter(_Parameter):
    """One of several given values."""

    type: Literal["categorical"] = "categorical"
    choices: Annotated[tuple[Value, ...], Field(min_length=1, strict=False)]

    @model_validator(mode="after")
    def _check(self) -> Self:
        # As `same_value` compares, but in one pass: there may be many.
        if len({(isinstance(x, bool), x) for x in self.choices}) < len(self.choices):
            raise ValueError("a choice is given twice")
        return self

    def contains(self, value: Value) -> bool:
        """Returns whether the value can be suggested."""
        return any(same_value(value, x) for x in self.choices)

    def bounds(self) -> tuple[Value, ...]:
        """Returns the values that must be allowed."""
        return self.choices


class FreeParameter(_Parameter):
    """A free value: one training is scored at all its choices, and the best of them counts.

    It needs no trial of its own. Only the EMA momentum is free: gradients never see the average.
    """

    type: Literal["free"] = "free"
    choices: Annotated[tuple[float, ...], Field(min_length=2, strict=False)]

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(set(self.choices)) < len(self.choices):
            raise ValueError("a choice is given twice")
        if self.when:
            raise ValueError("a free parameter always exists, so it takes no 'when'")
        return self

    def contains(self, value: Value) -> bool:
        """Returns whether trainings are scored at the value."""
        return value in self.choices

    def bounds(self) -> tuple[Value, ...]:
        """Returns the values that must be allowed."""
        return self.choices


SuggestedParameter = FloatParameter | IntParameter | CategoricalParameter
AnyParameter = SuggestedParameter | FreeParameter
Parameter = Annotated[AnyParameter, Field(discriminator="type")]


def existing_values(
    parameters: Mapping[str, AnyParameter], values: Mapping[str, Value]
) -> dict[str, Value]:
    """The values of those parameters that exist beside the others (`when`)."""
    existing: dict[str, Value] = {}
    for name, parameter in parameters.items():
        if name in values and parameter.exists(existing):
            existing[name] = values[name]
    return existing
