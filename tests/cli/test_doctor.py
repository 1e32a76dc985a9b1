"""``nsyskit doctor``: each check by what it finds, and the whole with the real machine."""

import json
import shutil
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from nsyskit.capture import doctor
from nsyskit.cli.doctor import command
from nsyskit.nsys import Nsys


def fake_nsys(tmp_path, *, importer=True, cupti="11.8", version=(2022, 4)):
    """An nsys package on disk, of which nothing is run."""
    target = tmp_path / "target-linux-x64"
    target.mkdir()
    (target / f"libcupti.so.{cupti}").touch()
    if importer:
        (tmp_path / "host-linux-x64").mkdir()
        (tmp_path / "host-linux-x64" / "QdstrmImporter").touch()
    return Nsys(target / "nsys", version, ".".join(map(str, version)))


def gpu(cuda):
    return SimpleNamespace(
        gpus=[{"name": "Some GPU"}], driver={"driver_version": "550", "cuda_version": cuda}, notes=[]
    )


def test_no_nsys_is_a_blocker():
    check = doctor.check_nsys(None, (), "nsys was not found on PATH")
    assert check.status == "blocker"
    assert "install NVIDIA Nsight Systems" in check.remedy


def test_a_missing_importer_is_a_blocker_with_its_mend(tmp_path):
    assert doctor.check_importer(fake_nsys(tmp_path)).status == "ok"
    (tmp_path / "host-linux-x64" / "QdstrmImporter").unlink()
    check = doctor.check_importer(fake_nsys_again(tmp_path))
    assert check.status == "blocker"
    assert "mend it with: " in check.remedy


def fake_nsys_again(tmp_path):
    return Nsys(tmp_path / "target-linux-x64" / "nsys", (2022, 4), "2022.4")


def test_a_driver_newer_than_nsys_is_a_warning(tmp_path):
    nsys = fake_nsys(tmp_path)
    assert doctor.check_driver(nsys, gpu("11.8")).status == "ok"
    check = doctor.check_driver(nsys, gpu("12.4"))
    assert check.status == "warning"
    assert "knows CUDA up to 11.8" in check.consequence


def test_whole_graph_rows(tmp_path):
    nsys = fake_nsys(tmp_path)
    assert doctor.check_graph_rows(nsys).status == "warning"
    assert doctor.check_graph_rows(Nsys(nsys.path, (2024, 1), "2024.1")).status == "ok"


def test_disks(tmp_path, monkeypatch):
    assert doctor.check_space("disk", tmp_path / "not" / "yet" / "there").status == "ok"
    for free, status in ((10, "blocker"), (1 << 30, "warning")):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: SimpleNamespace(free=free))
        assert doctor.check_space("disk", tmp_path).status == status


def test_a_taken_port():
    assert doctor.check_port(None).status == "ok"
    with socket.create_server(("127.0.0.1", 0)) as other:
        assert doctor.check_port(other.getsockname()[1]).status == "blocker"


def test_wsl():
    assert doctor.check_wsl("Linux version 6.1").status == "ok"
    assert doctor.check_wsl("Linux version 5.15-microsoft-standard-WSL2").status == "warning"


def test_without_nsys_the_rest_is_still_looked_at(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("NSYSKIT_NSYS", raising=False)
    result = CliRunner().invoke(command, ["--json", "-o", str(tmp_path)])
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    assert document["schema"] == "nsyskit.doctor/1"
    statuses = {check["name"]: check["status"] for check in document["checks"]}
    assert statuses["nsys"] == "blocker"
    assert statuses["llama.cpp"] == "warning"
    assert {"disk", "port", "GPU" if "GPU" in statuses else "WSL", "left behind"} <= set(statuses)


@pytest.mark.nsys
@pytest.mark.skipif(shutil.which("nsys") is None, reason="no nsys on PATH")
def test_on_this_machine():
    result = CliRunner().invoke(command, ["-o", str(Path.cwd())])
    assert result.exit_code == 0, result.output
    for line in ("nsys", "importer", "export", "recipes", "CPU sampling", "disk"):
        assert line in result.stdout


def test_every_finding_that_is_not_ok_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    for check in doctor.doctor(doctor.Wishes(folder=tmp_path)):
        assert check.status == "ok" or (check.consequence and check.remedy), check
