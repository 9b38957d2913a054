"""Published data: from a real server that breaks off, lies and refuses; archives that would climb out."""

from __future__ import annotations

import functools
import hashlib
import http.server
import io
import json
import re
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from compressor.data import published
from compressor.data.download import download
from compressor.data.published import LOCK, Entry, fetch
from compressor.data.unpack import unpack
from compressor.errors import PocketganError, UsageError
from pocketgan.cli import main

CONTENT = bytes(range(256)) * 4096  # 1 MiB


@dataclass
class Server:
    """A server of this test's files, and what it is told to do wrong."""

    url: str
    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[tuple[str, str | None]] = field(default_factory=list)  # path and Range
    break_after: list[int] = field(default_factory=list)  # bytes of the next answers; then whole
    states: list[int] = field(default_factory=list)  # of the next answers; then 200
    tagged: bool = True  # says which version a file is


class Handler(http.server.BaseHTTPRequestHandler):
    def __init__(self, server: Server, *arguments: object) -> None:
        self.told = server
        super().__init__(*arguments)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        told, asked = self.told, self.headers.get("Range")
        told.asked.append((self.path, asked))
        content = told.files.get(self.path)
        if told.states and (state := told.states.pop(0)) != 200:
            self.send_error(state)
            return
        if content is None:
            self.send_error(404)
            return
        tag = f'"{hashlib.sha256(content).hexdigest()[:8]}"'
        start = 0
        if asked and self.headers.get("If-Range") == tag:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start >= len(content):
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        if told.tagged:
            self.send_header("ETag", tag)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start:][: told.break_after.pop(0) if told.break_after else None])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    told = Server("")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, told)) as real:
        told.url = f"http://127.0.0.1:{real.server_address[1]}"
        thread = threading.Thread(target=real.serve_forever, args=(0.01,))
        thread.start()
        yield told
        real.shutdown()
        thread.join()


def bring(server: Server, path: Path, name: str = "/file", **arguments: object) -> str:
    return download(f"{server.url}{name}", path, pause=0.001, **arguments)  # type: ignore[arg-type]


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


# One file


