"""From a config to a method with initialised weights."""

from importlib import import_module

import torch

from cnnjepa.encoders import build_trunk
from cnnjepa.methods.method import Method
from cnnjepa.randomness import key
from cnnjepa.schemas import PretrainConfig
from cnnjepa.schemas.method import METHODS
from cnnjepa.schemas.method_section import MethodSection

# Classes of a supervised head that is only to be counted or timed, where no data are open. Assumption: it is small
# beside the encoder.
_CLASSES = 100


def method_class(section: MethodSection) -> type[Method]:
    """The class that trains with this section of a config."""
    module, _, name = METHODS[type(section)].partition(":")
    found: type[Method] = getattr(import_module(module), name)
    return found


def build_method(config: PretrainConfig, classes: int = _CLASSES) -> Method:
    """The method on the CPU, float32; its weights are a function of the config and runtime.seed alone. `classes` is the
    number of classes of the data set, which matters to `supervised`."""
    backbone = build_trunk(config.encoder, config.runtime.seed)
    kind = method_class(config.method)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key(config.runtime.seed, "method_init") >> 1)
        return kind.build(config.method, backbone, config, classes)
