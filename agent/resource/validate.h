/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The rules that hold between the fields of one ServiceEntry (what one field alone must be,
 * decode.c has seen to). Pure.
 */
#include "registry/registry.h"
#include "resource/field.h"

/* Hosts and addresses for each namespace that they are exported to, and endpoints; each on each
 * port. Of one entry.
 */
#define VALIDATE_PARTS_MAX 16384U

/* Complains in the report about `entry`, which was read without error from `spec`, and settles what
 * follows from several fields: targetPort without effect is taken out, an entry for workloads of
 * the mesh gets no way to anywhere.
 */
void validate_entry(const struct field *spec, struct service_entry *entry);
