/* SPDX-License-Identifier: Apache-2.0 */
#include "admin/ctl/ctl.h"

#include <stdio.h>
#include <string.h>

#include "base/owned.h"

static int make_path(const struct ctl *ctl, char **ret)
{
	OWNED_MEM char *target = client_escape(ctl->target);
	OWNED_MEM char *pod = client_escape(ctl->pod);
	OWNED_MEM char *protocol = client_escape(ctl->protocol ?: "");

	if (!target || !pod || !protocol ||
	    asprintf(ret, "/check?target=%s&pod=%s%s%s", target, pod, *protocol ? "&protocol=" : "",
		     protocol) < 0)
		return ctl_fail("out of memory");
	return EXIT_DONE;
}

static bool is_empty(const json_t *value)
{
	return json_is_string(value) && json_string_length(value) == 0;
}

/* The object as a table of two columns, what is null or "" left out. */
static json_t *rows_of(json_t *answer)
{
	static const char *const keys[] = {
		"decision", "reason",        "detail",     "host",    "port",
		"protocol", "service_entry", "resolution", "gateway", "by",
	};
	json_t *rows = json_array();

	for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
		json_t *value = json_object_get(answer, keys[i]);

		if (value && !json_is_null(value) && !is_empty(value))
			json_array_append_new(
				rows, json_pack("{s:s, s:O}", "field", keys[i], "value", value));
	}
	return rows;
}

static int print_answer(json_t *answer)
{
	static const struct column columns[] = {{"FIELD", "field"}, {"VALUE", "value"}};
	OWNED(drop_json) json_t *rows = rows_of(answer);

	return table_print(rows, columns, ARRAY_SIZE(columns), "the agent said nothing");
}

int ctl_check(const struct ctl *ctl)
{
	OWNED(drop_json) json_t *answer = NULL;
	OWNED_MEM char *path = NULL, *text = NULL;
	const char *decision;
	int r;

	r = make_path(ctl, &path);
	if (r != EXIT_DONE)
		return r;
	r = client_get(ctl, path, &text, &answer);
	if (r != EXIT_DONE)
		return r;
	decision = json_string_value(json_object_get(answer, "decision"));
	if (!decision)
		return ctl_fail("the agent did not say what it would decide: is it of another "
				"version?");
	r = ctl->json ? print_text(text) : print_answer(answer);
	if (r != EXIT_DONE)
		return r;
	return strcmp(decision, "ALLOW") == 0 ? EXIT_DONE : EXIT_DENIED;
}
