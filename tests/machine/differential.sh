#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# The interpreter against the processor, instance by instance, and what it leaves to the processor in a process under the preload. More of both: make check-long.
# test-seconds: 900
status=0
"$TAGTSO_TESTS/differential_shim" || status=1
"$TAGTSO_TESTS/differential" || status=1
exit $status
