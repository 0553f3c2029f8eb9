# SPDX-License-Identifier: MIT
# Probes of configure.ac: compiler flags one by one, and libraries with an error that names the Debian package.

# TAGTSO_CC_FLAGS(VARIABLE, FLAGS): appends to VARIABLE each of FLAGS that the compiler takes.
AC_DEFUN([TAGTSO_CC_FLAGS], [
	for tagtso_flag in m4_normalize([$2]); do
		TAGTSO_CC_FLAG([$tagtso_flag], [$1="$$1 $tagtso_flag"])
	done
	AC_SUBST([$1])
])

# TAGTSO_CC_FLAG(FLAG, IF-TAKEN): one flag, in a shell variable; -Werror, since clang only warns of flags it does not know.
AC_DEFUN([TAGTSO_CC_FLAG], [
	AS_VAR_PUSHDEF([tagtso_var], [tagtso_cv_cc_$1])
	AC_CACHE_CHECK([whether $CC takes $1], [tagtso_var], [
		tagtso_save_cflags=$CFLAGS
		CFLAGS="$CFLAGS -Werror $1"
		AC_COMPILE_IFELSE([AC_LANG_PROGRAM([], [])], [AS_VAR_SET([tagtso_var], [yes])], [AS_VAR_SET([tagtso_var], [no])])
		CFLAGS=$tagtso_save_cflags
	])
	AS_VAR_IF([tagtso_var], [yes], [$2])
	AS_VAR_POPDEF([tagtso_var])
])

# TAGTSO_CC_NEED(VARIABLE, FLAG, WHAT): stops unless FLAG was taken.
AC_DEFUN([TAGTSO_CC_NEED], [
	AS_CASE([" $$1 "], [*" $2 "*], [], [AC_MSG_ERROR([$CC does not take $2: needs $3])])
])

# TAGTSO_LIBRARY(PREFIX, MODULE, HEADER, FUNCTION, DEBIAN-PACKAGE, [LIBRARY = MODULE], [OTHER-LIBRARIES]): sets PREFIX_CFLAGS and
# PREFIX_LIBS, by pkg-config, else by trying to link.
AC_DEFUN([TAGTSO_LIBRARY], [
	PKG_CHECK_MODULES([$1], [$2], [], [
		tagtso_found=no
		AC_CHECK_HEADER([$3], [
			TAGTSO_TRY_LIBRARY(m4_ifval([$6], [[$6]], [[$2]]), [$4], [$1_LIBS], [$7])
		])
		AS_IF([test $tagtso_found = no], [AC_MSG_ERROR([$2 not found for $host: install $5])])
	])
])

# TAGTSO_TRY_LIBRARY(LIBRARY, FUNCTION, VARIABLE, OTHER-LIBRARIES): sets VARIABLE and tagtso_found if FUNCTION links.
AC_DEFUN([TAGTSO_TRY_LIBRARY], [
	AC_CHECK_LIB([$1], [$2], [tagtso_found=yes
		$3="-l$1 $4"], [], [$4])
])

# TAGTSO_CAPSTONE_ARCHIVE: what the preload has of Capstone, so that no other version of it in the process is in the way.
AC_DEFUN([TAGTSO_CAPSTONE_ARCHIVE], [
	AC_ARG_VAR([CAPSTONE_ARCHIVE], [libcapstone.a, position-independent])
	AC_MSG_CHECKING([for libcapstone.a])
	AS_IF([test -z "$CAPSTONE_ARCHIVE"], [CAPSTONE_ARCHIVE=`$CC $CFLAGS -print-file-name=libcapstone.a`])
	AS_IF([test ! -r "$CAPSTONE_ARCHIVE"], [AC_MSG_RESULT([no])
		AC_MSG_ERROR([libcapstone.a not found for $host: install libcapstone-dev])])
	AC_MSG_RESULT([$CAPSTONE_ARCHIVE])
])

# TAGTSO_JEMALLOC: the archive that is linked in hidden (alloc/jemalloc.am). Its extent hooks need 5.3.
AC_DEFUN([TAGTSO_JEMALLOC], [
	AC_ARG_VAR([JEMALLOC_PIC], [libjemalloc_pic.a, 5.3 or later])
	AC_CHECK_HEADER([jemalloc/jemalloc.h], [], [AC_MSG_ERROR([jemalloc/jemalloc.h not found for $host: install libjemalloc-dev])])
	AC_MSG_CHECKING([for libjemalloc_pic.a with experimental.arenas_create_ext])
	AS_IF([test -z "$JEMALLOC_PIC"], [JEMALLOC_PIC=`$CC $CFLAGS -print-file-name=libjemalloc_pic.a`])
	AS_IF([test ! -r "$JEMALLOC_PIC"], [AC_MSG_RESULT([no])
		AC_MSG_ERROR([libjemalloc_pic.a not found for $host: install libjemalloc-dev])])
	AS_IF([$NM "$JEMALLOC_PIC" 2>/dev/null | grep experimental_arenas_create_ext >/dev/null], [AC_MSG_RESULT([$JEMALLOC_PIC])],
		[AC_MSG_RESULT([no])
		AC_MSG_ERROR([$JEMALLOC_PIC is older than 5.3: install a newer libjemalloc-dev])])
])
