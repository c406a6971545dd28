/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Which objects are known, and in which state: of each its name and a hash of its resourceVersion.
 * Tells the hooks what is new, changed and gone. One thread.
 */
#include <jansson.h>
#include <stdint.h>

#include "kube/kube_table.h"
#include "kube/reflector.h"

struct known {
	struct kube_table table;
	uint32_t run; /* of lists: an object that the newest did not have is gone */
	const struct reflector_hooks *hooks;
};

/* -ENOMEM, -EIO. */
int known_init(struct known *known, const struct reflector_hooks *hooks);
void known_done(struct known *known); /* calls nobody. All zero is fine */

/* A list begins. */
void known_begin(struct known *known);

/* The object is there: on_object, unless it is known just so. -EBADMSG when it has no name or
 * version, -ENOMEM.
 */
int known_take(struct known *known, json_t *object);

/* The object is gone: on_deleted, if it was known. -EBADMSG. */
int known_drop(struct known *known, const json_t *object);

/* The list has ended: on_deleted for what was not in it. */
void known_end(struct known *known);
