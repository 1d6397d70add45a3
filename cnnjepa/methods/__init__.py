"""Methods: what is learned from images. Each is one module that the training loop knows nothing more about."""

from cnnjepa.methods.build import build_method
from cnnjepa.methods.cnnjepa import CNNJEPA
from cnnjepa.methods.method import Method, Pass, StepDraw, StepLoss

__all__ = ["CNNJEPA", "Method", "Pass", "StepDraw", "StepLoss", "build_method"]
