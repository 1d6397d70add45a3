"""Uncertainty of a single run's accuracy that comes from the finite number of images."""

import math


def wilson(percent: float, images: int) -> tuple[float, float]:
    """Return the 95 % binomial interval (Wilson, JASA 1927) of an accuracy in percent over `images` images."""
    z = 1.959964
    p = percent / 100
    centre = (p + z * z / (2 * images)) / (1 + z * z / images)
    half = z / (1 + z * z / images) * math.sqrt(p * (1 - p) / images + z * z / (4 * images * images))
    return 100 * (centre - half), 100 * (centre + half)
