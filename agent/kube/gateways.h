/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The endpoints of a gateway's Service, from its EndpointSlices or, on old servers, its Endpoints.
 * Pure.
 */
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/addr.h"

#define GATEWAY_PORT_NAME     "tunnel" /* where a Service has several ports */
#define GATEWAY_ENDPOINTS_MAX 64

/* As many of one object as are looked at; the API server lets no slice have more than 1,000. */
#define GATEWAY_SLICE_MAX 1024

struct gateway_name {
	char service[254], ns[64];
};

/* "NAME.NAMESPACE", "NAME.NAMESPACE.svc" or "NAME.NAMESPACE.svc.cluster.local". -EINVAL. */
int gateway_name_parse(const char *text, struct gateway_name *ret);

/* The ready endpoints of one EndpointSlice (discovery.k8s.io/v1, v1beta1) or Endpoints (v1) object,
 * with the number of the port that is named "tunnel", or the only one there is. What cannot be a
 * gateway's address (loopback, unspecified, link-local, multicast) is left out. Returns how many.
 */
size_t gateway_slice_read(const json_t *slice, struct addr ret[static GATEWAY_SLICE_MAX]);
size_t gateway_endpoints_read(const json_t *endpoints, struct addr ret[static GATEWAY_SLICE_MAX]);
