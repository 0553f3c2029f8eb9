#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Every cell of the handler's table and what goes with it, on a small arm64 program with generated code of its own.
# test-seconds: 1500
exec "$TAGTSO_TESTS/cells"
