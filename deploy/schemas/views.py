"""Foxglove's view of our messages: scan, depth, map, pose, transforms, route, imagined path, and lines of text.

Viewers draw these without a plug-in. Only depth and map are read back (the rest repeats what our own messages hold
exactly). Depth is 16 bit millimetres, or 32 bit metres where every bit is wanted; no decision reads it. Stamps are wall
clock: the monotonic stamp plus the log's constant offset.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from foxglove_schemas_protobuf.FrameTransform_pb2 import FrameTransform
from foxglove_schemas_protobuf.FrameTransforms_pb2 import FrameTransforms
from foxglove_schemas_protobuf.Grid_pb2 import Grid
from foxglove_schemas_protobuf.Log_pb2 import Log as TextLog
from foxglove_schemas_protobuf.PackedElementField_pb2 import PackedElementField
from foxglove_schemas_protobuf.PointCloud_pb2 import PointCloud
from foxglove_schemas_protobuf.Pose_pb2 import Pose
from foxglove_schemas_protobuf.PoseInFrame_pb2 import PoseInFrame
from foxglove_schemas_protobuf.PosesInFrame_pb2 import PosesInFrame
from foxglove_schemas_protobuf.Quaternion_pb2 import Quaternion
from foxglove_schemas_protobuf.RawImage_pb2 import RawImage
from foxglove_schemas_protobuf.Vector2_pb2 import Vector2
from foxglove_schemas_protobuf.Vector3_pb2 import Vector3
from google.protobuf.timestamp_pb2 import Timestamp
from numpy.typing import NDArray

from deploy import wire
from deploy.log_messages import MapMsg, RolloutsMsg
from robonav.types import LidarSpec, RobotSpec

DEPTH, MAP = "/depth", "/map"
VIEWS: dict[str, Any] = {
    "/scan": PointCloud,
    DEPTH: RawImage,
    MAP: Grid,
    "/pose": PoseInFrame,
    "/tf": FrameTransforms,
    "/route": PosesInFrame,
    "/imagined": PosesInFrame,
    "/text": TextLog,
}
ODOM, BASE, LIDAR, CAMERA = "odom", "base", "lidar", "camera"
MM_PER_M = 1000.0
View = tuple[str, Any]


class Views:
    """Makes the views of one log.

    Args:
        robot: places and angles of the sensors; without it there is no scan and no sensor frame.
        offset_ns: wall clock less monotonic clock.
        exact_depth: 32 bit metres.
    """

    def __init__(self, robot: RobotSpec | None, offset_ns: int, exact_depth: bool) -> None:
        self._robot, self._offset_ns, self._exact_depth = robot, offset_ns, exact_depth
        self._makers: dict[type[Any], Callable[[Any, Timestamp], Iterable[View]]] = {
            wire.ObservationMsg: self._observation,
            wire.DecisionMsg: _decision,
            wire.EventMsg: _event,
            MapMsg: _map,
            RolloutsMsg: _rollouts,
        }

    def of(self, message: Any) -> list[View]:
        """Topic and Foxglove message of each view."""
        maker = self._makers.get(type(message))
        return [] if maker is None else list(maker(message, _timestamp(message.stamp_ns + self._offset_ns)))

    def _observation(self, m: wire.ObservationMsg, stamp: Timestamp) -> Iterable[View]:
        x, y, yaw = wire.unpack_array(m.pose_odom_base, "pose_odom_base").tolist()
        roll, pitch = wire.unpack_array(m.tilt_rad, "tilt_rad").tolist()
        place, turn = Vector3(x=x, y=y), _quaternion(roll, pitch, yaw)
        frames = [FrameTransform(timestamp=stamp, parent_frame_id=ODOM, child_frame_id=BASE)]
        frames[0].translation.CopyFrom(place)
        frames[0].rotation.CopyFrom(turn)
        frames += [] if self._robot is None else _sensor_frames(self._robot, stamp)
        yield "/pose", PoseInFrame(timestamp=stamp, frame_id=ODOM, pose=Pose(position=place, orientation=turn))
        yield "/tf", FrameTransforms(transforms=frames)
        if m.scan_m is not None and self._robot is not None:
            scan_m = wire.unpack_array(m.scan_m, "scan_m")
            yield "/scan", _points(scan_m, self._robot.lidar, stamp)
        if m.depth_m is not None:
            yield DEPTH, _depth(wire.unpack_array(m.depth_m, "depth_m"), stamp, self._exact_depth)


def read_depth(image: Any) -> wire.Array:
    """The depth in metres that a view holds."""
    if image.encoding == "32FC1":
        return wire.Array((image.height, image.width), bytes(image.data))
    depth_mm = np.frombuffer(image.data, "<u2").reshape(image.height, image.width)
    return wire.pack_array(depth_mm / MM_PER_M)


def read_map(grid: Any, **head: int) -> MapMsg:
    """The map that a view holds; `head` is what the message starts with."""
    columns = int(grid.column_count)
    return MapMsg(
        **head,
        observation=head["sequence"],
        origin_odom_m=(grid.pose.position.x, grid.pose.position.y),
        resolution_m=grid.cell_size.x,
        rows=len(grid.data) // max(columns, 1),
        columns=columns,
        cells=bytes(grid.data),
    )


def _points(scan_m: NDArray[np.float32], lidar: LidarSpec, stamp: Timestamp) -> PointCloud:
    """What the beams hit, in the lidar's frame; those that hit nothing are left out."""
    hit = scan_m < lidar.range_m
    angles, ranges_m = lidar.angles_rad[hit], scan_m[hit]
    points = np.zeros((len(ranges_m), 3), "<f4")
    points[:, 0], points[:, 1] = ranges_m * np.cos(angles), ranges_m * np.sin(angles)
    fields = [
        PackedElementField(name=name, offset=4 * place, type=PackedElementField.FLOAT32)
        for place, name in enumerate(("x", "y", "z"))
    ]
    return PointCloud(
        timestamp=stamp, frame_id=LIDAR, pose=_at(0.0, 0.0), point_stride=12, fields=fields, data=points.tobytes()
    )


