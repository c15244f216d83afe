"""The DDS messages of a Unitree Go2, as cyclonedds describes them; needs cyclonedds.

The layouts are those of unitree_sdk2_python, folder `unitree_sdk2py/idl`: `unitree_api.msg.dds_` and
`unitree_go.msg.dds_`, and ROS 2's `builtin_interfaces`, `std_msgs`, `geometry_msgs`, `sensor_msgs`. All are final:
plain CDR, members in order.
"""

# No postponed annotations here: cyclonedds reads them when it makes a type.
from dataclasses import dataclass

from cyclonedds.idl import IdlStruct
from cyclonedds.idl.annotations import autoid, final
from cyclonedds.idl.types import array, float32, float64, int16, int32, int64, sequence, uint8, uint32

# -- unitree_api ---------------------------------------------------------------------------------------------------


@dataclass
@final
@autoid("sequential")
class RequestIdentity(IdlStruct, typename="unitree_api.msg.dds_.RequestIdentity_"):
    """Which request, and of which of the service's functions."""

    id: int64
    api_id: int64


@dataclass
@final
@autoid("sequential")
class RequestLease(IdlStruct, typename="unitree_api.msg.dds_.RequestLease_"):
    """0: without a lease."""

    id: int64


@dataclass
@final
@autoid("sequential")
class RequestPolicy(IdlStruct, typename="unitree_api.msg.dds_.RequestPolicy_"):
    """Whether the service answers."""

    priority: int32
    noreply: bool


@dataclass
@final
@autoid("sequential")
class RequestHeader(IdlStruct, typename="unitree_api.msg.dds_.RequestHeader_"):
    """Of a request."""

    identity: RequestIdentity
    lease: RequestLease
    policy: RequestPolicy


@dataclass
@final
@autoid("sequential")
class Request(IdlStruct, typename="unitree_api.msg.dds_.Request_"):
    """Calls a function; its arguments are JSON."""

    header: RequestHeader
    parameter: str
    binary: sequence[uint8]


@dataclass
@final
@autoid("sequential")
class ResponseStatus(IdlStruct, typename="unitree_api.msg.dds_.ResponseStatus_"):
    """0 is success."""

    code: int32


@dataclass
@final
@autoid("sequential")
class ResponseHeader(IdlStruct, typename="unitree_api.msg.dds_.ResponseHeader_"):
    """Of an answer."""

    identity: RequestIdentity
    status: ResponseStatus


@dataclass
@final
@autoid("sequential")
class Response(IdlStruct, typename="unitree_api.msg.dds_.Response_"):
    """The answer to the request of the same identity."""

    header: ResponseHeader
    data: str
    binary: sequence[uint8]


# -- unitree_go ----------------------------------------------------------------------------------------------------


@dataclass
@final
@autoid("sequential")
class TimeSpec(IdlStruct, typename="unitree_go.msg.dds_.TimeSpec_"):
    """Of the robot's clock."""

    sec: int32
    nanosec: uint32


@dataclass
@final
@autoid("sequential")
class IMUState(IdlStruct, typename="unitree_go.msg.dds_.IMUState_"):
    """quaternion w, x, y, z; rpy roll, pitch, yaw in rad."""

    quaternion: array[float32, 4]
    gyroscope: array[float32, 3]
    accelerometer: array[float32, 3]
    rpy: array[float32, 3]
    temperature: uint8


@dataclass
@final
@autoid("sequential")
class PathPoint(IdlStruct, typename="unitree_go.msg.dds_.PathPoint_"):
    """Of a path that sport mode follows."""

    t_from_start: float32
    x: float32
    y: float32
    yaw: float32
    vx: float32
    vy: float32
    vyaw: float32


@dataclass
@final
@autoid("sequential")
class SportModeState(IdlStruct, typename="unitree_go.msg.dds_.SportModeState_"):
    """Sport mode's own account of the robot."""

    stamp: TimeSpec
    error_code: uint32
    imu_state: IMUState
    mode: uint8
    progress: float32
    gait_type: uint8
    foot_raise_height: float32
    position: array[float32, 3]
    body_height: float32
    velocity: array[float32, 3]
    yaw_speed: float32
    range_obstacle: array[float32, 4]
    foot_force: array[int16, 4]
    foot_position_body: array[float32, 12]
    foot_speed_body: array[float32, 12]
    path_point: array[PathPoint, 10]


# -- ROS 2 ---------------------------------------------------------------------------------------------------------


@dataclass
@final
@autoid("sequential")
class Time(IdlStruct, typename="builtin_interfaces.msg.dds_.Time_"):
    """Of the sender's clock."""

    sec: int32
    nanosec: uint32


@dataclass
@final
@autoid("sequential")
class Header(IdlStruct, typename="std_msgs.msg.dds_.Header_"):
    """When, and in which frame."""

    stamp: Time
    frame_id: str


@dataclass
@final
@autoid("sequential")
class Point(IdlStruct, typename="geometry_msgs.msg.dds_.Point_"):
    """Metres."""

    x: float64
    y: float64
    z: float64


@dataclass
@final
@autoid("sequential")
class Quaternion(IdlStruct, typename="geometry_msgs.msg.dds_.Quaternion_"):
    """A rotation."""

    x: float64
    y: float64
    z: float64
    w: float64


@dataclass
@final
@autoid("sequential")
class Pose(IdlStruct, typename="geometry_msgs.msg.dds_.Pose_"):
    """Where something is."""

    position: Point
    orientation: Quaternion


@dataclass
@final
@autoid("sequential")
class PoseStamped(IdlStruct, typename="geometry_msgs.msg.dds_.PoseStamped_"):
    """Where something was at a time."""

    header: Header
    pose: Pose


@dataclass
@final
@autoid("sequential")
class PointField(IdlStruct, typename="sensor_msgs.msg.dds_.PointField_"):
    """A number in each point of a cloud; datatype 7 is float32, 8 float64."""

    name: str
    offset: uint32
    datatype: uint8
    count: uint32


@dataclass
@final
@autoid("sequential")
class PointCloud2(IdlStruct, typename="sensor_msgs.msg.dds_.PointCloud2_"):
    """Points as bytes, `point_step` a point."""

    header: Header
    height: uint32
    width: uint32
    fields: sequence[PointField]
    is_bigendian: bool
    point_step: uint32
    row_step: uint32
    data: sequence[uint8]
    is_dense: bool
