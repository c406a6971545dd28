/* SPDX-License-Identifier: Apache-2.0 */
#include "guard/hostnet.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "abi/hostnet.h"
#include "base/log.h"
#include "base/owned.h"
#include "guard/bpf_log.h"
#include "guard/bpf_ring.h"
#include "guard/hostnet_own.h"

#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71 /* Linux 5.14 */
#endif

struct hostnet {
	struct hostnet_pins pins;
	struct hostnet_load *load;
	struct hostnet_progs progs;
	struct hostnet_maps maps;
	struct bpf_ring *events;
	struct hostnet_hooks hooks;
	char pin_dir[]; /* as configured */
};

static void close_hostnet(struct hostnet **hostnet)
{
	hostnet_close(*hostnet);
}

/* ---- which cgroup ---- */

/* *ret_id is the inode of the folder, which is what the kernel calls the cgroup's id. */
static int open_cgroup(const char *path, uint64_t *ret_id)
{
	OWNED_FD int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NONBLOCK);
	struct statfs fs;
	struct stat st;

	if (fd < 0 || fstatfs(fd, &fs) < 0 || fstat(fd, &st) < 0)
		return -errno;
	if (fs.f_type != CGROUP2_SUPER_MAGIC)
		return -ENOTDIR;
	*ret_id = st.st_ino;
	return TAKE_FD(fd);
}

static bool lists_us(const char *procs)
{
	FILE *f = fopen(procs, "re");
	bool found = false;
	long pid;

	while (f && !found && fscanf(f, "%ld", &pid) == 1)
		found = pid == getpid();
	if (f)
		fclose(f);
	return found;
}

/* What the agent dials for others would come back to it. */
static bool holds_us(const char *path)
{
	char copy[GUARD_PATH_MAX], procs[GUARD_PATH_MAX + 16];
	char *paths[] = {copy, NULL};
	bool found = false;
	FTS *walk;
	FTSENT *e;

	snprintf(copy, sizeof(copy), "%s", path);
	walk = fts_open(paths, FTS_PHYSICAL | FTS_NOCHDIR | FTS_XDEV, NULL);
	while (walk && !found && (e = fts_read(walk))) {
		if (e->fts_info != FTS_D)
			continue;
		snprintf(procs, sizeof(procs), "%.500s/cgroup.procs", e->fts_path);
		found = lists_us(procs);
	}
	if (walk)
		fts_close(walk);
	return found;
}

/* ---- opening ---- */

/* Without it nobody can say which network namespace an accepted connection is in. */
static int ask_netns_cookie(char error[static HOSTNET_ERROR_MAX])
{
	OWNED_FD int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	uint64_t cookie;
	socklen_t len = sizeof(cookie);

	if (fd >= 0 && getsockopt(fd, SOL_SOCKET, SO_NETNS_COOKIE, &cookie, &len) == 0)
		return 0;
	return guard_fail(-EOPNOTSUPP, error, "SO_NETNS_COOKIE (Linux 5.14) is missing: %s",
			  strerrordesc_np(errno));
}

static void take_up(void *ctx, uint64_t id)
{
	struct hostnet *h = ctx;
	int r = hostnet_links_renew(&h->pins, &h->progs, id);

	if (r == -ENOENT)
		hostnet_remove(h, id);
	else if (r < 0)
		log_warn(r, "cannot renew the programs on cgroup %" PRIu64, id);
}

static struct hostnet_event event_of(const struct hostnet_report *report)
{
	struct hostnet_event event = {
		.cgroup = report->cgroup,
		.proto = report->proto,
		.table_full = report->why == HOSTNET_WHY_FULL,
		.dst.port = ntohs(report->dport),
		.suppressed = report->suppressed,
	};

	memcpy(event.dst.ip, report->dst, sizeof(event.dst.ip));
	return event;
}

static void on_report(void *ctx, const void *record)
{
	const struct hostnet *h = ctx;
	struct hostnet_event event = event_of(record);

	if (h->hooks.on_event)
		h->hooks.on_event(h->hooks.ctx, &event);
}

