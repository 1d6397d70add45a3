"""Methods: what is learned from images. Each is one module that the training loop knows nothing more about."""

from cnnjepa.methods.build import build_method
from cnnjepa.methods.cnnjepa import CNNJEPA, StepLoss

__all__ = ["CNNJEPA", "StepLoss", "build_method"]
