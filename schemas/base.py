"""The base of every section."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A frozen config section: unknown keys are refused, the docstring under a field documents it."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        validate_default=True,
        allow_inf_nan=False,
    )
