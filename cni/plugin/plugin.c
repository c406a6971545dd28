/* SPDX-License-Identifier: Apache-2.0 */
#include "plugin/plugin.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/netns.h"
#include "base/owned.h"
#include "plugin/agent.h"
#include "pod/pod_name.h"

#define DEL_TIMEOUT_MS    1000 /* a pod that goes waits for nobody */
#define STATUS_TIMEOUT_MS 2000

static void free_json(json_t **j)
{
	json_decref(*j);
}

/* ---- which pod ---- */

struct pod_ref {
	char text[sizeof(struct pod_name) + 1]; /* "ns/name" */
	char uid[CNI_NAME_MAX + 1];
	const char *service_account; /* NULL: the agent knows */
};

struct pod_args {
	char ns[POD_LABEL_MAX + 1], name[POD_NAME_MAX + 1];
	bool has_ns, has_name;
};

/* 0, also where there is neither. */
static int read_args(const char *args, struct pod_args *a, char uid[static CNI_NAME_MAX + 1],
		     struct cni_error *error)
{
	int ns = cni_arg(args, "K8S_POD_NAMESPACE", a->ns, sizeof(a->ns));
	int name = cni_arg(args, "K8S_POD_NAME", a->name, sizeof(a->name));

	a->has_ns = ns > 0;
	a->has_name = name > 0;
	if (ns < 0 || name < 0 || cni_arg(args, "K8S_POD_UID", uid, CNI_NAME_MAX + 1) < 0)
		return cni_fail(
			error, CNI_CODE_ENVIRONMENT, args,
			"CNI_ARGS: K8S_POD_NAMESPACE, K8S_POD_NAME or K8S_POD_UID is longer "
			"than Kubernetes allows");
	if (a->has_ns != a->has_name)
		return cni_fail(
			error, CNI_CODE_ENVIRONMENT, args,
			"CNI_ARGS: K8S_POD_NAMESPACE and K8S_POD_NAME belong together, only "
			"one is there");
	return 0;
}

/* Runtimes without pods give no names: then it is the container, in a namespace that the
 * administrator chose.
 */
static int name_container(const struct cni_env *env, const struct cni_config *config,
			  struct pod_ref *ret, struct cni_error *error)
{
	struct pod_name checked;

	if (!config->default_namespace[0])
		return cni_fail(error, CNI_CODE_CONFIG, NULL,
				"no pod is named: set K8S_POD_NAMESPACE and K8S_POD_NAME in "
				"CNI_ARGS, or defaultNamespace in the configuration");
	snprintf(ret->text, sizeof(ret->text), "%.*s/%.*s", POD_LABEL_MAX + 1,
		 config->default_namespace, POD_NAME_MAX, env->container_id);
	if (pod_name_parse(ret->text, &checked) < 0)
		return cni_fail(error, CNI_CODE_CONFIG, ret->text,
				"defaultNamespace and the container's id have to be names as "
				"Kubernetes allows them, or CNI_ARGS has to name the pod");
	ret->service_account = "default"; /* nobody has it any better: it is not waited for */
	return 0;
}

static int read_pod(const struct cni_env *env, const struct cni_config *config, struct pod_ref *ret,
		    struct cni_error *error)
{
	struct pod_name checked;
	struct pod_args args = {0};

	*ret = (struct pod_ref){0};
	if (read_args(env->args, &args, ret->uid, error) < 0)
		return -EINVAL;
	if (!args.has_name)
		return name_container(env, config, ret, error);
	snprintf(ret->text, sizeof(ret->text), "%s/%s", args.ns, args.name);
	if (pod_name_parse(ret->text, &checked) < 0)
		return cni_fail(error, CNI_CODE_ENVIRONMENT, ret->text,
				"CNI_ARGS: K8S_POD_NAMESPACE and K8S_POD_NAME have to be names as "
				"Kubernetes allows them");
	return 0;
}

/* ---- its network namespace ---- */

static int is_own(int netns_fd)
{
	OWNED_FD int own = netns_open("/proc/self/ns/net");
	dev_t dev, own_dev;
	ino_t ino, own_ino;
	int r = own;

	if (r >= 0)
		r = netns_identify(own, &own_dev, &own_ino);
	if (r >= 0)
		r = netns_identify(netns_fd, &dev, &ino);
	return r < 0 ? r : dev == own_dev && ino == own_ino;
}

static int open_sandbox(const char *path, int *ret, struct cni_error *error)
{
	OWNED_FD int fd = netns_open(path);
	int r = fd < 0 ? fd : is_own(fd);

	if (r < 0)
		return cni_fail(error, CNI_CODE_ENVIRONMENT, path,
				"CNI_NETNS is no network namespace that can be opened: %s",
				strerrordesc_np(-r));
	if (r > 0)
		return cni_fail(error, CNI_CODE_NETNS, path,
				"plugin's netns and netns from CNI_NETNS should not be the same");
	*ret = TAKE_FD(fd);
	return 0;
}

/* ---- commands ---- */

