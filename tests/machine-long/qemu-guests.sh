#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# The amd64 test programs in qemu-x86_64 under the preload: threads, faults, signals, system calls. Not forks, in which QEMU 7.2 alone ends with an
# assertion (a child of fork starts a thread); heap and atomics take minutes without the preload.
# test-seconds: 2400
# shellcheck source=tests/machine/qemu.bash
. "$TAGTSO_TREE/machine/qemu.bash"
if [ ! -d "$guests" ]; then
    skip "amd64 test programs" "not built: tests/guests/amd64/build makes them"
    exit 0
fi
for program in "queue 1 300" "table 1 300" "pool 1 200" faults signals calls; do
    # shellcheck disable=SC2086 # a program; its seed and its rounds
    guest $program
done
for way in 42 _exit segv; do
    is "a guest with two threads that ends by $way has the same status" "$(status_of with "$guests/ends" "$way")" "$(status_of without "$guests/ends" "$way")"
done
