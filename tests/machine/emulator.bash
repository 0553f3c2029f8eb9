# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# Sourced by box64.bash and qemu.bash, which define `without` and `with`: amd64 programs in an emulator, without and with the preload.
# shellcheck source=tests/vm/tap.sh
. "$TAGTSO_TREE/vm/tap.sh"

# Debian's amd64 programs, and those of tests/guests/amd64 as run-tests builds them.
amd64=${GUESTS:-/opt/amd64}/usr/bin
guests=${TAGTSO_TEST_GUESTS:-$TAGTSO_TREE/guests/amd64/bin}

# counter NAME: its sum over all reports.
counter() {
    sed -n "s/^.*\"$1\": *\([0-9]*\).*/\1/p" reports/* | awk '{ sum += $1 } END { print sum + 0 }'
}

# at_least SENTENCE COUNTER NUMBER
at_least() {
    local n
    n=$(counter "$2")
    if [ "$n" -ge "$3" ]; then ok "$1 ($2: $n)"; else
        echo "the reports' counter $2 is $n, wanted at least $3"
        not_ok "$1"
    fi
}

# same_status SENTENCE COMMAND…: status and output are the same with and without the preload; standard error is shown.
same() {
    local sentence=$1 a=0 b=0
    shift
    without "$@" >out.without 2>err.without || a=$?
    with "$@" >out.with 2>err.with || b=$?
    if [ "$a" = "$b" ] && cmp -s out.without out.with; then ok "$sentence"; else
        echo "without the preload: status $a; with it: status $b; differences of the output, and errors:"
        diff out.without out.with | head -n 10
        head -n 20 err.with
        not_ok "$sentence"
    fi
}

# guest NAME ARGUMENT…: a test program; its sentences are ours.
guest() {
    local status=0
    with "$guests/$1" "${@:2}" >out.guest 2>&1 || status=$?
    sed -n -E 's/^(ok|not ok) - (.*)/\1 - amd64 '"$1"': \2/p' out.guest
    if [ "$status" = 0 ]; then return; fi
    grep -vE '^(ok|not ok) - ' out.guest | head -n 30
    echo "amd64 $1: status $status with the preload; without it:"
    without "$guests/$1" "${@:2}" 2>&1 | tail -n 5
    grep -q '^not ok' out.guest || not_ok "amd64 $1: ends with status 0"
}

# compare_runs NAME COMMAND…: RUNS times the same output from the file `data` as without the preload.
compare_runs() {
    local name=$1 run good=0
    shift
    without "$@" <data >wanted || echo "without the preload: status $?"
    for ((run = 1; run <= RUNS; run++)); do
        if with "$@" <data >got 2>err && cmp -s got wanted; then good=$((good + 1)); else
            echo "run $run: $(wc -c <got) bytes, wanted $(wc -c <wanted); first difference: $(cmp got wanted 2>&1); errors:"
            head -n 5 err
        fi
    done
    is "$name: byte-identical in $RUNS of $RUNS runs" "$good" "$RUNS"
}

status_of() { "$@" >/dev/null 2>&1; echo $?; }
