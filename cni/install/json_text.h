/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Where things are in the text of a JSON document, so that it can be changed without writing the
 * rest anew. For text that a parser has accepted; whatever else it is given, it stays within it.
 * Pure.
 */
#include "base/span.h"

/* Items of an array one by one: *rest is the array's text at first, and what is left of it then.
 * False at its end.
 */
bool json_text_item(struct span *rest, struct span *ret);

/* The value of an object's member; of several with one name the last, as parsers have it. A name
 * that is written with escapes is not found.
 */
bool json_text_member(struct span object, const char *name, struct span *ret);
