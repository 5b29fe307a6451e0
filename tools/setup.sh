#!/bin/sh
# Make .venv and install this project into it: setup.sh PYTHON WHAT. Every way to fail is one clear line.
python=$1 what=$2
command -v "$python" >/dev/null 2>&1 || { echo "error: there is no $python; install Python 3.11 or newer, or: make PYTHON=/path/to/python3" >&2; exit 1; }
found=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: Python 3.11 or newer is needed, $python is $found; choose another: make PYTHON=python3.12" >&2; exit 1; }
"$python" -c 'import venv, ensurepip' 2>/dev/null || { echo "error: $python cannot make virtual environments; install the package python3-venv (Debian, Ubuntu), or use environment.yml" >&2; exit 1; }
echo "Setting up .venv with Python $found (some minutes and 6 GB the first time) ..."
[ -x .venv/bin/python ] || "$python" -m venv .venv || { echo "error: .venv could not be made" >&2; exit 1; }

pip() { .venv/bin/python -m pip "$@"; }
setting() { pip config list 2>/dev/null | sed -n "s/^[a-z]*\.$1='\(.*\)'\$/\1/p" | tail -n 1; }

# uv takes a quarter of pip's time, but knows none of its settings: the mirror and the caps on versions are handed on.
quickly() {
    pip install --quiet --disable-pip-version-check uv || return 1
    mirror=${PIP_INDEX_URL:-$(setting index-url)} capped=${PIP_CONSTRAINT:-$(setting constraint)}
    [ -z "$mirror" ] || export UV_DEFAULT_INDEX="$mirror"
    [ -z "$capped" ] || export UV_CONSTRAINT="$capped"
    .venv/bin/python -m uv pip install --quiet --system-certs --python .venv/bin/python -e "$what"
}
{ quickly || pip install --quiet --disable-pip-version-check --no-compile -e "$what"; } 2>.venv/pip.log || { tail -n 5 .venv/pip.log >&2; echo "error: the installation failed; all of it is in .venv/pip.log" >&2; exit 1; }
