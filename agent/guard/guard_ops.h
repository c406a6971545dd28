/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A way of standing guard, behind guard.h; each function means what its namesake there does. `self`
 * is what open() gave. None logs above debug level; `error` says what a person can do about it.
 */
#include "guard/guard.h"

struct guard_ops {
	bool can_steer;
	/* -EOPNOTSUPP: this kernel, or what confines us, does not let us. */
	int (*open)(void **ret, struct loop *loop, const struct guard_config *config,
		    const struct plan *plan, const struct guard_hooks *hooks,
		    char error[static GUARD_ERROR_MAX]);
	int (*add)(void *self, const struct guard_pod_at *pod, char error[static GUARD_ERROR_MAX]);
	int (*verify)(void *self, const struct guard_pod_at *pod);
	int (*remove)(void *self, uint32_t ifindex);
	/* What is in force for any interface, ours or a former agent's. */
	int (*list)(void *self, void (*each)(void *ctx, uint32_t ifindex), void *ctx);
	int (*steer_to)(void *self, int listen_fd); /* NULL: cannot steer */
	int (*set_cluster)(void *self, const struct plan *plan);
	int (*counts)(void *self,
		      void (*each)(void *ctx, const struct guard_count_key *key,
				   const struct guard_count *count),
		      void *ctx);
	/* All pods are known again: what older versions of this way left may go. NULL: nothing. */
	void (*settle)(void *self);
	void (*close)(void *self);
	int (*uninstall)(const struct guard_config *config);
};

extern const struct guard_ops guard_ebpf_tcx; /* guard_ebpf.c */
extern const struct guard_ops guard_ebpf_tc;
extern const struct guard_ops guard_netdev; /* guard_netdev.c */
