/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Looking into objects of the API without a care: whatever is not there, or of another type, is ""
 * or NULL. Strings are borrowed from the object. Pure.
 */
#include <jansson.h>
#include <stdbool.h>
#include <string.h>

static inline const char *kube_json_text(const json_t *object, const char *key)
{
	return json_string_value(json_object_get(object, key)) ?: "";
}

/* A copy at *at, which is behind it afterwards. */
static inline const char *kube_put_text(char **at, const char *text)
{
	size_t size = strlen(text) + 1;
	char *copy = memcpy(*at, text, size);

	*at += size;
	return copy;
}

static inline json_t *kube_json_meta(const json_t *object)
{
	return json_object_get(object, "metadata");
}

static inline const char *kube_json_ns(const json_t *object)
{
	return kube_json_text(kube_json_meta(object), "namespace");
}

static inline const char *kube_json_name(const json_t *object)
{
	return kube_json_text(kube_json_meta(object), "name");
}

/* A boolean that counts as `otherwise` where it is absent, null or something else. */
static inline bool kube_json_bool(const json_t *object, const char *key, bool otherwise)
{
	const json_t *value = json_object_get(object, key);

	return json_is_boolean(value) ? json_is_true(value) : otherwise;
}
