"""Logs with everything that a page can show, written message by message, and a browser."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploy import wire
from deploy.config import DeployConfig, RecorderConfig
from deploy.recorder import LogWriter
from robonav.config import load_robot, to_mapping
from robonav.types import LidarSpec

SIDE_M = 3.0  # half of the square room
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")
MakeLog = Callable[..., Path]


def room_scan(pose: np.ndarray[Any, Any], lidar: LidarSpec) -> np.ndarray[Any, Any]:
    """(beams,) of a lidar in the square room; closed form."""
    angles = pose[2] + lidar.angles_rad
    c, s = np.cos(angles), np.sin(angles)
    x, y = pose[0] + lidar.mount_x_m * np.cos(pose[2]), pose[1] + lidar.mount_x_m * np.sin(pose[2])
    with np.errstate(divide="ignore"):
        to_x = np.where(c > 0, (SIDE_M - x) / c, (-SIDE_M - x) / c)
        to_y = np.where(s > 0, (SIDE_M - y) / s, (-SIDE_M - y) / s)
    return np.minimum(np.minimum(np.abs(to_x), np.abs(to_y)), lidar.range_m).astype(np.float32)


def messages(seconds: float, depth: bool, scan: bool) -> Iterator[Any]:
    """A drive round and round: stopped by an obstacle from 2.0 to 3.0 s, a late tick at 4.0 s, near a wall at 5.0 s."""
    spec = load_robot("a1")
    rng = np.random.default_rng(0)
    empty = wire.pack_array(np.zeros(2))
    for i in range(round(seconds * 10)):
        t, stamp = i / 10, 10**9 + i * 10**8
        angle = 0.1 * t
        pose = np.array([math.cos(angle), math.sin(angle), angle + math.pi / 2], np.float32)
        if i == 50:
            pose[0] = SIDE_M - 0.25
        image = np.clip(2 + np.sin(t) + 0.02 * rng.standard_normal((64, 64)), 0, 6).astype(np.float32)
        common = {"sequence": i, "episode": 1}
        yield wire.ObservationMsg(
            **common,
            stamp_ns=stamp,
            pose_odom_base=wire.pack_array(pose),
            twist_base=wire.pack_array([0.4, 0.0, 0.1]),
            tilt_rad=empty,
            goal_odom_m=wire.pack_array([-1.0, 2.0]),
            last_command=wire.pack_array([0.5, 0.0, 0.1]),
            scan_m=wire.pack_array(room_scan(pose, spec.lidar)) if scan else None,
            depth_m=wire.pack_array(image) if depth else None,
        )
        yield wire.DecisionMsg(
            **common,
            stamp_ns=stamp + 5_000_000,
            observation=i,
            reset=i == 0,
            seed=0,
            vx_mps=0.9,
            vy_mps=0.0,
            yaw_rate_radps=0.1,
            value=math.sin(t),
            why="actor",
            route_odom_m=wire.pack_array(np.linspace(pose[:2], [-1.0, 2.0], 20)),
            age_ms=1.0,
            total_ms=140.0 if i == 40 else 8.0,
            details={"infer_ms": 2.0, "map_ms": 4.0},
        )
        for k in range(5):
            now = t + 0.02 * k
            stopped = 2.0 <= now < 3.0
            yield wire.GovernedMsg(
                sequence=5 * i + k,
                episode=1,
                stamp_ns=stamp + k * 20_000_000,
                vx_mps=0.0 if stopped else 0.7,
                vy_mps=0.0,
                yaw_rate_radps=0.1,
                life_ms=250.0,
                asked=i,
                reasons=("stopped: obstacle",) if stopped else ("speed",),
            )
        yield wire.StatusMsg(
            **common,
            stamp_ns=stamp,
            arrived=False,
            collided=False,
            speed_mps=0.4,
            position_odom_m=(0.0, 0.0),
            late_ticks=0,
            lateness_ms=60.0 if i == 40 else 0.5,
            stopped=False,
        )


FLUSH_NS = 500_000_000


@pytest.fixture(scope="session")
def make_log(tmp_path_factory: pytest.TempPathFactory) -> MakeLog:
    """Writes a log: ``make_log("a.mcap", seconds=8)``; `keep` chooses the messages."""
    folder = tmp_path_factory.mktemp("viewer")

    def make(
        name: str,
        seconds: float = 8.0,
        depth: bool = True,
        scan: bool = True,
        keep: Callable[[Any], bool] = lambda message: True,
    ) -> Path:
        run = {
            "robot": json.dumps(to_mapping(load_robot("a1"))),
            "config": json.dumps(to_mapping(DeployConfig())),
            "scene": "room <b>&amp;",
            "seed": "0",
        }
        writer = LogWriter(folder / name, RecorderConfig(), run)
        flushed_ns = 0
        for message in messages(seconds, depth, scan):
            if keep(message):
                writer.write(message, message.sequence)
            if message.stamp_ns - flushed_ns > FLUSH_NS:  # as a recorder does whose clock runs
                writer.flush()
                flushed_ns = message.stamp_ns
        writer.close()
        return folder / name

    return make


@dataclass
class Tab:
    """A page in the browser, with all that went wrong in it."""

    page: Any
    errors: list[str]

    def at(self) -> float:
        """The moment that is shown."""
        return float(self.page.evaluate("document.getElementById('time').valueAsNumber"))

    def press(self, key: str) -> float:
        """Presses a key and lets a frame pass; gives the moment then."""
        self.page.keyboard.press(key)
        self.settle()
        return self.at()

    def settle(self) -> None:
        """Lets two frames pass."""
        self.page.evaluate("new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r)))")


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Real headless Chromium."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install 'robonav[dev]'")
    with api.sync_playwright() as playwright:
        own = playwright.chromium.executable_path
        found = next(filter(None, map(shutil.which, CHROMIUM)), own if Path(own).exists() else None)
        if found is None:
            pytest.skip("no chromium on the path: apt-get install chromium")
        chromium = playwright.chromium.launch(executable_path=found, args=[*FLAGS, "--disable-sync"])
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser: Any) -> Iterator[Callable[..., Tab]]:
    """Opens a file or an address; afterwards no page may have logged an error or asked the network."""
    tabs: list[Tab] = []
    contexts = []

    def open_(where: Path | str, width: int = 1400, height: int = 900, wait: bool = True, **options: Any) -> Tab:
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        page = context.new_page()
        tab = Tab(page, [])
        page.on("console", lambda m: tab.errors.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda e: tab.errors.append(str(e)))
        allowed = where.as_uri() if isinstance(where, Path) else where.split("?")[0]
        page.on(
            "request", lambda r: None if r.url.startswith((allowed, "data:", "blob:")) else tab.errors.append(r.url)
        )
        page.goto(where.as_uri() if isinstance(where, Path) else where)
        if wait:
            page.wait_for_selector("body[data-ready]", state="attached")
        tab.settle()
        tabs.append(tab)
        return tab

    yield open_
    for tab in tabs:
        assert tab.errors == []
    for context in contexts:
        context.close()
