/* SPDX-License-Identifier: Apache-2.0 */
#include "kube/events.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "admin/utf8.h"
#include "resource/hostname.h"

#define WORD_MAX 128 /* of what the agent itself writes: kinds, reasons, actions */

void event_text_clean(char *ret, size_t size, const char *text)
{
	const uint8_t *p = (const uint8_t *)text;
	size_t left = strlen(text), used = 0;

	while (left > 0) {
		size_t step = utf8_step(p, left), n = step > 0 ? step : 1;
		const char *from = step > 0 ? (const char *)p : UTF8_REPLACEMENT;
		size_t width = step > 0 ? step : strlen(UTF8_REPLACEMENT);

		/* C0, DEL and C1, which a terminal may obey. */
		if ((step == 1 && (*p < ' ' || *p == 0x7f)) ||
		    (step == 2 && p[0] == 0xc2 && p[1] < 0xa0)) {
			from = " ";
			width = 1;
		}
		if (used + width >= size)
			break;
		memcpy(ret + used, from, width);
		used += width;
		p += n;
		left -= n;
	}
	ret[used] = '\0';
}

static const char *put(char **at, size_t max, const char *text)
{
	char *start = *at;

	event_text_clean(start, max, text ?: "");
	*at += strlen(start) + 1;
	return start;
}

/* Namespaces and names go into a path of the API. */
static bool is_named(const struct kube_event *event)
{
	return event->name && hostname_is_subdomain(event->name) && event->ns &&
	       hostname_is_subdomain(event->ns) && !strchr(event->ns, '.');
}

struct event_text *event_text_new(const struct kube_event *event)
{
	struct event_text *t;
	char *at;

	if (!is_named(event))
		return NULL;
	t = malloc(sizeof(*t) + 6 * WORD_MAX + strlen(event->ns) + strlen(event->name) + 2 +
		   EVENT_MESSAGE_MAX + 1);
	if (!t)
		return NULL;
	at = t->text;
	*t = (struct event_text){
		.kind = put(&at, WORD_MAX, event->kind),
		.api_version = put(&at, WORD_MAX, event->api_version),
		.ns = put(&at, strlen(event->ns) + 1, event->ns),
		.name = put(&at, strlen(event->name) + 1, event->name),
		.uid = put(&at, WORD_MAX, event->uid),
		.type = put(&at, WORD_MAX, event->type),
		.reason = put(&at, WORD_MAX, event->reason),
		.message = put(&at, EVENT_MESSAGE_MAX + 1, event->message),
		.action = put(&at, WORD_MAX, event->action),
	};
	return t;
}

/* ---- as the API has it ---- */

static json_t *time_json(int64_t seconds)
{
	time_t t = (time_t)seconds;
	char text[32];
	struct tm tm;

	if (!gmtime_r(&t, &tm))
		return NULL;
	strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &tm);
	return json_string(text);
}

json_t *event_json(const struct event_series *s, const char *instance)
{
	const struct event_text *t = s->text;

	if (s->posted)
		return json_pack("{s:I, s:o}", "count", (json_int_t)s->count, "lastTimestamp",
				 time_json(s->last));
	return json_pack(
		"{s:s, s:s, s:{s:s, s:s}, s:{s:s, s:s, s:s, s:s, s:s}, s:s, s:s, s:s, s:s, s:I, "
		"s:o, s:o, s:{s:s, s:s}, s:s, s:s}",
		"apiVersion", "v1", "kind", "Event", "metadata", "name", s->name, "namespace",
		t->ns, "involvedObject", "kind", t->kind, "apiVersion", t->api_version, "namespace",
		t->ns, "name", t->name, "uid", t->uid, "type", t->type, "reason", t->reason,
		"message", t->message, "action", t->action, "count", (json_int_t)s->count,
		"firstTimestamp", time_json(s->first), "lastTimestamp", time_json(s->last),
		"source", "component", "sluice", "host", instance, "reportingComponent",
		"sluice.io/agent", "reportingInstance", instance);
}
