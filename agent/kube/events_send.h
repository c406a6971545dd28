/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Sends Events to the API server, a few at a time. For the loop's thread, but for what says
 * otherwise.
 */
#include <stdint.h>

#include "kube/client.h"
#include "kube/kube.h"
#include "net/loop.h"

struct event_sender;

/* Client and loop are borrowed; `instance` is copied. -errno. */
int event_sender_new(struct event_sender **ret, struct kube_client *client, struct loop *loop,
		     const char *instance);

/* Before the client's end. What has not been sent is lost. NULL is fine. */
void event_sender_free(struct event_sender *sender);

/* Any thread, until event_sender_free() is called. Copies. */
void event_sender_post(struct event_sender *sender, const struct kube_event *event);

void event_sender_status(const struct event_sender *sender, uint64_t *ret_sent,
			 uint64_t *ret_dropped);
