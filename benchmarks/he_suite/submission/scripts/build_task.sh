#!/usr/bin/env bash
# Usage: build_task.sh <folder of the submission>. Builds what changed.
set -euo pipefail
cmake -S "$1" -B "$1/build" > "$1/build.log" 2>&1 || { cat "$1/build.log"; exit 1; }
cmake --build "$1/build" --parallel "${LATTICE_SUITE_JOBS:-2}" >> "$1/build.log" 2>&1 || { cat "$1/build.log"; exit 1; }
