#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# tests/guests/native.c in the machine.
# test-seconds: 900
exec "$TAGTSO_TESTS/native"
