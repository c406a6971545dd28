/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Asks every gateway endpoint each second whether it takes connections: TCP connect, a PROXY v2
 * LOCAL header, then the end of the stream. An orderly end is health; a reset, a refusal or silence
 * is not. Control thread.
 */
#include "net/loop.h"
#include "tunnel/gateways.h"

struct prober;

int prober_new(struct prober **ret, struct loop *loop);

/* Probes these from now on; keeps a reference. Logs each change of health. -ENOMEM. */
int prober_set(struct prober *prober, struct gateways *gws);
void prober_free(struct prober *prober); /* NULL is fine */
