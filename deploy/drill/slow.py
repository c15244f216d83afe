"""Makes a step of the navigator's policy as slow as the drill's switch says, once each time that it is set."""

from __future__ import annotations

import time
from typing import Any

from deploy.drill.shared import SWITCH, SWITCH_FILE, shared
from deploy.timing import now_ns
from policies.bundle_policy import BundlePolicy


def slow_down(folder: str) -> None:
    """Wraps the policy of this process."""
    switch = shared(folder, SWITCH_FILE, SWITCH)
    act = BundlePolicy.act

    def slow_act(self: BundlePolicy, state: Any, observation: Any) -> Any:
        decided = act(self, state, observation)
        slow_ms = int(switch["slow_ms"][0])
        if slow_ms:
            switch["slow_ms"][0], switch["began_ns"][0] = 0, now_ns()
            time.sleep(slow_ms * 1e-3)
        return decided

    BundlePolicy.act = slow_act  # type: ignore[method-assign]
