"""Judging frozen features: linear and k-NN probes, floors, diagnostics."""

from cnnjepa.probes.assessment import Assessment, Glance, assess, glance

__all__ = ["Assessment", "Glance", "assess", "glance"]
