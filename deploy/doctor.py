"""What a robot's computer needs before it drives, checked one by one; each finding says what to do.

What may be missing on a healthy computer (a camera, a lidar, the Go2's package) is said without a warning.
"""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import socket
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

import numpy as np

import robonav
from deploy import doctor_devices, keys
from deploy.bundle import find_bundle
from deploy.config import DeployConfig
from deploy.timing import Deadlines, now_ns
from robonav.errors import RobonavError

PACKAGES = ("numpy", "opencv-python-headless", "pyzmq", "msgspec", "mcap", "tcod")
RUNTIMES = ("onnxruntime", "onnxruntime-gpu")
RATE_HZ = 20.0
PERIOD_MAX_PCT, LATE_MAX_MS = 3.0, 12.5  # of the mean period; a quarter of a period at 20 Hz
RESOLUTION_MAX_NS = 100_000
CLOCK_UNSYNCHRONISED = 5  # TIME_ERROR of adjtimex(2)
TIMEX_BYTES = 512  # more than struct timex takes
AUTOGROUP = Path("/proc/sys/kernel/sched_autogroup_enabled")
CPU_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
DISK_MIN_BYTES = 1 << 30  # an hour of logs takes about 250 MB


@dataclass(frozen=True, slots=True)
class Finding:
    """What was looked at, what was found, and what to do about it ("" where nothing is)."""

    what: str
    level: Literal["ok", "warning", "error"]
    found: str
    do: str = ""


@dataclass(frozen=True, slots=True)
class Patient:
    """What the doctor looks at."""

    config: DeployConfig
    bundle: str | Path | None = None
    log: Path = Path("run.mcap")
    gpu: bool = False  # whether onnxruntime is meant to use one
    pace_s: float = 2.0
    reach: tuple[str, ...] = ()  # HOST:PORT or HOST of lidars, robots and others that have to answer


def examine(patient: Patient) -> Iterator[Finding]:
    """All checks in turn; one that fails unexpectedly is itself a finding."""
    checks: list[Callable[[Patient], Iterator[Finding]]] = [
        *(_versions, _runtime, _clock, _time_of_day, _pace, _keys, _port, _reach, _disk, _bundle, _cameras, _lidars),
        _go2,
    ]
    for check in checks:
        try:
            yield from check(patient)
        except (RobonavError, OSError) as error:
            yield Finding(check.__name__.strip("_"), "error", str(error), "see what it says")


def _versions(_: Patient) -> Iterator[Finding]:
    yield Finding("robonav", "ok", f"{robonav.__version__}, Python {platform.python_version()}, {platform.machine()}")
    missing = [name for name in PACKAGES if _version(name) is None]
    if missing:
        yield Finding("packages", "error", f"missing: {', '.join(missing)}", "pip install robonav")
    else:
        yield Finding("packages", "ok", ", ".join(f"{name} {_version(name)}" for name in PACKAGES))


def _runtime(patient: Patient) -> Iterator[Finding]:
    installed = [name for name in RUNTIMES if _version(name) is not None]
    if not installed:
        yield Finding("onnxruntime", "error", "not installed", "pip install 'robonav[runtime-cpu]' (or runtime-gpu)")
        return
    if len(installed) == 2:
        do = f"pip uninstall {' '.join(RUNTIMES)}, then install one of them"
        yield Finding("onnxruntime", "error", "two packages in one folder: the result is CPU only", do)
    import onnxruntime

    providers = [name.removesuffix("ExecutionProvider") for name in onnxruntime.get_available_providers()]
    found = f"{installed[0]} {_version(installed[0])}: {', '.join(providers)}"
    if patient.gpu and not {"CUDA", "Tensorrt"} & set(providers):
        do = "pip install 'robonav[runtime-gpu]' in a fresh environment, and check CUDA's libraries"
        yield Finding("providers", "error", f"{found}; a GPU was asked for", do)
    else:
        yield Finding("providers", "ok", found)


