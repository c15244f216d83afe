"""``robonav replay``: infers logs' decisions again, asks what would have been, and shows the episodes."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from robonav.cli.args import UsageError, parse
from robonav.errors import RobonavError, explain
from robonav.files import require_writable

if TYPE_CHECKING:
    from deploy.replay import Replay, ReplayOptions
    from deploy.viewer.build import Viewed

MAX_BESIDE = 2  # logs on one page
PICTURES = (".png", ".jpg", ".svg", ".pdf")


@dataclass(frozen=True)
class ReplayArgs:
    """Arguments of replay."""

    logs: tyro.conf.Positional[tuple[Path, ...]]
    """MCAP logs of runs, or folders of them. A page shows one log, or two beside each other."""
    html: Path | None = None
    """Write one self-contained page: map, curves, governor, latencies and events, with a time slider."""
    rrd: Path | None = None
    """Write a recording for the Rerun viewer, with a blueprint; needs robonav[rerun]."""
    bundle: Path | None = None
    """Folder of the bundle, or a name under policies/pretrained; the one that the log names if not given."""
    planner: Literal["actor", "mppi", "geometry"] | None = None
    """What if: decide by the actor alone, or plan with the world model, or without; as logged if not given."""
    governor: tuple[str, ...] = ()
    """What if: NAME=VALUE of the governor's settings, as in configs/deploy; the commands are governed again."""
    from_s: Annotated[float, tyro.conf.arg(name="from")] = 0.0
    """Compare from this second on; what lies before is inferred for its memory."""
    to_s: Annotated[float | None, tyro.conf.arg(name="to")] = None
    """Compare up to this second."""
    tolerance: float = 0.0
    """Numbers that differ by no more count as the same; for another machine's arithmetic."""
    dreams: Path | None = None
    """Run folder or checkpoint: its world model is rolled open loop along the log and compared with what came."""
    summary: bool = False
    """Of one folder: its failures by cause, with a picture of each."""
    picture: Path | None = None
    """Where the picture of the episode goes; beside the log, as .png, if nothing else is written. Of a summary: the
    folder for its pictures, by default that of the logs."""
    no_picture: bool = False
    """Draw nothing."""
    json: bool = False
    """Print the findings as JSON."""


def main(argv: Sequence[str]) -> int:
    """Exit status 0 if every logged decision of every log was inferred again without a difference, else 1."""
    description = (
        "Infers every decision of a log again from its observations, reports what differs, and shows the episode."
    )
    examples = [
        "robonav replay a.mcap",
        "robonav replay a.mcap --html a.html",
        "robonav replay a.mcap b.mcap --html ab.html",
        "robonav replay a.mcap --bundle policies/pretrained/quick",
        "robonav replay a.mcap --from 5 --to 12 --planner geometry --governor speed_factor=1.0",
        "robonav replay logs/ --tolerance 1e-5",
        "robonav replay failures/ --summary",
    ]
    args = parse(ReplayArgs, argv, "robonav replay", description, examples)
    if args.summary:
        return _summary(args)
    logs = _logs(args)
    if args.picture is not None and args.picture.suffix.lower() not in PICTURES:
        raise UsageError(explain("--picture", f"a path that ends in {' or '.join(PICTURES)}", f"'{args.picture}'"))
    if args.picture is not None and len(logs) > 1:
        raise UsageError(explain("--picture", "one log", f"{len(logs)} logs", "name one, or leave --picture out"))
    require_writable(args.picture, args.html, args.rrd)
    shown = args.html is not None or args.rrd is not None or args.dreams is not None
    if len(logs) > 1 and not shown:
        return _folder(args, logs)
    if len(logs) > MAX_BESIDE or (args.rrd is not None and len(logs) > 1):
        limit = 1 if args.rrd is not None else MAX_BESIDE
        raise UsageError(explain("robonav replay", f"at most {limit} log(s) to show", len(logs), "name fewer"))
    if not shown:
        return _one(args, logs[0])
    return _show(args, logs)


def _summary(args: ReplayArgs) -> int:
    if len(args.logs) != 1 or not args.logs[0].is_dir():
        got = " ".join(str(path) for path in args.logs) or "nothing"
        raise UsageError(explain("--summary", "one folder of logs", got))
    from robonav.cli.replay_summary import show_summary

    folder = args.logs[0]
    return show_summary(folder, None if args.no_picture else args.picture or folder, args.json)


def _logs(args: ReplayArgs) -> list[Path]:
    """All logs that are meant, folders by their content."""
    if not args.logs:
        raise UsageError(explain("robonav replay", "a log", "none", "see 'robonav replay --help'"))
    found: list[Path] = []
    for path in args.logs:
        inside = sorted(path.glob("*.mcap")) if path.is_dir() else [path]
        if not inside:
            raise UsageError(explain(str(path), "a folder with logs (*.mcap)", "none in it"))
        found += inside
    return found


def _options(args: ReplayArgs, log: Path) -> ReplayOptions:
    from deploy.replay import ReplayOptions

    limits = None
    if args.governor:
        from deploy.log_reader import read_log
        from deploy.regovern import changed_limits, logged_limits

        limits = changed_limits(logged_limits(read_log(log)), _assignments(args.governor))
    to_s = float("inf") if args.to_s is None else args.to_s
    return ReplayOptions(args.bundle, args.planner, limits, args.from_s, to_s, args.tolerance)


