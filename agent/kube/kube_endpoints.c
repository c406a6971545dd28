/* SPDX-License-Identifier: Apache-2.0 */
#include "kube/kube_own.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/owned.h"
#include "kube/kube_json.h"
#include "kube/nodes.h"

#define GATEWAYS_MAX 64 /* as many watches as one agent may cost the API server */

/* As many addresses as nodes are told of: 5,000 nodes are what Kubernetes promises to carry. */
#define NODES_ADDRS_MAX 65536

/* No EndpointSlice is named so. */
#define ENDPOINTS_ROW "/endpoints"

/* ---- endpoints of gateways ---- */

static void change_gateway(struct gateway_watch *w)
{
	w->changed = true;
	if (w->synced)
		kube_fold_later(w->kube);
}

static void put_gateway(struct gateway_watch *w, const char *row, const struct addr *addrs,
			size_t n)
{
	int r = addr_store_put(&w->addrs, row, addrs, n);

	if (r < 0)
		log_err(r, "cannot keep endpoints of gateway '%s'", w->text);
	change_gateway(w);
}

static void on_slice(void *ctx, json_t *object)
{
	struct addr addrs[GATEWAY_SLICE_MAX];

	put_gateway(ctx, kube_json_name(object), addrs, gateway_slice_read(object, addrs));
}

static void on_slice_deleted(void *ctx, const char *ns, const char *name)
{
	struct gateway_watch *w = ctx;

	(void)ns;
	addr_store_remove(&w->addrs, name);
	change_gateway(w);
}

static void on_endpoints(void *ctx, json_t *object)
{
	struct addr addrs[GATEWAY_SLICE_MAX];

	put_gateway(ctx, ENDPOINTS_ROW, addrs, gateway_endpoints_read(object, addrs));
}

static void on_endpoints_deleted(void *ctx, const char *ns, const char *name)
{
	(void)name;
	on_slice_deleted(ctx, ns, ENDPOINTS_ROW);
}

static void on_gateway_synced(void *ctx)
{
	struct gateway_watch *w = ctx;

	w->synced = true;
	change_gateway(w);
}

static void watch_endpoints(struct gateway_watch *w)
{
	const struct reflector_hooks hooks = {w, on_endpoints, on_endpoints_deleted,
					      on_gateway_synced, NULL};
	struct reflector_config config = {
		.group = "",
		.versions = (const char *const[]){"v1", NULL},
		.resource = "endpoints",
		.ns = w->name.ns,
	};
	char selector[sizeof(w->name.service) + 16];
	int r;

	snprintf(selector, sizeof(selector), "metadata.name=%s", w->name.service);
	config.field_selector = selector;
	r = reflector_new(&w->endpoints, w->kube->client, w->kube->loop, &config, &hooks);
	if (r < 0)
		log_err(r, "cannot watch the endpoints of gateway '%s'", w->text);
}

/* Servers before Kubernetes 1.17 have Endpoints only. */
static void on_slices_synced(void *ctx)
{
	struct gateway_watch *w = ctx;
	struct reflector_status status;

	reflector_status(w->slices, &status);
	if (status.served) {
		reflector_free(w->endpoints);
		w->endpoints = NULL;
		addr_store_remove(&w->addrs, ENDPOINTS_ROW);
		on_gateway_synced(w);
	} else if (!w->endpoints) {
		watch_endpoints(w);
	}
}

static int watch_slices(struct gateway_watch *w)
{
	const struct reflector_hooks hooks = {w, on_slice, on_slice_deleted, on_slices_synced,
					      NULL};
	struct reflector_config config = {
		.group = "discovery.k8s.io",
		.versions = (const char *const[]){"v1", "v1beta1", NULL},
		.resource = "endpointslices",
		.ns = w->name.ns,
	};
	char selector[sizeof(w->name.service) + 32];

	snprintf(selector, sizeof(selector), "kubernetes.io/service-name=%s", w->name.service);
	config.label_selector = selector;
	return reflector_new(&w->slices, w->kube->client, w->kube->loop, &config, &hooks);
}

/* ---- nodes ---- */

static void change_nodes(struct kube *kube)
{
	kube->nodes.changed = true;
	if (kube->nodes.synced)
		kube_fold_later(kube);
}

static void on_node(void *ctx, json_t *object)
{
	struct addr addrs[NODE_ADDRS_MAX];
	struct kube *kube = ctx;
	int r = addr_store_put(&kube->nodes.addrs, kube_json_name(object), addrs,
			       node_read(object, addrs));

	if (r < 0)
		log_err(r, "cannot keep the addresses of node '%s'", kube_json_name(object));
	change_nodes(kube);
}

