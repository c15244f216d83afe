"""A planar scan from a cloud of points, for robots whose lidar is none of our planar ones. Pure, numpy only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robonav.errors import LinkError, explain
from robonav.types import LidarSpec, RobotSpec

NO_READING = 0.0
FLOAT_KINDS = {7: "f4", 8: "f8"}  # sensor_msgs/PointField: FLOAT32, FLOAT64
SEEN_SHARE = 0.5  # a beam without an obstacle is free if something is seen in it this share of its range away
OWN_MARGIN_M = 0.05
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Slice:
    """Heights over the base's origin, of a level base, between which a point is an obstacle."""

    low_m: float
    high_m: float

    @classmethod
    def over_floor(cls, spec: RobotSpec, base_height_m: float, clearance_m: float = 0.12) -> Slice:
        """From what the robot steps over up to a hand over its back; the floor is `base_height_m` under the base."""
        return cls(clearance_m - base_height_m, spec.height_m - base_height_m + 0.1)


def planar_scan(points_base_m: Floats, spec: RobotSpec, heights: Slice) -> NDArray[np.float32]:
    """What a planar lidar of the robot's preset would have seen of a cloud.

    Args:
        points_base_m: (n, 3) in the level base frame; those inside the robot are left out.
        spec: the robot, with its lidar.
        heights: of obstacles.

    Returns:
        (beams,) ranges to the nearest obstacle of each beam's sector; the lidar's range where something lies far
        behind and nothing before it; 0, no reading, where too little was seen to say.
    """
    lidar = spec.lidar
    x, y, z = np.asarray(points_base_m, np.float64).reshape(-1, 3).T
    finite = np.isfinite(x + y + z)
    own = (np.abs(x) < spec.length_m / 2 + OWN_MARGIN_M) & (np.abs(y) < spec.width_m / 2 + OWN_MARGIN_M)
    x, y, z = (v[finite & ~own] for v in (x, y, z))
    away = np.hypot(x - lidar.mount_x_m, y)
    beam, inside = _beams(np.arctan2(y, x - lidar.mount_x_m), lidar)
    away, beam, z = away[inside], beam[inside], z[inside]
    nearest, farthest = np.full(lidar.beams, np.inf), np.zeros(lidar.beams)
    obstacle = (z >= heights.low_m) & (z <= heights.high_m)
    np.minimum.at(nearest, beam[obstacle], away[obstacle])
    np.maximum.at(farthest, beam, away)
    seen = farthest >= SEEN_SHARE * lidar.range_m
    free = np.where(seen, lidar.range_m, NO_READING)
    return np.where(np.isfinite(nearest), np.minimum(nearest, lidar.range_m), free).astype(np.float32)


def _beams(bearing_rad: Floats, lidar: LidarSpec) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The beam whose sector each bearing lies in, and whether it lies in the field of view at all."""
    turn = (bearing_rad - lidar.angle_min_rad + lidar.increment_rad / 2) % (2 * np.pi)
    beam = np.floor(turn / lidar.increment_rad).astype(np.int64)
    return beam, beam < lidar.beams


def cloud_points(cloud: Any) -> Floats:
    """(n, 3) x, y, z of a `sensor_msgs/PointCloud2`, in its own frame; points without a reading are left out.

    Raises:
        LinkError: no x, y, z of floating point, or fewer bytes than the message says.
    """
    kinds = {f.name: (int(f.offset), FLOAT_KINDS.get(int(f.datatype))) for f in cloud.fields}
    step, count = int(cloud.point_step), int(cloud.width) * int(cloud.height)
    if any(kinds.get(axis, (0, None))[1] is None for axis in "xyz"):
        raise LinkError(explain("point cloud", "fields x, y, z of floating point", sorted(kinds)))
    data = bytes(cloud.data)
    last = max(kinds[axis][0] + np.dtype(kinds[axis][1]).itemsize for axis in "xyz")
    if step < last or len(data) < step * count:
        raise LinkError(explain("point cloud", f"{count} points of {step} bytes", f"{len(data)} bytes"))
    order = ">" if cloud.is_bigendian else "<"
    formats = [order + str(kinds[axis][1]) for axis in "xyz"]
    offsets = [kinds[axis][0] for axis in "xyz"]
    layout = np.dtype({"names": list("xyz"), "formats": formats, "offsets": offsets, "itemsize": step})
    points = np.frombuffer(data, layout, count)
    xyz = np.stack([points[axis].astype(np.float64) for axis in "xyz"], axis=1)
    return xyz[np.isfinite(xyz).all(axis=1) & xyz.any(axis=1)]


def rotation(quaternion_xyzw: Floats) -> Floats:
    """(3, 3) rotation of a unit quaternion."""
    x, y, z, w = (float(v) for v in quaternion_xyzw)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def yaw_of(turn: Floats) -> float:
    """Yaw of a (3, 3) rotation."""
    return float(np.arctan2(turn[1, 0], turn[0, 0]))
