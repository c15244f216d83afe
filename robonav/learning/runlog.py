"""What a training run tells: progress bar, ``progress.csv``, ``success.json``, ``evaluations.json`` and TensorBoard."""

from __future__ import annotations

import csv
import json
import math
import threading
import time
from collections import deque
from collections.abc import Collection
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from robonav.files import write_json_atomic, write_text_atomic
from robonav.learning.config import TrainConfig
from robonav.learning.counters import Counters
from robonav.learning.development import Score

EVALUATIONS = "evaluations.json"
ROW_EVERY = 30  # updates between rows of progress.csv
COLUMNS = (
    *("model", "scan", "motion", "map", "goal", "body", "dynamics", "representation", "reward", "continue"),
    *("prior_heads", "redundancy", "prediction", "sigreg", "multistep"),
    *("actor", "critic", "replay_value", "entropy", "return", "expert", "shape"),
)


class RunLog:
    """Progress bar, ``progress.csv`` and TensorBoard."""

    def __init__(self, folder: Path, config: TrainConfig, counters: Counters) -> None:
        self.folder, self.config, self.start = folder, config, replace(counters)
        self.path = folder / "progress.csv"

    def __enter__(self) -> RunLog:
        self.hook = threading.excepthook
        threading.excepthook = self._thread_failed
        self.writer = SummaryWriter(str(self.folder / "tensorboard"))
        self.bar = tqdm(total=self.config.updates, initial=self.start.updates, unit="upd", smoothing=0.05)
        self.rows: deque[dict[str, float]] = deque(maxlen=20)
        self.begin, self.begin_steps = time.monotonic(), self.start.env_steps
        self._keep_rows_until(self.start.updates)
        self.evaluations = self._kept_evaluations(self.start.updates)
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()
        try:
            self.writer.close()
        finally:
            threading.excepthook = self.hook

    def _thread_failed(self, args: threading.ExceptHookArgs) -> None:
        """Leaves an error of TensorBoard's thread to the next call of the writer, which raises it again."""
        if not isinstance(args.exc_value, OSError):
            self.hook(args)

    def iteration(self, counters: Counters, scalars: list[dict[str, float]], last: bool) -> None:
        """Shows and writes one iteration; the `last` of a run always gets its row."""
        rate = (counters.env_steps - self.begin_steps) / max(time.monotonic() - self.begin, 1e-6)
        shown = {"greedy": mean(counters.greedy), "sampled": mean(counters.sampled), "steps/s": int(rate)}
        if self.config.curriculum:
            shown["level"] = counters.curriculum.level
            self.writer.add_scalar("run/level", counters.curriculum.level, counters.env_steps)
        if scalars:
            row = {k: sum(s[k] for s in scalars) / len(scalars) for k in scalars[0]}
            self.rows.append(row)
            shown |= {name: round(row[name], 3) for name in ("model", "return") if name in row}
            for name, value in row.items():
                self.writer.add_scalar(f"loss/{name}", value, counters.updates)
        for name in ("greedy", "sampled", "steps/s"):
            self.writer.add_scalar(f"run/{name}", shown[name], counters.env_steps)
        self.bar.set_postfix(shown, refresh=False)
        self.bar.update(counters.updates - self.bar.n)
        due = counters.updates // ROW_EVERY > (counters.updates - len(scalars)) // ROW_EVERY
        if scalars and (due or last):
            self._write_row(counters, shown)
            success = {scene: [mean(won), len(won)] for scene, won in sorted(counters.by_scene.items())}
            write_json_atomic(self.folder / "success.json", {"updates": counters.updates, "by_scene": success})
            for scene, (share, _) in success.items():
                self.writer.add_scalar(f"success/{scene}", share, counters.env_steps)

    def scores(self, scores: list[Score]) -> None:
        """Writes what was measured on the development scenes."""
        for score in scores:
            self.evaluations.append(asdict(score))
            write_json_atomic(self.folder / EVALUATIONS, self.evaluations)
            self.writer.add_scalar("development/success", score.success, score.updates)
            for scene, (share, _) in score.by_scene.items():
                self.writer.add_scalar(f"development/{scene}", share, score.updates)

    def _kept_evaluations(self, updates: int) -> list[dict[str, Any]]:
        """What an earlier part of this run measured."""
        path = self.folder / EVALUATIONS
        rows = json.loads(path.read_text()) if updates and path.exists() else []
        return [row for row in rows if row["updates"] <= updates]

    def _keep_rows_until(self, updates: int) -> None:
        """Drops rows after the checkpoint that this run starts from, which a killed run left."""
        if not self.path.exists():
            return
        with self.path.open(newline="") as stream:
            rows = list(csv.reader(stream))
        kept = [*rows[:1], *(row for row in rows[1:] if row and float(row[0]) <= updates)] if updates else []
        write_text_atomic(self.path, "".join(",".join(row) + "\r\n" for row in kept))

    def _write_row(self, counters: Counters, shown: dict[str, Any]) -> None:
        means = {k: sum(r.get(k, 0.0) for r in self.rows) / len(self.rows) for k in COLUMNS}
        row = {
            "updates": counters.updates,
            "env_steps": counters.env_steps,
            "minutes": round(counters.elapsed_s / 60, 3),
            "success_greedy": shown["greedy"],
            "success_sampled": shown["sampled"],
            **{k: float(f"{v:.5g}") for k, v in means.items() if math.isfinite(v)},
            **({"level": shown["level"]} if "level" in shown else {}),
        }
        new = not self.path.exists() or self.path.stat().st_size == 0
        with self.path.open("a", newline="") as stream:
            writer = csv.DictWriter(stream, fieldnames=list(row))
            if new:
                writer.writeheader()
            writer.writerow(row)


def mean(values: Collection[float]) -> float:
    """Rounded mean; 0 of nothing."""
    return round(sum(values) / len(values), 4) if values else 0.0
