/* SPDX-License-Identifier: Apache-2.0 */
#include "kube/kube_own.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/log.h"
#include "base/owned.h"
#include "kube/kube_json.h"

/* What has happened while nobody watched comes right behind the answer that the watch is open. */
#define SETTLE_MS     200
#define UNANSWERED_MS 3000 /* who has not answered for so long is away */
#define AWAY_MS       2000 /* and is asked again after this time, */
#define PACE_MS       1000 /* or this one, where it can be reached */
#define LOOK_MS       100

/* ---- how fresh a no is ---- */

static uint64_t clock_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void on_hurry(struct timer *t)
{
	struct kube *kube = CONTAINER_OF(t, struct kube, hurry);
	bool hurry;

	pthread_mutex_lock(&kube->lock);
	hurry = kube->namespaces_awaited && clock_ms() - kube->namespaces_since_ms >= PACE_MS;
	if (hurry)
		kube->namespaces_awaited = false;
	pthread_mutex_unlock(&kube->lock);
	if (hurry)
		reflector_hurry(kube->namespace_reflector);
	timer_start(kube->loop, t, LOOK_MS);
}

static void on_namespaces_news(void *ctx, enum reflector_news news)
{
	struct kube *kube = ctx;

	pthread_mutex_lock(&kube->lock);
	kube->namespaces_news = news;
	kube->namespaces_since_ms = clock_ms();
	if (news == REFLECTOR_WATCHES)
		kube->namespaces_awaited = false;
	pthread_mutex_unlock(&kube->lock);
	if (news == REFLECTOR_WATCHES)
		timer_stop(kube->loop, &kube->hurry);
	else if (!timer_is_armed(&kube->hurry))
		timer_start(kube->loop, &kube->hurry, LOOK_MS);
}

/* May a label have been put on that has not been heard of? Under the lock. */
static bool is_fresh(const struct kube *kube)
{
	uint64_t age_ms = clock_ms() - kube->namespaces_since_ms;

	switch (kube->namespaces_news) {
	case REFLECTOR_WATCHES:
		return age_ms >= SETTLE_MS;
	case REFLECTOR_ASKS:
		return age_ms >= UNANSWERED_MS;
	case REFLECTOR_AWAY:
		return age_ms < AWAY_MS;
	case REFLECTOR_HEARS:
	case REFLECTOR_LOST:
		break;
	}
	return false;
}

/* ---- telling ---- */

static void tell_pod(struct kube *kube, struct pod_row *row)
{
	struct kube_pod pod;

	if (pod_row_tell(row, namespace_is_enforced(&kube->namespaces, pod_row_ns(row)), &pod))
		kube->hooks.on_pod(kube->hooks.ctx, &pod);
}

static void tell_end(struct kube *kube, struct pod_row *row)
{
	struct kube_pod pod;

	if (pod_row_tell_end(row, namespace_is_enforced(&kube->namespaces, pod_row_ns(row)), &pod))
		kube->hooks.on_pod(kube->hooks.ctx, &pod);
}

/* A pod whose namespace the watch has not brought yet would count as not there: it is waited for.
 */
static void tell_synced(struct kube *kube)
{
	if (kube->told_pods_synced || !kube->pods_synced || !kube->namespaces_synced)
		return;
	for (const struct pod_row *row = pod_store_next(&kube->pods, NULL); row;
	     row = pod_store_next(&kube->pods, row)) {
		if (!pod_row_is_told(row))
			return;
	}
	kube->told_pods_synced = true;
	kube->hooks.on_pods_synced(kube->hooks.ctx);
}

/* ---- namespaces ---- */

static void on_namespace(void *ctx, json_t *object)
{
	const char *ns = kube_json_name(object);
	struct kube *kube = ctx;
	int r;

	pthread_mutex_lock(&kube->lock);
	r = namespace_store_put(&kube->namespaces, object);
	pthread_mutex_unlock(&kube->lock);
	if (r < 0)
		log_err(r, "cannot keep namespace '%s': its pods are not known", ns);
	if (r <= 0)
		return;
	kube_saver_touch(kube->saver);
	for (struct pod_row *row = pod_store_next(&kube->pods, NULL); row;
	     row = pod_store_next(&kube->pods, row)) {
		if (strcmp(pod_row_ns(row), ns) == 0)
			tell_pod(kube, row);
	}
	tell_synced(kube);
}

/* Its pods go one by one, before it does. */
static void on_namespace_deleted(void *ctx, const char *ns, const char *name)
{
	struct kube *kube = ctx;

	(void)ns;
	pthread_mutex_lock(&kube->lock);
	namespace_store_remove(&kube->namespaces, name);
	pthread_mutex_unlock(&kube->lock);
	kube_saver_touch(kube->saver);
}

