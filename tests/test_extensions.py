"""One door for every extension: what other code knows of a method is declared by its config."""

import re
from pathlib import Path

import pytest

from cnnjepa.methods import Method
from cnnjepa.methods.build import method_class
from cnnjepa.schemas import load_config, preset_names
from cnnjepa.schemas.method import IMPLEMENTATIONS

ROOT = Path(__file__).parents[1]
ROOMS = ("schemas", "cnnjepa", "ablations", "cli")


def test_no_module_asks_which_class_a_method_is() -> None:
    """Outside the methods' own modules, no `isinstance`, `hasattr` or `getattr` on a method."""
    files = {path.resolve(): path for room in ROOMS for path in (ROOT / room).rglob("*.py")}
    assert len(files) > 150
    names = "|".join(model.__name__ for model in IMPLEMENTATIONS)
    asks = re.compile(rf"(isinstance|hasattr|getattr|type)\([^()]*(\.method\b|{names})|case ({names})\(")
    found = [f"{path}: {m.group()}" for path in files.values() for m in asks.finditer(path.read_text(encoding="utf-8"))]
    assert found == []


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
