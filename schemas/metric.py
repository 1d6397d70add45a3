"""Probe metrics: further figures of the probed features, and the fields of each."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Union

from pydantic import WithJsonSchema, WrapValidator

from cnnjepa.schemas.errors import ConfigError
from cnnjepa.schemas.extension import BASES, NAMED, ExtensibleSection, Kind, extension, extension_of, is_named
from cnnjepa.schemas.yaml_text import read_word


class MetricSection(ExtensibleSection):
    """The config of a probe metric."""

    EXTENDS: ClassVar[Kind] = "metric"

    name: str
    """The metric that this section configures."""

    @property
    def changed(self) -> dict[str, Any]:
        """The fields that differ from their defaults."""
        return self.model_dump(mode="json", exclude_defaults=True)

    @property
    def written(self) -> str | dict[str, Any]:
        """The metric as configs hold it: its name if all fields have their defaults, else name and fields."""
        return self.model_dump(mode="json") if self.changed else self.name

    @property
    def identity(self) -> str | dict[str, Any]:
        """The part of the probe hash: the fingerprint of the source, which is empty for a built-in metric, and the
        fields that differ from their defaults, if any."""
        own = extension_of(self)
        source = own.fingerprint if own else ""
        return {"source": source, **self.changed} if self.changed else source


class ClassMeansConfig(MetricSection):
    """Accuracy of the nearest class mean, of all images, balanced over classes, and of the worst class."""

    name: Literal["class_means"] = "class_means"
    """The metric that this section configures."""

    normalisation: Literal["l2", "centred_l2", "none"] = "l2"
    """Change of every feature before class means are computed: `l2`: scaled to unit length; `centred_l2`: the mean
    training feature is subtracted, then scaled; `none`. Scaled features are compared by cosine similarity, others by
    Euclidean distance. Source: arXiv 1911.04623, section 3 (L2N, CL2N and UN there)."""


BASES["metric"] = MetricSection

IMPLEMENTATIONS: dict[type[MetricSection], str] = {
    ClassMeansConfig: "cnnjepa.probes.class_means:ClassMeans",
}
"""Config class of every built-in metric, and the class that computes it, imported when a run needs it."""

BUILT_IN: dict[str, type[MetricSection]] = {kind.model_fields["name"].default: kind for kind in IMPLEMENTATIONS}
"""Config class by name."""


def metric_section(written: Any) -> MetricSection:
    """Return the section of a metric that is written as its name, or as `{name: …}` with its fields. Raises ValueError
    for a metric or a field that does not exist."""
    if isinstance(written, MetricSection):
        return written
    values = written if isinstance(written, dict) else {"name": written}
    kind = metric_kind(values.get("name"))
    fields = [field for field in kind.model_fields if field != "name"]
    if unknown := [field for field in values if field != "name" and field not in fields]:
        has = f"its fields are {', '.join(fields)}" if fields else "it has no fields"
        raise ValueError(f"metric {values['name']} has no field {unknown[0]!r}; {has}")
    return kind.model_validate(values)


def metric_kind(name: Any) -> type[MetricSection]:
    """Return the config class of a metric. Raises ValueError if there is no such metric."""
    if is_named(name):
        found = extension("metric", name).section
        assert issubclass(found, MetricSection)
        return found
    if name not in BUILT_IN:
        raise ValueError(f"{name!r} is no metric; must be one of {', '.join(BUILT_IN)}, or module:Class of your own")
    return BUILT_IN[name]


def metric_list(written: Any) -> list[Any]:
    """Return the list that a single metric stands for, or the given list."""
    return list(written) if isinstance(written, list | tuple) else [written]


def import_metrics(written: Any) -> None:
    """Import the user's metrics that a value of `probe.metrics` names, so that their fields are known. The value is
    YAML text or what it was read as. Other errors are found when the value is validated. Raises ConfigError."""
    if isinstance(written, str):
        with suppress(ConfigError):
            written = read_word(written, "--set probe.metrics")
    for name in _names(written):
        if is_named(name):
            extension("metric", name)


def _names(written: Any) -> Iterator[Any]:
    for one in metric_list(written):
        yield one.get("name") if isinstance(one, dict) else one


def with_metric_fields(written: Any, fields: Mapping[str, Any]) -> list[Any]:
    """Return the metrics of `written`, a value of `probe.metrics`, with `fields` set in the metric that has them.
    Raises ConfigError if no metric has a field, or if several have."""
    found = [dict(one) if isinstance(one, dict) else {"name": one} for one in metric_list(written)]
    for field, value in fields.items():
        try:
            having = [one for one in found if field in metric_kind(one.get("name")).model_fields]
        except ValueError as error:
            raise ConfigError(f"probe.metrics: {error}") from None
        if len(having) != 1:
            names = ", ".join(str(one["name"]) for one in having or found)
            why = f"several metrics have it ({names})" if having else f"no requested metric has it ({names or 'none'})"
            raise ConfigError(f"probe.metrics.{field}: {why}; write probe.metrics=[{{name: METRIC, {field}: {value}}}]")
        having[0][field] = value
    return found


def _schema() -> dict[str, Any]:
    """Return the JSON Schema of one metric: a name, or a name with fields. The fields of a user's metric are not
    checked."""
    name = {"anyOf": [{"enum": list(BUILT_IN)}, {"type": "string", "pattern": NAMED.pattern}]}
    chosen = [
        {"if": {"properties": {"name": {"const": one}}}, "then": kind.model_json_schema()}
        for one, kind in BUILT_IN.items()
    ]
    section = {"type": "object", "required": ["name"], "properties": {"name": name}, "allOf": chosen}
    return {"anyOf": [*name["anyOf"], section]}


if TYPE_CHECKING:
    AnyMetric = MetricSection
else:
    AnyMetric = Annotated[
        Union[tuple(IMPLEMENTATIONS)],  # noqa: UP007 - made from a registry
        WrapValidator(lambda value, _: metric_section(value)),
        WithJsonSchema(_schema()),
    ]
