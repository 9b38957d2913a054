"""Archives from others: unpacked as plain files below one folder, or not at all."""

from __future__ import annotations

import functools
import ntpath
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from compressor.errors import PocketganError
from compressor.files import write_error

_DAMAGED = (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, NotImplementedError, RuntimeError)


@dataclass(frozen=True)
class _Member:
    """One entry: `read` is None for a folder."""

    name: str
    size: int
    read: Callable[[], IO[bytes]] | None


def unpack(archive: Path, target: Path, watch: Callable[[int], None] = lambda done: None) -> int:
    """Unpack a .zip or .tar(.gz) so that `target` is there with everything in it, or not at all.

    An archive's only folder becomes `target` itself. Whatever is not a plain file or folder, or would lie
    outside of `target`, makes the whole archive be refused.

    Args:
        watch: told how many bytes of the archive have been read.

    Returns:
        The number of files.

    Raises:
        PocketganError: the archive is damaged or refused, the disk is full, or `target` is already there.
    """
    if target.exists():
        raise PocketganError(f"{target} is already there", fix="move it away, then the same command again")
    work = target.with_name(f".{target.name}.unpacking")
    shutil.rmtree(work, ignore_errors=True)  # of a call that was killed
    try:
        work.mkdir(parents=True)
        with archive.open("rb") as file:
            count = _write(archive, _members(archive, file), work, lambda: watch(file.tell()))
        inside = list(work.iterdir())
        (inside[0] if len(inside) == 1 and inside[0].is_dir() else work).replace(target)
    except _DAMAGED as error:
        raise PocketganError(f"{archive} cannot be unpacked", got=error) from error
    except OSError as error:
        raise write_error(target, error) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return count


def _write(archive: Path, members: Iterator[_Member], work: Path, watch: Callable[[], None]) -> int:
    count = 0
    for member in members:
        path = work.joinpath(*_parts(archive, member.name))
        if member.read is None:
            path.mkdir(parents=True, exist_ok=True)
            continue
        if member.size > (free := shutil.disk_usage(work).free):
            raise PocketganError(
                f"{archive} does not fit on the disk",
                got=f"{member.name} of {member.size:,} bytes, {free:,} are free",
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        with member.read() as source, path.open("xb") as file:
            shutil.copyfileobj(source, file)
        count += 1
        watch()
    return count


def _members(archive: Path, file: IO[bytes]) -> Iterator[_Member]:
    if zipfile.is_zipfile(file):
        file.seek(0)
        with zipfile.ZipFile(file) as packed:
            for info in packed.infolist():
                kind = stat.S_IFMT(info.external_attr >> 16)
                if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                    raise _refused(archive, info.filename, "no plain file")
                read = None if info.is_dir() else functools.partial(packed.open, info)
                yield _Member(info.filename, info.file_size, read)
        return
    file.seek(0)
    with tarfile.open(fileobj=file) as rolled:
        for item in rolled:
            if not (item.isreg() or item.isdir()):
                raise _refused(archive, item.name, "no plain file")
            read = None if item.isdir() else functools.partial(_opened, rolled, item)
            yield _Member(item.name, item.size, read)


def _opened(rolled: tarfile.TarFile, item: tarfile.TarInfo) -> IO[bytes]:
    source = rolled.extractfile(item)
    assert source is not None  # of a plain file it never is
    return source


def _parts(archive: Path, name: str) -> tuple[str, ...]:
    path = PurePosixPath(name)
    outside = path.is_absolute() or ".." in path.parts
    if outside or not name or "\\" in name or "\0" in name or ntpath.splitdrive(name)[0]:
        raise _refused(archive, name, "it would lie outside of its folder")
    return path.parts


def _refused(archive: Path, name: str, why: str) -> PocketganError:
    return PocketganError(
        f"{archive} is refused: it holds {name!r}, {why}",
        allowed="plain files and folders below the archive's own",
        fix="do not unpack it by hand either; tell whoever publishes it",
    )
