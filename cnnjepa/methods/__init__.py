"""Methods of pretraining. Each is one module; the training loop knows only the common interface."""

from cnnjepa.methods.build import build_method
from cnnjepa.methods.cnnjepa import CNNJEPA
from cnnjepa.methods.method import Method, Pass, StepDraw, StepLoss

__all__ = ["CNNJEPA", "Method", "Pass", "StepDraw", "StepLoss", "build_method"]
