"""The figures of ``robonav bench worldmodel`` as tables, for a terminal and for its page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

Figures = Mapping[str, Any]
HORIZONS = (1, 5, 10, 15, 20)
_ANSWERS = {None: "-", True: "yes", False: "no"}


class Table(NamedTuple):
    """A title, and cells that are text already."""

    title: str
    columns: list[str]
    rows: list[list[str]]

    def text(self) -> str:
        """Aligned lines for a terminal."""
        every = [self.columns, *self.rows]
        widths = [max(len(row[i]) for row in every) for i in range(len(self.columns))]
        lines = [
            [row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))] for row in every
        ]
        return "\n".join([self.title, *("  " + "  ".join(line).rstrip() for line in lines)])


def tables_of(figures: Figures) -> list[Table]:
    """All tables; where only one randomisation is shown, it is the first."""
    preset = next(iter(figures["data"]))
    found = [_gates(figures), _data(figures), _closed(figures, preset)]
    found += [_open(figures, preset, key, title) for key, title in _OPEN.items()]
    found += [_collision(figures, preset), _returns(figures), _probes(figures), _matrix(figures), _against(figures)]
    return [table for table in found if table.rows]


def _gates(figures: Figures) -> Table:
    rows = [
        [name, gate["what"], gate["wanted"], _n(gate["value"], 3), _ANSWERS[gate["reached"]]]
        for name, entry in figures["checkpoints"].items()
        for gate in entry["gates"]
    ]
    return Table("What must be reached", ["checkpoint", "figure", "wanted", "found", "reached"], rows)


def _data(figures: Figures) -> Table:
    rows = []
    for preset, data in figures["data"].items():
        ends = "; ".join(
            f"{driver}: " + ", ".join(f"{n} {outcome}" for outcome, n in sorted(of.items()))
            for driver, of in data["outcomes"].items()
        )
        rows.append([preset, *(str(data[name]) for name in ("episodes", "ticks", "starts")), ends])
    return Table("Episodes by randomisation", ["randomisation", "episodes", "ticks", "starts", "how they ended"], rows)


def _closed(figures: Figures, preset: str) -> Table:
    entries = {name: entry["presets"][preset]["closed_loop"] for name, entry in figures["checkpoints"].items()}
    bins = next((list(e["lidar_m"]) for e in entries.values() if e["lidar_m"]), [])
    columns = ["checkpoint", *(f"lidar {b}{'' if b == 'all' else ' m'}" for b in bins)]
    columns += ["map nats (floor)", "IoU occupied", "free", "moving beams m/s (still)"]
    columns += ["goal m", "waypoints m", "velocity m/s", "reward"]
    rows = []
    for name, e in entries.items():
        lidar, cells, flow, others = e["lidar_m"] or {}, e["map"], e["flow_mps"], e["others"]
        row = [name, *(_n(lidar.get(b, {}).get("median"), 3) for b in bins)]
        row += [f"{cells['nats']:.3f} ({cells['floor_nats']:.3f})" if cells else "-"]
        row += [_n(cells and cells["iou_occupied"], 2), _n(cells and cells["iou_free"], 2)]
        row += [f"{_n(flow['median'], 2)} ({_n(flow['still'], 2)})" if flow else "-"]
        row += [_n(others.get(key), 3) for key in ("goal_m", "waypoints_m", "velocity_mps", "reward")]
        rows.append(row)
    return Table("Closed loop: median error of what the posterior decodes to, lidar in m", columns, rows)


_OPEN = {
    "lidar_m": "Open loop: median lidar error by steps ahead, m",
    "lidar_near_m": "Open loop: the same where something is really at 0.25 to 0.6 m",
    "velocity_mps": "Open loop: median error of the robot's velocity, m/s",
    "goal_m": "Open loop: median error of the goal's place, m",
    "waypoints_m": "Open loop: median error of the route's waypoints, m",
    "reward": "Open loop: mean absolute error of the reward",
}


def _open(figures: Figures, preset: str, key: str, title: str) -> Table:
    errors = {name: entry["presets"][preset]["open_loop"] for name, entry in figures["checkpoints"].items()}
    trivial = figures["trivial"][preset].items()
    errors |= {f"({name})": entry["open_loop"] for name, entry in trivial if "open_loop" in entry}
    steps = _steps(figures)
    rows = [[name, *(_n(e[key][k - 1], 3) for k in steps)] for name, e in errors.items() if key in e]
    return Table(title, ["forecast", *(str(k) for k in steps)], rows)


def _collision(figures: Figures, preset: str) -> Table:
    scores = {name: entry["presets"][preset]["collision"] for name, entry in figures["checkpoints"].items()}
    trivial = figures["trivial"][preset]
    scores["(nearest range)"] = trivial["nearest_range"]["collision"]
    scores["(what is seen, carried on)"] = trivial["carried_on"]["collision"]
    columns = list(scores["(nearest range)"])
    rows = [
        [name, *(f"{_interval(of[c]['auc'])}, {of[c]['positives']} of {of[c]['n']}" for c in columns)]
        for name, of in scores.items()
    ]
    title = "Open loop: AUC of a collision within so many seconds, 95 % interval, positives"
    return Table(title, ["score", *columns], rows)


def _returns(figures: Figures) -> Table:
    rows = [
        [name, preset, kind, _interval(of["tau"]), str(of["n"])]
        for name, entry in figures["checkpoints"].items()
        for preset, found in entry["presets"].items()
        for kind, of in found["returns"].items()
    ]
    columns = ["checkpoint", "randomisation", "driven by", "tau", "n"]
    return Table("Kendall's tau of imagined against real returns", columns, rows)


def _probes(figures: Figures) -> Table:
    rows = []
    for name, entry in figures["checkpoints"].items():
        for probe, of in (entry.get("probes") or {}).items():
            if of is None:
                rows.append([name, probe, "-", "too few", "", ""])
            else:
                row = [_interval(of["memory_and_latent"]), _interval(of["latent"]), str(of["n"])]
                rows.append([name, probe, of["measure"], *row])
    columns = ["checkpoint", "probe", "measure", "memory and latent", "latent alone", "n"]
    return Table("Linear probes", columns, rows)


def _matrix(figures: Figures) -> Table:
    rows = []
    steps = _steps(figures)
    for name, entry in figures["checkpoints"].items():
        for preset, f in entry["presets"].items():
            near = (f["closed_loop"]["lidar_m"] or {}).get("0.25 to 0.6", {}).get("median")
            lidar = [_n(f["open_loop"]["lidar_m"][k - 1], 3) if "lidar_m" in f["open_loop"] else "-" for k in steps]
            soon = next(iter(f["collision"].values()), None)
            tau = f["returns"]["all"]["tau"]
            row = [name, str(entry["info"]["trained_with"]), preset, _n(near, 3), *lidar]
            rows.append([*row, _interval(soon and soon["auc"]), _n(tau and tau[0], 2)])
    columns = ["checkpoint", "trained with", "tested with", "closed, near, m", *(f"open, {k} steps, m" for k in steps)]
    return Table("Randomisation in training and in the test", [*columns, "collision AUC, 0.5 s", "tau"], rows)


def _against(figures: Figures) -> Table:
    compared, steps = figures.get("compared_with_the_first", {}), _steps(figures)
    rows = [[name, *(_interval(found[k - 1], sign=True) for k in steps)] for name, found in compared.items() if found]
    first = next(iter(figures["checkpoints"]))
    title = f"Open loop: mean lidar error less that of {first}, m, episode by episode (below 0 is better)"
    return Table(title, ["checkpoint", *(f"{k} steps" for k in steps)], rows)


def _steps(figures: Figures) -> list[int]:
    return [k for k in HORIZONS if k <= figures["settings"]["horizon"]]


def _n(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _interval(found: Sequence[float] | None, sign: bool = False) -> str:
    if found is None:
        return "-"
    return "{:{f}} [{:{f}}, {:{f}}]".format(*found, f="+.3f" if sign else ".3f")
