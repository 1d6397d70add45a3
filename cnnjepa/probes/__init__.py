"""Evaluation of frozen features: linear and k-NN probes, floors, diagnostics."""

from cnnjepa.probes.assessment import Assessment, OnlineFigures, assess, online_probe
from cnnjepa.probes.floors import calibrate

__all__ = ["Assessment", "OnlineFigures", "assess", "calibrate", "online_probe"]
