#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Sites of generated code like box64's, FEX's and QEMU's, rewritten by the preload: results, what handlers see, faults, recycled code. What failed is
# repeated by minijit's own line with the same seed; MINIJIT_SEED=N for others, MINIJIT_SOAK=GENERATIONS for the length of the soak.
# test-seconds: 3600
# shellcheck source=tests/vm/tap.sh
. "$TAGTSO_TREE/vm/tap.sh"
seed=${MINIJIT_SEED:-1}
mode=enforce
# Few traps to a rewrite: programs are short.
export TAGTSO_EMULATOR=generic TAGTSO_STRICT=1 TAGTSO_THRESHOLD=2

preloaded() { env LD_PRELOAD="$TAGTSO_LIB" TAGTSO_MODE=$mode TAGTSO_STATS="$PWD/report" "$TAGTSO_TESTS/minijit" --seed="$seed" "$@"; }
counter() { jq ".counters.$1 // 0" report 2>/dev/null || echo 0; }
# said NAME: a number of minijit's own report
said() { sed -n "s/^# .*\b$1 \([0-9][0-9]*\).*/\1/p" log; }
at_least() { # SENTENCE NUMBER WANTED
    check "$1 ($2)" test "${2:-0}" -ge "$3"
}
# right SENTENCE OPTION…
right() {
    local sentence=$1 status=0
    shift
    rm -f report
    preloaded "$@" >log 2>&1 || status=$?
    if [ "$status" != 0 ]; then
        echo "minijit --seed=$seed $*"
        cat log
    fi
    is "$sentence" "$status $(grep -c '^ok - ' log)" "0 1"
}

# Everything that is to be shown for one kind of code.
flavour() { # NAME
    local threads
    for threads in 1 2 4 8; do
        right "$mode, $1, $threads threads: results are those of the reference" --flavour="$1" --threads=$threads --generations=4
        at_least "$mode, $1, $threads threads: sites were rewritten" "$(counter sites_rewritten)" $((10 * threads))
    done
    right "$mode, $1: faults in rewritten accesses are at the emitted instruction, with its address and its registers" \
        --flavour="$1" --threads=2 --generations=4 --faults
    at_least "$mode, $1: there were faults" "$(said faults)" 50
    right "$mode, $1: handlers of asynchronous signals see the emulator's own code, may advance the pc, change a register and jump out" \
        --flavour="$1" --threads=2 --generations=6 --signals=400 --jumps --onstack --relink
    at_least "$mode, $1: signals came in generated code" "$(said 'generated code')" 50
    at_least "$mode, $1: handlers changed the pc or a register" $(($(said advanced) + $(said changed))) 6
    at_least "$mode, $1: handlers jumped out" "$(said out)" 5
    right "$mode, $1: and in a loop that is all islands" --flavour="$1" --threads=2 --program=private --generations=1 --iterations=4000 --signals=300
    at_least "$mode, $1: signals came there" "$(said 'generated code')" 20
    if [ "$1" != box64-llsc ]; then
        TAGTSO_THRESHOLD=1 right "$mode, $1: and at any word of an island" --flavour="$1" --threads=1 --program=each --generations=1 --iterations=6 --step
        at_least "$mode, $1: signals came in islands" "$(said 'in islands')" 10
    fi
    right "$mode, $1: a ring of messages between two threads" --flavour="$1" --program=ring --generations=2 --iterations=500
}

# A barrier where there was a NOP, and a plain access: by the emulator's own handler, in words that it knows.
unaligned() { # NAME
    right "$mode, $1: the emulator's handler for accesses over 16 bytes finds its own code" --flavour="$1" --threads=4 --generations=6 --unaligned
    at_least "$mode, $1: it rewrote some" "$(said backpatched)" 5
}

recycled() {
    right "$mode: blocks that are linked and unlinked while they run" --threads=4 --generations=8 --relink
    at_least "$mode: there was linking" "$(said relinks)" 50
    right "$mode: code that is unmapped and mapped again" --threads=2 --generations=12 --remap=2
    at_least "$mode: there was mapping" "$(said remaps)" 4
    right "$mode: code that is written by another mapping (W^X)" --threads=2 --generations=3 --memory=dual
    right "$mode: code that may not be written while it runs (W^X)" --threads=2 --generations=4 --memory=flip
}

soak() {
    local generations=${MINIJIT_SOAK:-300}
    right "$mode: $generations generations of blocks in one place" --program=small --threads=2 --generations="$generations" --iterations=12
    at_least "$mode: rewritten, generation by generation" "$(counter sites_rewritten)" $((generations * 2))
    # Two pieces of 128 KiB of code, with islands of at most 16 times that: what is in use must not grow with the generations.
    if [ "$(jq '.counters | has("reclaimed_bytes")' report)" = true ] && [ "$generations" -ge 5000 ]; then
        check "$mode: islands in use are bounded" test $(($(counter island_bytes) - $(counter reclaimed_bytes))) -le $((2 * 4 * 128 * 1024))
    fi
}

TAGTSO_STATS='' LD_PRELOAD='' "$TAGTSO_TESTS/minijit" --threads=4 --generations=20 --unaligned --faults --signals=400 --jumps --seed="$seed" >log 2>&1
is "without the preload minijit finds nothing wrong with itself" "$? $(grep -c '^ok - ' log)" "0 1"
for name in box64 box64-llsc fex qemu; do flavour "$name"; done
for name in fex fex-ldapur fex-ldar fex-vectors; do unaligned "$name"; done
recycled
soak

# Ordered code made plain. Only where this library has the mode for emulators that it does not know.
mode=relax
if preloaded --threads=1 --generations=0 >log 2>&1; then
    for name in fex fex-ldapur qemu; do flavour "$name"; done
    for name in fex fex-ldapur fex-ldar fex-vectors; do unaligned "$name"; done
fi
exit 0
