"""GPU kernels of our own, written in Triton. Each equals operations of torch, which are used where a kernel is not
switched on."""

from cnnjepa.kernels.switch import in_use, required, used

__all__ = ["in_use", "required", "used"]
