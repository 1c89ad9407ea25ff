"""Archives of others: what means ill is refused, and nothing is ever outside its folder."""

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from medmim.common import archives
from medmim.common.archives import DamagedArchiveError, Member
from medmim.common.errors import UserError

ZEROS = bytes(18_000_000)


def tar(*entries: tuple[str, bytes | bytes | str], kind: bytes = tarfile.REGTYPE, pax: dict[str, str] | None = None) -> bytes:
    """A tar of files; a text in place of content is the target of a link of `kind`."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", pax_headers=pax) as archive:
        for name, content in entries:
            info = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
            else:
                info.type, info.linkname = kind, content
                archive.addfile(info)
    return out.getvalue()


def zipped(*entries: tuple[str, bytes], mode: int = 0o100644) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries:
            info = zipfile.ZipInfo(name)
            info.external_attr, info.compress_type = mode << 16, zipfile.ZIP_DEFLATED
            archive.writestr(info, content)
    return out.getvalue()


def of_stream(data: bytes, tmp_path: Path) -> Iterator[Member]:
    return archives.iter_tar_members(io.BytesIO(data).read)


def of_file(data: bytes, tmp_path: Path) -> Iterator[Member]:
    (tmp_path / "archive").write_bytes(data)
    return archives.iter_members(tmp_path / "archive")


def taken(found: Iterator[Member], want: Callable[[str], str | None] = lambda name: name) -> dict[str, bytes]:
    return {place: b"".join(archives.iter_chunks(content)) for place, content in archives.select_members(found, want)}


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
@pytest.mark.parametrize("opened", [of_stream, of_file])
def test_what_is_wanted_comes_out(pack, opened, tmp_path: Path) -> None:
    data = pack(tar(("PMC1/a.jpg", b"a" * 5000), ("PMC1/skip.pdf", b"b" * 3_000_000), ("PMC1/c.jpg", b"c")))
    want = {"PMC1/a.jpg": "images/a", "PMC1/c.jpg": "images/c"}.get
    assert taken(opened(data, tmp_path), want) == {"images/a": b"a" * 5000, "images/c": b"c"}


@pytest.mark.parametrize("name", ["/etc/evil", "../evil", "a/../../evil", "..\\evil", "C:evil", "a\n"])
@pytest.mark.parametrize("pack", [tar, zipped])
def test_paths_out_of_the_folder_are_refused(name: str, pack, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="would be written outside its folder"):
        taken(of_file(pack((name, b"x")), tmp_path))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_tars_are_refused_or_passed_over(kind: bytes, tmp_path: Path) -> None:
    data = tar(("out", "../../etc/passwd"), ("good", b"x"), kind=kind)
    with pytest.raises(UserError, match="'out' is a link or a device"):
        taken(of_stream(data, tmp_path))
    assert taken(of_stream(data, tmp_path), lambda name: name if name == "good" else None) == {"good": b"x"}


@pytest.mark.parametrize("mode", [0o120777, 0o020666, 0o060660, 0o010644, 0o140777])
def test_links_and_devices_in_zips_are_refused(mode: int, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'out' is a link or a device"):
        taken(of_file(zipped(("out", b"/etc/passwd"), mode=mode), tmp_path))


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
@pytest.mark.parametrize("wanted", [True, False])
def test_a_tar_that_blows_up_is_refused_wanted_or_not(pack, wanted: bool, tmp_path: Path) -> None:
    data = pack(tar(("zeros", ZEROS), ("good", b"x")))
    with pytest.raises(UserError, match="refused as a bomb"):
        taken(of_stream(data, tmp_path), lambda name: name if wanted or name == "good" else None)


def test_a_header_that_blows_up_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="refused as a bomb"):
        taken(of_stream(gzip.compress(tar(("good", b"x"), pax={"comment": "0" * 18_000_000})), tmp_path))


def test_a_zip_that_blows_up_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'zeros' expands to more than 200 times its size: refused as a bomb"):
        taken(of_file(zipped(("zeros", ZEROS)), tmp_path))


def test_a_zip_that_lies_about_its_size_gives_no_more(tmp_path: Path) -> None:
    data = bytearray(zipped(("zeros", bytes(1_000_000))))
    for mark, at in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        place = data.index(mark) + at
        data[place : place + 4] = (1000).to_bytes(4, "little")
    with pytest.raises(DamagedArchiveError):
        taken(of_file(bytes(data), tmp_path))


@pytest.mark.parametrize(
    "data",
    [b"", b"<html>Sign in</html>" * 100, gzip.compress(b"no tar" * 1000), zipped(("a", b"x"))[:-30]],
    ids=["nothing", "page", "gzip of no tar", "zip cut off"],
)
def test_what_is_no_archive_is_told(data: bytes, tmp_path: Path) -> None:
    with pytest.raises(DamagedArchiveError, match="can't be extracted"):
        taken(of_file(data, tmp_path))


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_an_archive_that_is_cut_off_is_told(pack, tmp_path: Path) -> None:
    data = pack(tar(("a", bytes(range(256)) * 400)))
    with pytest.raises(DamagedArchiveError, match="can't be extracted"):
        taken(of_stream(data[: len(data) // 2], tmp_path))


def test_a_member_given_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'a' stands in the archive twice"):
        taken(of_stream(tar(("a", b"x"), ("a", b"y")), tmp_path))
