#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# The same cells with islands that take over what is around an access, which the generic profile leaves out by default.
# test-seconds: 1500
export TAGTSO_STRETCH=256
exec "$TAGTSO_TESTS/cells"
