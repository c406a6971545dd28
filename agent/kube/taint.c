/* SPDX-License-Identifier: Apache-2.0 */
#include "kube/taint.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/owned.h"

#define PATH_TEXT   320
#define WAIT_MIN_MS 500
#define WAIT_MAX_MS 30000

struct taint_removal {
	struct kube_client *client;
	struct loop *loop;
	struct kube_request *request;
	struct timer again;
	char *node, *key;
	unsigned wait_ms;
	bool said; /* that it does not work */
};

json_t *taints_without(json_t *node, const char *key)
{
	json_t *taints = json_object_get(json_object_get(node, "spec"), "taints"), *taint;
	json_t *left = json_array();
	size_t i;

	json_array_foreach(taints, i, taint)
	{
		const char *have = json_string_value(json_object_get(taint, "key"));

		if (!have || strcmp(have, key) != 0)
			json_array_append(left, taint);
	}
	if (json_array_size(left) == json_array_size(taints)) {
		json_decref(left);
		return NULL;
	}
	return left;
}

static void try_later(struct taint_removal *t, const struct kube_answer *answer)
{
	if (!t->said)
		log_warn(0, "cannot take the taint '%s' off node '%s' (%ld %s), trying again",
			 t->key, t->node, answer->status, answer->text ? answer->text : "");
	t->said = true;
	t->wait_ms = t->wait_ms ? t->wait_ms * 2 : WAIT_MIN_MS;
	if (t->wait_ms > WAIT_MAX_MS)
		t->wait_ms = WAIT_MAX_MS;
	timer_start(t->loop, &t->again, t->wait_ms);
}

static void call(struct taint_removal *t, const char *method, const char *body, kube_done_fn *done)
{
	char path[PATH_TEXT];
	struct kube_call c = {.method = method, .path = path, .body = body};

	if (body)
		c.content_type = "application/merge-patch+json";
	snprintf(path, sizeof(path), "/api/v1/nodes/%.253s", t->node);
	if (kube_call(t->client, &c, done, t, &t->request) < 0)
		try_later(t, &(struct kube_answer){.text = "out of memory"});
}

static void on_patched(void *ctx, const struct kube_answer *answer)
{
	struct taint_removal *t = ctx;

	t->request = NULL;
	if (answer->r == 0 && answer->status / 100 == 2)
		log_info("node '%s' is ready for pods: taint '%s' is off", t->node, t->key);
	else
		try_later(t, answer);
}

/* With the version that was read: who changes taints at the same time is not overruled. */
static void on_node(void *ctx, const struct kube_answer *answer)
{
	struct taint_removal *t = ctx;
	json_t *taints, *patch, *version;
	char *text = NULL;

	t->request = NULL;
	if (answer->r < 0 || answer->status != 200 || !answer->json)
		return try_later(t, answer);
	taints = taints_without(answer->json, t->key);
	if (!taints)
		return;
	version = json_object_get(json_object_get(answer->json, "metadata"), "resourceVersion");
	patch = json_pack("{s:{s:O}, s:{s:o}}", "metadata", "resourceVersion", version, "spec",
			  "taints", taints);
	if (patch)
		text = json_dumps(patch, JSON_COMPACT);
	json_decref(patch);
	if (text)
		call(t, "PATCH", text, on_patched);
	else
		try_later(t, &(struct kube_answer){.text = "out of memory"});
	free(text);
}

static void on_again(struct timer *timer)
{
	call(CONTAINER_OF(timer, struct taint_removal, again), "GET", NULL, on_node);
}

int taint_removal_new(struct taint_removal **ret, struct kube_client *client, struct loop *loop,
		      const char *node, const char *key)
{
	struct taint_removal *t = calloc(1, sizeof(*t));

	if (!t)
		return -ENOMEM;
	t->client = client;
	t->loop = loop;
	t->again.on_expire = on_again;
	t->node = strdup(node);
	t->key = strdup(key);
	if (!t->node || !t->key) {
		taint_removal_free(t);
		return -ENOMEM;
	}
	*ret = t;
	on_again(&t->again);
	return 0;
}

void taint_removal_free(struct taint_removal *removal)
{
	if (!removal)
		return;
	kube_cancel(removal->request);
	timer_stop(removal->loop, &removal->again);
	free(removal->node);
	free(removal->key);
	free(removal);
}