static void on_namespaces_synced(void *ctx)
{
	struct kube *kube = ctx;

	if (kube->namespaces_synced)
		return;
	pthread_mutex_lock(&kube->lock);
	namespace_store_remove_unconfirmed(&kube->namespaces);
	pthread_mutex_unlock(&kube->lock);
	kube->namespaces_synced = true;
	tell_synced(kube);
}

/* ---- pods ---- */

static void forget_pod(struct kube *kube, struct pod_row *row)
{
	tell_end(kube, row);
	pthread_mutex_lock(&kube->lock);
	pod_store_remove(&kube->pods, row);
	pthread_mutex_unlock(&kube->lock);
}

static void on_pod(void *ctx, json_t *object)
{
	const char *ns = kube_json_ns(object), *name = kube_json_name(object);
	struct kube *kube = ctx;
	struct pod_row *row = pod_store_find(&kube->pods, ns, name);
	int r;

	/* The same name again, as StatefulSets have it: another pod. */
	if (row && strcmp(pod_row_uid(row), kube_json_text(kube_json_meta(object), "uid")) != 0)
		forget_pod(kube, row);
	pthread_mutex_lock(&kube->lock);
	r = pod_store_put(&kube->pods, object, &row);
	pthread_mutex_unlock(&kube->lock);
	if (r < 0) {
		log_err(r, "cannot keep pod '%s/%s'", ns, name);
		return;
	}
	tell_pod(kube, row);
	tell_synced(kube);
}

static void on_pod_deleted(void *ctx, const char *ns, const char *name)
{
	struct kube *kube = ctx;
	struct pod_row *row = pod_store_find(&kube->pods, ns, name);

	if (row)
		forget_pod(kube, row);
	tell_synced(kube);
}

static void on_pods_synced(void *ctx)
{
	struct kube *kube = ctx;

	kube->pods_synced = true;
	tell_synced(kube);
}

/* ---- any thread ---- */

int kube_is_enforced(struct kube *kube, const char *ns)
{
	int r;

	pthread_mutex_lock(&kube->lock);
	r = namespace_is_enforced(&kube->namespaces, ns);
	if (r == 0 && !namespace_is_excluded(&kube->namespaces, ns) && !is_fresh(kube))
		r = -EAGAIN;
	kube->namespaces_awaited |= r == -EAGAIN;
	pthread_mutex_unlock(&kube->lock);
	return r;
}

/* The pod of that name that is known may be the one before, whose end has not been heard of yet. */
bool kube_service_account(struct kube *kube, const char *ns, const char *name, const char *uid,
			  char ret[static 254])
{
	const struct pod_row *row;

	pthread_mutex_lock(&kube->lock);
	row = pod_store_find(&kube->pods, ns, name);
	if (row && uid[0] && !pod_row_may_be(row, uid))
		row = NULL;
	if (row)
		snprintf(ret, 254, "%s", pod_row_service_account(row));
	pthread_mutex_unlock(&kube->lock);
	return row != NULL;
}

bool kube_pod_uid(struct kube *kube, const char *ns, const char *name,
		  char ret[static KUBE_UID_MAX])
{
	const struct pod_row *row;

	pthread_mutex_lock(&kube->lock);
	row = pod_store_find(&kube->pods, ns, name);
	if (row)
		snprintf(ret, KUBE_UID_MAX, "%s", pod_row_uid(row));
	pthread_mutex_unlock(&kube->lock);
	return row != NULL;
}

/* ---- watches ---- */

static int watch_pods(struct kube *kube, const char *node_name)
{
	OWNED_MEM char *selector = NULL;
	const struct reflector_hooks hooks = {kube, on_pod, on_pod_deleted, on_pods_synced, NULL};
	struct reflector_config config = {
		.group = "",
		.versions = (const char *const[]){"v1", NULL},
		.resource = "pods",
	};

	if (asprintf(&selector, "spec.nodeName=%s", node_name) < 0) {
		selector = NULL; /* undefined after a failure */
		return -ENOMEM;
	}
	config.field_selector = selector;
	return reflector_new(&kube->pod_reflector, kube->client, kube->loop, &config, &hooks);
}

int kube_pods_open(struct kube *kube, const struct kube_options *options)
{
	const struct reflector_hooks hooks = {kube, on_namespace, on_namespace_deleted,
					      on_namespaces_synced, on_namespaces_news};
	const struct reflector_config config = {
		.group = "",
		.versions = (const char *const[]){"v1", NULL},
		.resource = "namespaces",
	};
	int r;

	if (!options->node_name)
		return 0;
	kube->hurry.on_expire = on_hurry;
	r = reflector_new(&kube->namespace_reflector, kube->client, kube->loop, &config, &hooks);
	return r < 0 ? r : watch_pods(kube, options->node_name);
}

void kube_pods_close(struct kube *kube)
{
	reflector_free(kube->pod_reflector);
	reflector_free(kube->namespace_reflector);
	timer_stop(kube->loop, &kube->hurry);
}