def test_a_server_that_breaks_mid_file_is_gone_on_with(server: Server, tmp_path: Path) -> None:
    server.files["/file"], server.break_after, seen = CONTENT, [300_000, 200_000], []
    found = bring(server, tmp_path / "file", watch=lambda done, total: seen.append((done, total)))
    assert (tmp_path / "file").read_bytes() == CONTENT and found == hashlib.sha256(CONTENT).hexdigest()
    assert [asked for _, asked in server.asked] == [None, "bytes=300000-", "bytes=500000-"]
    assert seen[-1] == (len(CONTENT), len(CONTENT)) and seen == sorted(seen)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_later_call_goes_on_where_an_earlier_one_gave_up(server: Server, tmp_path: Path) -> None:
    server.files["/file"], server.break_after = CONTENT, [100_000, 0]
    with pytest.raises(PocketganError, match=r"(?s)broke off after 100,000 of 1,048,576.*2 att.*goes on"):
        bring(server, tmp_path / "file", attempts=2)
    assert not (tmp_path / "file").exists()
    bring(server, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert server.asked[-1] == ("/file", "bytes=100000-")


def test_a_file_that_changed_meanwhile_is_begun_anew(server: Server, tmp_path: Path) -> None:
    server.files["/file"], server.break_after = CONTENT, [100_000]
    with pytest.raises(PocketganError):
        bring(server, tmp_path / "file", attempts=1)
    server.files["/file"] = CONTENT[::-1]
    bring(server, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT[::-1]


def test_without_a_version_nothing_is_pieced_together(server: Server, tmp_path: Path) -> None:
    server.files["/file"], server.break_after, server.tagged = CONTENT, [100_000], False
    bring(server, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert [asked for _, asked in server.asked] == [None, None]


def test_an_overloaded_server_is_asked_again_an_absent_file_is_not(server: Server, tmp_path: Path) -> None:
    server.files["/file"], server.states = CONTENT, [503, 429]
    bring(server, tmp_path / "file")
    assert len(server.asked) == 3
    with pytest.raises(PocketganError, match=r"(?s)HTTP 404.*a mirror"):
        bring(server, tmp_path / "other", "/absent", fix="find a mirror")
    assert len(server.asked) == 4 and not (tmp_path / "other").exists()


def test_a_wrong_checksum_leaves_nothing(server: Server, tmp_path: Path) -> None:
    server.files["/file"] = CONTENT
    with pytest.raises(PocketganError, match=r"(?s)not give the file that was wanted.*SHA-256"):
        bring(server, tmp_path / "file", wanted="00000000")
    assert list(tmp_path.iterdir()) == []


def test_an_old_part_longer_than_the_file_is_thrown_away(server: Server, tmp_path: Path) -> None:
    server.files["/file"] = CONTENT
    (tmp_path / ".file.part").write_bytes(CONTENT * 2)
    tag = f'"{hashlib.sha256(CONTENT).hexdigest()[:8]}"'
    note = {"url": f"{server.url}/file", "validator": tag}
    (tmp_path / ".file.part.json").write_text(json.dumps(note))
    bring(server, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_offline_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(PocketganError, match=r"(?s)127.0.0.1:9/file cannot be downloaded.*refused"):
        download("http://127.0.0.1:9/file", tmp_path / "file", pause=60)
    with pytest.raises(PocketganError, match="cannot be downloaded"):
        download("no url", tmp_path / "file", pause=60)
    assert list(tmp_path.iterdir()) == []


# Archives


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def rolled(path: Path, files: dict[str, bytes], **facts: object) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for fact, value in facts.items():
                setattr(info, fact, value)
            archive.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize(("pack", "ending"), [(zipped, ".zip"), (rolled, ".tar.gz")])
def test_archives_become_their_only_folder(pack, ending: str, tmp_path: Path) -> None:
    archive = pack(tmp_path / f"a{ending}", {"set/trainA/1.jpg": b"one", "set/testA/2.jpg": b"two"})
    assert unpack(archive, tmp_path / "out" / "set") == 2
    assert (tmp_path / "out/set/trainA/1.jpg").read_bytes() == b"one"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["set"]


@pytest.mark.parametrize(
    "name", ["../escaped", "set/../../escaped", "/tmp/escaped", "..\\escaped", "C:/escaped"]
)
@pytest.mark.parametrize(("pack", "ending"), [(zipped, ".zip"), (rolled, ".tar.gz")])
def test_an_archive_that_climbs_out_is_refused_whole(pack, ending: str, name: str, tmp_path: Path) -> None:
    archive = pack(tmp_path / f"a{ending}", {"good": b"good", name: b"bad"})
    with pytest.raises(PocketganError, match=r"(?s)refused.*outside"):
        unpack(archive, tmp_path / "deep" / "er" / "out")
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path != archive]


def test_links_and_devices_are_refused(tmp_path: Path) -> None:
    link = rolled(tmp_path / "a.tar.gz", {"link": b""}, type=tarfile.SYMTYPE, linkname="/etc/passwd")
    with pytest.raises(PocketganError, match="no plain file"):
        unpack(link, tmp_path / "out")
    info = zipfile.ZipInfo("link")
    info.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(PocketganError, match="no plain file"):
        unpack(tmp_path / "a.zip", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_damaged_archive_is_named(tmp_path: Path) -> None:
    whole = zipped(tmp_path / "a.zip", {"set/1": b"some content", "set/2": b"more"}).read_bytes()
    (tmp_path / "a.zip").write_bytes(whole.replace(b"some content", b"same content"))
    (tmp_path / "b.tar.gz").write_bytes(rolled(tmp_path / "c.tar.gz", {"1": CONTENT}).read_bytes()[:900])
    (tmp_path / "d.zip").write_bytes(b"<html>gone</html>")
    for name in ("a.zip", "b.tar.gz", "d.zip"):
        with pytest.raises(PocketganError, match=f"{name} cannot be unpacked"):
            unpack(tmp_path / name, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# Entries


def entry(server: Server, name: str, **other: object) -> Entry:
    told: dict[str, object] = {
        "into": f"here/{name.partition('.')[0]}",
        "purpose": "",
        "licence": "",
        "about": "",
    }
    return Entry(name="set", url=f"{server.url}/{name}", **{**told, **other})  # type: ignore[arg-type]


def test_the_first_fetch_is_noted_and_later_ones_must_match(server: Server, tmp_path: Path) -> None:
    one = entry(server, "set.zip")
    server.files["/set.zip"] = zipped(tmp_path / "set.zip", {"set/1": b"one"}).read_bytes()
    first = fetch(one, tmp_path / "data")
    assert first.state == "fetched" and "no checksum is published" in first.checked
    assert (tmp_path / "data/here/set/1").read_bytes() == b"one"
    noted = json.loads((tmp_path / "data" / LOCK).read_text())["files"]["set.zip"]
    assert noted["sha256"] == first.sha256 and noted["bytes"] == len(server.files["/set.zip"])
    assert fetch(one, tmp_path / "data").state == "here" and len(server.asked) == 1
    (tmp_path / "data/here/set").rename(tmp_path / "away")
    assert "as at its first fetch" in fetch(one, tmp_path / "data").checked
    (tmp_path / "data/here/set").rename(tmp_path / "away again")
    server.files["/set.zip"] = zipped(tmp_path / "set.zip", {"set/1": b"changed"}).read_bytes()
    with pytest.raises(PocketganError, match=f"(?s)not give the file.*{noted['sha256']}"):
        fetch(one, tmp_path / "data", pause=0)
    assert not (tmp_path / "data/here/set").exists()


def test_published_and_demanded_checksums_decide(server: Server, tmp_path: Path) -> None:
    server.files["/w.pth"] = CONTENT
    whole = hashlib.sha256(CONTENT).hexdigest()
    one = entry(server, "w.pth", sha256=whole[:8], into="w.pth")
    assert "first 8 digits" in fetch(one, tmp_path).checked
    assert "demanded" in fetch(one, tmp_path, demanded=whole.upper()).checked
    with pytest.raises(PocketganError, match="cannot be right"):
        fetch(one, tmp_path, demanded="0" * 64)
    (tmp_path / "w.pth").write_bytes(b"damaged")
    with pytest.raises(PocketganError, match=r"(?s)not the file that was wanted.*move it away"):
        fetch(one, tmp_path)


def test_pictures_come_one_by_one_and_from_a_mirror(server: Server, tmp_path: Path) -> None:
    one = entry(server, "Set5/{picture}", pictures=2, into="sr/Set5_x4")
    names = [f"img_00{n}_SRF_4_{kind}.png" for n in (1, 2) for kind in ("HR", "LR")]
    server.files |= {f"/Set5/{name}": name.encode() for name in names[:3]}
    with pytest.raises(PocketganError, match=r"img_002_SRF_4_LR\.png"):
        fetch(one, tmp_path / "data")
    server.files[f"/Set5/{names[3]}"] = names[3].encode()
    assert fetch(one, tmp_path / "data").state == "fetched"
    assert len(server.asked) == 5  # the three that had come are not asked for again
    assert fetch(one, tmp_path / "data").state == "here"
    mirror = tmp_path / "data" / "sr"
    assert fetch(one, tmp_path / "other", source=str(mirror)).state == "fetched"
    assert sorted(path.name for path in (tmp_path / "other/sr/Set5_x4").iterdir()) == names
    with pytest.raises(UsageError, match="checksum each"):
        fetch(one, tmp_path / "data", demanded="0" * 64)


def test_a_damaged_lock_file_is_not_overwritten(server: Server, tmp_path: Path) -> None:
    server.files["/w.pth"] = CONTENT
    for text in ("{}", "[]", '{"format": "pocketgan.data/1", "files": {"w.pth": 3}}', "no JSON"):
        (tmp_path / LOCK).write_text(text)
        with pytest.raises(PocketganError, match=LOCK):
            fetch(entry(server, "w.pth", into="w.pth"), tmp_path)
        assert (tmp_path / LOCK).read_text() == text


def test_what_is_published_is_well_formed() -> None:
    names = published.entries()
    assert {"horse2zebra", "facades", "div2k_train", "set5", "vgg16", "vgg19", "inception"} <= set(names)
    for each in names.values():
        assert each.url.startswith("https://") and each.purpose and each.licence and each.about
        assert re.fullmatch(r"|[0-9a-f]{8,64}", each.sha256)
        assert bool(each.pictures) == ("{picture}" in each.url)
        digits = re.search(r"-([0-9a-f]{8})\.pth$", each.url)
        assert digits is None or each.sha256 == digits[1]
    targets = [each.into for each in names.values()]
    assert len(set(targets)) == len(targets)


def test_the_command(server: Server, tmp_path: Path) -> None:
    shown = call("data", "list")
    assert shown.exit_code == 0 and "horse2zebra" in shown.stdout and "licence" in shown.stdout
    listed = json.loads(call("data", "list", "--json").stdout)["entries"]
    assert {each["name"] for each in listed} == set(published.entries())
    archive = zipped(tmp_path / "horse2zebra.zip", {"horse2zebra/testA/1.jpg": b"horse"})
    server.files["/mirror/horse2zebra.zip"] = archive.read_bytes()
    line = (
        "data",
        "fetch",
        "horse2zebra",
        "--source",
        f"{server.url}/mirror",
        "--output-dir",
        tmp_path / "d",
    )
    done = call(*line, "--sha256", hashlib.sha256(archive.read_bytes()).hexdigest(), "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["fetched"][0]["state"] == "fetched"
    assert (tmp_path / "d/cyclegan/horse2zebra/testA/1.jpg").read_bytes() == b"horse"
    for wrong, said in (
        (("data", "fetch"), "data list"),
        (("data", "fetch", "horse2zebr"), "horse2zebra"),
        (("data", "fetch", "vgg16", "--sha256", "397923af"), "64 hexadecimal"),
        (("data", "fetch", "vgg16", "vgg19", "--sha256", "0" * 64), "one by one"),
        (("data", "list", "vgg16"), "nothing more"),
    ):
        refused = call(*wrong)
        assert refused.exit_code == 2 and said in refused.output, refused.output
