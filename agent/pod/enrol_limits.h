/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What both ends of the enrolment socket keep to. */
#define ENROL_MESSAGE_MAX    (256 * 1024)
#define ENROL_ID_MAX         128  /* of a container's id, a network's name, a pod's uid */
#define ENROL_CONTAINERS_MAX 4096 /* what one GC may list */
