"""Messages for archives that cannot be read as they are, with the command that makes them readable."""

from pathlib import Path

from cnnjepa.commands import command
from cnnjepa.data.scan import COMPRESSED, Scan, named, printable
from cnnjepa.schemas import ConfigError

_TOOLS = {"gz": ("gunzip", "-k"), "2": ("bunzip2", "-k"), "xz": ("unxz", "-k"), "zst": ("zstd", "-d")}


def unpacking(archive: str) -> str:
    """Return the command that turns a compressed archive into a `.tar`."""
    tool = next(words for end, words in _TOOLS.items() if archive.lower().endswith(end))
    return command(*tool, printable(archive))


def file_advice(path: Path) -> str:
    """Return what to do with a file that is no archive of a known kind; empty if it is nothing that can be unpacked."""
    return f"; unpack it with `{unpacking(str(path))}`" if path.name.lower().endswith(COMPRESSED) else ""


def refuse_archives(path: Path, scan: Scan, train: str) -> None:
    """Raise ConfigError for a folder of compressed archives, and for one whose training images are in archives while
    other images are files. `train` is the name of the training split."""
    archives = scan.compressed
    if archives and not len(scan.entries):
        raise ConfigError(
            f"data.path {path} holds {len(archives):,} compressed archive(s) ({_some(archives)}); their images cannot "
            f"be read one by one. Unpack each to a .tar (`{unpacking(archives[0])}`), and keep the compressed ones "
            "elsewhere"
        )
    inside = [shard for shard in scan.shards if f"/{train}/" in f"/{shard}"]
    if inside and len(scan.entries) and not any(f"/{folder}/".endswith(f"/{train}/") for folder in _with_images(scan)):
        other = next(iter(sorted(_with_images(scan))))
        raise ConfigError(
            f"data.path {path}: the training images are in archives ({_some(inside)}), and {printable(other)}/ holds "
            "single images; archives and files are not read together. Put the files into an archive too "
            f"(`{command('tar', 'cf', f'{other}.tar', '-C', path, printable(other))}`) and keep the folder elsewhere, "
            "or unpack the archives"
        )


def archives_in_an_archive(path: Path, shards: list[str]) -> str:
    """Return the message for an archive of archives, such as ImageNet's."""
    folder = path.with_suffix("")
    return (
        f"data.path {path} holds archives ({_some(shards)}) and no images; unpack it into a folder and give that: "
        f"`{command('mkdir', folder)} && {command('tar', 'xf', path, '-C', folder)}`. An archive per class gives the "
        "class"
    )


def _with_images(scan: Scan) -> set[str]:
    """Return the uppermost folders that hold images, and those below."""
    found = set()
    for entry in scan.entries:
        parts = entry.path.split("/")[:-1]
        found |= {"/".join(parts[: depth + 1]) for depth in range(len(parts))}
    return found


def _some(archives: list[str]) -> str:
    return named([printable(one) for one in archives])
