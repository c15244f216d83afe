"""The doctor finds what is wrong, says what to do, and is quiet where nothing is."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import onnxruntime
import pytest

from deploy import doctor, doctor_devices, keys
from deploy.config import DeployConfig, OperatorConfig
from deploy.doctor import Finding, Patient, examine
from robonav.cli.main import main


@pytest.fixture
def patient(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Patient:
    """A healthy one; the pace, which is this machine's, is left out."""
    monkeypatch.setattr(doctor, "pace", lambda seconds: ([0.1] * 40, 0.01))
    for devices in ("cameras", "serial_ports", "usb_sensors"):
        monkeypatch.setattr(doctor_devices, devices, list)
    operator = OperatorConfig(keys=str(tmp_path / "keys"))
    return Patient(DeployConfig(operator=operator), tiny_bundle, tmp_path / "run.mcap")


def only(patient: Patient, level: str) -> list[Finding]:
    return [finding for finding in examine(patient) if finding.level == level]


def listening(patient: Patient, listen: str) -> Patient:
    keys_ = patient.config.operator.keys
    return Patient(DeployConfig(operator=OperatorConfig(listen=listen, keys=keys_)), patient.bundle, patient.log)


def test_a_healthy_one_has_nothing_to_do(patient: Patient) -> None:
    findings = list(examine(patient))
    assert {f.what for f in findings} == {
        *("robonav", "packages", "providers", "clock", "time of day", "pace", "keys", "port", "disk", "bundle"),
        *("cameras", "serial", "usb sensors", "go2"),
    }
    assert {f.level for f in findings} == {"ok"}
    assert not any(f.do for f in findings)


def versions(**changes: str | None) -> Callable[[str], str | None]:
    def version(package: str) -> str | None:
        try:
            return changes[package] if package in changes else metadata.version(package)
        except metadata.PackageNotFoundError:
            return None

    return version


