#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# The owners are CPUs (TAGTSO_OWNER=cpu): signals every 50 us that meet threads in restartable sequences, and amd64 programs with more threads than CPUs in box64.
# (tests/guests/cells-cpu.c: threads that are moved between CPUs.)
# test-seconds: 1500
# shellcheck source=tests/machine/box64.bash
. "$TAGTSO_TREE/machine/box64.bash"
export TAGTSO_OWNER=cpu TAGTSO_MODE=enforce

storm() { # HOW KNOB=VALUE…
    local how=$1
    shift
    env "$@" "$TAGTSO_TESTS/storm" "${STORM_ROUNDS:-200}" >log || echo "# storm, $how: status $?"
    sed "s/^\(ok\|not ok\) - /&owner is a CPU, $how: /" log
}
storm interpreted TAGTSO_THRESHOLD=0
storm rewritten TAGTSO_THRESHOLD=1

if [ ! -d "$guests" ]; then
    skip "amd64 test programs" "not built: tests/guests/amd64/build makes them"
    exit 0
fi
guest queue 1 1000
guest table 1 2000
is "in every report a CPU is the owner" "$(grep -L '"owner": "cpu"' reports/* | wc -l)" 0
at_least "memory went from CPU to CPU" handovers 4
