/* SPDX-License-Identifier: MIT */
/* Functions called with tag checks off for the thread (PSTATE.TCO): the bodies for libc-unchecked.def. */
#include "libc-wrap.h"

/* TAGTSO_NATIVE=share: what the call will touch becomes shared first. Runs with checks off: measuring a string reads guest memory. */
static void touch(const volatile void *p, size_t n)
{
	if (p && n)
		tagtso_native_touch(p, n);
}

static void touch_string(const char *s)
{
	if (s)
		touch(s, tagtso_early_strlen(s) + 1);
}

static void touch_wide_string(const wchar_t *s)
{
	if (s)
		touch(s, (tagtso_early_wcslen(s) + 1) * sizeof(*s));
}

#define BUF(p, n) touch(p, n);
#define WBUF(p, n) touch(p, (n) * sizeof(wchar_t));
#define OBJ(p) touch(p, sizeof(*(p)));
#define STR(s) touch_string(s);
#define WSTR(s) touch_wide_string(s);
#define COPY(d, s) \
	touch_string(s); \
	touch(d, tagtso_early_strlen(s) + 1);
#define WCOPY(d, s) \
	touch_wide_string(s); \
	touch(d, (tagtso_early_wcslen(s) + 1) * sizeof(wchar_t));
#define APPEND(d, s) \
	touch_string(s); \
	touch(d, tagtso_early_strlen(d) + tagtso_early_strlen(s) + 1);

#define UNCHECKED_OFTEN(ret, name, proto, args, outside, ...) \
	static __attribute__((noinline)) ret other_##name proto \
	{ \
		ret(*real_) proto = tagtso_real(TAGTSO_FN_##name); \
		uint64_t checks_; \
		ret result_; \
\
		if (!tagtso_is_active()) \
			return real_ args; \
		checks_ = tagtso_unchecked_enter(); \
		if (tagtso_native_is_share()) { \
			__VA_ARGS__ \
		} \
		result_ = real_ args; \
		tagtso_unchecked_leave(checks_); \
		return result_; \
	} \
	TAGTSO_PASS_IF(outside, ret, name, proto, args)

#define UNCHECKED(ret, name, proto, args, ...) UNCHECKED_OFTEN(ret, name, proto, args, false, __VA_ARGS__)

#define UNCHECKED_V(name, proto, args, ...) \
	static __attribute__((noinline)) void other_##name proto \
	{ \
		void(*real_) proto = tagtso_real(TAGTSO_FN_##name); \
		uint64_t checks_; \
\
		if (!tagtso_is_active()) { \
			real_ args; \
			return; \
		} \
		checks_ = tagtso_unchecked_enter(); \
		if (tagtso_native_is_share()) { \
			__VA_ARGS__ \
		} \
		real_ args; \
		tagtso_unchecked_leave(checks_); \
	} \
	TAGTSO_PASS_V(name, proto, args)

#include "libc-unchecked.def"