def test_packages_that_are_missing_or_in_each_others_way(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_version", versions(tcod=None, **{"onnxruntime-gpu": "1.2"}))
    missing, conflict = only(patient, "error")
    assert missing.found == "missing: tcod"
    assert conflict.found == "two packages in one folder: the result is CPU only"
    assert conflict.do.startswith("pip uninstall onnxruntime onnxruntime-gpu")
    monkeypatch.setattr(doctor, "_version", versions(onnxruntime=None))
    (none,) = only(patient, "error")
    assert none.do == "pip install 'robonav[runtime-cpu]' (or runtime-gpu)"


def test_a_gpu_that_was_asked_for_and_is_not_there(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    wants = Patient(patient.config, patient.bundle, patient.log, gpu=True)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    (finding,) = only(wants, "error")
    assert finding.found.endswith("CPU; a GPU was asked for")
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    assert only(wants, "error") == []


@pytest.mark.parametrize(("late_ms", "period_pct"), [(13.0, 0.0), (0.0, 3.1)])
def test_a_machine_that_cannot_keep_time(
    patient: Patient, monkeypatch: pytest.MonkeyPatch, late_ms: float, period_pct: float
) -> None:
    monkeypatch.setattr(doctor, "pace", lambda seconds: ([late_ms] * 40, period_pct))
    (finding,) = only(patient, "warning")
    assert finding.what == "pace"
    assert "a priority of their own" in finding.do


@pytest.mark.parametrize(("step_ns", "level"), [(200_000, "warning"), (-5, "error"), (0, "warning"), (50, "ok")])
def test_a_clock_that_is_coarse_or_runs_back(
    patient: Patient, monkeypatch: pytest.MonkeyPatch, step_ns: int, level: str
) -> None:
    times = iter(range(10**9, 10**9 + 20_000 * step_ns, step_ns) if step_ns else [7] * 20_000)
    monkeypatch.setattr(doctor, "now_ns", lambda: next(times))
    (finding,) = [f for f in examine(patient) if f.what == "clock"]
    assert finding.level == level


def test_the_pace_is_measured() -> None:
    lateness_ms, period_pct = doctor.pace(0.2)
    assert len(lateness_ms) == 4
    assert min(lateness_ms) >= 0
    assert period_pct < 100


def test_keys_that_are_needed_damaged_or_too_weak(patient: Patient) -> None:
    folder = Path(patient.config.operator.keys)
    remote = listening(patient, "tcp://127.0.0.1:0")
    (finding,) = only(remote, "error")
    assert (finding.what, finding.do) == ("keys", "robonav keys new NAME --role estop")
    client = keys.new_key(folder, "eye", "observer")
    (finding,) = only(remote, "warning")
    assert finding.found.endswith("none may re-arm")
    keys.new_key(folder, "gate", "estop")
    assert only(remote, "warning") == only(remote, "error") == []
    client.chmod(0o644)
    (finding,) = only(remote, "error")
    assert "chmod 600" in finding.found


def test_a_keys_folder_that_others_may_write(patient: Patient) -> None:
    folder = Path(patient.config.operator.keys)
    keys.new_key(folder, "gate", "estop")
    folder.chmod(0o770)
    (finding,) = only(patient, "error")
    assert (finding.what, finding.do) == ("keys", f"chmod 700 {folder}")


def test_what_slows_a_machine_is_said_where_its_pace_is_bad(
    patient: Patient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(doctor, "pace", lambda seconds: ([20.0] * 40, 0.0))
    for name, text in (("AUTOGROUP", "1\n"), ("CPU_GOVERNOR", "powersave\n")):
        path = tmp_path / name
        path.write_text(text)
        monkeypatch.setattr(doctor, name, path)
    (finding,) = only(patient, "warning")
    assert "kernel.sched_autogroup_enabled=0" in finding.do
    assert "'powersave'" in finding.do
    (tmp_path / "AUTOGROUP").write_text("0")
    (tmp_path / "CPU_GOVERNOR").write_text("performance")
    (finding,) = only(patient, "warning")
    assert "sched_autogroup" not in finding.do
    assert "performance" not in finding.do


def test_devices_that_are_there_and_those_that_this_user_may_not_use(
    patient: Patient, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices = [doctor_devices.Device("RealSense", "/dev/video0"), doctor_devices.Device("Webcam", "/dev/video2", False)]
    monkeypatch.setattr(doctor_devices, "cameras", lambda: devices)
    (finding,) = only(patient, "error")
    assert finding.found == "Webcam: this user may not use /dev/video2"
    assert "usermod -aG video" in finding.do
    assert "RealSense (/dev/video0)" in {f.found for f in only(patient, "ok")}


def make_file(path: Path, text: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_devices_are_found_by_their_files(tmp_path: Path) -> None:
    assert doctor_devices.cameras(tmp_path) == doctor_devices.serial_ports(tmp_path) == []
    for number, name in ((0, "Intel RealSense"), (1, "Intel RealSense"), (10, "Webcam"), (2, "")):
        make_file(tmp_path / f"dev/video{number}")
        if name:
            make_file(tmp_path / f"sys/class/video4linux/video{number}/name", name + "\n")
    assert [d.name for d in doctor_devices.cameras(tmp_path)] == ["Intel RealSense", "video2", "Webcam"]
    make_file(tmp_path / "dev/ttyUSB0")
    make_file(tmp_path / "dev/ttyACM0")
    (tmp_path / "dev/serial/by-id").mkdir(parents=True)
    (tmp_path / "dev/serial/by-id/usb-SLAMTEC").symlink_to(tmp_path / "dev/ttyUSB0")
    assert {d.name for d in doctor_devices.serial_ports(tmp_path)} == {"ttyACM0", "usb-SLAMTEC"}
    for folder, vendor, product in (("1-1", "8086", "0b3a"), ("1-2", "8086", "9a13"), ("1-3", "2bc5", "0660")):
        make_file(tmp_path / f"sys/bus/usb/devices/{folder}/idVendor", vendor)
        make_file(tmp_path / f"sys/bus/usb/devices/{folder}/idProduct", product)
    make_file(tmp_path / "sys/bus/usb/devices/1-1/product", "RealSense D435i")
    assert [d.name for d in doctor_devices.usb_sensors(tmp_path)] == ["RealSense D435i", "Orbbec 0660"]


def test_what_has_to_answer(patient: Patient) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        asked = replace(patient, reach=(address,))
        assert [f.found for f in examine(asked) if f.what == "reach"] == [f"{address} answers"]
    (finding,) = only(asked, "error")
    assert finding.found == f"{address}: Connection refused"
    assert "power" in finding.do
    assert doctor_devices.reachable("127.0.0.1:99999")
    assert doctor_devices.reachable("-f")


def test_a_port_that_is_taken_or_none(patient: Patient) -> None:
    keys.new_key(Path(patient.config.operator.keys), "gate", "estop")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        (finding,) = only(listening(patient, f"tcp://127.0.0.1:{taken.getsockname()[1]}"), "error")
    assert "in use" in finding.found
    for bad in ("tcp://127.0.0.1:http", "tcp://127.0.0.1:99999", "tcp://192.0.2.1:5600"):
        assert [f.what for f in only(listening(patient, bad), "error")] == ["port"]


def test_a_disk_that_is_full_or_not_ours(patient: Patient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor, "DISK_MIN_BYTES", 1 << 60)
    assert [f.what for f in only(patient, "warning")] == ["disk"]
    nowhere = Patient(patient.config, patient.bundle, tmp_path / "no" / "run.mcap")
    assert [f.what for f in only(nowhere, "error")] == ["disk"]


def test_a_bundle_that_does_not_load(patient: Patient, tmp_path: Path) -> None:
    (finding,) = only(Patient(patient.config, tmp_path, patient.log), "error")
    assert finding.what == "bundle"


def test_the_command(tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], patient: Patient) -> None:
    words = ["doctor", "--bundle", str(tiny_bundle), "--log", str(tmp_path / "a.mcap")]
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ok"]
    assert main([*words, "--reach", "127.0.0.1:1", "--json"]) == 1
    assert [f["what"] for f in json.loads(capsys.readouterr().out)["findings"] if f["level"] != "ok"] == ["reach"]
    assert main([*words, "--listen", "tcp://192.0.2.1:5600", "--json"]) == 1
    shown = json.loads(capsys.readouterr().out)
    assert not shown["ok"]
    assert all(f["do"] for f in shown["findings"] if f["level"] != "ok")
    assert main(["doctor", "--bundle", str(tmp_path), "--log", str(tmp_path / "a.mcap")]) == 1
    assert "do: export it again" in capsys.readouterr().out
    assert main(["doctor", "--pace-s", "0"]) == 2
