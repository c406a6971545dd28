/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What is done within a pod's network namespace. Every function moves the calling thread there and
 * back; none logs. What went wrong is in `error`, a text for the person who asked, when the result
 * is negative.
 */
#include <stdint.h>

#include "redirect/plan.h"
#include "redirect/redirector.h"

#define INSIDE_ERROR_MAX 256

/* Puts the rules in place (unless they are already), brings `lo` up and opens the listeners: rules
 * first, so that a connection made in between is refused and never goes out. *ret_cookie is 0 where
 * the kernel knows none. After a failure the rules may stay: the pod is closed then, not open.
 */
int inside_enrol(int netns_fd, const struct redirector *how, const struct plan *plan,
		 int ret_fds[2], uint64_t *ret_cookie, char error[static INSIDE_ERROR_MAX]);

/* Rules only: the pod reaches nothing. */
int inside_close(int netns_fd, const struct redirector *how, const struct plan *plan,
		 char error[static INSIDE_ERROR_MAX]);

/* 1: the rules were not as planned and have been put back. 0: they were. -errno. */
int inside_repair(int netns_fd, const struct redirector *how, const struct plan *plan,
		  char error[static INSIDE_ERROR_MAX]);

/* 0: the rules are as planned. -ESTALE: they are not. -errno. */
int inside_verify(int netns_fd, const struct redirector *how, const struct plan *plan,
		  char error[static INSIDE_ERROR_MAX]);

int inside_remove(int netns_fd, const struct redirector *how, char error[static INSIDE_ERROR_MAX]);

/* *ret is 0 where the kernel knows no cookies. */
int inside_cookie(int netns_fd, uint64_t *ret);
