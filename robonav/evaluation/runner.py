"""Runs policies over seeded episodes, on all cores, with the same result whatever the number of workers.

The environment and the policy come in as factories that can be pickled: each worker process makes its own pair once
and then runs one episode after the other. An environment is a Gymnasium environment that follows the contract of
``robonav/Navigate-v0``: `unwrapped.observation()`, `unwrapped.scene`, and infos with `position_world_m`, `path_m`,
`shortest_m`, and at the end `outcome`; `velocity` and `clearance_m` if it has them. One whose scenes have movers says
where they are: `unwrapped.movers_world`.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robonav.errors import PolicyError, RobonavError
from robonav.types import Decision, Episode, Float, Observation, Policy, RobotSpec, Scene

EnvFactory = Callable[[], Any]
PolicyFactory = Callable[[], Policy]
SUCCESS = "success"
_STILL = np.zeros(3, np.float32)
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True, slots=True)
class EpisodeOptions:
    """How an episode is run."""

    spec: RobotSpec  # maps the policy's commands to the environment's actions
    scene: Scene | None = None  # this scene instead of the environment's scene number `seed`
    keep_scans: bool = False  # keep the lidar's scans in the recording, for a video
    keep_failures: bool = False  # keep what was seen and decided where the outcome is no success


@dataclass(frozen=True, slots=True)
class Recording:
    """An episode with what it takes to draw it."""

    episode: Episode
    scene: Scene
    poses_world: Float  # (steps + 1, 3) x m, y m, yaw rad
    scans_m: Float | None = None  # (steps + 1, beams)
    movers_world: Float | None = None  # (steps + 1, movers, 3) x m, y m, yaw rad; None in scenes without movers
    ticks: tuple[tuple[Observation, Decision | None], ...] | None = None  # the last one has no decision


@dataclass(frozen=True, slots=True)
class Trial:
    """One episode to run: its seed, and the scene where it is not the environment's own."""

    seed: int
    options: EpisodeOptions


def record_episode(env: Any, policy: Policy, seed: int, options: EpisodeOptions) -> Recording:
    """Runs one episode and keeps its poses. The time of each decision is that of `policy.act` alone.

    Raises:
        PolicyError: the policy's command is not finite.
    """
    _, info = env.reset(seed=seed, options=None if options.scene is None else {"scene": options.scene})
    scene: Scene = env.unwrapped.scene
    randomisation: dict[str, Any] = info.get("randomisation", {})
    state = policy.reset(seed)
    observation: Observation = env.unwrapped.observation()
    poses, scans = [_world_pose(scene, info, observation)], [observation.scan_m]
    moves, movers = [_motion(info)], [_movers(env)]
    ticks: list[tuple[Observation, Decision | None]] = []
    decision_ms: list[float] = []
    reward, done = 0.0, False
    while not done:
        began_ns = time.perf_counter_ns()
        state, decision = policy.act(state, observation)
        decision_ms.append((time.perf_counter_ns() - began_ns) * 1e-6)
        if options.keep_failures:
            ticks.append((observation, decision))
        velocity = decision.command.velocity
        if not np.isfinite(velocity).all():
            raise PolicyError(f"policy '{policy.name}': command {velocity} is not finite (episode seed {seed})")
        action = options.spec.velocity_to_action(velocity).astype(np.float32)
        _, step_reward, terminated, truncated, info = env.step(action)
        reward += float(step_reward)
        done = bool(terminated or truncated)
        observation = env.unwrapped.observation()
        poses.append(_world_pose(scene, info, observation))
        moves.append(_motion(info))
        movers.append(_movers(env))
        if options.keep_scans:
            scans.append(observation.scan_m)
    poses_world = np.array(poses, np.float32)
    clearance_m = np.array([clearance for _, clearance in moves])
    episode = Episode(
        scene=scene.name,
        seed=seed,
        outcome=str(info["outcome"]),
        time_s=len(decision_ms) * options.spec.dt_s,
        path_m=float(info["path_m"]),
        shortest_m=float(info["shortest_m"]),
        reward=reward,
        steps=len(decision_ms),
        decision_ms=np.array(decision_ms, np.float32),
        positions_world_m=poses_world[:, :2].copy(),
        clearance_min_m=float(clearance_m.min()),
        clearance_mean_m=float(clearance_m.mean()),
        jerk_mps3=_jerk_mps3(np.array([velocity[:2] for velocity, _ in moves], np.float64), options.spec.dt_s),
        randomisation=randomisation,
    )
    whole = options.keep_scans and all(s is not None for s in scans)
    scans_m = np.array(scans, np.float32) if whole else None
    movers_world = np.array(movers, np.float32) if scene.movers and movers[0] is not None else None
    seen = (*ticks, (observation, None)) if options.keep_failures and episode.outcome != SUCCESS else None
    return Recording(episode, scene, poses_world, scans_m, movers_world, seen)


def evaluate(
    env_factory: EnvFactory,
    policy_factory: PolicyFactory,
    seeds: Sequence[int],
    spec: RobotSpec,
    workers: int | None = None,
    progress: bool = False,
) -> list[Episode]:
    """Episodes of a policy on the environment's scenes number `seeds`, in their order; see `run_trials`."""
    trials = [Trial(seed, EpisodeOptions(spec)) for seed in seeds]
    return [r.episode for r in run_trials(env_factory, policy_factory, trials, workers, progress)]


