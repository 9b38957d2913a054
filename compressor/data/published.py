"""Published sets and weights: where they are, and what they are checked against.

Few publishers tell a checksum. Where one is known (the first digits of a SHA-256 in a file's name count) it
decides. Otherwise the first fetch notes what came in checksums.json beside the data, and from then on
nothing else passes: trust on first use.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

from compressor.data.download import ATTEMPTS, download
from compressor.data.unpack import unpack
from compressor.errors import PocketganError, UsageError
from compressor.files import read_json, sha256, write_json
from compressor.progress import Progress

LOCK = "checksums.json"
_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")
_FORMAT = "pocketgan.data/1"


@dataclass(frozen=True)
class Entry:
    """One set or file of published.yaml.

    Attributes:
        url: of the file, of an archive, or with {picture} of many pictures.
        into: where it goes below the data folder: the file itself, or a folder.
        purpose, licence, about: what it is for, its licence as stated, and roughly its size.
        sha256: published digits, the first or all; empty without any.
        pictures: that {picture} stands for, a large and a small one each; 0 without {picture}.
    """

    name: str
    url: str
    into: str
    purpose: str
    licence: str
    about: str
    sha256: str = ""
    pictures: int = 0

    @property
    def is_archive(self) -> bool:
        """Whether the file is to be unpacked."""
        return self.url.endswith(_ARCHIVES)

    def files(self, source: str | None) -> list[tuple[str, str]]:
        """(name below the source, URL) of every file.

        Args:
            source: URL or folder of a mirror instead of the publisher; None for the publisher.
        """
        if not self.pictures:
            names = {urllib.parse.urlsplit(self.url).path.rpartition("/")[2]: self.url}
        else:
            folder = Path(self.into).name
            pictures = [f"img_{n + 1:03d}_SRF_4_{k}.png" for n in range(self.pictures) for k in ("HR", "LR")]
            names = {f"{folder}/{picture}": self.url.format(picture=picture) for picture in pictures}
        if source is None:
            return list(names.items())
        base = source if "://" in source else Path(source).resolve().as_uri()
        return [(name, f"{base.rstrip('/')}/{name}") for name in names]


@dataclass(frozen=True)
class Fetched:
    """What became of an entry.

    Attributes:
        path: the file or folder.
        state: "fetched" or "here" (it was already there).
        checked: what its content was compared with, in words.
        sha256: of the file or the archive, if there is one.
    """

    name: str
    path: Path
    state: str
    checked: str
    sha256: str | None = None

    def as_json(self) -> dict[str, Any]:
        """The result as JSON types."""
        return {**asdict(self), "path": str(self.path)}


@functools.cache
def entries() -> Mapping[str, Entry]:
    """All that is known, by name."""
    import yaml

    text = Path(__file__).with_name("published.yaml").read_text(encoding="utf-8")
    return {
        name: Entry(name=name, purpose=told.pop("for"), **told) for name, told in yaml.safe_load(text).items()
    }


def find(names: Sequence[str]) -> list[Entry]:
    """The entries of some names.

    Raises:
        UsageError: there is no such entry.
    """
    import difflib

    known = entries()
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            raise UsageError(
                f"there is no {name!r} to fetch",
                allowed=f"{near[0]}, or another of `pocketgan data list`" if near else ", ".join(known),
            )
    return [known[name] for name in dict.fromkeys(names)]


def fetch(
    entry: Entry,
    folder: Path,
    *,
    source: str | None = None,
    demanded: str = "",
    attempts: int = ATTEMPTS,
    pause: float = 1.0,
) -> Fetched:
    """Bring one entry into the data folder; what is there already is checked instead.

    Args:
        source: URL or folder of a mirror that holds the files under the names of `Entry.files`.
        demanded: SHA-256 of the file, or its first digits, that the user wants.
        attempts, pause: as of `download`.

    Raises:
        UsageError: a checksum is demanded of many pictures.
        PocketganError: it cannot be downloaded, is not what it was or should be, or cannot be unpacked.
    """
    if demanded and entry.pictures:
        raise UsageError(
            f"{entry.name} is {2 * entry.pictures} files, which have a checksum each",
            fix="leave out --sha256; checksums.json notes what came",
        )
    job = _Job(entry, folder, source, demanded, functools.partial(download, attempts=attempts, pause=pause))
    if entry.pictures:
        return job.pictures()
    return job.archive() if entry.is_archive else job.file()


@dataclass(frozen=True)
class _Job:
    """One entry on its way into a folder."""

    entry: Entry
    folder: Path
    source: str | None
    demanded: str
    bring: Callable[..., str]

    @property
    def target(self) -> Path:
        return self.folder / self.entry.into

    def file(self) -> Fetched:
        ((name, url),) = self.entry.files(self.source)
        here = self.target.exists()
        found = sha256(self.target) if here else self._download(name, url, self.target)
        checked = self._admit(name, url, found, self.target)
        return Fetched(self.entry.name, self.target, "here" if here else "fetched", checked, found)

    def archive(self) -> Fetched:
        ((name, url),) = self.entry.files(self.source)
        if self.target.exists():
            said = "not again: only its archive has a checksum"
            return Fetched(self.entry.name, self.target, "here", said)
        packed = self.folder / name
        found = sha256(packed) if packed.exists() else self._download(name, url, packed)
        checked = self._admit(name, url, found, packed)
        size = packed.stat().st_size
        with Progress(f"unpack {self.entry.name}, MB", _megabytes(size)) as progress:
            unpack(packed, self.target, lambda done: progress.update(_megabytes(done)))
            progress.update(_megabytes(size))
        packed.unlink()
        return Fetched(self.entry.name, self.target, "fetched", checked, found)

    def pictures(self) -> Fetched:
        files, checks, came = self.entry.files(self.source), set(), 0
        with Progress(f"fetch {self.entry.name}", len(files)) as progress:
            for number, (name, url) in enumerate(files, 1):
                path = self.target / Path(name).name
                came += not path.exists()
                found = sha256(path) if path.exists() else self._picture(name, url, path)
                checks.add(self._admit(name, url, found, path))
                progress.update(number)
        return Fetched(self.entry.name, self.target, "fetched" if came else "here", "; ".join(sorted(checks)))

    def _picture(self, name: str, url: str, path: Path) -> str:
        noted = str(_read(self.folder).get(name, {}).get("sha256", ""))
        return self.bring(url, path, wanted=noted, fix=self._fix(url, path))

    def _download(self, name: str, url: str, path: Path) -> str:
        wanted = max((digits for digits, _ in self._known(name, _read(self.folder))), key=len)
        progress: Progress | None = None

        def watch(done: int, total: int | None) -> None:
            nonlocal progress
            if total is not None:
                title = f"fetch {self.entry.name}, MB"
                progress = progress or Progress(title, _megabytes(total), _megabytes(done))
                progress.update(_megabytes(done))

        found = self.bring(url, path, wanted=wanted, fix=self._fix(url, path), watch=watch)
        if progress is not None:
            progress.__exit__(None, None, None)
        return found

    def _known(self, name: str, noted: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str]]:
        """Every (SHA-256 or its first digits, who says so) of a file.

        Raises:
            PocketganError: they contradict each other, so that no file would do.
        """
        known = [
            (self.demanded.lower(), "--sha256"),
            (self.entry.sha256, "the published checksum"),
            (str(noted.get(name, {}).get("sha256", "")), f"what came first, as {LOCK} says"),
        ]
        longest, whose = max(known, key=lambda each: len(each[0]))
        for digits, other in known:
            if not longest.startswith(digits):
                raise PocketganError(
                    f"{name} cannot be right: {whose} and {other} differ", got=f"{longest} and {digits}"
                )
        return known

    def _admit(self, name: str, url: str, found: str, path: Path) -> str:
        """Compare with all that is known of a file, note it if it is new, and say what was compared."""
        with _noted(self.folder) as noted:
            for digits, whose in self._known(name, noted):
                if not found.startswith(digits):
                    raise PocketganError(
                        f"{path} is not the file that was wanted: it differs from {whose}",
                        got=f"SHA-256 {found}",
                        allowed=digits,
                        fix=f"move it away, then fetch again; if {url} has changed for good and you "
                        f"trust it, take {name!r} out of {self.folder / LOCK}",
                    )
            if self.demanded:
                checked = "SHA-256 as you demanded"
            elif self.entry.sha256:
                part = "" if len(self.entry.sha256) == 64 else f" (first {len(self.entry.sha256)} digits)"
                checked = f"SHA-256 as published{part}"
            elif name in noted:
                checked = f"SHA-256 as at its first fetch on {noted[name]['first']}"
            else:
                checked = f"no checksum is published: SHA-256 noted in {LOCK}, later fetches must match"
            if name not in noted:
                size, today = path.stat().st_size, date.today().isoformat()
                noted[name] = {"sha256": found, "bytes": size, "url": url, "first": today}
        return checked

    def _fix(self, url: str, path: Path) -> str:
        return f"download {url} by hand to {path}, or name a mirror: --source URL"


def _megabytes(count: int) -> int:
    return -(-count // 1_000_000)


def _read(folder: Path) -> dict[str, dict[str, Any]]:
    path = folder / LOCK
    if not path.exists():
        return {}
    document = read_json(path)
    files = document.get("files") if isinstance(document, dict) else None
    sound = isinstance(files, dict) and all(
        isinstance(told, dict) and isinstance(told.get("sha256"), str) and "first" in told
        for told in files.values()
    )
    if not sound or document.get("format") != _FORMAT:
        raise PocketganError(f"{path} is damaged", fix="mend it, or move it away: checksums are noted anew")
    assert isinstance(files, dict)
    return files


@contextlib.contextmanager
def _noted(folder: Path) -> Iterator[dict[str, dict[str, Any]]]:
    """What is noted, to be changed by one process at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f".{LOCK}.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        noted = _read(folder)
        before = dict(noted)
        yield noted
        if noted != before:
            write_json(folder / LOCK, {"format": _FORMAT, "files": dict(sorted(noted.items()))})
