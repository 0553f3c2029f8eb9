#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# The amd64 test programs in box64 under the preload: faults, fork, heap, system calls, atomics, mappings.
# test-seconds: 2000
# shellcheck source=tests/machine/box64.bash
. "$TAGTSO_TREE/machine/box64.bash"
if [ ! -d "$guests" ]; then
    skip "amd64 test programs" "not built: tests/guests/amd64/build makes them"
    exit 0
fi
for program in faults forks heap calls atomics memory signals; do guest "$program"; done

for way in 0 42 255 _exit abort term segv; do
    is "a guest with two threads that ends by $way has the same status" "$(status_of with "$guests/ends" "$way")" "$(status_of without "$guests/ends" "$way")"
done
