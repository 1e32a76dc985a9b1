"""Hosts get labels; their names do not get out."""

from __future__ import annotations

import pytest

from nsyskit.fleet.hosts import digest, digests, labels, user_key, without_hosts

KEY = b"k" * 32


def test_labels_by_first_appearance():
    assert labels(["b", None, "a", "b", "c"]) == {"b": "host-1", "a": "host-2", "c": "host-3"}


def test_a_name_and_its_first_label():
    assert digests(KEY, "Node7.corp.example") == (digest(KEY, "node7.corp.example"), digest(KEY, "NODE7"))
    assert digests(KEY, "node7") == (digest(KEY, "node7"),)
    assert digests(KEY, None) == digests(KEY, "localhost") == ()


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("node-7.corp.example/run.sqlite", "host-1/run.sqlite"),
        ("x/node-7_rank0.sqlite", "x/host-1_rank0.sqlite"),
        ("NODE-7.sqlite", "host-1.sqlite"),
        ("node-77/run.sqlite", "node-77/run.sqlite"),
        ("anode-7/b.sqlite", "anode-7/b.sqlite"),
        ("node-7.corp.example", "host-1"),
    ],
)
def test_hosts_in_names(name, shown):
    known = dict.fromkeys(digests(KEY, "node-7.corp.example"), "host-1")
    assert without_hosts(KEY, name, known) == shown


def test_the_key_is_made_once_and_nobody_elses(tmp_path, monkeypatch):
    monkeypatch.setenv("NSYSKIT_FLEET_KEY", str(tmp_path / "new" / "key"))
    first = user_key()
    assert user_key() == first
    assert len(first) == 32
    assert (tmp_path / "new" / "key").stat().st_mode & 0o077 == 0
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["key"]


def test_a_key_that_cannot_be_kept_is_one_of_the_moment(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("NSYSKIT_FLEET_KEY", str(tmp_path / "file" / "key"))
    assert user_key() != user_key()
