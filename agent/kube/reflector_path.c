/* SPDX-License-Identifier: Apache-2.0 */
#include "kube/reflector_path.h"

#include <curl/curl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/owned.h"

__attribute__((format(printf, 1, 2))) static char *print(const char *format, ...)
{
	va_list args;
	char *ret;
	int n;

	va_start(args, format);
	n = vasprintf(&ret, format, args);
	va_end(args);
	return n < 0 ? NULL : ret;
}

/* "&name=value", encoded; "" for no value. */
static char *param(const char *name, const char *value)
{
	char *text, *ret;

	if (!value)
		return strdup("");
	text = curl_easy_escape(NULL, value, 0);
	ret = text ? print("&%s=%s", name, text) : NULL;
	curl_free(text);
	return ret;
}

static char *path_objects(const struct reflector_config *c, const char *version, const char *query)
{
	OWNED_MEM char *fields = param("fieldSelector", c->field_selector);
	OWNED_MEM char *labels = param("labelSelector", c->label_selector);

	if (!query || !fields || !labels)
		return NULL;
	return print("%s%s/%s%s%s/%s?%s%s%s", c->group[0] ? "/apis/" : "/api", c->group, version,
		     c->ns ? "/namespaces/" : "", c->ns ?: "", c->resource, query, fields, labels);
}

char *path_group(const struct reflector_config *c)
{
	return c->group[0] ? print("/apis/%s", c->group) : NULL;
}

char *path_kinds(const struct reflector_config *c, const char *version)
{
	return print("%s%s/%s", c->group[0] ? "/apis/" : "/api", c->group, version);
}

char *path_list(const struct reflector_config *c, const char *version, unsigned limit,
		const char *token)
{
	OWNED_MEM char *from = param("continue", token), *query = NULL;

	/* Without a resourceVersion: the newest, and in chunks, which the server's cache has not.
	 */
	query = from ? print("limit=%u%s", limit, from) : NULL;
	return path_objects(c, version, query);
}

char *path_watch(const struct reflector_config *c, const char *version, const char *rv,
		 unsigned seconds)
{
	OWNED_MEM char *from = NULL, *query = NULL;

	from = rv ? param("resourceVersion", rv)
		  : strdup("&sendInitialEvents=true&resourceVersionMatch=NotOlderThan");
	query = from ? print("watch=1&allowWatchBookmarks=true&timeoutSeconds=%u%s", seconds, from)
		     : NULL;
	return path_objects(c, version, query);
}
