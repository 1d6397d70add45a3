"""Construction of a method with initialised weights from a config."""

from collections.abc import Mapping

import torch
from torch import Tensor

from cnnjepa.encoders import CustomBackbone, build_backbone, load_into
from cnnjepa.encoders.custom import refuse_other_grid
from cnnjepa.implementation import implementation_of
from cnnjepa.methods.method import Method
from cnnjepa.randomness import key
from cnnjepa.schemas import ConfigError, PretrainConfig
from cnnjepa.schemas.method import IMPLEMENTATIONS
from cnnjepa.schemas.method_section import MethodSection

# Classes of a supervised head that is only counted or timed, without open data. Assumption: the head is small compared
# with the encoder.
_CLASSES = 100


def method_class(section: MethodSection) -> type[Method]:
    """Return the class that trains with this section of a config. Raises ConfigError for a user's class that is not a
    Method."""
    found = implementation_of(section, IMPLEMENTATIONS)
    if not issubclass(found, Method):
        raise ConfigError(f"method {section.name}: {found.__name__} must derive from cnnjepa.extend.Method")
    kind: type[Method] = found
    return kind


def build_method(
    config: PretrainConfig, classes: int = _CLASSES, initial: Mapping[str, Tensor] | None = None
) -> Method:
    """Build the method on the CPU in float32. Its weights are a function of the config and runtime.seed, and of the
    encoder's `initial` weights if these are given: encoder and target encoder start from them, all other parts are
    random. `classes` is the number of classes of the data set; only `supervised` uses it."""
    backbone = build_backbone(config.encoder, config.runtime.seed, config.data.channels)
    if isinstance(backbone, CustomBackbone) and not isinstance(config.grid, int):
        refuse_other_grid(backbone, config.data.image_size, config.encoder.short_name, config.data.channels)
    if initial is not None:
        load_into(backbone, initial)
    kind = method_class(config.method)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key(config.runtime.seed, "method_init") >> 1)
        return kind.build(config.method, backbone, config, classes)
