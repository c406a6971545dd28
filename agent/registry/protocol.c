/* SPDX-License-Identifier: Apache-2.0 */
#include "registry/registry.h"

#include <errno.h>
#include <strings.h>

#include "base/owned.h"

static const char *const protocols[] = {
	[PROTOCOL_UNSET] = "",      [PROTOCOL_TCP] = "TCP",           [PROTOCOL_TLS] = "TLS",
	[PROTOCOL_HTTPS] = "HTTPS", [PROTOCOL_HTTP] = "HTTP",         [PROTOCOL_HTTP2] = "HTTP2",
	[PROTOCOL_GRPC] = "GRPC",   [PROTOCOL_GRPC_WEB] = "GRPC-Web", [PROTOCOL_MONGO] = "Mongo",
	[PROTOCOL_REDIS] = "Redis", [PROTOCOL_MYSQL] = "MySQL",       [PROTOCOL_UDP] = "UDP",
};
_Static_assert(ARRAY_SIZE(protocols) == PROTOCOL_N_, "every protocol has a name");

static const char *const resolutions[] = {
	[RESOLUTION_NONE] = "NONE",
	[RESOLUTION_STATIC] = "STATIC",
	[RESOLUTION_DNS] = "DNS",
	[RESOLUTION_DNS_ROUND_ROBIN] = "DNS_ROUND_ROBIN",
	[RESOLUTION_DYNAMIC_DNS] = "DYNAMIC_DNS",
};
_Static_assert(ARRAY_SIZE(resolutions) == RESOLUTION_N_, "every resolution has a name");

const char *protocol_str(enum protocol protocol)
{
	return protocols[protocol];
}

const char *resolution_str(enum resolution resolution)
{
	return resolutions[resolution];
}

int protocol_parse(const char *text, enum protocol *ret)
{
	for (unsigned i = 0; i < PROTOCOL_N_; i++) {
		if (strcasecmp(text, protocols[i]) == 0) {
			*ret = (enum protocol)i;
			return 0;
		}
	}
	return -EINVAL;
}

bool protocol_is_tls(enum protocol protocol)
{
	return protocol == PROTOCOL_TLS || protocol == PROTOCOL_HTTPS;
}

bool protocol_is_http(enum protocol protocol)
{
	return protocol == PROTOCOL_HTTP || protocol == PROTOCOL_HTTP2 ||
	       protocol == PROTOCOL_GRPC || protocol == PROTOCOL_GRPC_WEB;
}

bool protocol_is_opaque(enum protocol protocol)
{
	return protocol == PROTOCOL_TCP || protocol == PROTOCOL_MONGO ||
	       protocol == PROTOCOL_REDIS || protocol == PROTOCOL_MYSQL;
}
