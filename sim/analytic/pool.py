"""Scenes made ready for analytic worlds: their shapes and the field of the reward.

To draw a scene and its field takes longer than many steps of an episode in it. Three ways to keep resets short: a pool
of some hundred scenes that come again and again, a thread that makes the coming scenes while the kernels run (they let
go of Python's lock), or both.
"""

from __future__ import annotations

from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from robonav.errors import ConfigError, explain
from robonav.types import RobotSpec, Scene
from sim.analytic.fields import field_of
from sim.analytic.shapes import Solid, solid_of
from sim.geodesic import GeodesicField
from sim.scenes import SceneSource

KEPT = 16  # scenes that are kept without a pool, for sources that hand out the same ones


@dataclass(frozen=True, slots=True)
class ReadyScene:
    """A scene and what a reset needs of it."""

    scene: Scene
    solid: Solid
    field: GeodesicField
    shortest_m: float  # way into the goal's circle


def ready(scene: Scene, robot: RobotSpec) -> ReadyScene:
    """Works out what a reset needs.

    Raises:
        SceneError: no way leads to the goal.
    """
    solid = solid_of(scene)
    return ReadyScene(scene, solid, *field_of(scene, solid, robot))


class ScenePool:
    """Ready scenes of one source by number."""

    def __init__(self, source: SceneSource, robot: RobotSpec, size: int = 0, ahead: bool = False) -> None:
        """Nothing is made yet.

        Args:
            source: of the scenes.
            robot: that they are for.
            size: number n is scene n modulo `size`; 0 is without end.
            ahead: `expect` starts to make scenes in a thread.

        Raises:
            ConfigError: a negative size.
        """
        if size < 0:
            raise ConfigError(explain("pool", "0 (without end) or a number of scenes", size))
        self.source, self.robot, self.size = source, robot, size
        self._made: OrderedDict[int, ReadyScene] = OrderedDict()
        self._coming: dict[int, Future[ReadyScene]] = {}
        self.ahead = ahead
        self._maker = ThreadPoolExecutor(1, thread_name_prefix="scenes") if ahead else None

    def key(self, number: int) -> int:
        """The scene's number in its source."""
        return number % self.size if self.size else number

    def get(self, number: int) -> ReadyScene:
        """Scene number `number`, made now unless it is there.

        Raises:
            SceneError: the scene cannot be made.
        """
        key = self.key(number)
        if key in self._made:
            self._made.move_to_end(key)
            return self._made[key]
        coming = self._coming.pop(key, None)
        scene = self._make(key) if coming is None else coming.result()
        self._made[key] = scene
        if not self.size and len(self._made) > KEPT:
            self._made.popitem(last=False)
        return scene

    def expect(self, number: int) -> None:
        """Starts to make a scene that `get` will ask for, where there is a thread for it."""
        key = self.key(number)
        if self._maker is not None and key not in self._made and key not in self._coming:
            self._coming[key] = self._maker.submit(self._make, key)

    def dismiss(self, number: int) -> None:
        """Nobody will ask for an expected scene."""
        coming = self._coming.pop(self.key(number), None)
        if coming is not None:
            coming.cancel()

    def fill(self) -> None:
        """Makes the whole pool now."""
        for number in range(self.size):
            self.get(number)

    def take_over(self, other: ScenePool) -> None:
        """Shares what another pool of the same source and robot has made."""
        self._made.update(other._made)

    def close(self) -> None:
        """Ends the thread."""
        if self._maker is not None:
            self._maker.shutdown(wait=True, cancel_futures=True)

    def _make(self, key: int) -> ReadyScene:
        scene = self.source.scene(key)
        last = next(reversed(self._made.values()), None)
        if last is not None and last.scene is scene:  # sources of one scene hand out the same object
            return last
        return ready(scene, self.robot)
