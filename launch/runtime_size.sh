#!/usr/bin/env bash
# Installs the wheel with one of the runtime extras into a fresh environment and measures it: megabytes, the largest
# packages, the seconds that the robot's modules take to import, and whether a bundle verifies there.
#   bash launch/runtime_size.sh [PYTHON] [EXTRA]      e.g. bash launch/runtime_size.sh python3.10 runtime-cpu
# Exit status 1 if it is larger than LIMIT_MB or imports slower than LIMIT_S.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${1:-python3}
extra=${2:-runtime-cpu}
limit_mb=${LIMIT_MB:-250}
limit_s=${LIMIT_S:-1.0}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

"$python" -m venv "$folder/venv"
site=$("$folder/venv/bin/python" -c 'import site; print(site.getsitepackages()[0])')
tools=$(du -sm "$site" | cut -f1)
"$folder/venv/bin/pip" install --quiet --no-cache-dir "$PWD[$extra]"
size=$(($(du -sm "$site" | cut -f1) - tools))
echo "python    $("$folder/venv/bin/python" --version | cut -d' ' -f2)"
echo "installed $size MB beside pip (at most $limit_mb)"
du -sm "$site"/* | sort -rn | head -12 | sed "s|$site/||; s|^|          |"

cd "$folder" # so that the installed package is imported, not the one in the repository
seconds=$("$folder/venv/bin/python" - <<'PY'
import subprocess, sys, time

code = "import policies.bundle_policy, deploy.navigator, deploy.governor_process"
times = []
for _ in range(5):
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    times.append(time.perf_counter() - began)
print(f"{min(times):.2f}")
PY
)
echo "import    $seconds s, the best of 5 (at most $limit_s)"
"$folder/venv/bin/python" -m robonav verify quick
awk -v mb="$size" -v most="$limit_mb" -v s="$seconds" -v slow="$limit_s" 'BEGIN { exit mb > most || s > slow }'
