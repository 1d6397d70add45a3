"""Images: sources, decoding, crops and batches. Pixels stay uint8 until they are on the device."""

from cnnjepa.data.open import DataSet, open_data
from cnnjepa.data.source import ImageSource

__all__ = ["DataSet", "ImageSource", "open_data"]
