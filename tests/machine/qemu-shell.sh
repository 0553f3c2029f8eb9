#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Shell scripts in qemu-x86_64: fork, exec and pipes of amd64 programs by an amd64 shell; the preload goes with them.
# test-seconds: 1200
# shellcheck disable=SC2016 # for the guest's shells
# shellcheck source=tests/machine/qemu.bash
. "$TAGTSO_TREE/machine/qemu.bash"
if ! register_amd64; then
    skip "shell scripts" "the kernel takes no interpreter for amd64 programs (binfmt_misc, root)"
    exit 0
fi

cat >script <<'SCRIPT'
set -eu
sum=$(printf '%s' "some data" | md5sum | cut -c 1-8)
echo "sum: $sum"
(cd / && pwd)
seq 1 300 >numbers
zstd -T2 -q -c numbers | zstd -d -q -c | cmp - numbers && echo "zstd -T2: same"
rm numbers
sleep 0.1 & wait $!
echo "background: $?"
dash -c 'kill -9 $$' || echo "killed: $?"
exit 5
SCRIPT

same "dash runs a script with pipes, substitutions and zstd -T2" "$amd64/dash" script
is "no line of the guest's loader about LD_PRELOAD" "$(grep -c LD_PRELOAD err.with)" 0
at_least "the guest's children have the preload, and zstd -T2 was active" wakeups 1
