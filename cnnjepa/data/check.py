"""Check a data set for unreadable images before training."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from cnnjepa.data.open import open_sources
from cnnjepa.data.source import ImageSource, Splits
from cnnjepa.errors import ImageError
from cnnjepa.schemas import DataConfig


class Checked(NamedTuple):
    """The result of checking one image."""

    split: str
    problem: str | None
    """Name and reason if the image cannot be read, else None."""
    size: tuple[int, int] | None
    """(height, width) in pixels if the image can be read, else None."""
    class_name: str = ""


def check_images(config: DataConfig, threads: int = 2, sources: Splits | None = None) -> Iterator[Checked]:
    """Read and decode every image of both splits, in order. `sources` are the config's sources if they are already
    open. Threads suffice because decoding releases the interpreter's lock."""

    def look(source: ImageSource, split: str, index: int) -> Checked:
        name = str(source.class_names[int(source.labels[index])]) if source.class_names else ""
        try:
            image = source.load(index)
        except ImageError as error:
            return Checked(split, str(error), None, name)
        return Checked(split, None, (image.shape[1], image.shape[2]), name)

    with ThreadPoolExecutor(threads) as pool:
        for split, source in (sources or open_sources(config)).items():
            count = source.labels.numel()
            for start in range(0, count, 4096):
                block = range(start, min(start + 4096, count))
                yield from pool.map(lambda index, s=source, n=split: look(s, n, index), block)
