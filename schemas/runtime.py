"""Execution: device, precision, batch size, seed, and the intervals of records."""

from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from cnnjepa.schemas.base import Section
from cnnjepa.schemas.paths import UserPath


class RuntimeConfig(Section):
    """Everything about the execution; fields marked 'not hashed' do not change the numbers."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """The device; `auto` selects a GPU if there is one; resolved before hashing."""

    precision: Literal["float32", "tf32", "bf16"] = "float32"
    """`bf16` is autocast of the forward pass; weights, losses and optimiser stay float32. `tf32` lets a GPU multiply
    float32 numbers with 10 bits of mantissa, in convolutions and matrix products alike; `float32` never does. Source:
    docs/sources.md#precision."""

    batch_size: int = Field(default=128, ge=2)
    """Images per optimiser step on each process; global batch = this x processes. Source: docs/sources.md#batch
    (128 x 4)."""

    accumulation: int = Field(default=1, ge=1)
    """Number of equal parts into which a process's batch is split to save memory; they are processed one after the
    other. Batch-norm statistics are then computed per part. Must divide batch_size."""

    epochs: int = Field(default=200, ge=1)
    """Passes over the training set. Source: docs/sources.md#epochs (201 on ImageNet-100, 101 on ImageNet-1k)."""

    compile: bool = False
    """Use torch.compile for the dense target encoder and the predictor; this costs a minute at the start."""

    cuda_graphs: bool = False
    """Run forward and backward pass as CUDA graphs, with our GPU kernels: for CNN-JEPA with a packed ResNet on one GPU.
    The number of visible cells is rounded up; results differ in rounding only."""

    channels_last: bool = True
    """Store activations and convolution weights in channels-last memory format, which is faster on CPUs and tensor
    cores."""

    workers: int = Field(default=2, ge=0)
    """Number of loader processes, if the data set is not resident; 0 = loading in the training process. Not hashed."""

    threads: int | None = Field(default=None, ge=1, le=1024)
    """CPU threads of the process; None = the framework's choice. Not hashed, but recorded: bitwise claims hold
    for the same number."""

    seed: int = Field(default=0, ge=0)
    """Seed of all random choices."""

    log_every_steps: int = Field(default=10, ge=1)
    """Steps per line of metrics.jsonl. Not hashed."""

    checkpoint_every_steps: int = Field(default=500, ge=1)
    """Steps between checkpoints; one is also written after every epoch. Not hashed."""

    keep_epochs: tuple[int, ...] = ()
    """Epochs after which a checkpoint is kept permanently as `epoch_N.pt`. Not hashed."""

    images_every_epochs: int = Field(default=10, ge=0)
    """Epochs between TensorBoard panels of image, context and target; 0 = none. Not hashed."""

    continues: UserPath | None = None
    """A finished run that this run continues for more epochs; `cnnjepa train --from RUN` sets it. Weights, moving
    average, optimiser state and step counter are the run's; learning rate, weight decay and momentum follow the
    schedule of the new `epochs` from that step on. Not hashed; the run's hash is."""

    continues_hash: str = ""
    """Pretrain hash of that run. Filled in when a run begins."""

    @field_validator("batch_size", mode="before")
    @classmethod
    def _images_to_compare(cls, value: Any) -> Any:
        if isinstance(value, int) and value < 2:
            raise ValueError(
                f"{value} is too few images for a process's step: batch norm has no statistics of one row, NT-Xent no "
                "negative, VICReg no variance, LeJEPA no distribution; must be at least 2 per process"
            )
        return value

    @model_validator(mode="before")
    @classmethod
    def _only_a_continued_run_has_a_hash(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("continues") is None:
            return {k: v for k, v in given.items() if k != "continues_hash" or not isinstance(v, str)}
        return given

    @model_validator(mode="after")
    def _parts_are_equal(self) -> Self:
        batch = self.batch_size
        if batch % self.accumulation or batch // self.accumulation < 2:
            divisors = [parts for parts in range(1, batch // 2 + 1) if batch % parts == 0]
            raise ValueError(
                f"runtime.accumulation {self.accumulation} must divide runtime.batch_size {batch} into parts of at "
                "least 2 images, for batch norm and losses that compare images; must be one of "
                f"{', '.join(map(str, divisors))}"
            )
        return self
