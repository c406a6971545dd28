/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What the plugin does when a container runtime calls it: asks the node's agent. */
#include "plugin/cni.h"

/* Acts on one call. 0, with what is to be printed in *ret (malloc'ed; NULL: nothing); -EINVAL with
 * `error`. May wait as long as the configuration's timeout allows. What went wrong and does not
 * matter is said on standard error.
 */
int plugin_run(const struct cni_env *env, const struct cni_config *config, char **ret,
	       struct cni_error *error);
