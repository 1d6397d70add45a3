"""Evaluation of frozen features: linear and k-NN probes, floors, diagnostics."""

from cnnjepa.probes.assessment import Assessment, Glance, assess, glance
from cnnjepa.probes.floors import calibrate

__all__ = ["Assessment", "Glance", "assess", "calibrate", "glance"]
