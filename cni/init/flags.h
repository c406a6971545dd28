/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The flags that there are: istio-iptables' and a few of our own. */
#include <stdbool.h>

#include "init/value.h"

#define FLAG_NAMES_MAX 2

enum init_flag {
	INIT_ENVOY_PORT,
	INIT_INBOUND_CAPTURE_PORT,
	INIT_INBOUND_TUNNEL_PORT,
	INIT_PROXY_UID,
	INIT_PROXY_GID,
	INIT_INBOUND_MODE,
	INIT_INBOUND_PORTS,
	INIT_INBOUND_EXCLUDE_PORTS,
	INIT_EXCLUDE_INTERFACES,
	INIT_INCLUDE_CIDRS,
	INIT_EXCLUDE_CIDRS,
	INIT_OUTBOUND_PORTS,
	INIT_OUTBOUND_EXCLUDE_PORTS,
	INIT_VIRT_INTERFACES,
	INIT_TPROXY_MARK,
	INIT_TPROXY_TABLE,
	INIT_DRY_RUN,
	INIT_PROBE_PORT,
	INIT_PROBE_TIMEOUT,
	INIT_SKIP_RULE_APPLY,
	INIT_RUN_VALIDATION,
	INIT_REDIRECT_DNS,
	INIT_CAPTURE_ALL_DNS,
	INIT_DROP_INVALID,
	INIT_DUAL_STACK,
	INIT_NETWORK_NAMESPACE,
	INIT_CNI_MODE,
	INIT_RECONCILE,
	INIT_CLEANUP_ONLY,
	INIT_FORCE_APPLY,
	INIT_NATIVE_NFTABLES,
	INIT_FORCE_IPTABLES_BINARY,

	/* of older releases */
	INIT_RESTORE_FORMAT,
	INIT_TRACE_LOGGING,
	INIT_HOST_NSENTER,

	/* by environment only */
	INIT_LOOPBACK_CIDR,
	INIT_OWNER_GROUPS,
	INIT_OWNER_GROUPS_EXCLUDE,

	/* every Istio command's log flags */
	INIT_LOG_OUTPUT_LEVEL,
	INIT_LOG_AS_JSON,
	INIT_LOG_CALLER,
	INIT_LOG_ROTATE,
	INIT_LOG_ROTATE_MAX_AGE,
	INIT_LOG_ROTATE_MAX_BACKUPS,
	INIT_LOG_ROTATE_MAX_SIZE,
	INIT_LOG_STACKTRACE_LEVEL,
	INIT_LOG_TARGET,
	INIT_VKLOG,

	/* ours */
	INIT_AGENT_SOCKET,
	INIT_AGENT_TIMEOUT,
	INIT_CLUSTER_CIDRS,
	INIT_POD,
	INIT_SERVICE_ACCOUNT,
	INIT_HELP,
	INIT_FLAG_N_,
};

struct flag {
	const char *name; /* NULL: by environment only */
	char letter;
	bool automatic; /* the environment's name is the flag's, in upper case, with _ for - */
	enum value_kind kind;
	const char *fallback;
	const char *names[FLAG_NAMES_MAX]; /* others in the environment, the first one wins */
	const char *help;
};

extern const struct flag init_flags[INIT_FLAG_N_];

/* What --help prints; for the caller to free. NULL when out of memory. */
char *init_help(void);
