/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The other end of the enrolment socket, for sluicectl and the CNI plugin: jansson and libc only.
 */
#define ENROL_CLIENT_ERROR_MAX 256

/* Asks the agent behind `socket_path` for `op` ("enroll", "unenroll", "check") and waits for its
 * answer, at most 5 s. `pod` is "ns/name"; `service_account` may be NULL; `netns_path` is opened
 * here and only needed to enroll. 0; or -errno with one line in `error` that says what to do.
 * -EREMOTEIO when the agent refused. Does not log.
 */
int enrol_request(const char *socket_path, const char *op, const char *pod,
		  const char *service_account, const char *netns_path,
		  char error[static ENROL_CLIENT_ERROR_MAX]);
