/* SPDX-License-Identifier: Apache-2.0 */
#include "kube/kube_own.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/owned.h"
#include "kube/cache.h"
#include "kube/kube_json.h"

/* Of refused objects in the log: some at once, then one each ten seconds. */
static const struct event_rate log_rate = {20, 10000};

#define SAVE_AFTER_MS 5000

/* ---- telling, folded ---- */

void kube_fold_later(struct kube *kube)
{
	if (!timer_is_armed(&kube->fold))
		timer_start(kube->loop, &kube->fold, 1);
}

/* Half a list is nothing to decide on. */
static bool entries_are_known(const struct kube *kube)
{
	return kube->entries_synced || kube->entries_cached;
}

static void on_fold(struct timer *t)
{
	struct kube *kube = CONTAINER_OF(t, struct kube, fold);

	kube_endpoints_fold(kube);
	if (!kube->entries_changed || !entries_are_known(kube))
		return;
	kube->entries_changed = false;
	kube->hooks.on_entries(kube->hooks.ctx);
}

/* ---- entries ---- */

static void change_entries(struct kube *kube)
{
	kube->entries_changed = true;
	kube_saver_touch(kube->saver);
	if (entries_are_known(kube))
		kube_fold_later(kube);
}

/* Everybody sees the log of an agent, and few do: the author of the object sees its Events. */
static void tell_refusal(struct kube *kube)
{
	struct entry_refusal what;
	struct kube_event event;

	if (!entry_store_refusal(&kube->entries, &what))
		return;
	event = (struct kube_event){
		.kind = "ServiceEntry",
		.api_version = "networking.istio.io/v1",
		.ns = what.ns,
		.name = what.name,
		.uid = what.uid,
		.type = "Warning",
		.reason = "InvalidServiceEntry",
		.message = what.error,
		.action = "Reading",
	};
	event_sender_post(kube->events, &event);
	if (event_bucket_take(&kube->log_budget, log_rate, loop_now_ms(kube->loop)))
		log_warn(0, "%s; nothing of it is registered", what.error);
}

static void on_entry(void *ctx, json_t *object)
{
	struct kube *kube = ctx;
	int r = entry_store_put(&kube->entries, object);

	if (r < 0)
		log_err(r, "cannot keep ServiceEntry '%s/%s': it is not registered",
			kube_json_ns(object), kube_json_name(object));
	if (r > 0 && r & ENTRY_F_REFUSED)
		tell_refusal(kube);
	if (r < 0 || r & ENTRY_F_CHANGED)
		change_entries(kube);
}

static void on_entry_deleted(void *ctx, const char *ns, const char *name)
{
	struct kube *kube = ctx;

	if (entry_store_remove(&kube->entries, ns, name) & ENTRY_F_CHANGED)
		change_entries(kube);
}

static void on_entries_synced(void *ctx)
{
	struct kube *kube = ctx;

	if (kube->entries_synced)
		return;
	entry_store_remove_unconfirmed(&kube->entries);
	kube->entries_synced = true;
	kube->entries_cached = false;
	change_entries(kube);
}

static int watch_entries(struct kube *kube)
{
	const struct reflector_hooks hooks = {kube, on_entry, on_entry_deleted, on_entries_synced,
					      NULL};
	const struct reflector_config config = {
		.group = "networking.istio.io",
		.versions = (const char *const[]){"v1", "v1beta1", "v1alpha3", NULL},
		.resource = "serviceentries",
	};

	return reflector_new(&kube->entry_reflector, kube->client, kube->loop, &config, &hooks);
}

bool kube_entries(struct kube *kube, const struct service_entry **ret, size_t *ret_n)
{
	if (!entries_are_known(kube))
		return false;
	*ret = kube->entries.list;
	*ret_n = kube->entries.n;
	return true;
}

/* ---- cache ---- */

static bool take_for_cache(void *ctx, struct entry_snapshot *ret, json_t **ret_parts)
{
	const struct kube *kube = ctx;
	json_t *parts;

	/* A list that has not come to its end is no last good one. */
	if (!entries_are_known(kube))
		return false;
	parts = kube_parts_json(kube);
	if (!parts)
		return false;
	if (entry_store_snapshot(&kube->entries, ret) < 0) {
		json_decref(parts);
		return false;
	}
	*ret_parts = parts;
	return true;
}

static void on_cached(void *ctx, json_t *object)
{
	struct kube *kube = ctx;

	entry_store_restore(&kube->entries, object);
}

/* Logs. Without it nothing is known until the API has spoken, no more. */
static int read_cache(struct kube *kube, const char *dir)
{
	const char *why = "";
	json_t *parts = NULL;
	int r = cache_read(dir, kube_client_server(kube->client), &parts, on_cached, kube, &why);

	if (r == 0) {
		log_info("%zu ServiceEntries of '%s/" CACHE_FILE "' are in force until the API "
			 "server has told of its own",
			 kube->entries.n, dir);
		kube_parts_restore(kube, parts);
		json_decref(parts);
		kube->entries_cached = true;
		kube->entries_changed = true;
		kube_fold_later(kube);
		return 0;
	}
	if (r == -EBADMSG)
		log_warn(0, "'%s/" CACHE_FILE "' is not used: %s", dir, why);
	else if (r != -ENOENT)
		log_warn(r, "cannot read '%s/" CACHE_FILE "', ignoring", dir);
	entry_store_done(&kube->entries);
	return entry_store_init(&kube->entries);
}

