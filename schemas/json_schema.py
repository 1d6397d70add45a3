"""The JSON Schema of config files, for editors. It covers every file that `--config` reads, presets and the
`config.yaml` of runs included."""

from typing import Any

from cnnjepa.schemas.config import PretrainConfig
from cnnjepa.schemas.extension import NAMED, TAGS
from cnnjepa.schemas.load import preset_names

Schema = dict[str, Any]


def config_file_schema() -> Schema:
    """Return the JSON Schema (draft 2020-12) of a config file. It differs from the model's own schema: it has
    `extends`, a section may leave out the field that selects its kind (the preset below it has one), and a single value
    may replace a list."""
    whole: Schema = _as_files_have_it(PretrainConfig.model_json_schema())
    extends: Schema = {
        "description": "A preset, over which the file's sections are laid.",
        "enum": list(preset_names()),
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **whole,
        "properties": {"extends": extends, **whole["properties"]},
    }


def _as_files_have_it(node: Any, called: str = "") -> Any:
    """Convert a schema, or part of one, to the form of config files. `called` is the name of the property that it
    describes."""
    if isinstance(node, list):
        return [_as_files_have_it(item) for item in node]
    if not isinstance(node, dict):
        return node
    inner = {name: _as_files_have_it(value, name) for name, value in node.items()}
    if "discriminator" in inner:
        return _one_of_several_kinds(inner, extensible=called in TAGS)
    if inner.get("type") == "array" and "items" in inner and "prefixItems" not in inner:
        return _a_list_or_one_value(inner)
    return inner


def _one_of_several_kinds(node: Schema, extensible: bool) -> Schema:
    """Return the schema of a section whose kind is selected by the field `discriminator`. Without that field, the
    section may be part of any kind. The fields of an extension, which is named `package.module:Class`, are not
    checked."""
    tag, mapping = node["discriminator"]["propertyName"], node["discriminator"]["mapping"]
    kinds: dict[str, list[str]] = {}
    for name, reference in mapping.items():
        kinds.setdefault(reference, []).append(name)
    references = [{"$ref": reference} for reference in kinds]
    chosen = [
        {"if": {"properties": {tag: {"enum": names}}, "required": [tag]}, "then": {"$ref": reference}}
        for reference, names in kinds.items()
    ]
    rest = {name: value for name, value in node.items() if name not in ("oneOf", "discriminator")}
    return {
        **rest,
        "type": "object",
        "properties": {tag: {"anyOf": [{"enum": list(mapping)}, {"type": "string", "pattern": NAMED.pattern}]}}
        if extensible
        else {tag: {"enum": list(mapping)}},
        "allOf": [*chosen, {"if": {"not": {"required": [tag]}}, "then": {"anyOf": references}}],
    }


def _a_list_or_one_value(node: Schema) -> Schema:
    about: Schema = {name: node[name] for name in ("title", "description", "default") if name in node}
    return {**about, "anyOf": [{name: value for name, value in node.items() if name not in about}, node["items"]]}
