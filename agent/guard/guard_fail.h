/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* How the guard's parts say what went wrong, in a line for a person. Any thread; does not log. */
#include "guard/guard_ops.h"

/* Returns r. */
__attribute__((format(printf, 3, 4))) int guard_fail(int r, char error[static GUARD_ERROR_MAX],
						     const char *format, ...);

/* Something of eBPF was refused: `what` ("load the guard's programs"), why, and libbpf's own word.
 * -EOPNOTSUPP, since there is no reason to hope for this way then; -ENOMEM when r is.
 */
int guard_fail_bpf(int r, const char *what, char error[static GUARD_ERROR_MAX]);

/* Before anything large is tried: whether we may at all. libbpf lifts RLIMIT_MEMLOCK by itself on
 * kernels that charge BPF's memory to it (before 5.11). -EOPNOTSUPP.
 */
int guard_ask_bpf(char error[static GUARD_ERROR_MAX]);
