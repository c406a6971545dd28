/* SPDX-License-Identifier: Apache-2.0 */
#include "kube/pods.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/owned.h"
#include "kube/kube_json.h"

/* What a hook gets to know of a pod, but for its names, which never change. */
struct pod_facts {
	bool host_network, enforced, ended, ready_to_find, administers;
};

struct pod_row {
	struct kube_item item;
	struct pod_facts now, told; /* `now.enforced` is unused: the namespace decides */
	bool is_told;
	const char *uid, *kubelet_uid, *service_account; /* kubelet_uid: "" unless it is another */
	char text[];
};

static struct pod_row *row_of(struct kube_item *item)
{
	return item ? CONTAINER_OF(item, struct pod_row, item) : NULL;
}

int pod_store_init(struct pod_store *store)
{
	*store = (struct pod_store){0};
	return kube_table_init(&store->rows);
}

void pod_store_done(struct pod_store *store)
{
	struct kube_item *item = kube_table_next(&store->rows, NULL), *next;

	for (; item; item = next) {
		next = kube_table_next(&store->rows, item);
		free(row_of(item));
	}
	kube_table_done(&store->rows);
}

struct pod_row *pod_store_find(const struct pod_store *store, const char *ns, const char *name)
{
	struct kube_key key;

	return kube_key(ns, name, &key) < 0 ? NULL : row_of(kube_table_find(&store->rows, &key));
}

struct pod_row *pod_store_next(const struct pod_store *store, const struct pod_row *row)
{
	return row_of(kube_table_next(&store->rows, row ? &row->item : NULL));
}

const char *pod_row_ns(const struct pod_row *row)
{
	return kube_item_ns(&row->item);
}

const char *pod_row_uid(const struct pod_row *row)
{
	return row->uid;
}

const char *pod_row_service_account(const struct pod_row *row)
{
	return row->service_account;
}

bool pod_row_may_be(const struct pod_row *row, const char *uid)
{
	return row->kubelet_uid[0] || strcmp(row->uid, uid) == 0;
}

bool pod_row_is_told(const struct pod_row *row)
{
	return row->is_told;
}

/* ---- what an object says ---- */

static const char *const lists[] = {"initContainerStatuses", "containerStatuses",
				    "ephemeralContainerStatuses"};

static bool runs_now(const json_t *status)
{
	for (size_t i = 0; i < ARRAY_SIZE(lists); i++) {
		const json_t *containers = json_object_get(status, lists[i]), *container;
		size_t k;

		json_array_foreach(containers, k, container)
		{
			const json_t *state = json_object_get(container, "state");

			if (json_is_object(json_object_get(state, "running")))
				return true;
		}
	}
	return false;
}

static bool has_run(const json_t *status, const char *list)
{
	const json_t *containers = json_object_get(status, list);

	for (size_t i = 0; i < json_array_size(containers); i++) {
		const json_t *container = json_array_get(containers, i);
		const json_t *state = json_object_get(container, "state");
		const json_t *last = json_object_get(container, "lastState");

		if (json_is_object(json_object_get(state, "running")) ||
		    json_is_object(json_object_get(state, "terminated")) ||
		    json_is_object(json_object_get(last, "terminated")))
			return true;
	}
	return false;
}

/* The kubelet's word that the pod has a sandbox with a network: a process to find it by, even while
 * no container could be started. The second name is that of Kubernetes 1.25 to 1.27.
 */
static bool has_sandbox(const json_t *status)
{
	const json_t *conditions = json_object_get(status, "conditions");

	for (size_t i = 0; i < json_array_size(conditions); i++) {
		const json_t *condition = json_array_get(conditions, i);
		const char *type = kube_json_text(condition, "type");

		if ((strcmp(type, "PodReadyToStartContainers") == 0 ||
		     strcmp(type, "PodHasNetwork") == 0) &&
		    strcmp(kube_json_text(condition, "status"), "True") == 0)
			return true;
	}
	return false;
}

/* A pod of the node's own files stands in the API under another uid; there its kubelet says by
 * which it knows it. Nobody else may make one with a service account, or say that it has run.
 */
static const char *mirrored_uid(const json_t *object)
{
	return kube_json_text(json_object_get(kube_json_meta(object), "annotations"),
			      "kubernetes.io/config.mirror");
}

/* A pod whose deadline has passed is Failed at once with some kubelets, and its processes have as
 * long to end as it asked for.
 */
static bool has_ended(const json_t *status)
{
	const char *phase = kube_json_text(status, "phase");

	return (strcmp(phase, "Succeeded") == 0 || strcmp(phase, "Failed") == 0) &&
	       !runs_now(status);
}

/* With or without CAP_, in whatever case: runtimes are not strict. */
static bool is_administrative(const char *capability)
{
	static const char *const names[] = {"NET_ADMIN", "SYS_ADMIN", "ALL"};

	if (strncasecmp(capability, "CAP_", 4) == 0)
		capability += 4;
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		if (strcasecmp(capability, names[i]) == 0)
			return true;
	}
	return false;
}

