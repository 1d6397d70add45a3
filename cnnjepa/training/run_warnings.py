"""Warnings at the start of a run: settings that are allowed but rarely meant, one sentence each."""

from cnnjepa.data import DataSet
from cnnjepa.data.batches import Order
from cnnjepa.data.workers import usable_workers
from cnnjepa.schemas import PretrainConfig
from cnnjepa.schemas.numbers import counted

# Fraction of the training images left out of every epoch above which a warning is given. Assumption.
_MUCH_DROPPED = 0.1


def run_warnings(config: PretrainConfig, data: DataSet, order: Order) -> list[str]:
    """Return the warnings to show before the first step."""
    found = [*config.warnings(), *data.notes]
    if data.skipped:
        found.append(f"{len(data.skipped)} unreadable images are left out: {', '.join(data.skipped[:3])}")
    found += data.repaired
    found += _workers(config, data) + _global_batch(config, order) + _dropped_images(order)
    return found


def _workers(config: PretrainConfig, data: DataSet) -> list[str]:
    workers, usable = config.runtime.workers, usable_workers(config.runtime.workers)
    if usable >= workers or data.resident:
        return []
    return [f"runtime.workers {workers} is more than this machine's {usable} cores; {usable} are started"]


def _global_batch(config: PretrainConfig, order: Order) -> list[str]:
    """Warn if the learning rate was chosen for another batch size: it does not follow the batch size."""
    optimizer, batch = config.optimizer, order.batch_size * order.world_size
    if config.trained_epochs == 0 or optimizer.lr_at_batch is None:
        return []
    rate, chosen_at = optimizer.lr_at_batch
    if optimizer.lr != rate or batch == chosen_at:
        return []
    needed, rest = divmod(chosen_at, order.batch_size)
    processes = f"start {needed} processes, or " if not rest and needed > 1 else ""
    return [
        f"optimizer.lr {rate:g} was chosen for a global batch of {chosen_at}; this run's is {batch} "
        f"({order.world_size} x {order.batch_size}), and the rate is not scaled. To keep the setting, {processes}set "
        f"runtime.batch_size={chosen_at // order.world_size}; otherwise set optimizer.lr"
    ]


def _dropped_images(order: Order) -> list[str]:
    batch = order.batch_size * order.world_size
    dropped = order.images - order.steps_per_epoch * batch
    if dropped <= _MUCH_DROPPED * order.images:
        return []
    return [
        f"an epoch is {counted(order.steps_per_epoch, 'step')} of {batch} images, so that {dropped:,} of "
        f"{order.images:,} training images ({100 * dropped / order.images:.0f} %) are left out of each epoch, "
        "different ones each time; a smaller runtime.batch_size leaves out fewer"
    ]
