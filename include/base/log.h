/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The program's own log on standard error, one line a call. (What connections did is the access
 * log, agent/admin/access_log.h.) Any thread; a line is written whole.
 */

enum log_level {
	LOG_LEVEL_ERROR,
	LOG_LEVEL_WARNING,
	LOG_LEVEL_INFO,
	LOG_LEVEL_DEBUG,
};

/* What is above `level` is dropped. The start is INFO. */
void log_set_level(enum log_level level);

/* Says what was being done, to what (quoted), then ": " and the text of errno -r (left out when r
 * is 0). Returns r, so that a logging function can end in `return log_err(...)`.
 */
int log_err(int r, const char *format, ...) __attribute__((format(printf, 2, 3)));
int log_warn(int r, const char *format, ...) __attribute__((format(printf, 2, 3)));

void log_info(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_debug(const char *format, ...) __attribute__((format(printf, 1, 2)));
