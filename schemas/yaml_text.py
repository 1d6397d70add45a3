"""Reading and writing of YAML, for every file of the project and every word of the command line.

Text is read with the core schema of YAML 1.2 (yaml.org/spec/1.2.2, chapter 10.3), which matches how people write
numbers: `1e-4` is a number, `010` is ten, and `1:30`, `no` and `2012-01-01` are text. A key is always text, exactly as
written, and may occur only once.
"""

import re
from pathlib import Path
from typing import Any, ClassVar

import yaml
from yaml.nodes import MappingNode, ScalarNode

from cnnjepa.schemas.errors import ConfigError

_TAG = "tag:yaml.org,2002:"
_INT = re.compile(r"[-+]?[0-9]+\Z|0o[0-7]+\Z|0x[0-9a-fA-F]+\Z")
_FLOAT = re.compile(
    r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z|[-+]?\.(?:inf|Inf|INF)\Z|\.(?:nan|NaN|NAN)\Z"
)
_BOOL = re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z")
_NULL = re.compile(r"(?:~|null|Null|NULL|)\Z")
_CORE = (
    ("null", _NULL, ["~", "n", "N", ""]),
    ("bool", _BOOL, list("tTfF")),
    ("int", _INT, list("-+0123456789")),
    ("float", _FLOAT, list("-+.0123456789")),
    ("merge", re.compile(r"<<\Z"), ["<"]),
)


class _Refused(yaml.constructor.ConstructorError):
    """Valid YAML that these files must not contain."""

    def __init__(self, problem: str, node: Any = None) -> None:
        line = f" (line {node.start_mark.line + 1})" if node else ""
        super().__init__(None, None, problem + line, None)


class _Reader(yaml.SafeLoader):
    yaml_constructors: ClassVar[dict[Any, Any]] = {}

    def compose_mapping_node(self, anchor: Any) -> Any:
        """Compose a mapping whose keys are text and occur once each."""
        node: MappingNode = super().compose_mapping_node(anchor)
        lines: dict[str, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, ScalarNode):
                raise _Refused("a key is a list or a mapping; keys must be names", key)
            if key.value in lines:
                where = f"in lines {lines[key.value]} and {line}" if lines[key.value] < line else f"in line {line}"
                raise _Refused(f"{key.value!r} is given twice, {where}; give it once")
            lines[key.value] = line
        return node

    def mapping(self, node: Any) -> dict[str, Any]:
        if not isinstance(node, MappingNode):
            raise _Refused(f"a {node.id} is marked as a mapping", node)
        self.flatten_mapping(node)  # `<<: *base` inherits the content of another mapping
        return {key.value: self.construct_object(value, deep=True) for key, value in node.value}

    def sequence(self, node: Any) -> list[Any]:
        return list(self.construct_sequence(node, deep=True))

    def scalar(self, node: Any) -> Any:
        text, kind = self.construct_scalar(node), node.tag.removeprefix(_TAG)
        if not {"null": _NULL, "bool": _BOOL, "int": _INT, "float": _FLOAT}[kind].match(text):
            raise _Refused(f"{text!r} is marked as {kind} and is none", node)
        if kind == "null":
            return None
        if kind == "bool":
            return text.lower() == "true"
        if kind == "float":
            # YAML writes infinity `.inf`, Python `inf`.
            return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
        try:
            return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
        except ValueError:  # more digits than Python accepts
            raise _Refused(f"a number of {len(text):,} digits", node) from None


_reader: Any = _Reader  # the type stubs know only PyYAML's own loader classes
_reader.yaml_implicit_resolvers = {}
for _name, _form, _first in _CORE:
    _Reader.add_implicit_resolver(_TAG + _name, _form, _first)
for _name in ("null", "bool", "int", "float"):
    _reader.add_constructor(_TAG + _name, _Reader.scalar)
for _name in ("str", "merge"):
    _reader.add_constructor(_TAG + _name, _Reader.construct_scalar)
_reader.add_constructor(_TAG + "seq", _Reader.sequence)
_reader.add_constructor(_TAG + "map", _Reader.mapping)
_reader.add_constructor(None, yaml.SafeLoader.construct_undefined)


class _Writer(yaml.SafeDumper):
    """Quotes text that YAML 1.2 or 1.1 would read as another type, so that other programs read it correctly too."""

    def ignore_aliases(self, data: Any) -> bool:
        """Write every value in full instead of an alias."""
        return True


for _name, _form, _first in _CORE:
    _Writer.add_implicit_resolver(_TAG + _name, _form, _first)


def read_yaml(text: str, origin: str) -> Any:
    """Return the value that YAML text describes: keys as text, numbers by YAML 1.2. `origin` names the text in
    messages.

    Raises ConfigError, which names origin and line, for text that is not YAML, a key that occurs twice (with both
    lines), a key that is not a scalar, and tags outside the core schema.
    """
    try:
        return yaml.load(text, Loader=_Reader)
    except _Refused as error:
        raise ConfigError(f"{origin}: {error.problem}") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ConfigError(f"{origin} is not valid YAML: {where}{error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{origin} is not valid YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise ConfigError(f"{origin} cannot be read: lists or mappings are nested too deeply") from None


def read_yaml_file(path: Path, kind: str) -> Any:
    """Read a UTF-8 file like `read_yaml`. `kind` (config file, study file) names it in messages. Raises ConfigError
    also for a file that cannot be read."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{kind} {path} does not exist") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{kind} {path} cannot be read: {reason}") from None
    return read_yaml(text, f"{kind} {path}")


def read_word(text: str, option: str) -> Any:
    """Read a word of the command line as YAML on one line. A `#` does not start a comment there. Raises ConfigError,
    which names `option` (`--set optimizer.lr`)."""
    value = read_yaml(text, f"{option}={text[:80]}")
    commented = re.search(r"(?:^|\s)#", text) and not isinstance(value, list | dict)
    return text.strip() if commented and text.lstrip()[0] not in "'\"" else value


def write_yaml(tree: Any) -> str:
    """Return YAML that `read_yaml` reads back as the same value. Keys keep their order."""
    return str(yaml.dump(tree, Dumper=_Writer, sort_keys=False, default_flow_style=None, width=100))


def write_inline(value: Any) -> str:
    """Return a value as YAML on one line."""
    text = str(yaml.dump(value, Dumper=_Writer, sort_keys=False, default_flow_style=True, width=10**6))
    return text.removesuffix("\n").removesuffix("\n...")
