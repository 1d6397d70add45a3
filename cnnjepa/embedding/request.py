"""A request for a file of features. torch is not imported here, so that a wrong request is refused at once."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cnnjepa.references.preprocessing import NO_OVERRIDES, PreprocessingOverrides
from cnnjepa.references.request import encoder_request
from cnnjepa.schemas.errors import ConfigError

Split = Literal["all", "train", "val"]
FeatureType = Literal["float32", "float16"]

ENDINGS = (".parquet", ".npy", ".h5", ".hdf5")
"""Endings of a file of features."""


@dataclass(frozen=True)
class EmbedRequest:
    """An encoder, a set of images, and the file for their features."""

    reference: str
    """The encoder, see `open_encoder`."""
    out: Path
    """The file to write: `.parquet`, `.npy` (with a `.csv` of the names and a `.json` of the settings) or `.h5`."""
    data: Path | None = None
    """The images; None for those on which the encoder was trained."""
    sets: tuple[str, ...] = ()
    """`--set` flags for the section `data`."""
    split: Split = "all"
    """The images of one split, or all: first those of `train`, then those of `val`."""
    dense: bool = False
    """Write the map [C, h, w] of every image instead of its mean over positions [C]."""
    dtype: FeatureType = "float32"
    """Type of the features in the file. They are computed in float32."""
    batch_size: int = 64
    """Images per batch."""
    part_images: int = 1024
    """Images after which finished features are written; a kill loses at most so many per process."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device; with several processes, each has a GPU of its own."""
    processes: int = 1
    """Processes on this machine."""
    workers: int | None = None
    """Loader processes of each process; None for 0 on a CPU and 4 on a GPU."""
    which: Literal["target", "context"] | None = None
    """The encoder of a run; None for the probed one."""
    checkpoint: str = "last.pt"
    """The checkpoint of a run."""
    overrides: PreprocessingOverrides = NO_OVERRIDES
    """Statements about the encoder's inputs."""
    root: Path = Path()
    """Folder of `runs/by_hash`."""

    def check(self) -> None:
        """Raise ConfigError for a file that cannot be written, an encoder that does not exist, and missing images."""
        kind = encoder_request(self.reference, self.root).kind
        if self.out.suffix not in ENDINGS:
            raise ConfigError(f"--out {self.out}: the ending must be one of {', '.join(ENDINGS)}")
        if self.dense and self.out.suffix == ".parquet":
            raise ConfigError(
                f"--out {self.out}: a table cannot hold maps; with --dense the ending must be .h5 or .npy"
            )
        if self.out.is_dir():
            raise ConfigError(f"--out {self.out} is a folder; give the name of a file")
        if not self.out.absolute().parent.is_dir():
            raise ConfigError(f"--out {self.out}: the folder {self.out.parent} does not exist; make it first")
        if self.data is None and kind != "run":
            raise ConfigError(
                f"give --data PATH: encoder {self.reference} is not a run, which would have its own images"
            )
        if self.data is not None and not self.data.exists():
            raise ConfigError(f"--data {self.data} does not exist; give a directory of images, or an archive")
        if self.data is None and self.sets:
            raise ConfigError(f"--set {self.sets[0]} is for the images of --data PATH")
