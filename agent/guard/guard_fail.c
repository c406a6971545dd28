/* SPDX-License-Identifier: Apache-2.0 */
#include "guard/guard_fail.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/owned.h"
#include "guard/bpf_log.h"

int guard_fail(int r, char error[static GUARD_ERROR_MAX], const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(error, GUARD_ERROR_MAX, format, args);
	va_end(args);
	return r;
}

int guard_fail_bpf(int r, const char *what, char error[static GUARD_ERROR_MAX])
{
	char cause[160];

	guard_fail(r, error, "cannot %s: %s%s%s", what, bpf_log_cause(r, cause, sizeof(cause)),
		   bpf_log_last()[0] ? "; libbpf: " : "", bpf_log_last());
	return r == -ENOMEM ? r : -EOPNOTSUPP;
}

int guard_ask_bpf(char error[static GUARD_ERROR_MAX])
{
	OWNED_FD int fd = bpf_map_create(BPF_MAP_TYPE_ARRAY, "sluice_probe", 4, 4, 1, NULL);

	return fd < 0 ? guard_fail_bpf(fd, "use eBPF", error) : 0;
}
