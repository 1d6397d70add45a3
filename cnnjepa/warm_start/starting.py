"""Resolution of a config's start: the initial weights of its encoder, and the run that it continues."""

from collections.abc import Iterable
from pathlib import Path

from cnnjepa.places import refuse_no_run
from cnnjepa.schemas import ConfigError, PretrainConfig, read_config
from cnnjepa.schemas.encoder import EncoderSection
from cnnjepa.schemas.initial_weights import HASH_BEGINNING, init_reference
from cnnjepa.training.run_folder import RunFolder
from cnnjepa.warm_start.initial_weights import InitialWeights, load_initial_weights, stored_initial_weights
from cnnjepa.warm_start.location import find_run, located


def with_initial_weights(
    config: PretrainConfig, root: Path = Path(), kept: Iterable[Path] = ()
) -> tuple[PretrainConfig, InitialWeights | None]:
    """Return the config with the location and the fingerprint of `encoder.init`, and its weights; None if they are
    random. `root` is the folder of `runs/by_hash`.

    `kept` are run folders that may have a copy of the weights. A resumed run names its own: it keeps the weights with
    which it began, and needs the source no more. Raises ConfigError if the weights cannot be read or do not fit."""
    if not config.encoder.warm:
        return config, None
    for run in kept:
        if (run / "config.yaml").is_file() and (stored := stored_initial_weights(run)):
            recorded = read_config(run / "config.yaml").encoder
            if _same_reference(config.encoder, recorded):
                return _with_encoder(config, recorded.init, recorded.init_fingerprint), stored
    config = _with_encoder(config, located(config.encoder, root), "")
    weights = load_initial_weights(config)
    return _with_encoder(config, config.encoder.init, weights.described.fingerprint), weights


def _with_encoder(config: PretrainConfig, init: str, fingerprint: str) -> PretrainConfig:
    encoder = config.encoder.model_copy(update={"init": init, "init_fingerprint": fingerprint})
    return config.model_copy(update={"encoder": encoder})


def _same_reference(asked: EncoderSection, recorded: EncoderSection) -> bool:
    """Return whether two encoders name the same weights, which may not exist any more. `recorded` is located."""
    if asked.init_encoder != recorded.init_encoder:
        return False
    (kind, name), (recorded_kind, recorded_name) = init_reference(asked.init), init_reference(recorded.init)
    if kind != recorded_kind:
        return False
    if kind not in ("path", "folder"):
        return name == recorded_name
    is_hash = HASH_BEGINNING.match(name) and not Path(name).exists()
    return str(Path(name).resolve()) == recorded_name or bool(is_hash and Path(recorded_name).name.startswith(name))


def with_continued_run(config: PretrainConfig, root: Path = Path(), own: RunFolder | None = None) -> PretrainConfig:
    """Return the config with the absolute folder and the hash of the run that it continues. `own` is the folder of a
    resumed run with a checkpoint, which does not need that run any more. Raises ConfigError if that run does not
    exist, or has not ended."""
    named = config.runtime.continues
    if named is None:
        return config
    if own is not None and own.begun:
        recorded = read_config(own.path / "config.yaml").runtime
        if recorded.continues == named.resolve() and recorded.continues_hash:
            return _with_runtime(config, recorded.continues, recorded.continues_hash)
    try:
        source = find_run(str(named), root)
        refuse_no_run(source, "last.pt")
    except ConfigError as error:
        raise ConfigError(f"--from {named} (runtime.continues): {error}") from None
    result = RunFolder(source).read_result()
    if result is None or not result.has_figures:
        raise ConfigError(
            f"--from {named} (runtime.continues): {source} has not ended; resume it first with --resume, and then "
            "continue it"
        )
    return _with_runtime(config, source, result.pretrain_hash)


def _with_runtime(config: PretrainConfig, source: Path, pretrain_hash: str) -> PretrainConfig:
    found = {"continues": source, "continues_hash": pretrain_hash}
    return config.model_copy(update={"runtime": config.runtime.model_copy(update=found)})
