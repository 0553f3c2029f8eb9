#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Debian's zstd and pigz with two threads in box64: the same bytes as without the preload, every time.
# test-seconds: 1500
# shellcheck source=tests/machine/box64.bash
. "$TAGTSO_TREE/machine/box64.bash"
RUNS=${RUNS:-20}

# 1.3 MB: text, noise, text
awk 'BEGIN { x = 17; for (n = 0; n < 60000; n++) { x = x * 16807 % 2147483647; printf "%d %s ", x % 1000, substr("some words that come again", x % 20, 6) } }' >text
gzip -9 -n -c "$amd64/bash" | head -c 300000 >noise
cat text noise text | head -c 1300000 >data

compare_runs "zstd -T2" "$amd64/zstd" -3 -T2 -B512K -c
compare_runs "pigz -p 2" "$amd64/pigz" -p 2 -n -c
is "zstd and pigz: every run was active" "$(grep -l '"state": *"active"' reports/* | wc -l)" "$((2 * RUNS))"
at_least "zstd and pigz: sites were rewritten" sites_rewritten "$RUNS"
at_least "zstd and pigz: accesses were interpreted" interpreted_plain "$RUNS"
at_least "zstd and pigz: guest heap was covered" heap_bytes 100000

# Observing changes nothing of what is done, and each access of threads traps: little data.
rm -rf reports
head -c 3000 text >data
export TAGTSO_MODE=observe
RUNS=1
compare_runs "observe: zstd -T2" "$amd64/zstd" -3 -T2 -c
is "observe: no site was rewritten" "$(counter sites_rewritten)" 0
at_least "observe: accesses were interpreted" interpreted_plain 1000
