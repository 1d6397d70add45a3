"""One door for every extension: what other code knows of a method is declared by its config."""

import re
from pathlib import Path

import pytest

from cnnjepa.implementation import implementation_of
from cnnjepa.methods import Method
from cnnjepa.methods.build import method_class
from cnnjepa.schemas import augmentation, data, encoder, load_config, masking, metric, preset_names
from cnnjepa.schemas.method import IMPLEMENTATIONS

ROOT = Path(__file__).parents[1]
ROOMS = ("schemas", "cnnjepa", "ablations", "cli")


@pytest.mark.parametrize(
    ("section", "registry"),
    [
        ("method", IMPLEMENTATIONS),
        ("masking", masking.IMPLEMENTATIONS),
        ("data", data.IMPLEMENTATIONS),
        ("encoder", encoder.IMPLEMENTATIONS),
    ],
)
def test_no_module_asks_which_class_a_section_is(section: str, registry: dict[type, str]) -> None:
    """Outside the sections' own modules, no `isinstance`, `hasattr` or `getattr` on a section."""
    files = {path.resolve(): path for room in ROOMS for path in (ROOT / room).rglob("*.py")}
    assert len(files) > 150
    names = "|".join(model.__name__ for model in registry)
    asks = re.compile(rf"(isinstance|hasattr|getattr|type)\([^()]*(\.{section}\b[^.]|{names})|case ({names})\(")
    found = [f"{path}: {m.group()}" for path in files.values() for m in asks.finditer(path.read_text(encoding="utf-8"))]
    assert found == []


@pytest.mark.parametrize(
    "section",
    [*masking.IMPLEMENTATIONS, *data.IMPLEMENTATIONS, *augmentation.IMPLEMENTATIONS, *metric.IMPLEMENTATIONS],
    ids=lambda section: section.__name__,
)
def test_every_registered_section_has_its_implementation(section: type) -> None:
    sections = (masking, data, augmentation, metric)
    registry = {kind: place for module in sections for kind, place in module.IMPLEMENTATIONS.items()}
    found = implementation_of(section(), registry)
    assert callable(found) and f"{found.__module__}:{found.__name__}" == registry[section]


@pytest.mark.parametrize("section", IMPLEMENTATIONS, ids=lambda section: section.__name__)
def test_every_registered_method_is_a_method_and_has_the_encoder_that_it_is_probed_by(section: type) -> None:
    kind = method_class(section())
    assert issubclass(kind, Method) and section().PROBED in kind.encoders
    assert ("target" in kind.encoders) == (section().moving_average is not None)


def test_declarations_are_those_of_the_methods() -> None:
    methods = {load_config(name).method.name: load_config(name).method for name in preset_names()}
    told = {name: (m.PROBED, m.COMPARES_IMAGES, m.LEARNS_FROM_LABELS, m.TRAINS, len(m.views), m.masks is not None)
            for name, m in methods.items()}  # fmt: skip
    assert told == {
        "cnnjepa": ("target", False, False, True, 1, True), "ijepa": ("target", False, False, True, 1, True),
        "spark": ("context", False, False, True, 1, True), "simclr": ("context", True, False, True, 2, False),
        "byol": ("context", False, False, True, 2, False), "vicreg": ("context", True, False, True, 2, False),
        "lejepa": ("context", True, False, True, len(methods["lejepa"].views), False),
        "supervised": ("context", False, True, True, 1, False),
    }  # fmt: skip
