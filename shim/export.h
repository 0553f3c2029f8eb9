/* SPDX-License-Identifier: MIT */
/* Marks the functions that libtagtso.so puts in front of libc's; everything else stays inside (-fvisibility=hidden). */
#ifndef TAGTSO_SHIM_EXPORT_H
#define TAGTSO_SHIM_EXPORT_H

#define TAGTSO_EXPORT __attribute__((visibility("default"), used))

#endif
