#!/usr/bin/env bash
# Sets up what is needed, then runs the tests: bash launch/test.sh [--slow] [PYTEST OPTIONS]
# --slow runs the slow ones as well.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
robonav_setup train sim onnx runtime-cpu viz sb3 datasets go2 dev
cd "$ROBONAV_ROOT"

options=()
for word in "$@"; do
    if [ "$word" = --slow ]; then options+=(-m ""); else options+=("$word"); fi
done
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"  # two processes run the tests
exec "$PYTHON" -m pytest --numprocesses 2 --dist loadgroup ${options[@]+"${options[@]}"}
