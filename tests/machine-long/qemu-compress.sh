#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Debian's zstd, pigz and xz with two threads in qemu-x86_64: the same bytes as without the preload, every time.
# test-seconds: 1800
# shellcheck source=tests/machine/qemu.bash
. "$TAGTSO_TREE/machine/qemu.bash"
RUNS=${RUNS:-3}

# 1.3 MB: text, noise, text
awk 'BEGIN { x = 17; for (n = 0; n < 60000; n++) { x = x * 16807 % 2147483647; printf "%d %s ", x % 1000, substr("some words that come again", x % 20, 6) } }' >text
gzip -9 -n -c "$amd64/bash" | head -c 300000 >noise
cat text noise text | head -c 1300000 >data

compare_runs "zstd -T2" "$amd64/zstd" -3 -T2 -B512K -q -c
compare_runs "pigz -p 2" "$amd64/pigz" -p 2 -n -c
is "zstd and pigz: every run was active" "$(grep -l '"state": *"active"' reports/* | wc -l)" "$((2 * RUNS))"
is "zstd and pigz: no other process left a report" "$(find reports -type f | wc -l)" "$((2 * RUNS))"
at_least "zstd and pigz: sites were rewritten" sites_rewritten "$RUNS"
at_least "zstd and pigz: accesses were interpreted" interpreted_plain "$RUNS"
at_least "zstd and pigz: guest memory was covered" window_peak 1000000
is "zstd and pigz: all guest memory but the first stack was covered" "$(counter uncovered_bytes)" 0
# xz forbids itself (Landlock) to make files, and closes standard error: no report of it is seen.
head -c 300000 text >data
compare_runs "xz -T2" "$amd64/xz" -1 -T2 --block-size=64KiB -c
TAGTSO_STACKS=1 compare_runs "xz -T2 with TAGTSO_STACKS=1" "$amd64/xz" -1 -T2 --block-size=64KiB -c
