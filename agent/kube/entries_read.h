/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* One ServiceEntry of the API, read and judged by the same code as one in a file. Pure. */
#include <jansson.h>

#include "registry/registry.h"
#include "resource/arena.h"
#include "resource/decode.h"

#define ENTRY_ERROR_MAX 1024

/* Memory for reading one after the other. All zero is fine. */
struct entry_reader {
	struct decoded decoded;
	struct arena tree;
};

/* Where an entry of the API came from, for messages. */
extern const char entry_source[];

/* Reads kind, name, namespace, creationTimestamp and spec of `object`; the rest belongs to
 * Kubernetes. *ret is borrowed until the reader is used again. -EINVAL with the reason in
 * `ret_error`, -ENOMEM.
 */
int entry_read(struct entry_reader *reader, json_t *object, const struct service_entry **ret,
	       char ret_error[static ENTRY_ERROR_MAX]);
void entry_reader_done(struct entry_reader *reader);
