"""Tests of one group run in one process: what starts processes, or makes a thing once for many tests, counts on it."""

from __future__ import annotations

import os

import pytest

pytestmark = pytest.mark.xdist_group("groups")


def test_a_group_is_known_to_the_distribution(request: pytest.FixtureRequest) -> None:
    if "PYTEST_XDIST_WORKER" not in os.environ or not request.config.getvalue("loadgroup"):
        pytest.skip("one process runs all tests")
    assert request.node.nodeid.endswith("@groups")
