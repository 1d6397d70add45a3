"""Residual networks of torchvision, without classifier, at the stem, width and depth asked for."""

from cnnjepa.encoders.trunk import ResNetTrunk, build_trunk

__all__ = ["ResNetTrunk", "build_trunk"]
