/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/* How nodes wrap what they carry for pods: what comes in so, on any interface, `lo` too, is
 * unpacked, and goes on as if another node had sent it, from whatever source is written inside.
 * Nothing that is captured has a part in that. Besides these, IP protocols 4, 41 and 47 (IP in IP,
 * GRE).
 */
#include <linux/types.h>

#define OVERLAY_PORT_VXLAN       4789 /* RFC 7348, 8 */
#define OVERLAY_PORT_VXLAN_LINUX 8472 /* as Linux had it first */
#define OVERLAY_PORT_GENEVE      6081 /* RFC 8926, 3.3 */
#define OVERLAY_PORT_WEAVE       6784 /* VXLAN */
#define OVERLAY_PORT_FLANNEL     8285 /* a packet in a datagram, unpacked by a process */
