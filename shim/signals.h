/* SPDX-License-Identifier: MIT */
/* The emulator's view of signals: its handlers for SIGSEGV and SIGBUS stand behind ours (I7). */
#ifndef TAGTSO_SHIM_SIGNALS_H
#define TAGTSO_SHIM_SIGNALS_H

#include <signal.h>
#include <stdbool.h>
#include <ucontext.h>

typedef void tagtso_signal_handler(int signo, siginfo_t *info, void *context);

/* Looks up the real functions; called first thing at start-up. */
void tagtso_signals_init(void);
/* Installs `handler` for SIGSEGV and SIGBUS; what was installed, and what will be, is what tagtso_signals_chain calls. 0 or -errno. */
int tagtso_signals_install(tagtso_signal_handler *handler);
/* Does with the signal what would have happened without us. May not return (siglongjmp). */
void tagtso_signals_chain(int signo, siginfo_t *info, ucontext_t *uc);
/* rt_sigaction and rt_sigprocmask by number; true if handled (*result in the kernel's convention). */
bool tagtso_signals_syscall(long nr, const long args[6], long *result);

#endif
