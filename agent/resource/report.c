/* SPDX-License-Identifier: Apache-2.0 */
#include "resource/report.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

void report_say(struct report_list *list, const char *format, va_list args)
{
	char text[REPORT_TEXT];

	if (list->n++ >= REPORT_KEPT)
		return;
	vsnprintf(text, sizeof(text), format, args);
	for (char *p = text; *p; p++) {
		if ((unsigned char)*p < ' ' || *p == 0x7f)
			*p = '?'; /* it quotes the user's text */
	}
	list->text[list->n - 1] = strdup(text); /* without memory the count alone remains */
}

void report_error(struct report *report, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	report_say(&report->errors, format, args);
	va_end(args);
}

void report_warn(struct report *report, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	report_say(&report->warnings, format, args);
	va_end(args);
}

void report_fail(struct report *report, int r)
{
	if (report->r == 0)
		report->r = r;
}

static void merge_list(struct report_list *into, struct report_list *from)
{
	for (size_t i = 0; i < REPORT_KEPT; i++) {
		if (into->n + i < REPORT_KEPT)
			into->text[into->n + i] = from->text[i];
		else
			free(from->text[i]);
	}
	into->n += from->n;
	*from = (struct report_list){0};
}

void report_merge(struct report *into, struct report *from)
{
	merge_list(&into->errors, &from->errors);
	merge_list(&into->warnings, &from->warnings);
	report_fail(into, from->r);
	from->r = 0;
}

int report_result(const struct report *report)
{
	if (report->r < 0)
		return report->r;
	return report->errors.n > 0 ? -EINVAL : 0;
}

static size_t n_kept(const struct report_list *list)
{
	return list->n < REPORT_KEPT ? list->n : REPORT_KEPT;
}

void report_log(const struct report *report)
{
	for (size_t i = 0; i < n_kept(&report->warnings); i++) {
		if (report->warnings.text[i])
			log_warn(0, "%s", report->warnings.text[i]);
	}
	if (report->warnings.n > REPORT_KEPT)
		log_warn(0, "%zu more warnings", report->warnings.n - REPORT_KEPT);

	for (size_t i = 0; i < n_kept(&report->errors); i++) {
		if (report->errors.text[i])
			log_err(0, "%s", report->errors.text[i]);
	}
	if (report->errors.n > REPORT_KEPT)
		log_err(0, "%zu more errors", report->errors.n - REPORT_KEPT);
}

static void free_list(struct report_list *list)
{
	for (size_t i = 0; i < REPORT_KEPT; i++)
		free(list->text[i]);
}

void report_done(struct report *report)
{
	free_list(&report->errors);
	free_list(&report->warnings);
	*report = (struct report){0};
}
