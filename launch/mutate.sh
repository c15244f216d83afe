#!/usr/bin/env bash
# Mutation test of the governor's core in a copy of the sources: bash launch/mutate.sh [MUTANT NAMES]
# Prints how many mutants the tests killed, and the names of those that survived. Takes from minutes to an hour.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
robonav_setup train sim onnx runtime-cpu viz dev
copy="${ROBONAV_MUTANTS:-$(mktemp -d)}"
cd "$ROBONAV_ROOT"
cp -r robonav sim policies deploy configs tests pyproject.toml README.md "$copy"
cd "$copy"
unset PYTHONPATH  # the copy, not the checkout
"$PYTHON" -m mutmut run --max-children "${ROBONAV_MUTATE_PROCESSES:-1}" "$@"
"$PYTHON" -m mutmut results
echo "in $copy; 'mutmut show NAME' there shows a mutant"
