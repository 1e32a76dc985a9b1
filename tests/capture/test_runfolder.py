"""What a run folder holds, whole or not."""

import json

import pytest

from nsyskit.errors import TraceFormatError
from nsyskit.runfolder import is_run_folder, load_run


def make(folder, facts=None, files=()):
    folder.mkdir(exist_ok=True)
    (folder / "run.json").write_text(json.dumps({"schema": "nsyskit.run/1"} | (facts or {})))
    for name in files:
        (folder / name).touch()
    return folder


def test_the_export_comes_before_the_rep_file(tmp_path):
    folder = make(tmp_path / "a", files=["trace.nsys-rep"])
    assert load_run(folder).trace.name == "trace.nsys-rep"
    (folder / "trace.sqlite").touch()
    assert load_run(folder).trace.name == "trace.sqlite"


def test_a_capture_that_was_killed_says_so(tmp_path):
    folder = make(tmp_path / "a", {"outcome": {"state": "running"}})
    assert load_run(folder).state == "running"
    with pytest.raises(TraceFormatError, match="holds no trace"):
        _ = load_run(folder).trace


def test_spans_and_shares_of_a_fused_run(tmp_path):
    whole = make(tmp_path / "f", {"kind": "fused", "arms": ["untraced", "graph", "node", "absent"]})
    for name in ("untraced", "graph", "node"):
        make(whole / name, files=[] if name == "untraced" else ["trace.sqlite"])
    run = load_run(whole)
    assert [arm.path.name for arm in run.arms] == ["untraced", "graph", "node"]
    assert run.spans.path.name == "graph"
    assert run.shares.path.name == "node"
    assert run.trace == whole / "graph" / "trace.sqlite"


@pytest.mark.parametrize("text", ["{", "[]", '{"schema": "other/1"}'])
def test_folders_that_are_none(tmp_path, text):
    assert not is_run_folder(tmp_path)
    with pytest.raises(TraceFormatError, match=r"has no run\.json"):
        load_run(tmp_path)
    (tmp_path / "run.json").write_text(text)
    assert is_run_folder(tmp_path)
    with pytest.raises(TraceFormatError):
        load_run(tmp_path)
