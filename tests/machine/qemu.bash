# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# Sourced by the scripts beside it: amd64 programs in qemu-x86_64, with and without the preload.
# shellcheck source=tests/machine/emulator.bash
. "$TAGTSO_TREE/machine/emulator.bash"
command -v qemu-x86_64 >/dev/null || { not_ok "qemu-x86_64 is there"; exit 1; }
export QEMU_LD_PREFIX=${amd64%/usr/bin}
# Of its own, where they are not the machine's.
libraries=${TAGTSO_TEST_QEMU_LIBRARIES:+LD_LIBRARY_PATH=$TAGTSO_TEST_QEMU_LIBRARIES}

without() { env ${libraries:+"$libraries"} PATH="$amd64:/usr/bin:/bin" qemu-x86_64 "$@"; }

# The reports of all processes are in ./reports.
with() {
    mkdir -p reports
    env ${libraries:+"$libraries"} PATH="$amd64:/usr/bin:/bin" LD_PRELOAD="$TAGTSO_LIB" TAGTSO_MODE="${TAGTSO_MODE:-auto}" TAGTSO_STRICT=1 \
        TAGTSO_STATS="$PWD/reports/%e.%p" qemu-x86_64 "$@"
}

# QEMU leaves the guest's exec to the kernel, which must be told who runs amd64 programs; until the script ends.
register_amd64() {
    local binfmt=/proc/sys/fs/binfmt_misc
    [ -e $binfmt/register ] || mount -t binfmt_misc binfmt_misc $binfmt 2>/dev/null || return 1
    printf '%s' ':tagtso-amd64:M::\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x3e\x00:\xff\xff\xff\xff\xff\xfe\xfe\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:'"$(command -v qemu-x86_64):" >$binfmt/register || return 1
    trap 'echo -1 >/proc/sys/fs/binfmt_misc/tagtso-amd64' EXIT
}
