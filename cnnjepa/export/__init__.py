"""A run's encoder for use elsewhere: torchvision, timm, safetensors, ONNX, or a folder for Hugging Face's hub."""

from cnnjepa.export.formats import FORMATS, export_run

__all__ = ["FORMATS", "export_run"]
