#!/usr/bin/env bash
# Makes the virtual environment. Debian packages are installed only where something that is needed is missing.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
VENV=${VENV:-.venv}

bash scripts/system-packages.sh "$PYTHON"

"$PYTHON" - <<'PY' || { echo "Lattice needs Python 3.11 or newer; set PYTHON=/path/to/python3." >&2; exit 1; }
import sys
sys.exit(sys.version_info < (3, 11))
PY

if ! [ -x "$VENV/bin/python" ]; then
    "$PYTHON" -m venv "$VENV"
fi
"$VENV/bin/python" -m pip install --quiet --disable-pip-version-check -c constraints.txt \
    --editable '.[encrypted,gateway,llama,dev]'
