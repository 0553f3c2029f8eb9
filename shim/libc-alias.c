/* SPDX-License-Identifier: MIT */
/* Functions called with the alias of guest memory: the bodies for libc-alias.def and libc-thread.def. */
#include "libc-nested.h"
#include "libc-wrap.h"

#include <limits.h>

/* p of any pointer type, const or not, moved to the alias of its n bytes. */
#define MOVE(p, n) ((p) = (__typeof__(p))tagtso_native(p, n))

/* A size of 0 would mean "unknown": nothing is accessed then, and the pointer may stay. */
#define BUF(p, n) \
	{ \
		size_t size_ = (n); \
\
		if (size_) \
			MOVE(p, size_); \
	}
#define OBJ(p) MOVE(p, sizeof(*(p)));
#define COUNT(p, n) BUF(p, (n) > 0 ? (size_t)(n) * sizeof(*(p)) : 0)
#define STR(s) MOVE(s, 0);
#define TEXT(s) MOVE(s, tagtso_text_size(s, SIZE_MAX));
#define TEXTN(s, n) MOVE(s, tagtso_text_size(s, n));
#define WTEXT(s) MOVE(s, wide_text_size(s));
#define PTR(p) MOVE(p, 0);
#define FDS(p, n) BUF(p, (n) > 0 ? ((size_t)(n) + 63) / 64 * 8 : 0)
#define LENGTH(p, n) \
	MOVE(n, sizeof(*(n))); \
	if (p && n) \
	BUF(p, *n)
#define MASK(m) \
	sigset_t mask_; \
\
	m = tagtso_nested_mask(m, &mask_);
#define PRODUCT(a, b) product(a, b)

/* fread and fwrite: an impossible product is the real function's affair; the pointer moves as one of unknown size. */
static size_t product(size_t a, size_t b)
{
	size_t n;

	return __builtin_mul_overflow(a, b, &n) ? SIZE_MAX / 2 : n;
}

static size_t wide_text_size(const wchar_t *s)
{
	size_t (*length)(const wchar_t *) = tagtso_real(TAGTSO_FN_wcslen);
	uint64_t checks;
	size_t n;

	if (!s)
		return 0;
	checks = tagtso_unchecked_enter();
	n = (length(s) + 1) * sizeof(*s);
	tagtso_unchecked_leave(checks);
	return n;
}

#define ALIAS_OFTEN(ret, name, proto, args, outside, ...) \
	static __attribute__((noinline)) ret other_##name proto \
	{ \
		ret(*real_) proto = tagtso_real(TAGTSO_FN_##name); \
\
		if (!tagtso_is_active()) \
			return real_ args; \
		__VA_ARGS__ \
		return real_ args; \
	} \
	TAGTSO_PASS_IF(outside, ret, name, proto, args)

#define ALIAS(ret, name, proto, args, ...) ALIAS_OFTEN(ret, name, proto, args, false, __VA_ARGS__)

#define ALIAS_V(name, proto, args, ...) \
	static __attribute__((noinline)) void other_##name proto \
	{ \
		void(*real_) proto = tagtso_real(TAGTSO_FN_##name); \
\
		if (tagtso_is_active()) { \
			__VA_ARGS__ \
		} \
		real_ args; \
	} \
	TAGTSO_PASS_V(name, proto, args)

#define ALIAS_BACK(ret, name, proto, args, ...) \
	static __attribute__((noinline)) ret other_##name proto \
	{ \
		ret(*real_) proto = tagtso_real(TAGTSO_FN_##name); \
		ret result_; \
\
		if (!tagtso_is_active()) \
			return real_ args; \
		__VA_ARGS__ \
		result_ = real_ args; \
		return result_ ? tagtso_native_back(result_) : result_; \
	} \
	TAGTSO_PASS(ret, name, proto, args)

#define KEPT(ret, name, proto, args, ...) \
	ret tagtso_w_##name proto \
	{ \
		ret(*real_) proto = tagtso_real(TAGTSO_FN_##name); \
\
		__VA_ARGS__ \
		return real_ args; \
	}

#define KEPT_V(name, proto, args, ...) \
	void tagtso_w_##name proto \
	{ \
		void(*real_) proto = tagtso_real(TAGTSO_FN_##name); \
\
		__VA_ARGS__ \
		real_ args; \
	}

#include "libc-alias.def"
#include "libc-thread.def"
