/* SPDX-License-Identifier: Apache-2.0 */
#include "kube/pod_facts.h"

#include <string.h>
#include <strings.h>

#include "base/owned.h"
#include "kube/kube_json.h"

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

const char *pod_mirrored_uid(const json_t *object)
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

struct pod_facts pod_facts_of(const json_t *object)
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

bool pod_facts_are_same(const struct pod_facts *a, const struct pod_facts *b)
{
	return a->host_network == b->host_network && a->enforced == b->enforced &&
	       a->ended == b->ended && a->ready_to_find == b->ready_to_find &&
	       a->administers == b->administers;
}

bool pod_is_unconfined(const struct pod_facts *facts)
{
	return facts->enforced && facts->administers && !facts->ended;
}