def _clock(_: Patient) -> Iterator[Finding]:
    info = time.get_clock_info("monotonic")
    steps = np.diff([now_ns() for _ in range(10_000)])
    step_ns = int(steps[steps > 0].min()) if (steps > 0).any() else 10**9
    found = f"monotonic clock steps by {step_ns} ns"
    if steps.min() < 0 or not info.monotonic:
        yield Finding("clock", "error", "the monotonic clock runs back", "update the kernel or the virtual machine")
    elif step_ns > RESOLUTION_MAX_NS:
        yield Finding("clock", "warning", found, "choose a high-resolution clock source (tsc or arch_sys_counter)")
    else:
        yield Finding("clock", "ok", found)


def _time_of_day(_: Patient) -> Iterator[Finding]:
    """Only the dates in logs depend on it, so that it is never wrong enough for a warning."""
    try:
        state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(TIMEX_BYTES))
    except (AttributeError, OSError):
        state = -1
    words = {-1: "cannot be asked here", CLOCK_UNSYNCHRONISED: "not synchronised (chrony or systemd-timesyncd do it)"}
    found = words.get(state, "synchronised")
    yield Finding("time of day", "ok", f"{found}; only dates in logs depend on it, ages never do")


def _pace(patient: Patient) -> Iterator[Finding]:
    lateness_ms, period_pct = pace(patient.pace_s)
    p50, p99, worst = np.percentile(lateness_ms, [50, 99, 100])
    found = (
        f"{RATE_HZ:g} Hz for {patient.pace_s:g} s: late by p50 {p50:.2f} ms, p99 {p99:.2f} ms, "
        f"max {worst:.2f} ms; mean period off by {period_pct:.2f} %"
    )
    if p99 > LATE_MAX_MS or period_pct > PERIOD_MAX_PCT:
        do = "stop what else runs, and give the processes a priority of their own (the unit under launch/systemd does)"
        yield Finding("pace", "warning", found, "; ".join([do, *_brakes()]))
    else:
        yield Finding("pace", "ok", found)


def _brakes() -> Iterator[str]:
    """What of this computer's settings may stand behind late ticks."""
    if _first_line(AUTOGROUP) == "1":
        yield "sysctl -w kernel.sched_autogroup_enabled=0, without which nice has no effect between sessions"
    if (governor := _first_line(CPU_GOVERNOR)) not in ("", "performance"):
        yield f"set the CPU's frequency governor to performance (it is '{governor}'; on a Jetson: jetson_clocks)"


def pace(seconds: float) -> tuple[list[float], float]:
    """Milliseconds by which each tick of a paced loop was late, and the error of its mean period in percent."""
    period_ns = int(1e9 / RATE_HZ)
    deadlines = Deadlines(period_ns, now_ns() + period_ns)
    begun: list[int] = []
    lateness: list[float] = []
    for _ in range(max(3, round(seconds * RATE_HZ))):
        time.sleep(deadlines.remaining_ns(now_ns()) * 1e-9)
        begun.append(now_ns())
        lateness.append(deadlines.begin(begun[-1]) * 1e-6)
    mean_ns = (begun[-1] - begun[0]) / (len(begun) - 1)
    return lateness, abs(mean_ns / period_ns - 1) * 100


def _keys(patient: Patient) -> Iterator[Finding]:
    operator = patient.config.operator
    folder = keys.keys_folder(operator.keys)
    wanted = operator.listen.startswith("tcp://")
    if not folder.exists():
        level: Literal["ok", "error"] = "error" if wanted else "ok"
        do = "robonav keys new NAME --role estop" if wanted else ""
        yield Finding("keys", level, f"none in {folder}; " + ("tcp needs them" if wanted else "nothing needs them"), do)
        return
    for line in keys.problems(folder):
        yield Finding("keys", "error", line, "as it says")
    mode = stat.S_IMODE(folder.stat().st_mode)
    if mode & 0o022:
        found = f"others may put keys into {folder} (mode {mode:o})"
        yield Finding("keys", "error", found, f"chmod 700 {folder}")
    roles = sorted(entry.role for entry in keys.allowed(folder).values())
    found = f"{len(roles)} allowed in {folder}"
    if wanted and not set(roles) & {"estop", "commander"}:
        yield Finding("keys", "warning", f"{found}, none may re-arm", "robonav keys new NAME --role estop")
    else:
        yield Finding("keys", "ok", found)


