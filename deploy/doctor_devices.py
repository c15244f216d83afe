"""Which cameras and lidars a computer has, as far as its files tell; none of it opens a device."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path

PING_S = 1.0
SERIAL = ("ttyUSB*", "ttyACM*")
# USB vendors of depth cameras and lidars, and of the serial chips that lidars come with.
VENDORS = {
    "8086": "Intel (RealSense)",
    "2bc5": "Orbbec",
    "03e7": "Luxonis (OAK)",
    "2b03": "Stereolabs (ZED)",
    "15d1": "Hokuyo",
    "10c4": "Silicon Labs (serial; RPLIDAR, YDLIDAR)",
}
_8086_DEPTH = "0a", "0b"  # Intel makes much besides: the product's first byte


@dataclass(frozen=True, slots=True)
class Device:
    """One that was found."""

    name: str
    path: str = ""  # of the device file; "" where it has none
    usable: bool = True  # this user may read and write it


def cameras(root: Path = Path("/")) -> list[Device]:
    """Video devices; one that offers several files counts once."""
    found: dict[str, Device] = {}
    for path in sorted((root / "dev").glob("video*"), key=lambda p: (len(p.name), p.name)):
        name = _text(root / "sys/class/video4linux" / path.name / "name") or path.name
        found.setdefault(name, Device(name, str(path), os.access(path, os.R_OK | os.W_OK)))
    return list(found.values())


def serial_ports(root: Path = Path("/")) -> list[Device]:
    """Serial devices on USB, by their stable names where they have them."""
    names = {link.resolve(): link.name for link in sorted((root / "dev/serial/by-id").glob("*"))}
    paths = sorted(path for pattern in SERIAL for path in (root / "dev").glob(pattern))
    return [Device(names.get(p.resolve(), p.name), str(p), os.access(p, os.R_OK | os.W_OK)) for p in paths]


def usb_sensors(root: Path = Path("/")) -> list[Device]:
    """USB devices of makers of depth cameras and lidars."""
    found = []
    for folder in sorted((root / "sys/bus/usb/devices").glob("*")):
        vendor, product = _text(folder / "idVendor"), _text(folder / "idProduct")
        if vendor not in VENDORS or (vendor == "8086" and product[:2] not in _8086_DEPTH):
            continue
        found.append(Device(_text(folder / "product") or f"{VENDORS[vendor]} {product}"))
    return found


def reachable(address: str) -> str:
    """Empty if HOST:PORT accepts a connection, or HOST answers a ping; else why not."""
    host, _, port = address.rpartition(":")
    if host and port.isdigit():
        try:
            with socket.create_connection((host.strip("[]"), int(port)), timeout=PING_S):
                return ""
        except (OSError, OverflowError) as error:
            return getattr(error, "strerror", None) or str(error)
    ping = shutil.which("ping")
    if ping is None:
        return "no 'ping' here to ask it with; give HOST:PORT"
    if address.startswith("-"):
        return "no name of a host"
    done = subprocess.run([ping, "-c", "1", "-W", "1", address], capture_output=True, check=False)
    return "" if done.returncode == 0 else "does not answer"


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""
