#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# tests/machine/box64-threads.sh a hundred times, with other seeds than there.
# test-seconds: 9000
RUNS=${RUNS:-100} FIRST=${FIRST:-1001} exec bash "$TAGTSO_TREE/machine/box64-threads.sh"
