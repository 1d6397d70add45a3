"""Whether a file system keeps its promise when it grants a lock.

Where it does not, two processes on two machines would train in one folder, so such places are refused.
"""

from pathlib import Path

from cnnjepa.errors import RunError

WHERE_LOCKS_WORK = "use a local disk, NFS (not mounted with nolock or local_lock), or Lustre mounted with flock"

# Mount options that keep locks on the client: other machines do not see them. Source: nfs(5), mount.lustre(8).
_LOCAL_ONLY = {
    "nfs": {"nolock", "local_lock=all", "local_lock=flock"},
    "nfs4": {"nolock", "local_lock=all", "local_lock=flock"},
    "lustre": {"localflock"},
    "cifs": {"nobrl"},
    "smb3": {"nobrl"},
}


def refuse_unsafe_locks(path: Path, mounts: str | None = None) -> None:
    """Raises RunError when locks below `path` are not seen by other machines. `mounts` is the text of
    /proc/self/mountinfo; read from there by default, and nothing is refused where there is none (not Linux)."""
    if mounts is None:
        try:
            mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8")
        except OSError:
            return
    found = _mount_of(path.resolve(), mounts)
    if found is None:
        return
    kind, options = found
    bad = sorted(_LOCAL_ONLY.get(kind, set()) & options)
    if bad:
        raise RunError(
            f"{path} lies on {kind} mounted with {bad[0]}, where a lock of one machine is not seen by another; "
            f"{WHERE_LOCKS_WORK}"
        )


def _mount_of(path: Path, mounts: str) -> tuple[str, set[str]] | None:
    """(file system, options) of the innermost mount that holds `path`. Format: proc(5), mountinfo."""
    best: tuple[int, str, set[str]] | None = None
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        fields, tail = before.split(), after.split()
        if len(fields) < 6 or len(tail) < 3:
            continue
        point = Path(fields[4].encode().decode("unicode_escape"))  # spaces are written \040
        if path.is_relative_to(point) and (best is None or len(point.parts) >= best[0]):
            best = (len(point.parts), tail[0], {*fields[5].split(","), *tail[2].split(",")})
    return None if best is None else best[1:]
