"""Features of a set of images in a file, and search in such a file."""

from cnnjepa.embedding.embed import Embedded, embed
from cnnjepa.embedding.feature_file import FeatureFile, open_features
from cnnjepa.embedding.request import EmbedRequest

__all__ = ["EmbedRequest", "Embedded", "FeatureFile", "embed", "open_features"]
