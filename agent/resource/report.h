/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What is wrong with a text: errors and warnings, the first of them kept, the rest counted. Does
 * not log by itself, so that several threads can read pieces of one file and speak in order.
 */
#include <stdarg.h>
#include <stddef.h>

#define REPORT_KEPT      20   /* of each kind */
#define REPORT_TEXT      1000 /* bytes of one message */
#define REPORT_TEXT_USER 80   /* "%.80s": how much of what the user wrote is quoted in one */

struct report_list {
	char *text[REPORT_KEPT];
	size_t n; /* all of them, kept or not */
};

/* All zero is an empty report. */
struct report {
	struct report_list errors, warnings;
	int r; /* -errno of a file that could not be read, -ENOMEM; 0: none */
};

void report_error(struct report *report, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
void report_warn(struct report *report, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
void report_say(struct report_list *list, const char *format, va_list args)
	__attribute__((format(printf, 2, 0)));

/* Notes that memory ran out, or the errno of a read. The first stays. */
void report_fail(struct report *report, int r);

/* Moves all of `from` behind what `into` holds. */
void report_merge(struct report *into, struct report *from);

/* 0, -EINVAL when there are errors, or the errno. */
int report_result(const struct report *report);

/* Logging: each message kept, and how many more there are. */
void report_log(const struct report *report);

void report_done(struct report *report);