static void on_node_deleted(void *ctx, const char *ns, const char *name)
{
	struct kube *kube = ctx;

	(void)ns;
	addr_store_remove(&kube->nodes.addrs, name);
	change_nodes(kube);
}

static void on_nodes_synced(void *ctx)
{
	struct kube *kube = ctx;

	kube->nodes.synced = true;
	change_nodes(kube);
}

static int watch_nodes(struct kube *kube)
{
	const struct reflector_hooks hooks = {kube, on_node, on_node_deleted, on_nodes_synced,
					      NULL};
	const struct reflector_config config = {
		.group = "",
		.versions = (const char *const[]){"v1", NULL},
		.resource = "nodes",
	};

	return reflector_new(&kube->nodes.reflector, kube->client, kube->loop, &config, &hooks);
}

/* ---- telling ---- */

static bool settle(struct kube *kube, struct addr_store *addrs, size_t max, bool synced,
		   bool *changed, bool *news)
{
	int r = 0;

	if (synced && *changed) {
		r = addr_store_settle(addrs, max);
		if (r < 0)
			log_err(r, "cannot tell of new addresses");
		if (r > 0)
			kube_saver_touch(kube->saver);
		*changed = r < 0;
	}
	if (r <= 0 && !*news)
		return false;
	*news = false;
	return true;
}

void kube_endpoints_fold(struct kube *kube)
{
	struct node_watch *nodes = &kube->nodes;

	for (size_t i = 0; i < kube->n_gateways; i++) {
		struct gateway_watch *w = &kube->gateways[i];

		if (settle(kube, &w->addrs, GATEWAY_ENDPOINTS_MAX, w->synced, &w->changed,
			   &w->news))
			kube->hooks.on_gateway(kube->hooks.ctx,
					       &(struct kube_gateway){
						       .name = w->text,
						       .endpoints = w->addrs.told,
						       .n_endpoints = w->addrs.n_told,
					       });
	}
	if (nodes->reflector && /* or nobody wants to know what the cache knows */
	    settle(kube, &nodes->addrs, NODES_ADDRS_MAX, nodes->synced, &nodes->changed,
		   &nodes->news))
		kube->hooks.on_nodes(kube->hooks.ctx, nodes->addrs.told, nodes->addrs.n_told);
}

/* ---- their life ---- */

static int init_gateway(struct kube *kube, struct gateway_watch *w, const char *text)
{
	w->kube = kube;
	if (gateway_name_parse(text, &w->name) < 0)
		return log_err(-EINVAL,
			       "gateway '%s' is no name of a Service: write NAME.NAMESPACE or "
			       "NAME.NAMESPACE.svc.cluster.local",
			       text);
	w->text = strdup(text);
	return w->text ? addr_store_init(&w->addrs) : -ENOMEM;
}

int kube_endpoints_init(struct kube *kube, const struct kube_options *options)
{
	int r = options->n_gateways > GATEWAYS_MAX ? -E2BIG : 0;

	if (r < 0)
		return log_err(r, "there are more than %d gateways", GATEWAYS_MAX);
	kube->gateways = calloc(options->n_gateways + 1, sizeof(*kube->gateways));
	if (!kube->gateways)
		return -ENOMEM;
	kube->n_gateways = options->n_gateways;
	for (size_t i = 0; i < options->n_gateways && r == 0; i++)
		r = init_gateway(kube, &kube->gateways[i], options->gateways[i]);
	return r < 0 ? r : addr_store_init(&kube->nodes.addrs);
}

int kube_endpoints_open(struct kube *kube, const struct kube_options *options)
{
	int r = 0;

	for (size_t i = 0; i < kube->n_gateways && r == 0; i++)
		r = watch_slices(&kube->gateways[i]);
	if (r == 0 && options->nodes)
		r = watch_nodes(kube);
	return r;
}

void kube_endpoints_close(struct kube *kube)
{
	for (size_t i = 0; i < kube->n_gateways; i++) {
		struct gateway_watch *w = &kube->gateways[i];

		reflector_free(w->slices);
		reflector_free(w->endpoints);
		addr_store_done(&w->addrs);
		free(w->text);
	}
	free(kube->gateways);
	reflector_free(kube->nodes.reflector);
	addr_store_done(&kube->nodes.addrs);
}
