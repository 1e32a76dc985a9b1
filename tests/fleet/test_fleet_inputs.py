"""What is a trace among files, folders, patterns, manifests and URLs, and what it is called."""

from __future__ import annotations

from pathlib import Path

import pytest

from nsyskit.errors import UsageError
from nsyskit.fleet.inputs import choose, find_items
from nsyskit.fleet.remote import without_secrets


def touched(folder: Path, *names: str) -> Path:
    for name in names:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
    return folder


def names(*named: object) -> list[str]:
    return [item.name for item in find_items([str(one) for one in named])]


@pytest.mark.parametrize(
    ("files", "chosen"),
    [
        (["a.sqlite", "b.nsys-rep", "c.txt", "d/e.qdrep", ".f.sqlite"], ["a.sqlite", "b.nsys-rep", "d/e.qdrep"]),
        (["a.sqlite", "a.nsys-rep", "a.qdstrm", "b.qdstrm", "c.nsys-rep", "c.qdstrm"],
         ["a.sqlite", "b.qdstrm", "c.nsys-rep"]),
        (["r/run.json", "r/trace.sqlite", "r/requests.sqlite", "r/untraced/trace.sqlite"], ["r"]),
        (["run.json", "trace.nsys-rep"], ["."]),
        (["r/run.json", "r/nsys.log"], ["r"]),
        (["r/run.json", "r/run-1/run.json", "r/run-1/trace.sqlite", "r/run-2/run.json", "r/run-2/trace.nsys-rep"],
         ["r/run-1", "r/run-2"]),
        (["r/run.json", "r/graph/run.json", "r/graph/trace.sqlite", "r/node/run.json", "r/node/trace.sqlite"], ["r"]),
        (["p/StringIds.parquet", "p/TARGET_INFO_GPU.parquet", "q/other.parquet"], ["p"]),
        (["out/parts/FORMAT", "out/parts/ab/x.parquet", "out/x.sqlite", "t.sqlite"], ["t.sqlite"]),
    ],
)  # fmt: skip
def test_what_counts_as_a_trace(files, chosen):
    assert choose(files) == chosen


def test_names_are_relative_to_what_was_named(tmp_path):
    touched(tmp_path / "one", "a.sqlite", "x/b.sqlite")
    touched(tmp_path / "two", "a.sqlite")
    assert names(tmp_path / "one") == ["a.sqlite", "x/b.sqlite"]
    assert names(tmp_path / "one", tmp_path / "two") == ["one/a.sqlite", "one/x/b.sqlite", "two/a.sqlite"]
    assert names(tmp_path / "*" / "a.sqlite") == ["one/a.sqlite", "two/a.sqlite"]
    assert names(tmp_path / "**" / "b.sqlite") == ["b.sqlite"]
    assert names(tmp_path / "one" / "a.sqlite") == ["a.sqlite"]
    assert names(tmp_path / "one" / "a.sqlite", tmp_path / "two" / "a.sqlite") == ["a.sqlite", "a.sqlite (2)"]


def test_a_link_that_leads_back_is_followed_once(tmp_path):
    touched(tmp_path, "a.sqlite", "x/b.sqlite")
    (tmp_path / "x" / "loop").symlink_to(tmp_path)
    assert names(tmp_path) == ["a.sqlite", "x/b.sqlite"]
    assert names(tmp_path / "**" / "*.sqlite") == ["a.sqlite", "x/b.sqlite"]


def test_one_location_counts_once(tmp_path):
    touched(tmp_path, "a.sqlite")
    assert names(tmp_path, tmp_path / "*.sqlite") == [f"{tmp_path.name}/a.sqlite"]


def test_manifests(tmp_path, monkeypatch):
    touched(tmp_path / "t", "a.sqlite", "b.sqlite")
    (tmp_path / "list.txt").write_text(f"# two\nt/a.sqlite\n\n{tmp_path}/t/b.sqlite\n")
    (tmp_path / "list.csv").write_text("path,host,rank,team\nt/a.sqlite,gpubox,0,blue\nt/b.sqlite,,1,\n")
    (tmp_path / "list.jsonl").write_text('{"path": "t/a.sqlite", "rank": 3}\n')
    monkeypatch.chdir("/")
    assert names(tmp_path / "list.txt") == ["a.sqlite", "b.sqlite"]
    first, second = find_items([str(tmp_path / "list.csv")])
    assert (dict(first.labels), dict(second.labels)) == ({"host": "gpubox", "rank": "0", "team": "blue"}, {"rank": "1"})
    assert first.location == str(tmp_path / "t" / "a.sqlite")
    assert dict(find_items([str(tmp_path / "list.jsonl")])[0].labels) == {"rank": "3"}


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("m.csv", "file\na.sqlite\n", "entry 1 of the manifest"),
        ("m.csv", "path,a b\nx.sqlite,1\n", "no label"),
        ("m.jsonl", "{", "is damaged"),
        ("m.jsonl", "[1]\n", "is damaged"),
        ("m.jsonl", '{"host": "x"}\n', "has no path"),
        ("m.jsonl", '{"path": "a\\u0000b"}\n', "has no path"),
        ("m.txt", "# nothing\n", "names no trace"),
        ("m.txt", b"\xff\xfe\x00", "cannot be read"),
    ],
)
def test_manifests_that_are_none(tmp_path, file, content, said):
    (tmp_path / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UsageError, match=said):
        find_items([str(tmp_path / file)])


def test_nothing_to_do(tmp_path):
    with pytest.raises(UsageError, match="holds no trace"):
        find_items([str(tmp_path)])
    with pytest.raises(UsageError, match="nothing matches"):
        find_items([str(tmp_path / "*.sqlite")])


def test_urls():
    fsspec = pytest.importorskip("fsspec")
    files = fsspec.filesystem("memory")
    for name in ("a/x.sqlite", "a/run/run.json", "a/run/trace.sqlite", "b/y.nsys-rep"):
        files.pipe(f"/fleet/{name}", b"1")
    found = find_items(["memory://fleet/a"])
    assert [(item.name, item.location) for item in found] == [
        ("run", "memory://fleet/a/run"), ("x.sqlite", "memory://fleet/a/x.sqlite"),
    ]  # fmt: skip
    assert names("memory://fleet/*/*.nsys-rep") == ["y.nsys-rep"]
    assert names("memory://fleet/b/y.nsys-rep") == ["y.nsys-rep"]
    with pytest.raises(UsageError, match="holds no trace"):
        find_items(["memory://fleet/*/*.qdrep"])
    with pytest.raises(UsageError, match="cannot be used"):
        find_items(["nosuch://fleet"])


def test_urls_are_shown_without_secrets():
    assert without_secrets("https://me:pass@host/x.sqlite?sig=hunter2#f") == "https://host/x.sqlite"
