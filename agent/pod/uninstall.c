/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/owned.h"
#include "guard/forward.h"
#include "guard/hostnet.h"
#include "pod/inside.h"
#include "pod/pods_own.h"

struct removal {
	int worst;
};

/* Rules of the back end that captured it; nothing when its namespace is gone. */
static int open_pod(const struct pod_state *state, char error[static INSIDE_ERROR_MAX])
{
	OWNED_FD int fd = state->by_cgroup ? -1 : pod_open_netns(state);
	int r = 0;

	if (fd < 0 || state->backend == REDIRECT_EBPF)
		return 0;
	if (state->backend != REDIRECT_IPTABLES)
		r = inside_remove(fd, &redirect_nft, error);
	if (r == 0 && state->backend != REDIRECT_NFTABLES)
		r = inside_remove(fd, &redirect_ipt, error);
	return r;
}

static void on_file(void *ctx, const char *path)
{
	OWNED(pod_state_done) struct pod_state state = {0};
	char error[INSIDE_ERROR_MAX];
	struct removal *to = ctx;
	const char *why = "";
	int r;

	r = state_read(path, &state, &why);
	if (r < 0) {
		to->worst =
			log_err(r, "the state of a pod in '%s' cannot be read %s: its rules stay",
				path, why);
		return;
	}
	r = open_pod(&state, error);
	if (r < 0) {
		to->worst = r;
		log_err(0, "pod '%s/%s': %s", state.pod.ns, state.pod.name, error);
		return;
	}
	if (unlink(path) < 0 && errno != ENOENT)
		to->worst = log_err(-errno, "cannot remove '%s'", path);
	else
		log_info("pod '%s/%s' is not enrolled any more", state.pod.ns, state.pod.name);
}

static void note(int r, const char *what, int *worst)
{
	if (r < 0)
		*worst = log_err(r, "cannot take %s away", what);
}

int pods_uninstall(const struct pods_config *config)
{
	struct hostnet_config hc = {.pin_dir = config->guard->pin_dir,
				    .capture_port = config->guard->capture_port};
	struct removal to = {0};
	OWNED_MEM char *dir = NULL;

	if (asprintf(&dir, "%s/pods", config->state_dir) < 0) {
		dir = NULL; /* undefined after a failure */
		return -ENOMEM;
	}
	note(state_list(dir, on_file, &to), "the pods' state", &to.worst);
	note(guard_uninstall(config->guard), "the guards", &to.worst);
	note(hostnet_uninstall(&hc), "what captures pods on the host's network", &to.worst);
	note(forward_uninstall(), "the node's second guard", &to.worst);
	note(steer_remove(config->steer), "the route for steered packets", &to.worst);
	return to.worst;
}
