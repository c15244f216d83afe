"""The log's schemas: every bit comes back, viewers' tools read them, and older logs stay readable."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import log_damage
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mcap.reader import make_reader
from mcap.writer import Writer
from mcap_protobuf.decoder import DecoderFactory

from deploy import wire
from deploy.config import RecorderConfig
from deploy.log_bench import ticks
from deploy.log_reader import read_log, recover
from deploy.log_writer import TOPICS, LogWriter
from deploy.schemas.structs import StructSchema, struct_schema
from robonav.config import to_mapping
from robonav.errors import LogError

FLOATS = st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=40)
DOUBLES = st.floats(-1e15, 1e15)


def round_trip(message: Any, schema: StructSchema | None = None) -> Any:
    """Through the bytes, by the schema that lies in the log."""
    written = schema or struct_schema(type(message))
    record = type("Schema", (), {"id": 1, "name": written.name, "encoding": "protobuf", "data": written.data})
    parse = DecoderFactory().decoder_for("protobuf", record)  # type: ignore[arg-type]
    assert parse is not None
    return struct_schema(type(message)).decode(parse(written.encode(message)))


def decision(**fields: Any) -> wire.DecisionMsg:
    plain = {"sequence": 1, "stamp_ns": 2, "episode": 3, "observation": 4, "reset": True, "seed": 5, "why": "actor"}
    plain |= {"vx_mps": 0.5, "vy_mps": 0.0, "yaw_rate_radps": -0.1, "value": 1.5, "age_ms": 0.0, "total_ms": 3.0}
    return wire.DecisionMsg(**{**plain, "route_odom_m": None, "details": {}, **fields})


@settings(max_examples=30, deadline=None)
@given(FLOATS, DOUBLES, st.dictionaries(st.text(max_size=8), DOUBLES, max_size=4), st.integers(0, 2**63 - 1))
def test_every_bit_of_a_message_comes_back(
    floats: list[float], value: float, details: dict[str, float], stamp_ns: int
) -> None:
    route = wire.pack_array(np.array(floats, np.float32).reshape(1, -1))
    message = decision(route_odom_m=route, value=value, details=details, stamp_ns=stamp_ns)
    back = round_trip(message)
    assert back == message
    assert back.route_odom_m.data == route.data  # -0.0, denormal and infinite ones too
    assert math.copysign(1, back.value) == math.copysign(1, value)


@pytest.mark.parametrize("kind", list(TOPICS))
def test_every_struct_of_the_log_has_a_schema(kind: type[Any]) -> None:
    assert struct_schema(kind).data


def test_none_and_empty_are_told_apart() -> None:
    class Sample(msgspec.Struct):
        count: int | None = None
        scan: wire.Array | None = None
        words: tuple[str, ...] = ()

    schema = StructSchema(Sample)
    for sample in (Sample(), Sample(0, wire.Array((0,), b"")), Sample(7, wire.pack_array([1.0]), ("", "a"))):
        assert round_trip(sample, schema) == sample


def test_a_log_of_another_version_takes_defaults_or_is_refused_in_one_line() -> None:
    class Event(msgspec.Struct):
        kind: str

    older = StructSchema(Event)
    record = type("Schema", (), {"id": 1, "name": older.name, "encoding": "protobuf", "data": older.data})
    parse = DecoderFactory().decoder_for("protobuf", record)  # type: ignore[arg-type]
    assert parse is not None
    message = parse(older.encode(Event("x")))

    class Newer(msgspec.Struct):
        kind: str
        level: int = 4

    class Strict(msgspec.Struct):
        kind: str
        level: int

    assert StructSchema(Newer).decode(message) == Newer("x", 4)
    with pytest.raises(LogError, match=r"level.*read it with the version"):
        StructSchema(Strict).decode(message)


def test_a_struct_without_a_schema_is_refused() -> None:
    class Odd(msgspec.Struct):
        table: dict[int, float]

    with pytest.raises(LogError, match=r"Odd.table: expected a number"):
        StructSchema(Odd)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("logs") / "a.mcap"
    log_damage.write_log(path, 12)
    return path


def views(path: Path, topic: str) -> list[Any]:
    with path.open("rb") as stream:
        reader = make_reader(stream, validate_crcs=True, decoder_factories=[DecoderFactory()])
        return [decoded for _, _, _, decoded in reader.iter_decoded_messages(topics=[topic])]


def test_the_points_of_viewers_are_what_the_beams_hit(log: Path) -> None:
    observations = read_log(log).of(wire.ObservationMsg)
    clouds, lidar = views(log, "/scan"), log_damage.small_robot().lidar
    assert len(clouds) == len(observations) == 12
    for cloud, observation in zip(clouds, observations, strict=True):
        points = np.frombuffer(cloud.data, np.float32).reshape(-1, 3)
        scan_m = wire.unpack_array(observation.scan_m, "scan_m")
        hit = scan_m < lidar.range_m
        np.testing.assert_allclose(np.hypot(points[:, 0], points[:, 1]), scan_m[hit], rtol=1e-6)
        turned = np.exp(1j * np.arctan2(points[:, 1], points[:, 0])) / np.exp(1j * lidar.angles_rad[hit])
        np.testing.assert_allclose(turned, 1, atol=1e-5)


@pytest.mark.parametrize("exact", [False, True])
def test_depth_comes_back_to_the_millimetre_or_to_the_bit(tmp_path: Path, exact: bool) -> None:
    robot = log_damage.small_robot()
    messages = next(ticks(robot))
    path = tmp_path / "a.mcap"
    writer = LogWriter(path, RecorderConfig(exact_depth=exact), {"robot": json.dumps(to_mapping(robot))})
    for message in messages:
        writer.write(message)
    writer.close()
    (was,) = [m for m in messages if isinstance(m, wire.ObservationMsg)]
    (now,) = read_log(path).of(wire.ObservationMsg)
    assert msgspec.structs.replace(now, depth_m=None) == msgspec.structs.replace(was, depth_m=None)
    depth_m, back_m = (wire.unpack_array(m.depth_m, "depth_m") for m in (was, now))
    assert (now.depth_m == was.depth_m) == exact
    np.testing.assert_allclose(back_m, depth_m, atol=0.0 if exact else 0.5001e-3, rtol=1e-7)
    assert views(path, "/depth")[0].encoding == ("32FC1" if exact else "16UC1")


def test_a_camera_that_measures_millimetres_loses_nothing(tmp_path: Path) -> None:
    robot = log_damage.small_robot()
    observation = next(m for m in next(ticks(robot)) if isinstance(m, wire.ObservationMsg))
    depth_mm = np.arange(48).reshape(6, 8) * 1361 % 65536
    observation = msgspec.structs.replace(observation, depth_m=wire.pack_array(depth_mm / 1000.0))
    path = tmp_path / "a.mcap"
    writer = LogWriter(path, RecorderConfig(), {})
    writer.write(observation)
    writer.close()
    assert read_log(path).of(wire.ObservationMsg) == [observation]


def test_poses_frames_and_stamps_are_those_of_the_robot(log: Path) -> None:
    observations = read_log(log).of(wire.ObservationMsg)
    poses, frames = views(log, "/pose"), views(log, "/tf")
    x, _, yaw = wire.unpack_array(observations[5].pose_odom_base, "pose").tolist()
    assert poses[5].pose.position.x == x
    turn = poses[5].pose.orientation
    assert 2 * math.atan2(turn.z, turn.w) == pytest.approx(yaw)
    assert [t.child_frame_id for t in frames[5].transforms] == ["base", "lidar", "camera"]
    forward = frames[5].transforms[2].rotation  # the optical axis z looks along the base's x
    assert [
        2 * (forward.x * forward.z + forward.w * forward.y),
        1 - 2 * (forward.x**2 + forward.y**2),
    ] == pytest.approx([1.0, 0.0])
    steps = {
        (p.timestamp.ToNanoseconds() - poses[0].timestamp.ToNanoseconds()) - (o.stamp_ns - observations[0].stamp_ns)
        for p, o in zip(poses, observations, strict=True)
    }
    assert steps == {0}


def test_a_log_of_before_protobuf_is_read_and_recovered(tmp_path: Path) -> None:
    messages = [m for m in next(ticks(log_damage.small_robot())) if type(m) in (wire.ObservationMsg, wire.DecisionMsg)]
    path = tmp_path / "old.mcap"
    with path.open("wb") as stream:
        writer = Writer(stream)
        writer.start("robonav", "robonav.deploy")
        for message in messages:
            schema = json.dumps(msgspec.json.schema(type(message))).encode()
            schema_id = writer.register_schema(f"robonav.{type(message).__name__}", "jsonschema", schema)
            channel = writer.register_channel(TOPICS[type(message)], "msgpack", schema_id)
            writer.add_message(channel, 1, wire.encode(message), 1, 0)
        writer.add_metadata("robonav.run", {"bundle": "b"})
        writer.finish()
    old = read_log(path)
    assert (old.damage, old.run) == ("", {"bundle": "b"})
    assert [e.message for e in old.entries] == messages
    recover(path, tmp_path / "again.mcap")
    assert read_log(tmp_path / "again.mcap").entries == old.entries


@pytest.mark.slow
def test_rerun_opens_a_log_and_draws_it(log: Path, tmp_path: Path) -> None:
    pytest.importorskip("rerun")
    target = tmp_path / "a.rrd"
    tool = [sys.executable, "-m", "rerun"]
    subprocess.run([*tool, "mcap", "convert", str(log), "-o", str(target)], check=True, capture_output=True)
    told = subprocess.run([*tool, "rrd", "print", "-v", str(target)], check=True, capture_output=True, text=True).stdout
    drawn = ("/scan@Points3D:positions", "/depth@Image:buffer", "/tf@Transform3D:translation")
    for column in (*drawn, "/pose@InstancePoses3D:translations", "/decision@robonav.Decision:message"):
        assert column in told
