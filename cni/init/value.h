/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What values flags take. Pure. */
#include <stdbool.h>
#include <stddef.h>

#define VALUE_ITEM_MAX 256

enum value_kind {
	VALUE_TEXT,
	VALUE_BOOL,
	VALUE_PORT,
	VALUE_PORT_OR_ZERO,
	VALUE_NUMBER, /* 32 bits, decimal or 0x... */
	VALUE_DURATION,
	VALUE_OWN_DURATION, /* as base/num.h reads it */
	VALUE_INBOUND_MODE,
	VALUE_IDS, /* users or groups */
	VALUE_GROUPS,
	VALUE_PORTS,
	VALUE_PORTS_OR_ALL,
	VALUE_CIDRS,
	VALUE_CIDRS_OR_ALL,
	VALUE_LOOPBACK_CIDR,
	VALUE_INTERFACES,
	VALUE_IPTABLES_BINARY,
	VALUE_LOG_LEVEL,
	VALUE_POD,
	VALUE_NAME,
	VALUE_PATH,
	VALUE_KIND_N_,
};

/* NULL, or what is wanted instead ("give ..."). Static text. */
const char *value_complaint(enum value_kind kind, const char *text);

/* As Go's strconv.ParseBool takes it. */
bool value_is_true(const char *text);
bool value_is_bool(const char *text);

/* Cuts the next item off a comma-separated list, without blanks around; empty ones are passed over.
 * False at the end. Items that do not fit come cut short, which no kind of value accepts.
 */
bool value_cut_item(const char **list, char ret[static VALUE_ITEM_MAX]);
