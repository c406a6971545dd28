/* SPDX-License-Identifier: Apache-2.0 */
#include "kube/reflector_served.h"

#include <errno.h>
#include <string.h>

#include "base/owned.h"
#include "kube/kube_json.h"
#include "kube/reflector_path.h"

static bool has_version(const json_t *group, const char *version)
{
	const json_t *list = json_object_get(group, "versions"), *item;
	size_t i;

	json_array_foreach(list, i, item)
	{
		if (strcmp(kube_json_text(item, "version"), version) == 0)
			return true;
	}
	return false;
}

size_t served_order(const json_t *group, const char *const *versions,
		    const char *ret[static SERVED_VERSIONS_MAX])
{
	const char *preferred =
		kube_json_text(json_object_get(group, "preferredVersion"), "version");
	size_t n = 0;

	for (int pass = 0; pass < 2; pass++) {
		for (size_t i = 0; versions[i] && n < SERVED_VERSIONS_MAX; i++) {
			bool first = strcmp(versions[i], preferred) == 0;

			if (first == (pass == 0) && (first || has_version(group, versions[i])))
				ret[n++] = versions[i];
		}
	}
	return n;
}

bool served_has(const json_t *kinds, const char *resource)
{
	const json_t *list = json_object_get(kinds, "resources"), *item;
	size_t i;

	json_array_foreach(list, i, item)
	{
		if (strcmp(kube_json_text(item, "name"), resource) == 0)
			return true;
	}
	return false;
}

/* ---- asking ---- */

static int get(struct served *s, const char *path, kube_done_fn *done)
{
	if (!path)
		return -ENOMEM;
	return kube_call(s->client, &(struct kube_call){.method = "GET", .path = path}, done, s,
			 &s->request);
}

static int ask_kinds(struct served *s);

static void fail(struct served *s, int r)
{
	s->on_answer(s, NULL, &(struct kube_answer){.r = r, .text = strerror(-r)});
}

static void ask_next(struct served *s)
{
	int r;

	if (s->at == s->n) {
		s->on_answer(s, NULL, NULL);
		return;
	}
	r = ask_kinds(s);
	if (r < 0)
		fail(s, r);
}

static void on_kinds(void *ctx, const struct kube_answer *answer)
{
	struct served *s = ctx;

	s->request = NULL;
	if (answer->r < 0 || (answer->status != 200 && answer->status != 404)) {
		s->on_answer(s, NULL, answer);
	} else if (answer->status == 200 && served_has(answer->json, s->config->resource)) {
		s->on_answer(s, s->candidates[s->at], NULL);
	} else {
		s->at++;
		ask_next(s);
	}
}

static int ask_kinds(struct served *s)
{
	OWNED_MEM char *path = path_kinds(s->config, s->candidates[s->at]);

	return get(s, path, on_kinds);
}

static void on_group(void *ctx, const struct kube_answer *answer)
{
	struct served *s = ctx;

	s->request = NULL;
	if (answer->r < 0 || (answer->status != 200 && answer->status != 404)) {
		s->on_answer(s, NULL, answer);
		return;
	}
	if (answer->status == 200)
		s->n = served_order(answer->json, s->config->versions, s->candidates);
	ask_next(s);
}

static void take_all(struct served *s)
{
	while (s->n < SERVED_VERSIONS_MAX && s->config->versions[s->n]) {
		s->candidates[s->n] = s->config->versions[s->n];
		s->n++;
	}
}

int served_ask(struct served *s)
{
	OWNED_MEM char *path = NULL;

	served_cancel(s);
	s->n = s->at = 0;
	if (s->config->group[0] == '\0') {
		take_all(s);
		return ask_kinds(s);
	}
	path = path_group(s->config);
	return get(s, path, on_group);
}

void served_cancel(struct served *s)
{
	kube_cancel(TAKE_PTR(s->request));
}
