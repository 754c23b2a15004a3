#!/bin/sh
# Find a Python that this project runs on, then let deploy/bootstrap.py make .venv and install into it.
#   deploy/bootstrap.sh run|dev|lock
set -eu
cd "$(dirname "$0")/.."

usable='import sys, venv, ensurepip; sys.exit(0 if sys.version_info >= (3, 11) else 3)'
seen=''
for name in "${PYTHON:-}" python3 python3.14 python3.13 python3.12 python3.11; do
    [ -n "$name" ] && command -v "$name" >/dev/null 2>&1 || continue
    if "$name" -c "$usable" >/dev/null 2>&1; then
        exec "$name" deploy/bootstrap.py "$@"
    fi
    seen="$seen
  $name: $("$name" -c "import sys; print('Python %d.%d' % sys.version_info[:2])
try:
    import venv, ensurepip
except ImportError as error:
    print('  and lacks %s (Debian, Ubuntu: apt-get install python3-venv)' % getattr(error, 'name', error))" 2>&1 | tr '\n' ' ')"
done
echo "antiphon needs Python 3.11 or newer with venv and pip. Set PYTHON=/path/to/python3, or install one.${seen:+ Found:$seen}" >&2
exit 2
