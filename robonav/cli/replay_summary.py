"""The summary of a folder of logs: its failures by cause, with a picture of each cause."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import asdict
from pathlib import Path


def show_summary(folder: Path, pictures: Path | None, as_json: bool) -> int:
    """Prints the failures in a folder by cause and draws a picture of each; exit status 0 if every log was judged.

    Args:
        folder: of logs.
        pictures: folder for ``CAUSE.png``; none are drawn if None.
        as_json: print JSON.

    Raises:
        LogError: the folder holds no log.
        MissingDependencyError: pictures without matplotlib.
    """
    from deploy.log_causes import summarise

    clusters, refused = summarise(folder)
    drawn: dict[str, str] = {}
    if pictures is not None:
        from deploy.causes_picture import draw_cluster

        for cluster in clusters:
            path = pictures / (re.sub(r"\W+", "-", cluster.cause) + ".png")
            draw_cluster(cluster, path)
            drawn[cluster.cause] = str(path)
    for line in refused:
        print(f"robonav: warning: {line}", file=sys.stderr)
    if as_json:
        found = [{**asdict(cluster), "picture": drawn.get(cluster.cause)} for cluster in clusters]
        print(json.dumps({"folder": str(folder), "clusters": found, "refused": refused}, indent=2))
        return 1 if refused else 0
    for cluster in clusters:
        print(f"{len(cluster.findings):>4}  {cluster.cause}  {drawn.get(cluster.cause, '')}".rstrip())
        for finding in cluster.findings:
            print(f"        {finding.log}: {finding.detail}, after {finding.time_s:.1f} s")
    if not clusters:
        print("no failures")
    return 1 if refused else 0
