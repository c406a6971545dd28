/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Runs a program of iptables in the network namespace of the calling thread, and waits for it. It
 * gets no descriptor and no environment of ours. Any thread; nothing else of the process stops
 * meanwhile, and no child but this one is waited for. Says what the program complained of at debug
 * level.
 */
#include <stddef.h>

#define IPT_PATH_MAX 64

/* Looks for a program where the system's are. -ENOENT. */
int ipt_run_find(const char *name, char ret[static IPT_PATH_MAX]);

struct ipt_run {
	const char *path;
	const char *const *args; /* without the name, NULL at the end */
	const char *input;       /* its standard input; NULL: none */
	size_t output_max;       /* bytes */
	unsigned timeout_ms;
};

/* *ret_output, malloc'ed, is what it wrote, with a NUL; NULL: not wanted. -errno:
 *   -EPERM      it may not
 *   -EAGAIN     somebody else changed rules meanwhile, or had the lock too long
 *   -ETIMEDOUT  it took too long and was killed
 *   -EFBIG      it wrote more than that and was killed
 *   -EIO        it failed otherwise
 */
int ipt_run(const struct ipt_run *run, char **ret_output);
