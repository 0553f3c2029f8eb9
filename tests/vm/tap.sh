# SPDX-License-Identifier: MIT
# shellcheck shell=sh
# Sourced by test scripts: says what was tested, in the lines that one-test reads. Sentences are about behaviour.

ok() { echo "ok - $1"; }
not_ok() { echo "not ok - $1"; }
skip() { echo "skip - $1: $2"; }

# check SENTENCE COMMAND…: COMMAND succeeds.
check() {
    tap_sentence=$1
    shift
    if "$@"; then ok "$tap_sentence"; else
        echo "status $? from: $*"
        not_ok "$tap_sentence"
    fi
}

# is SENTENCE GOT WANTED: two texts are the same.
is() {
    if [ "$2" = "$3" ]; then ok "$1"; else
        printf 'got:    %s\nwanted: %s\n' "$2" "$3"
        not_ok "$1"
    fi
}
