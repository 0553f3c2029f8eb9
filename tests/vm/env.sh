# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# Sourced by bash: the paths and settings that tests/vm/setup left for building and testing.
#
# TAGTSO_CACHE      what setup keeps between clones
# SYSROOT           arm64 root to build against and to run under qemu-aarch64 -L
# KERNEL            arm64 kernel image
# QEMU_PLUGIN_HEADER   qemu-plugin.h for the installed QEMU
# GUESTS            amd64 programs and their libraries
# CROSS             arguments for configure: the host and the compiler (empty natively)
# PKG_CONFIG_*      make pkg-config look into SYSROOT
tagtso_top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
if [ ! -r "$tagtso_top/build/vm.env" ]; then
    echo "tagtso: vm: build/vm.env is missing: nothing was set up: run tests/vm/setup" >&2
    exit 125
fi
tagtso_cross='' tagtso_sysroot='' tagtso_kernel='' tagtso_guests='' tagtso_plugin_header=''
# shellcheck disable=SC2034 # for tests/vm/run
tagtso_image='' tagtso_box64_new='' tagtso_box64_old='' tagtso_qemu_user='' tagtso_qemu_new=''
# shellcheck source=/dev/null
. "$tagtso_top/build/vm.env"
export TAGTSO_CACHE
export GUESTS=$tagtso_guests
if [ -n "$tagtso_cross" ]; then
    export SYSROOT=$tagtso_sysroot KERNEL=$tagtso_kernel/vmlinuz
    export QEMU_PLUGIN_HEADER=$tagtso_plugin_header/qemu-plugin.h
    export CROSS_CC="aarch64-linux-gnu-gcc --sysroot=$SYSROOT"
    # shellcheck disable=SC2034 # for those who source this
    CROSS=(--host=aarch64-linux-gnu "CC=$CROSS_CC")
    export PKG_CONFIG_SYSROOT_DIR=$SYSROOT PKG_CONFIG_PATH=
    export PKG_CONFIG_LIBDIR=$SYSROOT/usr/lib/aarch64-linux-gnu/pkgconfig:$SYSROOT/usr/share/pkgconfig
else
    # shellcheck disable=SC2034
    CROSS=()
fi