static int open_all(struct hostnet *h, struct loop *loop, const struct hostnet_config *config,
		    const struct hostnet_hooks *hooks, char error[static HOSTNET_ERROR_MAX])
{
	int r;

	r = ask_netns_cookie(error);
	if (r == 0)
		r = hostnet_pins_open(config->pin_dir, &h->pins, error);
	if (r == 0)
		r = hostnet_load_open(&h->load, &h->pins, config->capture_port, &h->progs, &h->maps,
				      error);
	if (r < 0)
		return r;
	hostnet_tables_sweep(&h->maps);
	h->hooks = *hooks;
	r = bpf_ring_new(&h->events, loop, h->maps.reports, sizeof(struct hostnet_report),
			 on_report, h);
	if (r < 0)
		return guard_fail(r, error, "cannot read events: %s", strerrordesc_np(-r));
	/* What was set aside stays in force, and leads nowhere, until its cgroup is added again. */
	hostnet_pins_each_cgroup(&h->pins, take_up, h);
	return 0;
}

int hostnet_open(struct hostnet **ret, struct loop *loop, const struct hostnet_config *config,
		 const struct plan *plan, const struct hostnet_hooks *hooks)
{
	size_t n = strlen(config->pin_dir) + 1;
	OWNED(close_hostnet) struct hostnet *h = calloc(1, sizeof(*h) + n);
	char error[HOSTNET_ERROR_MAX] = "";
	int r;

	if (!h)
		return log_err(-ENOMEM, "cannot prepare for pods on the host's network");
	memcpy(h->pin_dir, config->pin_dir, n);
	bpf_log_start();
	r = open_all(h, loop, config, hooks, error);
	if (r < 0) {
		log_warn(0, "pods on the host's network cannot be captured: %s",
			 error[0] ? error : strerrordesc_np(-r));
		return r;
	}
	r = hostnet_set_cluster(h, plan);
	if (r < 0)
		return log_err(r,
			       "cannot write the cluster networks for pods on the host's network");
	*ret = TAKE_PTR(h);
	return 0;
}

void hostnet_close(struct hostnet *hostnet)
{
	if (!hostnet)
		return;
	bpf_ring_free(hostnet->events);
	hostnet_load_close(hostnet->load);
	free(hostnet);
}

int hostnet_set_cluster(struct hostnet *hostnet, const struct plan *plan)
{
	struct guard_maps nets = {.net4 = hostnet->maps.net4, .net6 = hostnet->maps.net6};

	return guard_nets_set(&nets, plan);
}

/* ---- cgroups ---- */

struct seen {
	uint64_t id;
	bool found;
};

static void look_for(void *ctx, uint64_t id)
{
	struct seen *seen = ctx;

	seen->found |= id == seen->id;
}

static bool has_room(const struct hostnet *h, uint64_t id)
{
	struct seen seen = {.id = id};

	return hostnet_pins_each_cgroup(&h->pins, look_for, &seen) < HOSTNET_MAX_CGROUPS ||
	       seen.found;
}

static void detach_old(void *ctx, const struct hostnet_pins *pins)
{
	hostnet_links_detach(pins, *(const uint64_t *)ctx);
}

int hostnet_add(struct hostnet *hostnet, const char *cgroup_path, uint64_t *ret_id,
		char error[static HOSTNET_ERROR_MAX])
{
	uint64_t id = 0;
	OWNED_FD int fd = open_cgroup(cgroup_path, &id);
	bool fresh = false;
	int r;

	if (fd < 0)
		return guard_fail(fd, error, "'%.120s' is no folder of a cgroup2 file system: %s",
				  cgroup_path, strerrordesc_np(-fd));
	if (holds_us(cgroup_path))
		return guard_fail(-EBUSY, error,
				  "the agent itself is in cgroup '%.120s', and would capture what "
				  "it sends for others",
				  cgroup_path);
	if (!has_room(hostnet, id))
		return guard_fail(-ENOSPC, error, "%d cgroups are captured, which is the limit",
				  HOSTNET_MAX_CGROUPS);
	r = hostnet_links_attach(&hostnet->pins, &hostnet->progs, fd, id, &fresh, error);
	if (r < 0)
		return r;
	r = hostnet_tables_begin(&hostnet->maps, id, fresh);
	if (r < 0)
		return guard_fail(r, error, "cannot tell the programs on '%.120s' to begin: %s",
				  cgroup_path, strerrordesc_np(-r));
	hostnet_pins_each_version(hostnet->pin_dir, &hostnet->pins, detach_old, &id);
	*ret_id = id;
	return 0;
}

