/* SPDX-License-Identifier: Apache-2.0 */
#include "guard/guard.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/owned.h"
#include "guard/guard_ops.h"

struct guard {
	enum guard_attach way;
	const struct guard_ops *ops;
	void *self;
	struct guard_config config; /* pin_dir is ours */
	char pin_dir[];
};

/* In the order in which they are tried. */
static const struct {
	const char *name;
	const struct guard_ops *ops;
} ways[] = {
	[GUARD_ATTACH_TCX] = {"tcx", &guard_ebpf_tcx},
	[GUARD_ATTACH_TC] = {"tc", &guard_ebpf_tc},
	[GUARD_ATTACH_NFTABLES] = {"nftables", &guard_netdev},
};
_Static_assert(ARRAY_SIZE(ways) == GUARD_ATTACH_N_, "every way has its operations");

/* ---- opening ---- */

static int open_way(struct guard *g, enum guard_attach way, struct loop *loop,
		    const struct plan *plan, const struct guard_hooks *hooks)
{
	char error[GUARD_ERROR_MAX] = "";
	int r = ways[way].ops->open(&g->self, loop, &g->config, plan, hooks, error);

	if (r < 0) {
		log_info("guard by '%s' does not work here: %s", ways[way].name,
			 error[0] ? error : strerrordesc_np(-r));
		return r;
	}
	g->way = way;
	g->ops = ways[way].ops;
	return 0;
}

/* -EOPNOTSUPP unless one way was asked for, which says best itself why it failed. */
static int open_first(struct guard *g, struct loop *loop, const struct plan *plan,
		      const struct guard_hooks *hooks)
{
	enum guard_attach want = g->config.attach;
	int r = -EOPNOTSUPP;

	if (want != GUARD_ATTACH_AUTO)
		return open_way(g, want, loop, plan, hooks);
	for (enum guard_attach way = GUARD_ATTACH_TCX; way < GUARD_ATTACH_N_; way++) {
		r = open_way(g, way, loop, plan, hooks);
		if (r == 0 || r == -ENOMEM)
			return r;
	}
	return -EOPNOTSUPP;
}

int guard_open(struct guard **ret, struct loop *loop, const struct guard_config *config,
	       const struct plan *plan, const struct guard_hooks *hooks)
{
	size_t n = strlen(config->pin_dir) + 1;
	OWNED_MEM struct guard *g = calloc(1, sizeof(*g) + n);
	int r;

	if (!g)
		return log_err(-ENOMEM, "cannot prepare a guard");
	if ((unsigned)config->attach >= GUARD_ATTACH_N_ || config->mark == 0)
		return log_err(-EINVAL, "cannot prepare a guard");
	g->config = *config;
	g->config.pin_dir = memcpy(g->pin_dir, config->pin_dir, n);
	r = open_first(g, loop, plan, hooks);
	if (r < 0)
		return log_err(0, "no guard can stand here: the reasons are above"), r;
	log_info("guard: '%s'%s%s", ways[g->way].name,
		 config->attach == GUARD_ATTACH_AUTO ? ", the first that works here" : "",
		 g->ops->can_steer ? "" : "; it cannot steer to the agent's listener");
	*ret = TAKE_PTR(g);
	return 0;
}

void guard_close(struct guard *guard)
{
	if (guard)
		guard->ops->close(guard->self);
	free(guard);
}

const char *guard_name(const struct guard *guard)
{
	return ways[guard->way].name;
}

bool guard_can_steer(const struct guard *guard)
{
	return guard->ops->can_steer;
}

/* ---- pods ---- */

int guard_add(struct guard *guard, const struct guard_pod_at *pod,
	      char error[static GUARD_ERROR_MAX])
{
	return guard->ops->add(guard->self, pod, error);
}

int guard_verify(struct guard *guard, const struct guard_pod_at *pod)
{
	return guard->ops->verify(guard->self, pod);
}

int guard_remove(struct guard *guard, uint32_t ifindex)
{
	return guard->ops->remove(guard->self, ifindex);
}

struct list {
	uint32_t *v;
	size_t n, room;
	bool failed;
};