/* The agent said no, or nothing. */
static int not_done(int r, enum cni_code refused, const char *why, const char *what,
		    struct cni_error *error)
{
	if (agent_may_answer_later(r))
		return cni_fail(error, CNI_CODE_RETRY, why, "%s yet, try again", what);
	if (r == -EREMOTEIO || r == -ESRCH)
		return cni_fail(error, refused, why, "%s", what);
	return cni_fail(error, CNI_CODE_IO, why, "%s", what);
}

static int chained(const struct cni_config *config, struct cni_error *error)
{
	return config->prev_result
		       ? 0
		       : cni_fail(error, CNI_CODE_CONFIG, NULL,
				  "no prevResult: sluice-cni makes no network, list it after the "
				  "plugin that does");
}

static int add(const struct cni_env *env, const struct cni_config *config, char **ret,
	       struct cni_error *error)
{
	char why[ENROL_CLIENT_ERROR_MAX], *text;
	struct enrol_question q = {.op = "enroll", .netns = env->netns};
	OWNED_FD int netns_fd = -1;
	struct pod_ref pod;
	int r;

	if (chained(config, error) < 0 || read_pod(env, config, &pod, error) < 0 ||
	    open_sandbox(env->netns, &netns_fd, error) < 0)
		return -EINVAL;
	q.pod = pod.text;
	q.uid = pod.uid;
	q.service_account = pod.service_account;
	q.container = env->container_id;
	q.network = config->name;
	q.netns_fd = &netns_fd;
	r = agent_ask(config->agent_socket, &q, config->timeout_ms, why);
	if (r < 0)
		return not_done(r, CNI_CODE_REFUSED, why, "the pod is not enrolled", error);
	text = cni_print_result(config);
	if (!text)
		return cni_fail(error, CNI_CODE_IO, NULL, "out of memory");
	*ret = text;
	return 0;
}

/* By the container's id alone: what else there is may be wrong or missing by now. */
static int del(const struct cni_env *env, const struct cni_config *config)
{
	struct enrol_question q = {.op = "delete", .container = env->container_id};
	char why[ENROL_CLIENT_ERROR_MAX];

	q.timeout_ms = config->timeout_ms < DEL_TIMEOUT_MS ? config->timeout_ms : DEL_TIMEOUT_MS;
	if (enrol_ask(config->agent_socket, &q, why) < 0)
		log_warn(0, "DEL '%s': %s, ignoring: the agent forgets it with its namespace",
			 env->container_id, why);
	return 0;
}

static int check(const struct cni_env *env, const struct cni_config *config,
		 struct cni_error *error)
{
	struct enrol_question q = {.op = "check", .container = env->container_id};
	char why[ENROL_CLIENT_ERROR_MAX];
	struct pod_ref pod;
	int r;

	if (chained(config, error) < 0 || read_pod(env, config, &pod, error) < 0)
		return -EINVAL;
	q.pod = pod.text;
	q.service_account = pod.service_account;
	r = agent_ask(config->agent_socket, &q, config->timeout_ms, why);
	return r < 0 ? not_done(r, CNI_CODE_NOT_ENROLLED, why,
				"the pod is not captured as it should be", error)
		     : 0;
}

static int gc(const struct cni_config *config, struct cni_error *error)
{
	struct enrol_question q = {
		.op = "gc", .network = config->name, .timeout_ms = config->timeout_ms};
	OWNED(free_json) json_t *ids = NULL;
	char why[ENROL_CLIENT_ERROR_MAX];
	int r;

	r = cni_valid_containers(config, &ids, error);
	if (r < 0)
		return r == -ENOENT ? 0 : r; /* nobody said what is valid: nothing is stale */
	q.containers = ids;
	r = enrol_ask(config->agent_socket, &q, why);
	if (agent_may_answer_later(r)) {
		log_warn(0, "GC: %s, ignoring: the agent forgets pods with their namespaces", why);
		return 0;
	}
	return r < 0 ? not_done(r, CNI_CODE_REFUSED, why, "nothing was collected", error) : 0;
}

static int status(const struct cni_config *config, struct cni_error *error)
{
	struct enrol_question q = {.op = "status"};
	char why[ENROL_CLIENT_ERROR_MAX];

	q.timeout_ms =
		config->timeout_ms < STATUS_TIMEOUT_MS ? config->timeout_ms : STATUS_TIMEOUT_MS;
	return enrol_ask(config->agent_socket, &q, why) < 0
		       ? cni_fail(error, CNI_CODE_UNAVAILABLE, why,
				  "no pod can be enrolled at the moment")
		       : 0;
}

int plugin_run(const struct cni_env *env, const struct cni_config *config, char **ret,
	       struct cni_error *error)
{
	*ret = NULL;
	switch (env->command) {
	case CNI_ADD:
		return add(env, config, ret, error);
	case CNI_DEL:
		return del(env, config);
	case CNI_CHECK:
		return check(env, config, error);
	case CNI_GC:
		return gc(config, error);
	case CNI_STATUS:
		return status(config, error);
	case CNI_VERSION: /* is answered without a configuration */
	case CNI_N_:
		break;
	}
	return cni_fail(error, CNI_CODE_ENVIRONMENT, NULL, "unknown CNI_COMMAND");
}
