#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Programs with four threads and more in box64, whose ordering is plain moves, under the preload in enforce: right results in every run. A hundred: tests/machine-long/hundred.sh.
# test-seconds: 2000
# shellcheck source=tests/vm/tap.sh
. "$TAGTSO_TREE/machine/box64.bash"
export TAGTSO_MODE=enforce
RUNS=${RUNS:-3} FIRST=${FIRST:-1} # seeds from FIRST on

# repeat SENTENCE COMMAND…: RUNS times, each with its SEED; what fails is shown.
repeat() {
    local sentence=$1 good=0
    shift
    for ((SEED = FIRST; SEED < FIRST + RUNS; SEED++)); do
        if "$@"; then good=$((good + 1)); else echo "run $SEED failed: $*"; fi
    done
    echo "$sentence: $SECONDS s"
    is "$sentence: right in $RUNS of $RUNS runs" "$good" "$RUNS"
}
# says PROGRAM COUNT: one of tests/guests/amd64, which knows its result.
says() {
    if with "$guests/$1" "$SEED" "$2" >out 2>err && grep -q '^ok' out && ! grep -q '^not ok' out; then grep '^[a-z]*: seed' out; return 0; fi
    cat out err
    return 1
}
repeat "a lock-free queue, 3 threads in and 3 out" says queue 4000
repeat "a table under sequence locks, 2 writers and 3 readers" says table 3000
repeat "a work-stealing pool of 4 threads" says pool 1500

awk 'BEGIN { x = 23; for (n = 0; n < 60000; n++) { x = x * 16807 % 2147483647; printf "%d %s ", x % 1000, substr("some words that come again", x % 20, 6) } }' >text
gzip -9 -n -c "$amd64/bash" | head -c 300000 >noise
cat text noise text | head -c 1300000 >large # zstd gives each thread 512 KiB or more
tail -c 300000 text >small
# compresses DATA PROGRAM ARGUMENT…: and what comes out is what went in.
compresses() {
    if with "$amd64/$2" "${@:3}" <"$1" >packed 2>err && without "$amd64/$2" -d -c <packed 2>>err | cmp - "$1"; then return 0; fi
    head -n 5 err
    return 1
}
repeat "zstd -T4" compresses large zstd -3 -T4 -B512K -q -c
repeat "pigz -p 4" compresses small pigz -p 4 -b 64 -c
repeat "xz -T4" compresses small xz -1 -T4 --block-size=64KiB -c
# xz forbids itself (Landlock) to make files, and closes standard error: no report of it is seen. tests/audit/run sees its threads.
is "every run of the others was active" "$(grep -l '"state": *"active"' reports/* | wc -l)" "$((5 * RUNS))"
