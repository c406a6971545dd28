/* SPDX-License-Identifier: Apache-2.0 */
#include "base/log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LINE_MAX_BYTES 2048

static atomic_int max_level = LOG_LEVEL_INFO;

void log_set_level(enum log_level level)
{
	atomic_store(&max_level, (int)level);
}

static size_t put_time(char *buf, size_t size)
{
	struct timespec now;
	struct tm tm;
	size_t n;

	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &tm);
	n = strftime(buf, size, "%Y-%m-%dT%H:%M:%S", &tm);
	return n + (size_t)snprintf(buf + n, size - n, ".%03ldZ", now.tv_nsec / 1000000);
}

__attribute__((format(printf, 3, 0))) static void say(enum log_level level, int r,
						      const char *format, va_list args)
{
	static const char *const names[] = {"error", "warning", "info", "debug"};
	char line[LINE_MAX_BYTES];
	size_t n;
	int len;

	if ((int)level > atomic_load_explicit(&max_level, memory_order_relaxed))
		return;

	n = put_time(line, sizeof(line));
	n += (size_t)snprintf(line + n, sizeof(line) - n, " %s ", names[level]);
	len = vsnprintf(line + n, sizeof(line) - n - 1, format, args);
	if (len > 0)
		n += (size_t)len < sizeof(line) - n - 1 ? (size_t)len : sizeof(line) - n - 2;
	if (r != 0 && n < sizeof(line) - 2) {
		len = snprintf(line + n, sizeof(line) - n - 1, ": %s",
			       strerrordesc_np(r < 0 ? -r : r));
		if (len > 0)
			n += (size_t)len < sizeof(line) - n - 1 ? (size_t)len
								: sizeof(line) - n - 2;
	}
	for (size_t i = 0; i < n; i++) {
		if ((unsigned char)line[i] < ' ')
			line[i] = ' '; /* one line a call, whatever was quoted */
	}
	line[n++] = '\n';
	if (write(STDERR_FILENO, line, n) < 0)
		return; /* nowhere left to complain to */
}

int log_err(int r, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	say(LOG_LEVEL_ERROR, r, format, args);
	va_end(args);
	return r;
}

int log_warn(int r, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	say(LOG_LEVEL_WARNING, r, format, args);
	va_end(args);
	return r;
}

void log_info(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	say(LOG_LEVEL_INFO, 0, format, args);
	va_end(args);
}

void log_debug(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	say(LOG_LEVEL_DEBUG, 0, format, args);
	va_end(args);
}
