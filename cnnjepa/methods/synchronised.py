"""Batch norm over the global batch of several processes.

On GPUs this is torch's SyncBatchNorm, which refuses tensors on the CPU. On CPUs the norm in this module computes the
same: means and variances over the values of all processes, with sums and their gradients by all-reduce. A single
process needs neither.
"""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from cnnjepa.methods.collectives import summed, world
from cnnjepa.tensor_ops.norms import norm_like


class GatheredBatchNorm(_BatchNorm):
    """A batch norm with the same parameters, buffers and names as the one it replaces. In evaluation mode both compute
    the same."""

    @classmethod
    def of(cls, norm: _BatchNorm) -> "GatheredBatchNorm":
        """Create the norm with the parameters and statistics of another."""
        return norm_like(cls, norm)

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"batch norm takes [N, C, …]; given {list(input.shape)}")

    def forward(self, input: Tensor) -> Tensor:
        """Normalise [N, C, …]; same shape."""
        if not self.training or world()[1] == 1:
            return super().forward(input)
        # Statistics are float32, like torch's under autocast.
        x = input if input.dtype == torch.float64 else input.float()
        axes = [0, *range(2, x.dim())]
        count = summed(x.new_tensor(float(x.numel() // x.shape[1])))
        shape = (1, -1, *[1] * (x.dim() - 2))
        mean = summed(x.sum(axes)) / count
        centred = x - mean.view(shape)
        variance = summed(centred.square().sum(axes)) / count
        self._remember(mean.detach(), variance.detach() * count / (count - 1))
        scaled = centred * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            scaled = scaled * self.weight.view(shape) + self.bias.view(shape)
        return scaled.to(input.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        if not self.track_running_stats:
            return
        assert self.num_batches_tracked is not None
        assert self.running_mean is not None and self.running_var is not None
        self.num_batches_tracked.add_(1)
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_(variance.to(self.running_var.dtype), share)


def synchronise(module: nn.Module, device: torch.device) -> None:
    """Replace every batch norm below `module`, in place. Parameters and their names are kept."""
    for name, child in list(module.named_children()):
        if not isinstance(child, _BatchNorm):
            synchronise(child, device)
        elif device.type == "cuda":
            setattr(module, name, nn.SyncBatchNorm.convert_sync_batchnorm(child))
        else:
            setattr(module, name, GatheredBatchNorm.of(child))
