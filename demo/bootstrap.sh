#!/bin/sh
# Makes .venv and installs the package, its development tools and the example into it.
# Everything that can be wrong on a fresh machine gets one line that says what to do.
set -eu
cd "$(dirname "$0")/.."
log=.venv/bootstrap.log

stop() {
    echo "make: $*" >&2
    exit 1
}

supported() {
    "$1" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null
}

choose_python() {
    if [ -n "${PYTHON:-}" ]; then
        command -v "$PYTHON" >/dev/null || stop "PYTHON=$PYTHON is not a command here"
        supported "$PYTHON" || stop "$("$PYTHON" --version 2>&1) is not supported: Python 3.10 to 3.13 is"
        return
    fi
    for PYTHON in python3 python3.13 python3.12 python3.11 python3.10; do
        if command -v "$PYTHON" >/dev/null && supported "$PYTHON"; then return; fi
    done
    command -v python3 >/dev/null ||
        stop "no python3 here: install Python 3.10 to 3.13 (Debian, Ubuntu: apt install python3-venv)"
    stop "$(python3 --version 2>&1) is not supported: install Python 3.10 to 3.13, then: make PYTHON=python3.13 ..."
}

make_environment() {
    "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null ||
        stop "$PYTHON has no venv: install it first (Debian, Ubuntu: apt install python3-venv)"
    # What an interrupted run left behind, or a Python that has gone, is made again.
    if ! .venv/bin/python -m pip --version >/dev/null 2>&1 || ! supported .venv/bin/python; then
        rm -rf .venv
        "$PYTHON" -m venv .venv || stop "$PYTHON -m venv .venv failed: see above"
    fi
}

install_all() {
    echo "Installing into .venv (Python $(.venv/bin/python -c 'import platform; print(platform.python_version())')); a few minutes the first time ..."
    if ! .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-input \
        --constraint constraints.txt --editable '.[dev]' --editable example_project >"$log" 2>&1; then
        if grep -qiE 'NewConnectionError|Connection(Error| broken)|Max retries|ProxyError|name resolution|timed out' "$log"; then
            stop "pip cannot reach its package index: is there a network? (pip's own words: $log)"
        fi
        tail -n 5 "$log" >&2
        stop "pip could not install what is needed (all of pip's words: $log)"
    fi
}

choose_python
make_environment
install_all
touch .venv/ready
