"""95 % intervals: of a single run's accuracy, from the finite number of images, and of a mean."""

import math

LEVEL = 0.05
"""One minus the coverage of intervals, and the allowed probability of any false verdict in a table."""


def t_half_width(sd: float, n: int) -> float:
    """Return half of Student's 95 % interval of the mean of `n` values, at least 2, with this standard deviation (n − 1
    in the denominator)."""
    from scipy import stats  # half a second to import (measured)

    return float(stats.t.ppf(1 - LEVEL / 2, n - 1)) * sd / math.sqrt(n)


def wilson(percent: float, images: int) -> tuple[float, float]:
    """Return the 95 % binomial interval (Wilson, JASA 1927) of an accuracy in percent over `images` images."""
    z = 1.959964
    p = percent / 100
    centre = (p + z * z / (2 * images)) / (1 + z * z / images)
    half = z / (1 + z * z / images) * math.sqrt(p * (1 - p) / images + z * z / (4 * images * images))
    return 100 * (centre - half), 100 * (centre + half)
