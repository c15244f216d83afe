#!/usr/bin/env bash
# Sets up what is needed, then walks a simulated robot through the office with the pretrained bundle, and replays it.
#   bash launch/demo.sh [SCENE]
# Exit status 0 only when the robot arrived and the replay made the same decisions.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
robonav_setup sim runtime-cpu viz
cd "$ROBONAV_ROOT"

scene="${1:-office}"
bundle="${ROBONAV_BUNDLE:-policies/pretrained/quick}"
out=runs/demo
mkdir -p "$out"
rm -f "$out/demo.mcap" "$out/report.json" "$out/demo.png"

echo "Driving: scene $scene, bundle $bundle"
status=0
"$BIN/robonav" run --bundle "$bundle" --planner geometry --driver sim --scene "$scene" --log "$out/demo.mcap" --json >"$out/report.json" ||
    status=$?
[ -s "$out/report.json" ] || exit "$status"

echo "Replaying: every decision is inferred again from the log"
replayed=0
"$BIN/robonav" replay "$out/demo.mcap" --picture "$out/demo.png" || replayed=$?

"$PYTHON" - "$out" "$replayed" <<'PY'
import json
import sys

out, replayed = sys.argv[1:]
report = json.load(open(f"{out}/report.json"))
latency = report["decision_ms"]
arrived = report["outcome"] == "success"
print(f"""
arrived          {"yes" if arrived else "no: " + report["outcome"]}
time to goal     {f"{report['time_s']:.1f} s" if arrived else "-"}
decisions        {report["decisions_per_s"]:.1f} a second
latency          p50 {latency["p50"]:.1f} ms, p99 {latency["p99"]:.1f} ms
replay           {"the same decisions" if replayed == "0" else "differs"}
picture          {out}/demo.png
log              {out}/demo.mcap  (robonav replay {out}/demo.mcap)
report           {out}/report.json""")
PY
[ "$status" -eq 0 ] || exit "$status"
exit "$replayed"
