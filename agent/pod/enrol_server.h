/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The agent's end of the enrolment socket (README.md has the protocol): reads requests, checks
 * their form and who sent them, and has them done. On one loop; every function is for its thread.
 */
#include <stdbool.h>

#include "net/loop.h"
#include "pod/pod_name.h"

#define ENROL_MESSAGE_MAX 4096
#define ENROL_ERROR_MAX   256

enum enrol_op {
	ENROL_OP_ENROLL,
	ENROL_OP_UNENROLL,
	ENROL_OP_CHECK,
	ENROL_OP_N_,
};

/* Borrowed for the call of the handler. */
struct enrol_request {
	enum enrol_op op;
	struct pod_name pod;
	const char *service_account; /* "" when not given */
	const char *netns;           /* absolute path; "" unless ENROLL */
	int netns_fd;                /* -1 unless ENROLL */
};

/* Does it, at once. 0, or -errno with a text for the person who asked. */
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
