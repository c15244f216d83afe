from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from robonav.config import load_robot
from robonav.planning.window import reachable_commands

SHARE = st.floats(-1.0, 1.0)


@given(now=st.tuples(SHARE, SHARE, SHARE))
def test_commands_are_within_the_limits_and_the_reach_and_standstill_is_among_them(now: tuple[float, ...]) -> None:
    spec = load_robot("a1")
    twist = spec.action_to_velocity(np.array(now))
    commands = reachable_commands(spec, twist, (7, 5, 9))
    assert np.allclose(spec.action_to_velocity(spec.velocity_to_action(commands)), commands, atol=1e-5)
    assert (commands == 0).all(axis=1).any()
    moving = commands[(commands != 0).all(axis=1)]
    reach = np.array([3.0, 3.0, 8.0]) * (spec.lag_s + spec.dt_s)
    assert (np.abs(moving - twist) <= reach + 1e-5).all()
    assert len(np.unique(commands, axis=0)) == len(commands)