def _depth(depth_m: NDArray[np.float32], stamp: Timestamp, exact: bool) -> RawImage:
    height, width = depth_m.shape
    if exact:
        encoding, data = "32FC1", depth_m
    else:
        encoding, data = "16UC1", np.rint(np.clip(depth_m * MM_PER_M, 0, 65535)).astype("<u2")
    step = width * data.itemsize
    size = {"width": width, "height": height, "step": step}
    return RawImage(timestamp=stamp, frame_id=CAMERA, encoding=encoding, data=data.tobytes(), **size)


def _decision(m: wire.DecisionMsg, stamp: Timestamp) -> Iterable[View]:
    if m.route_odom_m is not None:
        yield "/route", _path(wire.unpack_array(m.route_odom_m, "route_odom_m"), stamp)


def _rollouts(m: RolloutsMsg, stamp: Timestamp) -> Iterable[View]:
    paths = wire.unpack_array(m.paths_odom_m, "paths_odom_m")
    if m.chosen < len(paths):
        yield "/imagined", _path(paths[m.chosen], stamp)


def _map(m: MapMsg, stamp: Timestamp) -> Iterable[View]:
    cell = PackedElementField(name="occupancy", offset=0, type=PackedElementField.UINT8)
    strides = {"column_count": m.columns, "row_stride": m.columns, "cell_stride": 1}
    size = Vector2(x=m.resolution_m, y=m.resolution_m)
    place = _at(*m.origin_odom_m)
    yield (
        MAP,
        Grid(timestamp=stamp, frame_id=ODOM, pose=place, cell_size=size, fields=[cell], data=m.cells, **strides),
    )


def _event(m: wire.EventMsg, stamp: Timestamp) -> Iterable[View]:
    yield "/text", TextLog(timestamp=stamp, level=TextLog.INFO, name=m.kind, message=m.text)


def _sensor_frames(robot: RobotSpec, stamp: Timestamp) -> list[FrameTransform]:
    """Where lidar and camera sit on the base; the camera's frame looks along its z axis."""
    lidar, depth = robot.lidar, robot.depth
    looking = _quaternion(0.0, depth.mount_pitch_rad, depth.mount_yaw_rad)
    optical = _product(looking, Quaternion(x=-0.5, y=0.5, z=-0.5, w=0.5))
    places = (
        (LIDAR, Vector3(x=lidar.mount_x_m, z=lidar.mount_z_m), Quaternion(w=1.0)),
        (CAMERA, Vector3(x=depth.mount_x_m, y=depth.mount_y_m, z=depth.mount_z_m), optical),
    )
    return [
        FrameTransform(timestamp=stamp, parent_frame_id=BASE, child_frame_id=name, translation=place, rotation=turn)
        for name, place, turn in places
    ]


def _path(points_m: NDArray[np.float32], stamp: Timestamp) -> PosesInFrame:
    return PosesInFrame(timestamp=stamp, frame_id=ODOM, poses=[_at(x, y) for x, y in points_m[:, :2].tolist()])


def _at(x: float, y: float) -> Pose:
    return Pose(position=Vector3(x=x, y=y), orientation=Quaternion(w=1.0))


def _timestamp(stamp_ns: int) -> Timestamp:
    seconds, nanos = divmod(stamp_ns, 1_000_000_000)
    return Timestamp(seconds=seconds, nanos=nanos)


def _quaternion(roll: float, pitch: float, yaw: float) -> Quaternion:
    """Of the rotation Rz(yaw) Ry(pitch) Rx(roll)."""
    (sr, sp, sy), (cr, cp, cy) = np.sin([roll / 2, pitch / 2, yaw / 2]), np.cos([roll / 2, pitch / 2, yaw / 2])
    return Quaternion(
        x=float(sr * cp * cy - cr * sp * sy),
        y=float(cr * sp * cy + sr * cp * sy),
        z=float(cr * cp * sy - sr * sp * cy),
        w=float(cr * cp * cy + sr * sp * sy),
    )


def _product(a: Quaternion, b: Quaternion) -> Quaternion:
    return Quaternion(
        w=a.w * b.w - a.x * b.x - a.y * b.y - a.z * b.z,
        x=a.w * b.x + a.x * b.w + a.y * b.z - a.z * b.y,
        y=a.w * b.y - a.x * b.z + a.y * b.w + a.z * b.x,
        z=a.w * b.z + a.x * b.y - a.y * b.x + a.z * b.w,
    )
