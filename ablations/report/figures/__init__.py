"""The report's pictures: each module draws one kind."""

from cnnjepa.matplotlib_cache import ensure_matplotlib_cache

ensure_matplotlib_cache()  # before any of these modules imports Matplotlib