def _port(patient: Patient) -> Iterator[Finding]:
    listen = patient.config.operator.listen
    if not listen.startswith("tcp://"):
        yield Finding("port", "ok", f"listens on {listen}" if listen else "listens nowhere")
        return
    host, _, port = listen.removeprefix("tcp://").rpartition(":")
    with socket.socket(socket.AF_INET6 if host.startswith("[") else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host.strip("[]").replace("*", ""), int(port)))
        except (OSError, ValueError, OverflowError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            yield Finding("port", "error", f"{listen}: {why}", "end the other program, or choose another address")
            return
    yield Finding("port", "ok", f"{listen} is free")


def _disk(patient: Patient) -> Iterator[Finding]:
    folder = patient.log.resolve().parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        yield Finding("disk", "error", f"{folder} cannot be written", "choose another folder with --log")
        return
    free = shutil.disk_usage(folder).free
    found = f"{free / 1e9:.1f} GB free in {folder}"
    if free < DISK_MIN_BYTES:
        yield Finding("disk", "warning", found, "free some space: an hour of logs takes about 250 MB")
    else:
        yield Finding("disk", "ok", found)


def _bundle(patient: Patient) -> Iterator[Finding]:
    from policies.bundle import load_bundle

    try:
        bundle = load_bundle(find_bundle(patient.bundle))
    except RobonavError as error:
        yield Finding("bundle", "error", str(error), "export it again, or name another with --bundle")
        return
    contract = bundle.contract
    found = f"{contract.name} for {contract.robot.name}, {contract.robot.rate_hz:g} Hz, {bundle.sha256[:12]}"
    yield Finding("bundle", "ok", found)


def _reach(patient: Patient) -> Iterator[Finding]:
    for address in patient.reach:
        why = doctor_devices.reachable(address)
        if why:
            do = "check its power, the cable, and the address of this computer's interface in the same network"
            yield Finding("reach", "error", f"{address}: {why}", do)
        else:
            yield Finding("reach", "ok", f"{address} answers")


def _cameras(_: Patient) -> Iterator[Finding]:
    yield from _devices("cameras", doctor_devices.cameras(), "video")


def _lidars(_: Patient) -> Iterator[Finding]:
    """Those on USB; one in the network is asked for with `reach`."""
    ports = doctor_devices.serial_ports()
    yield from _devices("serial", ports, "dialout")
    sensors = doctor_devices.usb_sensors()
    yield Finding("usb sensors", "ok", ", ".join(device.name for device in sensors) or "none found")


def _devices(what: str, devices: list[doctor_devices.Device], group: str) -> Iterator[Finding]:
    for device in devices:
        if not device.usable:
            do = f"sudo usermod -aG {group} $USER, then log in again"
            yield Finding(what, "error", f"{device.name}: this user may not use {device.path}", do)
    usable = [f"{device.name} ({device.path})" for device in devices if device.usable]
    if usable or not devices:
        yield Finding(what, "ok", ", ".join(usable) or "none found")


def _go2(_: Patient) -> Iterator[Finding]:
    version = _version("cyclonedds")
    uri = " and CYCLONEDDS_URI" if os.environ.get("CYCLONEDDS_URI") else ""
    found = "no cyclonedds; only --driver go2 needs it" if version is None else f"cyclonedds {version}{uri}"
    yield Finding("go2", "ok", found)


def _first_line(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