static int open_cache(struct kube *kube, const char *dir)
{
	const struct kube_save_config config = {
		.dir = dir,
		.server = kube_client_server(kube->client),
		.after_ms = SAVE_AFTER_MS,
		.take = take_for_cache,
		.ctx = kube,
	};
	int r;

	if (!dir)
		return 0;
	r = read_cache(kube, dir);
	if (r < 0)
		return r;
	return kube_saver_new(&kube->saver, kube->loop, &config);
}

/* ---- life ---- */

static int init_stores(struct kube *kube, const struct kube_options *options)
{
	int r = entry_store_init(&kube->entries);

	if (r == 0)
		r = namespace_store_init(&kube->namespaces, options->mode, options->excluded,
					 options->n_excluded);
	if (r == 0)
		r = pod_store_init(&kube->pods);
	return r < 0 ? r : kube_endpoints_init(kube, options);
}

static int open_all(struct kube *kube, const struct kube_options *options)
{
	int r = init_stores(kube, options);

	if (r == 0)
		r = kube_client_new(&kube->client, kube->loop, &options->access);
	if (r == 0)
		r = open_cache(kube, options->cache_dir);
	if (r == 0)
		r = event_sender_new(&kube->events, kube->client, kube->loop, options->instance);
	if (r == 0)
		r = watch_entries(kube);
	if (r == 0)
		r = kube_pods_open(kube, options);
	if (r == 0)
		r = kube_endpoints_open(kube, options);
	return r;
}

int kube_open(struct kube **ret, struct loop *loop, const struct kube_options *options,
	      const struct kube_hooks *hooks)
{
	struct kube *kube = calloc(1, sizeof(*kube));
	int r;

	if (!kube)
		return log_err(-ENOMEM, "cannot watch the Kubernetes API");
	kube->loop = loop;
	kube->hooks = *hooks;
	kube->fold.on_expire = on_fold;
	pthread_mutex_init(&kube->lock, NULL);
	r = open_all(kube, options);
	if (r < 0) {
		kube_close(kube);
		return log_err(r, "cannot watch the Kubernetes API");
	}
	*ret = kube;
	return 0;
}

void kube_close(struct kube *kube)
{
	if (!kube)
		return;
	kube_saver_free(kube->saver); /* while what it writes is there */
	reflector_free(kube->entry_reflector);
	kube_pods_close(kube);
	kube_endpoints_close(kube);
	event_sender_free(kube->events);
	taint_removal_free(kube->taint);
	kube_client_free(kube->client);
	timer_stop(kube->loop, &kube->fold);
	entry_store_done(&kube->entries);
	namespace_store_done(&kube->namespaces);
	pod_store_done(&kube->pods);
	pthread_mutex_destroy(&kube->lock);
	free(kube);
}

void kube_event(struct kube *kube, const struct kube_event *event)
{
	struct kube_event named = *event;
	char uid[KUBE_UID_MAX];

	/* kubectl describe shows the Events of an object by its uid. */
	if ((!event->uid || !event->uid[0]) && strcmp(event->kind, "Pod") == 0 &&
	    kube_pod_uid(kube, event->ns, event->name, uid))
		named.uid = uid;
	event_sender_post(kube->events, &named);
}

/* ---- status ---- */

static void add_status(const struct reflector *reflector, struct kube_status *ret)
{
	struct reflector_status s;

	if (!reflector)
		return;
	reflector_status(reflector, &s);
	ret->connected &= s.watching || (s.synced && !s.served);
	ret->objects += s.objects;
	ret->relists += s.relists;
	ret->errors += s.errors;
	if (ret->last_error[0] == '\0')
		snprintf(ret->last_error, sizeof(ret->last_error), "%s", s.last_error);
}

void kube_status(struct kube *kube, struct kube_status *ret)
{
	struct entry_refusal refusal = {.error = ""};
	struct kube_status s = {.connected = true,
				.knows = kube->entries_synced || kube->entries_cached,
				.from_cache = kube->entries_cached};

	add_status(kube->entry_reflector, &s);
	add_status(kube->namespace_reflector, &s);
	add_status(kube->pod_reflector, &s);
	add_status(kube->nodes.reflector, &s);
	for (size_t i = 0; i < kube->n_gateways; i++) {
		add_status(kube->gateways[i].slices, &s);
		add_status(kube->gateways[i].endpoints, &s);
	}
	entry_store_refusal(&kube->entries, &refusal);
	snprintf(s.last_rejected, sizeof(s.last_rejected), "%s", refusal.error);
	s.entries = kube->entries.n;
	s.entries_rejected = kube->entries.n_refused;
	event_sender_status(kube->events, &s.events_sent, &s.events_dropped);
	*ret = s;
}
