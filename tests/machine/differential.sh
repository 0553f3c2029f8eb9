#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# tests/guests/differential.c in the machine.
# test-seconds: 900
exec "$TAGTSO_TESTS/differential"