def run_trials(
    env_factory: EnvFactory,
    policy_factory: PolicyFactory,
    trials: Sequence[Trial],
    workers: int | None = None,
    progress: bool = False,
) -> list[Recording]:
    """Runs trials in worker processes (all cores by default) and returns their recordings in order.

    One worker runs inside this process. Each episode is determined by its seed, so the number of workers changes
    nothing but the time; numeric libraries get one thread each, since the episodes are what runs in parallel.

    Raises:
        RobonavError: of the environment or the policy; or a worker died.
    """
    workers = max(1, min(workers or usable_cores(), len(trials)))
    with _single_thread(), _progress_bar(trials, progress) as tell:
        if workers == 1:
            return _run_here(env_factory, policy_factory, trials, tell)
        return _run_in_pool(env_factory, policy_factory, trials, workers, tell)


def usable_cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _motion(info: dict[str, Any]) -> tuple[Any, float]:
    """Velocity and clearance, of an environment that tells them."""
    return info.get("velocity", _STILL), info.get("clearance_m", 0.0)


def _movers(env: Any) -> NDArray[np.float64] | None:
    """(movers, 3) where those of an environment that tells it are."""
    movers: NDArray[np.float64] | None = getattr(env.unwrapped, "movers_world", None)
    return movers


def _jerk_mps3(velocity_mps: NDArray[np.float64], dt_s: float) -> float:
    """Mean size of the second difference of (n, 2) velocities; 0 with fewer than three."""
    if len(velocity_mps) < 3:
        return 0.0
    return float(np.linalg.norm(np.diff(velocity_mps, 2, axis=0), axis=1).mean() / dt_s**2)


def _world_pose(scene: Scene, info: dict[str, Any], observation: Observation) -> NDArray[np.float64]:
    # Position is the simulator's truth; yaw is odometry's, which serves for drawing only.
    x, y = info["position_world_m"]
    return np.array([x, y, scene.start[2] + float(observation.pose_odom_base[2])])


def _run_here(
    env_factory: EnvFactory, policy_factory: PolicyFactory, trials: Sequence[Trial], tell: Callable[[Recording], None]
) -> list[Recording]:
    recordings: list[Recording] = []
    env = env_factory()
    try:
        policy = policy_factory()
        _one_torch_thread()
        for trial in trials:
            recordings.append(record_episode(env, policy, trial.seed, trial.options))
            tell(recordings[-1])
    finally:
        env.close()
    return recordings


def _run_in_pool(
    env_factory: EnvFactory,
    policy_factory: PolicyFactory,
    trials: Sequence[Trial],
    workers: int,
    tell: Callable[[Recording], None],
) -> list[Recording]:
    # Spawn: a forked child would inherit the parent's threads' locks and its simulator.
    context = multiprocessing.get_context("spawn")
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(workers, context, _start_worker, (env_factory, policy_factory))
    try:
        futures = [pool.submit(_run_in_worker, trial) for trial in trials]
        for future in futures:
            future.add_done_callback(lambda f: _tell_success(f, tell))
        wait(futures, return_when=FIRST_EXCEPTION)
        return [f.result() for f in futures if f.done()]
    except BrokenProcessPool:
        raise RobonavError("evaluation: a worker process died (out of memory?); use --workers 1 to see why") from None
    except BaseException:
        # Ctrl-C or a failed episode: nobody waits for the episodes that are still under way.
        pool.shutdown(wait=False, cancel_futures=True)
        for child in set(multiprocessing.active_children()) - others:
            child.terminate()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _tell_success(future: Future[Recording], tell: Callable[[Recording], None]) -> None:
    if not future.cancelled() and future.exception() is None:
        tell(future.result())


class _Worker:
    """Environment and policy of a worker process, made at its first episode so that errors reach the parent."""

    def __init__(self, env_factory: EnvFactory, policy_factory: PolicyFactory) -> None:
        self.factories = env_factory, policy_factory
        self.pair: tuple[Any, Policy] | None = None

    def run(self, trial: Trial) -> Recording:
        if self.pair is None:
            self.pair = self.factories[0](), self.factories[1]()
            _one_torch_thread()
        return record_episode(*self.pair, trial.seed, trial.options)


_worker: _Worker | None = None


def _start_worker(env_factory: EnvFactory, policy_factory: PolicyFactory) -> None:
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which ends the workers
    _worker = _Worker(env_factory, policy_factory)


def _run_in_worker(trial: Trial) -> Recording:
    if _worker is None:
        raise RuntimeError("worker process was not initialised")
    return _worker.run(trial)


def _one_torch_thread() -> None:
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)


@contextlib.contextmanager
def _single_thread() -> Iterator[None]:
    """Numeric libraries use one thread inside: torch here, and all that children load."""
    before = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    torch = sys.modules.get("torch")
    torch_threads = torch.get_num_threads() if torch is not None else None
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        if torch is not None:
            torch.set_num_threads(torch_threads)


@contextlib.contextmanager
def _progress_bar(trials: Sequence[Trial], shown: bool) -> Iterator[Callable[[Recording], None]]:
    from tqdm import tqdm

    outcomes: Counter[str] = Counter()
    with tqdm(total=len(trials), unit="episode", disable=None if shown else True, leave=False) as bar:

        def tell(recording: Recording) -> None:
            outcomes[recording.episode.outcome] += 1
            bar.set_postfix_str(f"success {outcomes['success']}/{outcomes.total()}", refresh=False)
            bar.update()

        yield tell
