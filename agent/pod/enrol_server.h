/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The agent's end of the enrolment socket (README.md has the protocol): reads requests, checks
 * their form and who sent them, and has them done. On one loop; every function is for its thread.
 */
#include <stdbool.h>

#include "net/loop.h"
#include "pod/enrol_limits.h"
#include "pod/pod_name.h"

#define ENROL_ERROR_MAX 256

enum enrol_op {
	ENROL_OP_ENROLL,
	ENROL_OP_UNENROLL,
	ENROL_OP_CHECK,
	ENROL_OP_DELETE,
	ENROL_OP_GC,
	ENROL_OP_STATUS,
	ENROL_OP_N_,
};

/* Borrowed for the call of the handler. */
struct enrol_request {
	enum enrol_op op;
	struct pod_name pod;         /* empty where DELETE names none, with GC and STATUS */
	const char *service_account; /* "" when not given */
	const char *netns;           /* absolute path, found here where none was sent; "" unless
					ENROLL */
	int netns_fd;                /* -1 unless ENROLL */
	const char *cgroup;      /* ENROLL of a pod on the host's network: absolute path; else "" */
	const char *container;   /* id of its sandbox, where a container runtime asks; else "" */
	const char *network;     /* the CNI network that asks; "" when not given */
	const char *uid;         /* of the pod; "" when not given */
	const char **containers; /* GC: those that are still there; else NULL */
	size_t n_containers;
};

/* Does it, at once. 0; 1 when the agent is not to enforce anything on this pod, and nothing was
 * done; or -errno with a text for the person who asked: -EAGAIN where it cannot decide yet, -ENOENT
 * from CHECK where it knows of no such pod.
 */
typedef int enrol_handler(void *ctx, const struct enrol_request *request,
			  char error[static ENROL_ERROR_MAX]);

struct enrol_server;

/* Makes the socket with mode 0600, in a folder that is made when it is missing. -EADDRINUSE when
 * another agent answers there; what a dead one left is replaced. Does not log, but for the debug
 * level. -errno.
 */
int enrol_server_new(struct enrol_server **ret, struct loop *loop, const char *path,
		     enrol_handler *handle, void *ctx);
void enrol_server_free(struct enrol_server *server); /* NULL is fine */
