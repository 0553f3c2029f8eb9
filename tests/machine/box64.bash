# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# Sourced by the scripts beside it: amd64 programs in box64, with and without the preload.
# shellcheck source=tests/machine/emulator.bash
. "$TAGTSO_TREE/machine/emulator.bash"

# The guest's own compression libraries, not the machine's.
export BOX64_PREFER_EMULATED=1
command -v box64 >/dev/null || { not_ok "box64 is there"; exit 1; }
# So that the guest's children are amd64 programs too.
guest_path=$amd64:$(dirname "$(command -v box64)"):/usr/bin:/bin

without() { env PATH="$guest_path" box64 "$@"; }

# The reports of all processes are in ./reports.
with() {
    mkdir -p reports
    env PATH="$guest_path" LD_PRELOAD="$TAGTSO_LIB" TAGTSO_STRICT=1 TAGTSO_STATS="$PWD/reports/%e.%p" box64 "$@"
}
