"""Finding nsys, and its export of rep files that are not as they should be."""

import shutil
import subprocess
import sys

import pytest

from nsyskit.errors import NsysError, OutputError, TraceFormatError
from nsyskit.nsys import all_nsys, export, export_types, find_nsys, importer, options, report_version

from .conftest import needs_nsys

pytestmark = [pytest.mark.nsys, needs_nsys]


@pytest.fixture(scope="module")
def rep(tmp_path_factory):
    """A small capture by the real nsys."""
    folder = tmp_path_factory.mktemp("rep")
    argv = [
        "nsys",
        "profile",
        "-t",
        "osrt",
        "-s",
        "none",
        "--cpuctxsw=none",
        "-o",
        folder / "a",
        sys.executable,
        "-c",
        "1",
    ]
    subprocess.run(argv, check=True, capture_output=True)
    return folder / "a.nsys-rep"


def test_what_is_installed():
    nsys = find_nsys()
    assert nsys in all_nsys()
    assert nsys.version >= (2022,)
    assert "sqlite" in export_types(nsys)
    assert {"--trace", "--cuda-graph-trace"} <= options(nsys, "launch")
    assert "--sample" in options(nsys, "start")
    assert importer(nsys) is not None


def test_an_export_tells_how_far_it_is(rep, tmp_path):
    shares = []
    export(find_nsys(), rep, tmp_path / "a.sqlite", kind="sqlite", progress=shares.append)
    assert (tmp_path / "a.sqlite").read_bytes()[:6] == b"SQLite"
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def broken(rep, tmp_path, kind):
    whole = rep.read_bytes()
    contents = {
        "truncated": whole[: len(whole) // 2],
        "begun": whole[:100],
        "empty": b"",
        "other": b"SQLite format 3\0",
        "newer": whole.replace(b"Profiler Report 1.", b"Profiler Report 2099@1@1@1-1v0.", 1),
    }
    path = tmp_path / f"{kind}.nsys-rep"
    path.write_bytes(contents[kind])
    return path


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("truncated", "is truncated or damaged; copy it again or capture again"),
        ("begun", "is truncated or damaged"),
        ("empty", "is empty"),
        ("other", "is not a rep file of nsys"),
    ],
)
def test_damaged_rep_files(rep, tmp_path, kind, words):
    with pytest.raises(TraceFormatError, match=words):
        export(find_nsys(), broken(rep, tmp_path, kind), tmp_path / "a.sqlite", kind="sqlite")
    assert not (tmp_path / "a.sqlite").exists()


def test_a_rep_file_of_a_newer_nsys(rep, tmp_path):
    newer = broken(rep, tmp_path, "newer")
    if report_version(newer) is None:
        pytest.skip("this nsys writes another header than 2022.4")
    with pytest.raises(NsysError, match=r"is newer than this nsys \(written by nsys 2099\.1\.1\.1, this is .*--nsys"):
        export(find_nsys(), newer, tmp_path / "a.sqlite", kind="sqlite")


def test_no_rep_file(tmp_path):
    with pytest.raises(TraceFormatError, match="is not a file"):
        export(find_nsys(), tmp_path / "absent.nsys-rep", tmp_path / "a.sqlite", kind="sqlite")


def test_no_folder(rep, tmp_path):
    with pytest.raises(OutputError, match="does not exist"):
        export(find_nsys(), rep, tmp_path / "absent" / "a.sqlite", kind="sqlite")


def test_a_disk_without_room(rep, tmp_path):
    place = tmp_path / "small"
    place.mkdir()
    argv = ["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", place]
    if subprocess.run(argv, check=False, capture_output=True).returncode:
        pytest.skip("mounting a tmpfs needs root")
    try:
        with pytest.raises(OutputError, match="the disk is full"):
            export(find_nsys(), rep, place / "a.sqlite", kind="sqlite")
        assert list(place.iterdir()) == []
    finally:
        subprocess.run(["umount", place], check=True)


def test_no_nsys_at_all(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("NSYSKIT_NSYS", raising=False)
    with pytest.raises(NsysError, match="not found on PATH; install"):
        find_nsys()
    assert all_nsys() == ()


def test_the_environment_names_an_nsys(monkeypatch, tmp_path):
    monkeypatch.setenv("NSYSKIT_NSYS", str(tmp_path / "absent"))
    with pytest.raises(NsysError, match="is not an executable nsys"):
        find_nsys()
    link = tmp_path / "mine"
    link.symlink_to(shutil.which("nsys"))
    monkeypatch.setenv("NSYSKIT_NSYS", str(link))
    assert find_nsys().path == link
