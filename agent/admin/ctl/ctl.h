/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* sluicectl: short-lived, single thread. Every command says on standard error what went wrong and
 * what to do, in one line, and returns the exit status.
 */
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

enum {
	EXIT_DONE = 0,
	EXIT_FAILED = 1,
	EXIT_USAGE = 2,
	EXIT_DENIED = 3, /* check: it would be refused */
};

/* The command line. NULL where an option was not given. */
struct ctl {
	const char *admin; /* never NULL */
	const char *agent; /* enrolment socket; never NULL */
	const char *netns, *cgroup, *pod, *service_account, *protocol;
	const char *target; /* check's argument */
	bool json;
};

int ctl_enroll(const struct ctl *ctl);
int ctl_unenroll(const struct ctl *ctl);
int ctl_pods(const struct ctl *ctl);
int ctl_registry(const struct ctl *ctl);
int ctl_connections(const struct ctl *ctl);
int ctl_config(const struct ctl *ctl);
int ctl_check(const struct ctl *ctl);

/* Says "sluicectl: ..." and returns EXIT_FAILED. Control characters are shown as '?'. */
int ctl_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* For OWNED: drops the reference. */
static inline void drop_json(json_t **json)
{
	json_decref(*json);
}

/* ---- talking to the agent (client.c) ---- */

/* GET of `path`, query included, over the admin socket. *ret_text (NUL-terminated JSON, for the
 * caller to free) and *ret_json (a reference) are what it answered. EXIT_DONE or EXIT_FAILED, which
 * was said.
 */
int client_get(const struct ctl *ctl, const char *path, char **ret_text, json_t **ret_json);

/* Percent-encodes; for the caller to free. NULL when out of memory. */
char *client_escape(const char *text);

/* ---- showing (table.c) ---- */

struct column {
	const char *title;
	const char *key; /* of the object in the row; "a.b" is not looked into */
};

/* Prints `rows` (an array of objects) with aligned columns, or `none` when there are none. What a
 * peer may have chosen cannot steer the terminal.
 */
int table_print(const json_t *rows, const struct column *columns, size_t n, const char *none);

/* What a cell shows: strings as they are, arrays joined with commas, "-" for null and "". For the
 * caller to free; NULL when out of memory.
 */
char *table_cell(const json_t *value);

/* GET and show: raw with --json, else as a table. */
int table_show(const struct ctl *ctl, const char *path, const struct column *columns, size_t n,
	       const char *none);

/* Puts text and a newline on standard output. EXIT_DONE, or EXIT_FAILED when it did not get there.
 */
int print_text(const char *text);
