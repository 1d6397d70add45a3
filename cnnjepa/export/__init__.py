"""Export of a run's encoder to torchvision, timm, safetensors, ONNX, or a folder for the Hugging Face hub."""

from cnnjepa.export.formats import FORMATS, export_run

__all__ = ["FORMATS", "export_run"]
