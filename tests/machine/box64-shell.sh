#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Shell scripts in box64: fork, exec, pipes and substitutions, of amd64 programs by an amd64 shell.
# test-seconds: 900
# shellcheck disable=SC2016 # for the guest's shells
# shellcheck source=tests/machine/box64.bash
. "$TAGTSO_TREE/machine/box64.bash"

cat >script <<'SCRIPT'
set -eu
n=0
for word in one two three; do n=$((n + 1)); echo "$n $word"; done
count=$(seq 1 200 | tail -n 50 | wc -l)
echo "lines: $count"
sum=$(printf '%s' "some data" | md5sum | cut -c 1-8)
echo "sum: $sum"
(cd / && pwd)
echo "nested: $(echo "$(echo "$(basename /a/b/c)")")"
seq 1 3000 >numbers
xz -c numbers | xz -dc | cmp - numbers && echo "xz: same"
xz -T2 --block-size=4096 -c numbers | xz -dc | cmp - numbers && echo "xz -T2: same"
sort -n -r numbers | head -n 3
rm numbers
sleep 0.1 & wait $!
echo "background: $?"
trap 'echo trapped' EXIT
false || echo "false: $?"
exit 5
SCRIPT

same "dash runs a script with pipes, substitutions and xz" "$amd64/dash" script
same "bash runs the same script" "$amd64/bash" script
same "bash: here-documents, arrays and process substitution" "$amd64/bash" -c 'cat <<E
text $((6 * 7))
E
a=(x y z); echo "${#a[@]} ${a[2]}"; diff <(seq 3) <(seq 4); echo "$?"; read -r l < <(echo line); echo "$l"'
same "a shell passes on the status of a program that was killed" "$amd64/dash" -c 'dash -c "kill -9 \$\$"; echo $?; exit 300'
same "grandchildren in parallel" "$amd64/bash" -c 'for i in 1 2 3 4; do (seq 1 500 | xz -T2 -c | xz -dc | md5sum) & done; wait; echo "$?"'
at_least "xz -T2 was active in at least one process" wakeups 1
