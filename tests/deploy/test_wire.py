"""Messages come back as they went, and nothing but WireError comes of bytes that are none."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy import wire
from robonav.errors import WireError
from robonav.types import Decision, Observation, VelocityCommand

finite = st.floats(-1e6, 1e6, width=32)


def arrays(*shape: int) -> st.SearchStrategy[np.ndarray]:
    count = math.prod(shape)
    return st.lists(finite, min_size=count, max_size=count).map(lambda v: np.array(v, np.float32).reshape(shape))


observations = st.builds(
    Observation,
    stamp_ns=st.integers(0, 2**63 - 1),
    pose_odom_base=arrays(3),
    twist_base=arrays(3),
    tilt_rad=arrays(2),
    goal_odom_m=arrays(2),
    last_command=arrays(3),
    scan_m=st.none() | arrays(16),
    depth_m=st.none() | arrays(4, 5),
)


def command(**changes: object) -> wire.CommandMsg:
    fields = {"sequence": 1, "stamp_ns": 2, "episode": 3, "observation": 4}
    fields |= {"vx_mps": 0.5, "vy_mps": 0.0, "yaw_rate_radps": -0.1}  # type: ignore[dict-item]
    return wire.CommandMsg(**{**fields, **changes})  # type: ignore[arg-type]


@given(observations)
def test_an_observation_comes_back_bit_for_bit(observation: Observation) -> None:
    message = wire.pack_observation(observation, 7, 1)
    back = wire.unpack_observation(wire.decode_as(wire.ObservationMsg, wire.encode(message)))
    for name in Observation.__dataclass_fields__:
        before, after = getattr(observation, name), getattr(back, name)
        if before is None or name == "stamp_ns":
            assert after == before
        else:
            assert after.dtype == np.float32
            assert after.tobytes() == before.tobytes()
            assert after.shape == before.shape


def test_a_decision_keeps_its_doubles_and_its_route() -> None:
    route = np.array([[0.1, 0.2], [1 / 3, 2.5]], np.float32)
    decision = Decision(VelocityCommand(1 / 3, -0.1, 0.7, 5), 1 / 7, "actor", route, details={"infer_ms": 0.3})
    message = wire.pack_decision(
        decision, sequence=1, stamp_ns=2, episode=3, observation=4, reset=True, seed=5, age_ms=-0.001, total_ms=2.0
    )
    back = wire.decode_as(wire.DecisionMsg, wire.encode(message))
    assert (back.vx_mps, back.value, back.details) == (1 / 3, 1 / 7, {"infer_ms": 0.3})
    np.testing.assert_array_equal(wire.unpack_array(back.route_odom_m, "route"), route)
    assert back.age_ms == 0.0


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 10.1, -1e9])
@pytest.mark.parametrize("field", ["vx_mps", "vy_mps", "yaw_rate_radps"])
def test_a_command_that_is_not_finite_or_out_of_range_is_refused(field: str, bad: float) -> None:
    bad = bad * 2 if math.isfinite(bad) and field == "yaw_rate_radps" else bad
    with pytest.raises(WireError):
        wire.decode(wire.encode(command(**{field: bad})))


@pytest.mark.parametrize("change", [{"protocol": 2}, {"protocol": 0}, {"sequence": -1}, {"stamp_ns": -5}])
def test_another_protocol_or_a_negative_count_is_refused(change: dict[str, int]) -> None:
    with pytest.raises(WireError):
        wire.decode(wire.encode(command(**change)))


def test_another_message_than_expected_is_refused() -> None:
    with pytest.raises(WireError, match="expected a ObservationMsg, got a CommandMsg"):
        wire.decode_as(wire.ObservationMsg, wire.encode(command()))


@given(st.binary(max_size=300))
@settings(max_examples=300)
def test_random_bytes_raise_only_wire_errors(frame: bytes) -> None:
    with pytest.raises(WireError):
        wire.decode(frame)


@given(observations, st.data())
@settings(max_examples=100)
def test_damaged_messages_raise_only_wire_errors(observation: Observation, data: st.DataObject) -> None:
    frame = bytearray(wire.encode(wire.RecordMsg("navigator", 3, 4, (wire.pack_observation(observation, 7, 1),))))
    for _ in range(data.draw(st.integers(1, 4))):
        frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    try:
        record = wire.decode_as(wire.RecordMsg, bytes(frame[: data.draw(st.integers(1, len(frame)))]))
        for message in record.messages:
            if isinstance(message, wire.ObservationMsg):
                wire.unpack_observation(message)
    except WireError:
        pass


@pytest.mark.parametrize("shape", [(3,), (2**40, 2**40), (0, 5)])
def test_an_array_whose_bytes_do_not_fill_its_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(WireError, match="scan_m"):
        wire.unpack_array(wire.Array(shape, b"12345678"), "scan_m")


def test_deeply_nested_bytes_do_not_break_the_decoder() -> None:
    with pytest.raises(WireError):
        wire.decode(b"\x91" * 100_000)


def test_messages_are_flat_arrays_with_their_tag_first() -> None:
    assert msgspec.msgpack.decode(wire.encode(command()))[:3] == ["cmd", wire.PROTOCOL, 1]
