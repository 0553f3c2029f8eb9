#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Instructions that the interpreter leaves to the processor are in the report with word, disassembly and count, and `tagtso report` prints them.
# shellcheck source=tests/vm/tap.sh
. "$TAGTSO_TREE/vm/tap.sh"
TAGTSO_STATS=report "$TAGTSO_TESTS/differential_shim" 40 >log || cat log
# listed MNEMONIC FIELD: of the one instruction that is disassembled so.
listed() { jq -r --arg name "$1 " ".unknown[] | select(.disassembly | startswith(\$name)) | .$2" report; }
word=$(listed ld4 word)
is 'an instruction that runs out of line is listed with its word (LD4 of vectors with two doublewords)' "${word%??}" 4c400c
check 'with its disassembly' grep -qx 'ld4 {v0.2d, v1.2d, v2.2d, v3.2d}, \[x[0-9]*\]' <(listed ld4 disassembly)
is 'and how often it ran' "$(listed ld4 count)" 1
rounds=$(listed ld2 count)
check 'one in a loop of two threads, ten times each, is counted at least twenty times' test "${rounds:-0}" -ge 20
is 'all of them are in the counter' "$(jq '[.unknown[].count] | add' report)" "$(jq .counters.unknown report)"
check 'tagtso report prints word, disassembly and count' grep -qE "^ +1  unknown instruction $word  ld4 \{v0\.2d, v1\.2d, v2\.2d, v3\.2d\}, \[x[0-9]+\]$" <(tagtso report report)
