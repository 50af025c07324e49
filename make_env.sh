#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Makes .venv with the packages that the project needs, or leaves it alone if it already has them.
#
#   ./make_env.sh                                     the packages of the scripts (requirements.txt)
#   ./make_env.sh requirements.txt FILE...            these and more; a later call without FILE does not remove them
#   ./make_env.sh --print-python                      only print which Python would be used
#
# NNabla has wheels for Python 3.8 to 3.10 only, and the default of most machines is newer. This script looks for one on
# PATH, among pyenv's versions and uv's, and has uv fetch one if there is none.
set -eu
case $0 in */*) cd "${0%/*}/" ;; esac

say() { echo "make_env: $*" >&2; }

# Prints "<minor version> <1 if it can make environments, else 0>"; fails for anything but CPython 3.8 to 3.10. The
# candidate is run, not judged by its name: pyenv leaves a python3.10 on PATH that fails unless that version is selected.
probe() {
    "$1" -c '
import sys
if sys.implementation.name != "cpython" or not (3, 8) <= sys.version_info[:2] <= (3, 10):
    sys.exit(1)
try:
    import ensurepip, venv  # Debian and Ubuntu package them apart from Python
except ImportError:
    ensurepip = None
print(sys.version_info[1], int(ensurepip is not None))
' 2>/dev/null </dev/null
}

# The newest usable Python so far, and the last one that was refused only because it cannot make environments.
best='' best_minor=0 no_venv=''

consider() {
    [ "$best_minor" -lt 10 ] && [ -x "$1" ] && [ ! -d "$1" ] && found=$(probe "$1") || return 0
    case $found in
        *" 1") [ "${found% *}" -le "$best_minor" ] || { best=$1 best_minor=${found% *}; } ;;
        *" 0") no_venv=$1 ;;
    esac
}

# Searches every directory, not just the first that has the name: a pyenv shim may hide a Python that works.
consider_path() {
    for name in python3.10 python3.9 python3.8 python3 python; do
        old_ifs=$IFS; IFS=:; set -f
        for dir in $PATH; do consider "$dir/$name"; done
        IFS=$old_ifs; set +f
    done
}

consider_pyenv() {
    for python in "${PYENV_ROOT:-${HOME:-}/.pyenv}"/versions/*/bin/python; do consider "$python"; done
}

find_uv() {
    for uv in uv "${HOME:-}/.local/bin/uv" "${HOME:-}/.cargo/bin/uv"; do
        "$uv" --version >/dev/null 2>&1 </dev/null && return 0
    done
    return 1
}

# "only-managed" because uv gives up at the first failing pyenv shim, and PATH has already been searched.
consider_uv() {
    consider "$("$uv" python find --python-preference only-managed '>=3.8,<3.11' 2>/dev/null || true)"
}

find_python() {
    consider_path
    consider_pyenv
    if find_uv; then
        consider_uv
        if [ -z "$best" ]; then
            say "no Python 3.8 to 3.10 here: uv fetches 3.10 (once)"
            # UV_PYTHON_INSTALL_BIN=0 leaves the user's own python3.10 command alone.
            UV_PYTHON_INSTALL_BIN=0 "$uv" python install 3.10 >&2 </dev/null || uv_failed=1
            consider_uv
        fi
    fi
    [ -n "$best" ] && return 0
    if [ -n "$no_venv" ]; then
        say "$no_venv cannot make environments: install its venv module (on Debian and Ubuntu the package python3.x-venv)"
    elif [ -n "${uv_failed-}" ]; then
        say "no Python 3.8 to 3.10 found, and uv could not fetch one: try again with a network, or install python3.10"
    else
        say "no Python 3.8 to 3.10 found: install uv (pip install uv), which fetches one, or python3.10, and try again"
    fi
    exit 2
}

venv=.venv
# Copies of the requirements files that are installed, also by earlier calls. A copy is written last, and removed while its
# packages are being installed.
stamps=$venv/installed
# Exists from the start of an installation to its end, and so after a kill.
unfinished=$venv/unfinished

# Fails also for a .venv whose Python was removed or has become another version, which no longer sees the packages.
venv_works() {
    [ ! -e "$unfinished" ] &&
        $venv/bin/python -c 'import sys, pip; sys.exit(not (3, 8) <= sys.version_info[:2] <= (3, 10))' >/dev/null 2>&1 </dev/null
}

up_to_date() {
    for file in "$@"; do
        [ -f "$stamps/${file##*/}" ] && [ "$(cat "$file")" = "$(cat "$stamps/${file##*/}")" ] || return 1
    done
    venv_works
}

pip_install() {
    $venv/bin/python -m pip install --quiet "$@" >$venv/pip.log 2>&1 </dev/null && return 0
    cat $venv/pip.log >&2
    # pip ended by itself, so .venv is usable, if incomplete, and is kept: it may hold packages of the user's.
    rm -f "$unfinished"
    case $(uname -sm) in
        "Linux x86_64") hint="is there a network? Then try again" ;;
        *) hint="NNabla 1.39 is made for x86-64 Linux and Windows, this is $(uname -sm)" ;;
    esac
    say "pip could not install $* (its output is above): $hint"
    exit 1
}

make_venv() {
    if ! venv_works; then
        find_python
        if [ -e $venv ] || [ -L $venv ]; then
            say "$venv is unfinished or does not work: making it again"
            # Python first, so that the remains after a kill are never mistaken for an environment.
            rm -f $venv/bin/python && rm -rf $venv
        fi
        mkdir $venv
        : >"$unfinished"
        say "making $venv with $best (Python 3.$best_minor)"
        "$best" -m venv $venv >&2 </dev/null
    fi
    : >"$unfinished"
    mkdir -p "$stamps"
    for file in "$@"; do rm -f "$stamps/${file##*/}"; done
    case $* in *cuda*) need="some minutes, 1.8 GB to download" ;; *) need="about a minute" ;; esac
    say "installing $* (only this once; $need)"
    # An older pip, as in Ubuntu 20.04, does not know the tags of NNabla's wheels.
    pip_install 'pip>=21'
    for file in "$@"; do set -- "$@" -r "$file"; shift; done
    pip_install "$@"
    for file in "$@"; do [ "$file" = -r ] || cp "$file" "$stamps/"; done
    rm -f "$unfinished"
    say "$venv is ready"
}

# With these settings of the caller, pip would find packages elsewhere, or install them elsewhere.
unset PYTHONPATH PYTHONHOME PIP_TARGET PIP_PREFIX
export PIP_USER=0 PIP_DISABLE_PIP_VERSION_CHECK=1

if [ "${1-}" = --print-python ]; then
    find_python
    echo "$best"
    exit 0
fi

[ $# -gt 0 ] || set -- requirements.txt
if up_to_date "$@"; then exit 0; fi

# Only one process at a time makes .venv, if the machine has flock. The lock ends with the process.
exec 9<requirements.txt
if command -v flock >/dev/null && ! flock -n 9; then
    say "waiting for another make_env"
    flock 9 || true
fi
up_to_date "$@" || make_venv "$@"
