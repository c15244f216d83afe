"""A replay's report as text: what was found, and tables of what differs and what that changed."""

from __future__ import annotations

from collections.abc import Sequence

from deploy.differences import Difference
from deploy.regovern import Regoverned
from deploy.replay import ReplayReport

Row = Sequence[str]


def report_text(report: ReplayReport) -> str:
    """Some lines for a terminal."""
    lines = [f"run       {report.outcome}, {report.ticks} decisions"]
    if report.ticks == 0:
        lines.append("replay    the log holds no decision, so nothing can be compared")
    elif report.identical:
        same = "bit for bit" if report.differences.tolerance == 0 else f"within {report.differences.tolerance:g}"
        lines.append(f"replay    {report.replayed} of {report.ticks} decisions identical, {same}; no tick differs")
    elif report.difference is None:
        lines.append(f"replay    {report.replayed} of {report.ticks} decisions could be replayed, none of them differs")
    else:
        d = report.difference
        lines.append(f"replay    differs first at tick {d.tick}: {d.field} was {d.logged}, is {d.replayed}")
        lines += ["", *_differences(report), "", *_changes(report)]
    if report.governed is not None:
        lines += ["", *_governed(report.governed)]
    return "\n".join(lines)


def table(rows: Sequence[Row]) -> list[str]:
    """Aligned lines; the first row is the head."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _differences(report: ReplayReport) -> list[str]:
    rows: list[Row] = [("field", "ticks", "first at", "was", "is", "largest at", "was", "is", "apart")]
    for name, of in report.differences.fields.items():
        assert of.first is not None and of.largest is not None
        apart = "-" if of.largest.size is None else f"{of.largest.size:.4g}"
        rows.append((name, str(of.ticks), *_at(of.first), *_at(of.largest), apart))
    return table(rows)


def _at(d: Difference) -> tuple[str, str, str]:
    return f"{d.at_s:.2f} s", _short(d.logged), _short(d.replayed)


def _short(text: str) -> str:
    try:
        return f"{float(text):.4g}"
    except ValueError:
        return text.split(",")[0]


def _changes(report: ReplayReport) -> list[str]:
    d = report.differences
    return [
        f"changed   {d.differing} of {d.ticks} ticks; commands apart by {d.apart_mps:.3f} m/s and "
        f"{d.turned_radps:.3f} rad/s in the mean",
        f"asked for {d.logged_m:.2f} m as logged, {d.replayed_m:.2f} m now",
    ]


def _governed(found: Regoverned) -> list[str]:
    first = "nowhere" if found.first_s is None else f"first after {found.first_s:.2f} s"
    rows: list[Row] = [("governor's reason", "as logged", "now")]
    for name in sorted({*found.reasons_logged_s, *found.reasons_s}):
        was, now = found.reasons_logged_s.get(name, 0.0), found.reasons_s.get(name, 0.0)
        rows.append((name, f"{was:.2f} s", f"{now:.2f} s"))
    return [
        *table(rows),
        f"let through {found.distance_logged_m:.2f} m, now {found.distance_m:.2f} m; they part {first}, by up to "
        f"{found.largest_mps:.2f} m/s",
        f"(governed again under the logged limits, {100 * found.agreement:.0f} % of cycles give the logged command)",
    ]
