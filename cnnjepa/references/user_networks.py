"""Networks that the user defines, named `package.module:Class`."""

from collections.abc import Mapping
from dataclasses import fields

import torch
from torch import nn

from cnnjepa.encoders.custom import load_network
from cnnjepa.randomness import key
from cnnjepa.references.encoder import Opened
from cnnjepa.references.preprocessing import Preprocessing, PreprocessingOverrides, for_channels, resolved
from cnnjepa.references.request import FORMS, EncoderRequest
from cnnjepa.schemas import ConfigError
from cnnjepa.schemas.source_files import module_fingerprint


def open_user_network(request: EncoderRequest, overrides: PreprocessingOverrides) -> Opened:
    """Build the user's network without arguments; torch's generator is seeded. Its attribute `preprocessing`, a mapping
    with fields of `Preprocessing`, says how its images are prepared. Raises ConfigError if it cannot be imported or
    built, or if the preprocessing is unknown."""
    named = f"encoder {request.name}"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key(0, "encoder_init") >> 1)
        network = _made(request.name)
    stated = getattr(network, "preprocessing", {})
    allowed = [field.name for field in fields(Preprocessing)]
    if not isinstance(stated, Mapping) or not set(stated) <= set(allowed):
        raise ConfigError(f"{named}: its attribute `preprocessing` must be a dict with keys among {', '.join(allowed)}")
    preprocessing = resolved(for_channels(dict(stated), overrides), overrides, named)
    source = module_fingerprint(request.name.partition(":")[0])
    return Opened(network, preprocessing, request.name, {"own": request.name, "source": source})


def _made(name: str) -> nn.Module:
    try:
        return load_network(name)
    except ConfigError as error:
        module = name.partition(":")[0]
        if isinstance(error.__cause__, ModuleNotFoundError) and error.__cause__.name == module:
            raise ConfigError(
                f"encoder {name!r}: there is no module {module} here or among the installed packages; an encoder must "
                f"be {FORMS}"
            ) from None
        raise