int hostnet_verify(struct hostnet *hostnet, const char *cgroup_path)
{
	uint64_t id = 0;
	OWNED_FD int fd = open_cgroup(cgroup_path, &id);
	int r;

	if (fd < 0)
		return fd;
	r = hostnet_links_check(&hostnet->pins, &hostnet->progs, id);
	return r < 0 ? r : hostnet_tables_check(&hostnet->maps, id);
}

int hostnet_remove(struct hostnet *hostnet, uint64_t id)
{
	int r = hostnet_links_detach(&hostnet->pins, id);

	hostnet_pins_each_version(hostnet->pin_dir, &hostnet->pins, detach_old, &id);
	hostnet_tables_forget(&hostnet->maps, id);
	return r;
}

struct keeping {
	struct hostnet *hostnet;
	const uint64_t *ids;
	size_t n;
	int worst;
};

static void drop_other(void *ctx, uint64_t id)
{
	struct keeping *k = ctx;
	int r;

	for (size_t i = 0; i < k->n; i++) {
		if (k->ids[i] == id)
			return;
	}
	r = hostnet_remove(k->hostnet, id);
	if (r < 0)
		k->worst = log_err(r, "cannot release cgroup %" PRIu64, id);
	else
		log_info("released cgroup %" PRIu64 ": no pod that is enrolled has it", id);
}

static void detach_one(void *ctx, uint64_t id)
{
	hostnet_links_detach(ctx, id);
}

static void drop_version(void *ctx, const struct hostnet_pins *pins)
{
	struct hostnet_pins copy = *pins;
	int *worst = ctx, r;

	hostnet_pins_each_cgroup(pins, detach_one, &copy);
	r = hostnet_pins_remove(pins);
	if (r < 0)
		*worst = log_err(r, "cannot take away all of '%s'", pins->dir);
}

int hostnet_keep_only(struct hostnet *hostnet, const uint64_t ids[], size_t n)
{
	struct keeping k = {.hostnet = hostnet, .ids = ids, .n = n};

	hostnet_pins_each_cgroup(&hostnet->pins, drop_other, &k);
	hostnet_pins_each_version(hostnet->pin_dir, &hostnet->pins, drop_version, &k.worst);
	return k.worst;
}

int hostnet_uninstall(const struct hostnet_config *config)
{
	int worst = 0;

	bpf_log_start();
	hostnet_pins_each_version(config->pin_dir, NULL, drop_version, &worst);
	hostnet_pins_tidy(config->pin_dir);
	return worst;
}

/* ---- origins ---- */

/* An entry can be of a connection with the same peer that came before: it counts only while this
 * one is alive, for then there is no other; and what its client has closed is not open here.
 */
static int check_alive(int fd, const struct hostnet_origin *origin)
{
	struct tcp_info info;
	socklen_t len = sizeof(info);

	if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) < 0)
		return -errno;
	if (origin->flags & HOSTNET_CLOSED)
		return info.tcpi_state == TCP_CLOSE_WAIT ? 0 : -ESTALE;
	return info.tcpi_state == TCP_CLOSE ? -ENOENT : 0;
}

int hostnet_origin(struct hostnet *hostnet, int fd, const struct addr *peer, uint64_t *ret_id,
		   struct addr *ret_dst)
{
	struct hostnet_key key = {.port = peer->port};
	struct hostnet_origin origin;
	socklen_t len = sizeof(key.netns);
	uint64_t netns;
	int r;

	if (getsockopt(fd, SOL_SOCKET, SO_NETNS_COOKIE, &netns, &len) < 0)
		return -errno;
	key.netns = netns;
	memcpy(key.ip, peer->ip, sizeof(key.ip));
	r = bpf_map_lookup_elem(hostnet->maps.origins, &key, &origin);
	if (r == 0)
		r = check_alive(fd, &origin);
	if (r < 0 && r != -ESTALE)
		return r;
	bpf_map_delete_elem(hostnet->maps.origins, &key);
	if (r == -ESTALE)
		return -ENOENT;
	*ret_id = origin.cgroup;
	*ret_dst = (struct addr){.port = ntohs(origin.dport)};
	memcpy(ret_dst->ip, origin.dst, sizeof(ret_dst->ip));
	return 0;
}