static void note(void *ctx, uint32_t ifindex)
{
	struct list *list = ctx;

	for (size_t i = 0; i < list->n; i++) {
		if (list->v[i] == ifindex)
			return;
	}
	if (list->n == list->room) {
		uint32_t *more = realloc(list->v, (2 * list->room + 64) * sizeof(*more));

		if (!more) {
			list->failed = true;
			return;
		}
		list->v = more;
		list->room = 2 * list->room + 64;
	}
	list->v[list->n++] = ifindex;
}

static bool is_among(uint32_t ifindex, const uint32_t ifindexes[], size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (ifindexes[i] == ifindex)
			return true;
	}
	return false;
}

/* What stands guard by other means was put there by a former agent; the pods that are known are all
 * under this one by now.
 */
static void retire_others(struct guard *guard)
{
	const struct guard_ops *other =
		guard->way == GUARD_ATTACH_NFTABLES ? &guard_ebpf_tcx : &guard_netdev;
	int r = other->uninstall(&guard->config);

	if (r < 0)
		log_debug("guard: nothing of other ways could be taken away: %s",
			  strerrordesc_np(-r));
	if (guard->ops->settle)
		guard->ops->settle(guard->self);
}

int guard_keep_only(struct guard *guard, const uint32_t ifindexes[], size_t n)
{
	struct list list = {0};
	int r, worst = 0;

	r = guard->ops->list(guard->self, note, &list);
	for (size_t i = 0; i < list.n; i++) {
		if (is_among(list.v[i], ifindexes, n))
			continue;
		r = guard->ops->remove(guard->self, list.v[i]);
		if (r < 0)
			worst = log_err(r, "cannot take the guard off interface %u", list.v[i]);
		else
			log_info("took the guard off interface %u: no pod that is enrolled has it",
				 list.v[i]);
	}
	free(list.v);
	retire_others(guard);
	if (list.failed)
		return log_err(-ENOMEM, "cannot list guarded interfaces");
	return r < 0 && worst == 0 ? log_err(r, "cannot list guarded interfaces") : worst;
}

int guard_steer_to(struct guard *guard, int listen_fd)
{
	return guard->ops->steer_to ? guard->ops->steer_to(guard->self, listen_fd) : -EOPNOTSUPP;
}

int guard_set_cluster(struct guard *guard, const struct plan *plan)
{
	return guard->ops->set_cluster(guard->self, plan);
}

int guard_counts(struct guard *guard,
		 void (*each)(void *ctx, const struct guard_count_key *key,
			      const struct guard_count *count),
		 void *ctx)
{
	return guard->ops->counts(guard->self, each, ctx);
}

const char *guard_why_str(enum guard_why why)
{
	static const char *const names[] = {
		[GUARD_WHY_NONE] = "none",
		[GUARD_WHY_UNKNOWN_POD] = "unknown_pod",
		[GUARD_WHY_MALFORMED] = "malformed",
		[GUARD_WHY_ETHERTYPE] = "ethertype",
		[GUARD_WHY_VLAN] = "vlan",
		[GUARD_WHY_SPOOFED] = "spoofed",
		[GUARD_WHY_SOURCE_ROUTE] = "source_route",
		[GUARD_WHY_FRAGMENT] = "fragment",
		[GUARD_WHY_OUTSIDE] = "outside",
		[GUARD_WHY_PROTOCOL] = "protocol",
		[GUARD_WHY_NO_LISTENER] = "no_listener",
		[GUARD_WHY_FLOWS_FULL] = "flows_full",
	};
	_Static_assert(ARRAY_SIZE(names) == GUARD_WHY_N_, "every reason has a name");

	return (unsigned)why < GUARD_WHY_N_ ? names[why] : "unknown";
}

/* ---- uninstalling ---- */

static int uninstall(const struct guard_ops *ops, const struct guard_config *config,
		     const char *what)
{
	int r = ops->uninstall(config);

	return r < 0 ? log_err(r, "cannot take away all of the guard by %s", what) : 0;
}

int guard_uninstall(const struct guard_config *config)
{
	int ebpf = uninstall(&guard_ebpf_tcx, config, "eBPF");
	int netdev = uninstall(&guard_netdev, config, "nftables");

	return ebpf < 0 ? ebpf : netdev;
}
