/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The other end of the enrolment socket, for sluicectl, sluice-init and the CNI plugin: jansson and
 * libc only. Any thread; does not log.
 */
#include <jansson.h>

#define ENROL_CLIENT_ERROR_MAX 256
#define ENROL_CLIENT_SKIPPED   1

/* One question (README.md has the protocol). All is borrowed; what is NULL is not sent. */
struct enrol_question {
	const char *op;
	const char *pod; /* "ns/name" */
	const char *service_account, *uid;
	const char *container, *network;
	const char *netns, *cgroup; /* paths as the agent sees them */
	const int *netns_fd;        /* sent along */
	json_t *containers;
	unsigned timeout_ms; /* for all of it; 0: 5 s */
};

/* Asks the agent behind `socket_path`, once. 0; ENROL_CLIENT_SKIPPED when it does not enforce
 * anything on that pod; or -errno with one line in `error` that says what to do:
 * -EAGAIN       it cannot tell yet
 * -EREMOTEIO    it refused
 * -ESRCH        it knows of no such pod
 * -ENOENT, -ECONNREFUSED, -ECONNRESET, -ETIMEDOUT  it is not there, or went away, or does not
 * answer -EMSGSIZE     the question is longer than the agent takes: it was not sent
 */
int enrol_ask(const char *socket_path, const struct enrol_question *question,
	      char error[static ENROL_CLIENT_ERROR_MAX]);

/* Asks the agent behind `socket_path` for `op` ("enroll", "unenroll", "check") and waits for its
 * answer, at most 5 s. `pod` is "ns/name"; `service_account` may be NULL; `netns_path` is opened
 * here and only needed to enroll. 0; or -errno with one line in `error` that says what to do.
 * -EREMOTEIO when the agent refused. Does not log.
 */
int enrol_request(const char *socket_path, const char *op, const char *pod,
		  const char *service_account, const char *netns_path,
		  char error[static ENROL_CLIENT_ERROR_MAX]);

/* The same for whoever sees other paths than the agent, in a container: sends the open namespace
 * (borrowed; only needed to enroll) and leaves it to the agent to find a path. -ESRCH when the
 * agent says that the pod it was to check is not enrolled at all.
 */
int enrol_request_within(const char *socket_path, const char *op, const char *pod,
			 const char *service_account, int netns_fd,
			 char error[static ENROL_CLIENT_ERROR_MAX]);

/* Enrolls a pod on the host's network by the folder of its cgroup, as the agent sees it. */
int enrol_request_cgroup(const char *socket_path, const char *pod, const char *service_account,
			 const char *cgroup_path, char error[static ENROL_CLIENT_ERROR_MAX]);
