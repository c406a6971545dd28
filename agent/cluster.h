/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The agent's side of the Kubernetes API: what kube/ knows on its thread becomes pods to enrol,
 * gateways and peers on the control thread, and what is refused becomes Events.
 */
#include "admin/access_log.h"
#include "kube/kube.h"
#include "pod/pod_name.h"
#include "resource/source.h"

struct agent;
struct cluster;
struct config;

/* Copies what it needs of the agent's configuration. Nothing runs before cluster_feed() is given to
 * the source. -ENOMEM.
 */
int cluster_new(struct cluster **ret, struct agent *agent);

/* Takes away what agents keep of the API on disk. Logs. -errno. */
int cluster_uninstall(const struct config *config);

/* When the source has stopped. NULL is fine. */
void cluster_free(struct cluster *cluster);

struct source_feed cluster_feed(struct cluster *cluster);

/* For pods_hooks.admit, proxy's observers and pods that were refused: any thread. */
int cluster_admit(struct cluster *cluster, const struct pod_name *pod, const char *uid,
		  char *service_account);
void cluster_denied(struct cluster *cluster, const struct access_record *record);

/* Control thread. */
void cluster_status(struct cluster *cluster, struct kube_status *ret);

/* The node is ready: the start-up taint may go, where configured. Control thread. */
void cluster_ready(struct cluster *cluster);

/* Endpoints of gateway `name` as the API has them; 0 where it has none (yet). Control thread. */
size_t cluster_endpoints(const struct cluster *cluster, const char *name, const struct addr **ret);
