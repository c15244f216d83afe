"""Where a Go2's planar scan comes from: its own lidar, or one of yours behind `ScanSource`."""

from __future__ import annotations

import importlib
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from deploy.drivers.clouds import Floats, Slice, cloud_points, planar_scan, rotation, yaw_of
from robonav.errors import LinkError, RobonavError, explain
from robonav.types import RobotSpec

if TYPE_CHECKING:
    from deploy.drivers.go2_dds import Go2Link

CLOUD_TOPIC = "rt/utlidar/cloud_deskewed"  # points in the frame "odom" of the lidar's own odometry
POSE_TOPIC = "rt/utlidar/robot_pose"  # of the base in that frame
KEEP_S = 0.5  # the lidar's clouds are sparse: those of half a second make a scan
STANDING_HEIGHT_M = 0.32  # of a standing Go2's base over the floor, where sport mode does not tell


@runtime_checkable
class ScanSource(Protocol):
    """A planar lidar, or what stands for one."""

    def connect(self, spec: RobotSpec) -> None:
        """Opens it."""

    def read(self) -> tuple[NDArray[np.float32], int] | None:
        """The newest scan, (beams,) as in `Observation.scan_m`, and when it was measured by the monotonic clock."""

    def close(self) -> None:
        """Closes it; safe to call again."""


def make_source(factory: str) -> ScanSource:
    """A source of your own, "module:function" without arguments.

    Raises:
        LinkError: there is none, or what it made is no `ScanSource`.
    """
    module, _, name = factory.partition(":")
    try:
        source = getattr(importlib.import_module(module), name)()
    except (ImportError, AttributeError, ValueError) as error:
        raise LinkError(explain(f"scan '{factory}'", "utlidar, none, or module:function", str(error))) from None
    if not isinstance(source, ScanSource):
        raise LinkError(explain(f"scan '{factory}'", "a deploy.drivers.go2_scan.ScanSource", type(source).__name__))
    return source


class UtLidar:
    """The Go2's own lidar: clouds in its odometry's frame, gathered for KEEP_S, seen from where the base is now.

    Clouds and poses come from the same odometry, so that its offset to sport mode's plays no part.
    """

    def __init__(self, link: Go2Link, cloud_topic: str = CLOUD_TOPIC, pose_topic: str = POSE_TOPIC) -> None:
        """Hears the topics; before the link starts."""
        from deploy.drivers import go2_idl as idl

        self._lock = threading.Lock()
        self._clouds: deque[tuple[Floats, int]] = deque()  # points and when they came
        self._pose: tuple[Floats, float] | None = None  # (3,) position, yaw
        self._error: RobonavError | None = None
        self._spec: RobotSpec | None = None
        link.hear(pose_topic, idl.PoseStamped, self._hear_pose)
        link.hear(cloud_topic, idl.PointCloud2, self._hear_cloud)

    def connect(self, spec: RobotSpec) -> None:
        """Clouds are heard from the link's start on."""
        self._spec = spec

    def read(self) -> tuple[NDArray[np.float32], int] | None:
        """The scan, of the time of the newest cloud.

        Raises:
            LinkError: no cloud so far could be read.
        """
        with self._lock:
            if self._error is not None and not self._clouds:
                raise self._error
            if self._spec is None or self._pose is None or not self._clouds:
                return None
            (position, yaw), clouds = self._pose, list(self._clouds)
        newest_ns = clouds[-1][1]
        c, s = np.cos(yaw), np.sin(yaw)
        points = np.concatenate([points for points, _ in clouds]) - position
        points[:, :2] = points[:, :2] @ np.array([[c, -s], [s, c]])
        return planar_scan(points, self._spec, Slice.over_floor(self._spec, STANDING_HEIGHT_M)), newest_ns

    def close(self) -> None:
        """The link closes the topics."""

    def _hear_pose(self, sample: Any, _: int) -> None:
        p, q = sample.pose.position, sample.pose.orientation
        turn = rotation(np.array([q.x, q.y, q.z, q.w]))
        position = np.array([p.x, p.y, p.z])
        if np.isfinite(position).all() and np.isfinite(turn).all():
            with self._lock:
                self._pose = position, yaw_of(turn)

    def _hear_cloud(self, sample: Any, came_ns: int) -> None:
        try:
            if sample.header.frame_id not in ("odom", "/odom", ""):
                raise LinkError(explain("Go2: lidar's cloud", "frame 'odom'", f"'{sample.header.frame_id}'"))
            points = cloud_points(sample)
        except RobonavError as error:
            with self._lock:
                self._error = error
            return
        with self._lock:
            self._clouds.append((points, came_ns))
            while came_ns - self._clouds[0][1] > KEEP_S * 1e9:
                self._clouds.popleft()
