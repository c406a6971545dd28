/* SPDX-License-Identifier: Apache-2.0 */
#include "guard/bpf_log.h"

#include <bpf/libbpf.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/owned.h"

#define CAP_NET_ADMIN_BIT 12
#define CAP_SYS_ADMIN_BIT 21
#define CAP_BPF_BIT       39 /* Linux 5.8 */

static _Thread_local char last[192];

static const char *without_prefix(const char *line)
{
	return strncmp(line, "libbpf: ", 8) == 0 ? line + 8 : line;
}

__attribute__((format(printf, 2, 0))) static int on_print(enum libbpf_print_level level,
							  const char *format, va_list args)
{
	char line[1024];

	if (level == LIBBPF_DEBUG) /* some hundred lines a load */
		return 0;
	vsnprintf(line, sizeof(line), format, args);
	line[strcspn(line, "\n")] = '\0';
	if (level == LIBBPF_WARN)
		snprintf(last, sizeof(last), "%.*s", (int)sizeof(last) - 1, without_prefix(line));
	log_debug("libbpf: %s", without_prefix(line));
	return 0;
}

void bpf_log_start(void)
{
	libbpf_set_print(on_print);
	bpf_log_clear();
}

const char *bpf_log_last(void)
{
	return last;
}

void bpf_log_clear(void)
{
	last[0] = '\0';
}

/* ---- causes ---- */

static void close_file(FILE **f)
{
	if (*f)
		fclose(*f);
}

/* One line of /proc/thread-self/status, by its name; false when it is not there. */
static bool read_status(const char *name, int base, uint64_t *ret)
{
	OWNED(close_file) FILE *f = fopen("/proc/thread-self/status", "re");
	size_t n = strlen(name);
	char line[256];

	while (f && fgets(line, sizeof(line), f)) {
		if (strncmp(line, name, n) == 0 && line[n] == ':') {
			*ret = strtoull(line + n + 1, NULL, base);
			return true;
		}
	}
	return false;
}

static bool is_locked_down(void)
{
	OWNED(close_file) FILE *f = fopen("/sys/kernel/security/lockdown", "re");
	char line[128];

	return f && fgets(line, sizeof(line), f) && strstr(line, "[confidentiality]");
}

static const char *missing_capability(void)
{
	uint64_t caps;

	if (!read_status("CapEff", 16, &caps) || caps & UINT64_C(1) << CAP_SYS_ADMIN_BIT)
		return NULL;
	if (!(caps & UINT64_C(1) << CAP_BPF_BIT))
		return "CAP_BPF";
	return caps & UINT64_C(1) << CAP_NET_ADMIN_BIT ? NULL : "CAP_NET_ADMIN";
}

const char *bpf_log_cause(int r, char *buf, size_t size)
{
	const char *cap = missing_capability();
	uint64_t seccomp = 0;

	read_status("Seccomp", 10, &seccomp);
	if (r == -ENOSYS)
		snprintf(buf, size, "the kernel has no bpf() (CONFIG_BPF_SYSCALL)%s",
			 seccomp ? ", or a seccomp filter hides it" : "");
	else if (r != -EPERM && r != -EACCES)
		snprintf(buf, size, "%s", strerrordesc_np(-r));
	else if (cap)
		snprintf(buf, size, "bpf() is refused: %s is missing", cap);
	else if (is_locked_down())
		snprintf(buf, size, "bpf() is refused: kernel lockdown is 'confidentiality'");
	else if (seccomp == 2)
		snprintf(buf, size,
			 "bpf() is refused: a seccomp filter is in force, it has to allow bpf()");
	else
		snprintf(buf, size,
			 "bpf() is refused by a security module or for lack of capabilities in the "
			 "first user namespace");
	return buf;
}
