/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* All objects of one kind, kept up to date: list in chunks (or a streaming list where the server
 * has it), then watch, for ever. Knows nothing of what the objects mean, and keeps of each only its
 * resourceVersion. On one loop; every function is for its thread.
 * https://kubernetes.io/docs/reference/using-api/api-concepts/
 */
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "kube/client.h"

struct reflector;

/* How it stands with the watch. */
enum reflector_news {
	REFLECTOR_ASKS,    /* something has been asked, and nothing answered yet */
	REFLECTOR_HEARS,   /* what there is comes in */
	REFLECTOR_WATCHES, /* the watch is open */
	REFLECTOR_LOST,    /* the server has said that it does not want to, or that it is over */
	REFLECTOR_AWAY,    /* the server cannot be reached, or has failed */
};

struct reflector_hooks {
	void *ctx;
	/* A new or changed object (borrowed; json_incref() to keep it). It may have another uid
	 * than before without an on_deleted in between: it went and came while nobody watched.
	 * Items of a list have neither kind nor apiVersion where the server leaves them out.
	 */
	void (*on_object)(void *ctx, json_t *object);
	/* It is gone. Both are borrowed; `ns` is "" of a kind without namespaces. */
	void (*on_deleted)(void *ctx, const char *ns, const char *name);
	/* A list has come to its end: what is known is all there is. Also called when the server
	 * does not serve the kind (its CRD is missing): then there are no objects. It has to say so
	 * three times, because one that has just been started does not know its CRDs yet. Again
	 * after each new list.
	 */
	void (*on_synced)(void *ctx);
	void (*on_news)(void *ctx, enum reflector_news news); /* NULL: nobody asks */
};

/* For tests, which cannot wait; 0 everywhere is right for everybody else. */
struct reflector_times {
	unsigned backoff_min_ms, backoff_max_ms; /* 800 to 30000 */
	unsigned missing_ms; /* 5000: how often is asked for a kind that is not served */
	unsigned quiet_ms;   /* 10000: a streaming list that says nothing is none */
	unsigned restart_ms; /* 1000: between the beginnings of two watches */
	unsigned watch_s;    /* 300: a watch lasts so long to twice that */
};

struct reflector_config {
	const char *group;           /* "networking.istio.io"; "" is the core group */
	const char *const *versions; /* those that are understood, NULL at the end; the server's
					preferred one of them is used, else the first that it has */
	const char *resource;        /* plural: "serviceentries" */
	const char *ns;              /* NULL: of all namespaces */
	const char *field_selector, *label_selector; /* NULL: none */
	struct reflector_times times;
};

struct reflector_status {
	bool served;   /* the server has the kind */
	bool synced;   /* a list has been read to its end at some time */
	bool watching; /* a watch is open now */
	uint64_t objects;
	uint64_t relists; /* lists after the first */
	uint64_t errors;  /* requests that failed */
	char last_error[256];
};

/* Starts at once; copies the configuration. The client is borrowed and outlives it. Logs: the loss
 * of the server once, and that it is back. -errno.
 */
int reflector_new(struct reflector **ret, struct kube_client *client, struct loop *loop,
		  const struct reflector_config *config, const struct reflector_hooks *hooks);
void reflector_free(struct reflector *reflector); /* NULL is fine; not inside its hooks */

/* Somebody waits: what is waited with is done now, unless something is asked already. */
void reflector_hurry(struct reflector *reflector);

void reflector_status(const struct reflector *reflector, struct reflector_status *ret);
