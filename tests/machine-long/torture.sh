#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Debian's zstd and pigz with two threads in box64 while sites are rewritten, given back, joined and reclaimed at random times: the same bytes with each seed.
# TORTURE_SEEDS="N…" chooses others.
# test-seconds: 3000
# shellcheck source=tests/machine/box64.bash
. "$TAGTSO_TREE/machine/box64.bash"
read -ra seeds <<<"${TORTURE_SEEDS:-1 2 3}"

# 500 kB: text, noise, text
awk 'BEGIN { x = 17; for (n = 0; n < 12000; n++) { x = x * 16807 % 2147483647; printf "%d %s ", x % 1000, substr("some words that come again", x % 20, 6) } }' >text
gzip -9 -n -c "$amd64/bash" | head -c 100000 >noise
cat text noise text | head -c 500000 >data

# compare NAME COMMAND…
compare() {
    local name=$1 seed good=0
    shift
    without "$@" <data >wanted || echo "without the preload: status $?"
    for seed in "${seeds[@]}"; do
        # Little space, so that all of it comes round.
        if TAGTSO_TORTURE=$seed TAGTSO_ISLANDS=25 with "$@" <data >got 2>err && cmp -s got wanted; then good=$((good + 1)); else
            echo "seed $seed: $(wc -c <got) bytes, wanted $(wc -c <wanted); first difference: $(cmp got wanted 2>&1); errors:"
            head -n 5 err
        fi
    done
    is "$name: byte-identical with ${#seeds[@]} of ${#seeds[@]} seeds" "$good" "${#seeds[@]}"
}

compare "zstd -T2" "$amd64/zstd" -3 -T2 -B512K -c
compare "pigz -p 2" "$amd64/pigz" -p 2 -n -c
at_least "sites were rewritten" sites_rewritten $((100 * ${#seeds[@]}))
at_least "neighbours were joined" stretches "${#seeds[@]}"
at_least "places of islands were used again" reclaims "${#seeds[@]}"
for name in sites_rewritten stretches reclaims reclaimed_bytes islands_full traps interpreted_spans; do echo "# $name: $(counter "$name")"; done