static bool container_administers(const json_t *container)
{
	const json_t *context = json_object_get(container, "securityContext"), *capability;
	const json_t *added = json_object_get(json_object_get(context, "capabilities"), "add");
	size_t i;

	json_array_foreach(added, i, capability)
	{
		if (is_administrative(json_string_value(capability) ?: ""))
			return true;
	}
	return kube_json_bool(context, "privileged", false);
}

/* May a container of it that stays change interfaces of the node? Those of a user namespace of its
 * own may not.
 */
static bool administers(const json_t *spec)
{
	static const char *const names[] = {"containers", "initContainers", "ephemeralContainers"};

	if (!kube_json_bool(spec, "hostUsers", true))
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		const json_t *containers = json_object_get(spec, names[i]), *container;
		size_t k;

		json_array_foreach(containers, k, container)
		{
			bool ends = i == 1 && strcmp(kube_json_text(container, "restartPolicy"),
						     "Always") != 0;

			if (!ends && container_administers(container))
				return true;
		}
	}
	return false;
}

static struct pod_facts facts_of(const json_t *object)
{
	const json_t *spec = json_object_get(object, "spec");
	const json_t *status = json_object_get(object, "status");
	bool ran = has_sandbox(status);

	for (size_t i = 0; i < ARRAY_SIZE(lists); i++)
		ran |= has_run(status, lists[i]);
	return (struct pod_facts){
		.host_network = kube_json_bool(spec, "hostNetwork", false),
		.ended = has_ended(status),
		.ready_to_find = ran,
		.administers = administers(spec),
	};
}

/* ---- rows ---- */

static int add(struct pod_store *store, const json_t *object, struct pod_row **ret)
{
	const char *uid = kube_json_text(kube_json_meta(object), "uid");
	const json_t *spec = json_object_get(object, "spec");
	const char *account = kube_json_text(spec, "serviceAccountName");
	const char *mirrored = mirrored_uid(object);
	struct pod_row *row;
	struct kube_key key;
	char *at;

	if (kube_key(kube_json_ns(object), kube_json_name(object), &key) < 0)
		return -EINVAL;
	row = malloc(sizeof(*row) + key.len + strlen(uid) + strlen(mirrored) + strlen(account) + 3);
	if (!row)
		return -ENOMEM;
	*row = (struct pod_row){.item.key_len = key.len};
	row->item.key = memcpy(row->text, key.text, key.len);
	at = row->text + key.len;
	row->uid = kube_put_text(&at, uid);
	row->kubelet_uid = kube_put_text(&at, mirrored);
	row->service_account = kube_put_text(&at, account);
	kube_table_add(&store->rows, &row->item);
	*ret = row;
	return 0;
}

int pod_store_put(struct pod_store *store, const json_t *object, struct pod_row **ret)
{
	struct pod_row *row = pod_store_find(store, kube_json_ns(object), kube_json_name(object));
	int r = row ? 0 : add(store, object, &row);

	if (r < 0)
		return r;
	row->now = facts_of(object);
	*ret = row;
	return 0;
}

void pod_store_remove(struct pod_store *store, struct pod_row *row)
{
	if (!row)
		return;
	kube_table_remove(&store->rows, &row->item);
	free(row);
}

/* ---- what to tell ---- */

static bool is_same(const struct pod_facts *a, const struct pod_facts *b)
{
	return a->host_network == b->host_network && a->enforced == b->enforced &&
	       a->ended == b->ended && a->ready_to_find == b->ready_to_find &&
	       a->administers == b->administers;
}

static bool is_unconfined(const struct pod_facts *facts)
{
	return facts->enforced && facts->administers && !facts->ended;
}

static void tell(struct pod_row *row, const struct pod_facts *facts, struct kube_pod *ret)
{
	bool known = row->is_told && is_unconfined(&row->told);

	row->told = *facts;
	row->is_told = true;
	*ret = (struct kube_pod){
		.ns = kube_item_ns(&row->item),
		.name = kube_item_name(&row->item),
		.uid = row->kubelet_uid[0] ? row->kubelet_uid : row->uid,
		.service_account = row->service_account,
		.host_network = facts->host_network,
		.enforced = facts->enforced,
		.ended = facts->ended,
		.ready_to_find = facts->ready_to_find,
		.unconfined = is_unconfined(facts) && !known,
	};
}

bool pod_row_tell(struct pod_row *row, int enforced, struct kube_pod *ret)
{
	struct pod_facts facts = row->now;

	/* An end is final, whatever its namespace's label does later. */
	if (row->is_told && row->told.ended)
		return false;
	if (facts.ended)
		return pod_row_tell_end(row, enforced, ret);
	if (enforced < 0)
		return false;
	facts.enforced = enforced > 0;
	if (row->is_told && is_same(&facts, &row->told))
		return false;
	tell(row, &facts, ret);
	return true;
}

bool pod_row_tell_end(struct pod_row *row, int enforced, struct kube_pod *ret)
{
	struct pod_facts facts = row->now;

	if (row->is_told && row->told.ended)
		return false;
	facts.ended = true;
	facts.enforced = enforced < 0 ? row->told.enforced : enforced > 0;
	tell(row, &facts, ret);
	return true;
}
