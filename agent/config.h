/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Every setting of an agent, its default and its bounds, in one struct. Immutable once loaded,
 * shared by reference; strings and arrays belong to it.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/addr.h"
#include "guard/guard.h"
#include "kube/kube.h"
#include "redirect/backend.h"
#include "registry/decide.h"

enum role {
	ROLE_NODE,
	ROLE_GATEWAY,
};

enum tunnel_mode {
	TUNNEL_PLAINTEXT,
	TUNNEL_MUTUAL, /* known, and refused until it is built */
};

enum guard_mode {
	GUARD_REQUIRED,
	GUARD_OPTIONAL, /* a pod that no guard can be put around is enrolled all the same */
};

enum log_encoding {
	LOG_ENCODING_JSON,
	LOG_ENCODING_TEXT,
};

struct config_gateway {
	const char *name;
	const struct addr *endpoints;
	size_t n_endpoints; /* 0: those of the Service of that name, from the Kubernetes API */
};

struct config {
	const char *path; /* the file it came from */
	enum role role;
	const char *node_name;    /* default: the environment's NODE_NAME, else the host's name */
	const char *trust_domain; /* cluster.local */
	const struct cidr *cluster_cidrs;
	size_t n_cluster_cidrs;
	enum outbound_mode outbound_mode; /* REGISTRY_ONLY */

	const char *const *registry_files; /* absolute: resolved against the folder of `path` */
	size_t n_registry_files;

	struct {
		bool enabled;
		const char *kubeconfig; /* absolute; NULL or "": in the cluster */
	} kubernetes;                   /* registry.kubernetes */

	const struct config_gateway *gateways; /* Node: 1 or more */
	size_t n_gateways;

	struct {
		enum tunnel_mode mode;
		bool handoff;
		const struct addr *listen; /* Gateway: 0.0.0.0:15443 and [::]:15443 by default */
		size_t n_listen;
		const char *certificate, *private_key, *trust_bundle; /* absolute or NULL */
		bool nodes_only; /* nodesOnly, Gateway: who is no node of the cluster is refused */
	} tunnel;

	struct {
		const struct addr *source_ips; /* port 0; none: the kernel chooses */
		size_t n_source_ips;
		const struct addr *resolvers; /* none: the system's */
		size_t n_resolvers;
		const struct cidr *allowed_private_cidrs;
		size_t n_allowed_private_cidrs;
	} egress;

	struct {
		enum redirect_backend backend;
		uint32_t mark;     /* 16: of steered packets; a rule of the node matches it */
		uint32_t table;    /* routeTable, 15001: the node's routing table for them */
		uint32_t priority; /* rulePriority, 90: of that rule */
	} redirect;
	struct {
		enum guard_mode mode;     /* also `guard: optional` */
		enum guard_attach attach; /* auto */
		const char *pin_dir;      /* pinDir, /sys/fs/bpf/sluice: in a bpffs */
		uint32_t inbound_flows;   /* inboundFlows, 2048: of one pod, from outside the
					     cluster, at once */
		bool dhcp;                /* pods may ask for an address */
	} guard;
	struct {
		const char *socket;    /* /run/sluice/agent.sock */
		const char *state_dir; /* /var/lib/sluice */
		/* With Kubernetes, of pods that the CNI plugin or the API brings: */
		enum enrol_mode mode;        /* labelled */
		const char *const *excluded; /* excludedNamespaces: kube-system, sluice-system */
		size_t n_excluded;
		bool startup_taint; /* startupTaint: take sluice.io/agent-not-ready off the node */
	} enrol;

	unsigned workers; /* 0: one per CPU */

	struct {
		uint64_t connections;         /* 0: derived from RLIMIT_NOFILE */
		uint64_t connections_per_pod; /* connectionsPerPod; 0: half of connections */
		uint32_t hello_bytes;         /* 65536; 1 KiB to 1 MiB */
		uint64_t hello_timeout_ms;    /* 5s */
		uint64_t connect_timeout_ms;  /* 5s: the whole way to the destination */
		uint64_t idle_timeout_ms;     /* 1h */
		uint64_t drain_timeout_ms;    /* drainTimeout, 20s: Gateway, after SIGTERM */
		uint64_t deregister_grace_ms; /* deregisterGrace, 0s: live connections of such hosts
					       */
	} limits;

	struct {
		const char *socket;          /* /run/sluice/admin.sock */
		struct addr metrics, health; /* :15020, :15021 */
		bool metrics_on, health_on;  /* false where the text was "" */
	} admin;

	struct {
		const char *file; /* /dev/stdout */
		enum log_encoding encoding;
	} access_log;
};

/* Reads and validates a file. Logs every error it finds, each with file, line, field and what to
 * do. -EINVAL, or -errno of reading. One reference, for the caller.
 */
int config_load(const char *path, const struct config **ret);

const struct config *config_ref(const struct config *config);
void config_unref(const struct config *config); /* NULL is fine; any thread */

/* The configuration in force, defaults filled in, as JSON text; for the caller to free. -ENOMEM. */
int config_print(const struct config *config, char **ret);
