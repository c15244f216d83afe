# Sourced by the other scripts: makes .venv with pinned packages, once.
#
#   source launch/setup.sh
#   robonav_setup sim runtime-cpu viz     # the extras that are needed; sets PYTHON and BIN
#
# ROBONAV_PYTHON picks the interpreter, ROBONAV_VENV the folder (default .venv).
# shellcheck shell=bash

ROBONAV_ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
ROBONAV_VENV="${ROBONAV_VENV:-$ROBONAV_ROOT/.venv}"
ROBONAV_STAMP="$ROBONAV_VENV/robonav-setup.txt" # line 1: hash of what was asked for, line 2: the extras installed

# Several processes share few cores: one thread each is quickest, unless the caller knows better.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"

say() { printf '[setup] %s\n' "$*" >&2; }

die() {
    printf '[setup] error: %s\n' "$*" >&2
    exit 2
}

# Whether an interpreter starts and is CPython 3.10 or 3.11; a name on the path may be a shim of another version.
fits() {
    "$1" -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 10), (3, 11)))' >/dev/null 2>&1
}

find_python() {
    local candidate found=""
    for candidate in ${ROBONAV_PYTHON:+"$ROBONAV_PYTHON"} python3.11 python3 python3.10; do
        fits "$candidate" || continue
        found="$candidate"
        if "$candidate" -c 'import ensurepip, venv' >/dev/null 2>&1; then
            command -v "$candidate"
            return
        fi
    done
    [ -z "$found" ] || die "$found has no venv module; install it (Debian, Ubuntu: apt install python3.11-venv)"
    local got
    got="$(python3 --version 2>/dev/null || echo 'no python3')"
    die "Python: expected 3.11 (3.10 will do), got $got; install python3.11 or set ROBONAV_PYTHON to it"
}

check_platform() {
    local system machine
    system="$(uname -s)" machine="$(uname -m)"
    if [ "$system" != Linux ] || [ "$machine" != x86_64 ]; then
        die "PyBullet: expected Linux x86_64, got $system $machine, for which it has no wheel; pip install -e '.[runtime-cpu]' still gives the robot's side"
    fi
}

# pip's output goes to a file; what it collects is shown.
pip_install() {
    "$PYTHON" -m pip install --disable-pip-version-check --no-input --prefer-binary --progress-bar off \
        -c "$ROBONAV_ROOT/constraints.txt" "$@" 2>&1 |
        tee -a "$ROBONAV_VENV/robonav-setup.log" |
        sed -n 's/^Collecting \([^ ]*\).*/[setup]   \1/p; s/^Installing collected.*/[setup]   unpacking/p' >&2 ||
        die "pip failed: $(grep -m 1 '^ERROR' "$ROBONAV_VENV/robonav-setup.log" || echo 'no network?'); see $ROBONAV_VENV/robonav-setup.log"
}

robonav_setup() {
    local wanted have_hash="" have="" hash extra missing=""
    wanted="$*"
    PYTHON="$ROBONAV_VENV/bin/python" BIN="$ROBONAV_VENV/bin"
    hash="$(cat "$ROBONAV_ROOT/pyproject.toml" "$ROBONAV_ROOT/constraints.txt" | cksum) $ROBONAV_ROOT"
    if [ -f "$ROBONAV_STAMP" ]; then
        { read -r have_hash && read -r have; } <"$ROBONAV_STAMP" || true
    fi
    for extra in $wanted; do
        case " $have " in *" $extra "*) ;; *) missing="$missing $extra" ;; esac
    done
    if [ "$have_hash" = "$hash" ] && [ -z "$missing" ] && [ -x "$PYTHON" ]; then
        return
    fi
    case " $wanted " in *" sim "*) check_platform ;; esac
    if [ ! -x "$PYTHON" ]; then
        local base
        base="$(find_python)"
        say "making $ROBONAV_VENV with $("$base" --version)"
        "$base" -m venv "$ROBONAV_VENV"
    fi
    fits "$PYTHON" || die "$ROBONAV_VENV: expected Python 3.10 or 3.11, got $("$PYTHON" --version); remove the folder and start again"
    rm -f "$ROBONAV_STAMP"
    wanted="$(printf '%s\n' $have $missing | sort -u | tr '\n' ' ')"
    wanted="${wanted% }"
    : >"$ROBONAV_VENV/robonav-setup.log"
    say "installing robonav[${wanted// /,}] (once; some minutes)"
    pip_install -e "$ROBONAV_ROOT[${wanted// /,}]"
    printf '%s\n%s\n' "$hash" "$wanted" >"$ROBONAV_STAMP"
    say "done"
}