def _assignments(words: Sequence[str]) -> dict[str, float]:
    found = {}
    for word in words:
        name, sign, value = word.partition("=")
        try:
            found[name.strip()] = float(value) if sign else float("nan")
        except ValueError:
            sign = ""
        if not sign:
            raise UsageError(explain("--governor", "NAME=NUMBER, as in speed_factor=1.0", f"'{word}'"))
    return found


def _one(args: ReplayArgs, log: Path) -> int:
    """One log, in words and a picture."""
    from deploy.replay import replay

    found = replay(log, options=_options(args, log))
    files = _draw(args, found, log, wanted=not args.no_picture)
    return _tell(args, found, files)


def _draw(args: ReplayArgs, found: Replay, log: Path, wanted: bool) -> dict[str, Path]:
    if not wanted:
        return {}
    from deploy.picture import draw

    picture = args.picture or log.with_suffix(".png")
    draw(found, picture)
    return {"picture": picture}


def _show(args: ReplayArgs, logs: Sequence[Path]) -> int:
    """One log or two, as a page or a recording."""
    from deploy.viewer.build import view, write_page
    from sim.rewards import RewardConfig

    forecaster = None
    if args.dreams is not None:
        from robonav.cli.replay_dreams import forecaster_of

        forecaster = forecaster_of(args.dreams)
    views = [view(log, _options(args, log), RewardConfig().reward, forecaster) for log in logs]
    files: dict[str, Path] = {}
    if args.html is not None:
        write_page(views, args.html)
        files["page"] = args.html
    if args.rrd is not None:
        from deploy.viewer.to_rerun import write_rrd

        write_rrd(views[0], args.rrd)
        files["recording"] = args.rrd
    entries = [_told(args, log, viewed, files) for log, viewed in zip(logs, views, strict=True)]
    same = sum(bool(entry["identical"]) for entry in entries)
    if args.json:
        found = entries[0] if len(entries) == 1 else {"logs": entries, "identical": same == len(entries)}
        print(json.dumps(found, indent=2, default=str))
    return 0 if same == len(entries) else 1


def _told(args: ReplayArgs, log: Path, viewed: Viewed, files: dict[str, Path]) -> dict[str, Any]:
    """What was found of one of the logs that are shown; in words as well, unless JSON is asked for."""
    if viewed.replay is None:
        print(f"robonav: warning: {log}: {viewed.warning}", file=sys.stderr)
        if not args.json:
            _print_files(files)
        return {"log": str(log), "identical": False, "error": viewed.warning, **_named(files)}
    files = {**_draw(args, viewed.replay, log, wanted=args.picture is not None), **files}
    if not args.json:
        _print_report(viewed.replay, files)
        if viewed.extras.forecasts is not None:
            from robonav.cli.replay_dreams import dreams_text

            print(dreams_text(viewed))
    return {**viewed.replay.report.to_json(), **_named(files)}


def _tell(args: ReplayArgs, found: Replay, files: dict[str, Path]) -> int:
    """Prints what was found; 0 if it is identical."""
    if args.json:
        print(json.dumps({**found.report.to_json(), **_named(files)}, indent=2, default=str))
    else:
        _print_report(found, files)
    return 0 if found.report.identical else 1


def _named(files: dict[str, Path]) -> dict[str, str | None]:
    """Files as JSON names them."""
    return {"picture": None, **{kind: str(path) for kind, path in files.items()}}


def _print_report(found: Replay, files: dict[str, Path]) -> None:
    report = found.report
    for warning in (*([report.damage] if report.damage else []), *report.warnings):
        print(f"robonav: warning: {report.log}: {warning}", file=sys.stderr)
    from deploy.viewer.words import report_text

    print(report_text(report))
    _print_files(files)


def _print_files(files: dict[str, Path]) -> None:
    for kind, path in files.items():
        print(f"{kind:<9} {path}")


def _folder(args: ReplayArgs, logs: Sequence[Path]) -> int:
    """Many logs, a line each; 1 if any of them differs or cannot be replayed."""
    from deploy.replay import replay

    entries: list[dict[str, Any]] = []
    for log in logs:
        try:
            report = replay(log, options=_options(args, log)).report
            words = "identical" if report.identical else f"{report.differences.differing} of {report.replayed} differ"
            if not report.identical and report.difference is None:
                words = f"{report.replayed} of {report.ticks} could be replayed"
            entry: dict[str, Any] = report.to_json()
        except RobonavError as error:
            words, entry = f"error: {error}", {"log": str(log), "identical": False, "error": str(error)}
        entries.append(entry)
        if not args.json:
            print(f"{log}  {words}")
    same = sum(bool(entry["identical"]) for entry in entries)
    if args.json:
        print(json.dumps({"logs": entries, "identical": same == len(logs)}, indent=2, default=str))
    else:
        print(f"{same} of {len(logs)} logs identical")
    return 0 if same == len(logs) else 1
