"""Images: sources, decoding, crops, batches. Everything is uint8 until it is on the device."""

from cnnjepa.data.open import DataSet, open_data
from cnnjepa.data.source import ImageSource

__all__ = ["DataSet", "ImageSource", "open_data"]
