#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Signals every 50 us to eight threads that all trap: with every access interpreted, in runs and one by one, with each site rewritten at once, and with islands of many instructions. A seed
# and a number of rounds repeat one: storm ROUNDS SEED.
# test-seconds: 900
status=0
storm() { # HOW KNOB=VALUE…
    local how=$1
    shift
    echo "# $how: $*"
    env "$@" "$TAGTSO_TESTS/storm" "${STORM_ROUNDS:-400}" >log || status=1
    sed "s/^\(ok\|not ok\) - /&$how: /" log
}
storm 'runs interpreted' TAGTSO_THRESHOLD=0
storm interpreted TAGTSO_THRESHOLD=0 TAGTSO_RUN=0
storm rewritten TAGTSO_THRESHOLD=1
storm stretches TAGTSO_THRESHOLD=2 TAGTSO_STRETCH=256
exit $status
