/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What libbpf has to say goes to our log at debug level; its last complaint is kept for error
 * texts.
 */
#include <stddef.h>

/* Once per process is enough, more does no harm. Any thread. */
void bpf_log_start(void);

/* The last warning on the calling thread since bpf_log_clear(), "" when there was none. One line,
 * without libbpf's prefix.
 */
const char *bpf_log_last(void);
void bpf_log_clear(void);

/* Why bpf() may have been refused with this -errno, for a person: a missing capability, seccomp,
 * lockdown, the kernel's configuration. Returns buf.
 */
const char *bpf_log_cause(int r, char *buf, size_t size);
