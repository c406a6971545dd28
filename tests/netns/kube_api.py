# SPDX-License-Identifier: Apache-2.0
"""A Kubernetes API server with all the kinds that an agent reads, and the Events that it writes: lists and
watches with selectors, no faults but being away (those are fake_kube.py's).
"""
import json

from agents import merge
from fake_kube import FakeKube

# By name in a path: group, version, kind.
KINDS = {
    "serviceentries": ("networking.istio.io", "v1", "ServiceEntry"),
    "endpointslices": ("discovery.k8s.io", "v1", "EndpointSlice"),
    "endpoints": ("", "v1", "Endpoints"),
    "events": ("", "v1", "Event"),
    "namespaces": ("", "v1", "Namespace"),
    "nodes": ("", "v1", "Node"),
    "pods": ("", "v1", "Pod"),
}


def dig(obj, path):
    for word in path.split("."):
        obj = (obj or {}).get(word)
    return obj


class Asked:
    """What a list or watch is about: a kind, a namespace or all of them, selectors."""

    def __init__(self, resource, ns, query):
        self.resource, self.ns = resource, ns
        self.fields = [one.split("=", 1) for one in query.get("fieldSelector", "").split(",") if one]
        self.labels = [one.split("=", 1) for one in query.get("labelSelector", "").split(",") if one]

    def is_about(self, resource, obj):
        meta = obj["metadata"]
        return (resource == self.resource and self.ns in (None, meta.get("namespace")) and
                all(dig(obj, path) == value for path, value in self.fields) and
                all(meta.get("labels", {}).get(key) == value for key, value in self.labels))


class Api(FakeKube):
    """In a namespace of the test's. `absent`: kinds that this server does not have; `slow`: kinds of whose
    lists only the first chunk comes, until they are taken out of it; `busy`: kinds whose watches end, and of
    which nobody may ask anything for a minute.
    """

    def __init__(self, place, absent=()):
        super().__init__(place.procs.folder)
        self.place, self.absent, self.slow, self.busy = place, set(absent), set(), set()
        self.things = {}   # (kind, namespace, name): object
        self.changes = []  # (resourceVersion, what, kind, object)
        self.kubeconfig = self.folder / "kubeconfig"
        self.start()
        self.write_kubeconfig()

    def start(self):
        with self.place.netns.entered():
            super().start()

    def write_kubeconfig(self):
        cluster = {"server": self.url, "certificate-authority": str(self.folder / "ca.crt")}
        self.kubeconfig.write_text(json.dumps({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "test", "user": {"token": self.token}}]}), encoding="utf-8")

    # -- objects --

    def put(self, resource, obj):
        group, version, kind = KINDS[resource]
        with self.lock:
            self.rv += 1
            meta = {"uid": f"uid-{self.rv}", "creationTimestamp": "2024-05-01T10:00:00Z", **obj["metadata"],
                    "resourceVersion": str(self.rv)}
            key = (resource, meta.get("namespace", ""), meta["name"])
            what = "MODIFIED" if key in self.things else "ADDED"
            obj = {**obj, "apiVersion": f"{group}/{version}".strip("/"), "kind": kind, "metadata": meta}
            self.things[key] = obj
            self.changes.append((self.rv, what, resource, obj))
            self.lock.notify_all()
        return obj

    def delete(self, resource, ns, name):
        with self.lock:
            self.rv += 1
            old = self.things.pop((resource, ns, name))
            gone = {**old, "metadata": {**old["metadata"], "resourceVersion": str(self.rv)}}
            self.changes.append((self.rv, "DELETED", resource, gone))
            self.lock.notify_all()

    def written(self):
        """Events, as they are now."""
        with self.lock:
            return [obj for (resource, _, _), obj in self.things.items() if resource == "events"]

    def writes(self):
        """Methods of the requests that wanted to change something."""
        return [request.method for request in self.asked() if request.method != "GET"]

    def was_asked_for(self, resource):
        return any(resource in request.path.split("/") for request in self.asked())

    # -- answers --

    def answer(self, handler, request):
        with self.lock:
            self.requests.append(request)
        words = request.path.strip("/").split("/")
        group, words = ("", words[1:]) if words[0] == "api" else (words[1], words[2:])
        served = {name: kind for name, kind in KINDS.items() if kind[0] == group and name not in self.absent}
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            handler.fail(401, "Unauthorized")
        elif not served:
            handler.fail(404, "the server could not find the requested resource")
        elif not words:
            handler.send(200, {"kind": "APIGroup", "name": group, "preferredVersion": {"version": "v1"},
                               "versions": [{"version": "v1"}]})
        elif len(words) == 1:
            handler.send(200, {"kind": "APIResourceList", "resources": [{"name": name} for name in served]})
        else:
            self.answer_objects(handler, request, served, words[1:])

    def answer_objects(self, handler, request, served, words):
        ns = None
        if words[0] == "namespaces" and len(words) > 2:
            ns, words = words[1], words[2:]
        if words[0] not in served:
            handler.fail(404, "the server could not find the requested resource")
        elif request.method == "POST":
            self.create(handler, words[0], json.loads(request.body))
        elif request.method == "PATCH":
            self.patch(handler, request, (words[0], ns or "", words[1]))
        elif len(words) > 1:
            obj = self.things.get((words[0], ns or "", words[1]))
            handler.send(200, obj) if obj else handler.fail(404, "not found")
        elif words[0] in self.busy:
            handler.fail(429, "too many requests", Retry_After=60)
        elif "sendInitialEvents" in request.query:
            handler.fail(422, "sendInitialEvents is forbidden for watch")
        elif "watch" in request.query:
            self.watch(handler, Asked(words[0], ns, request.query), int(request.query["resourceVersion"]))
        else:
            self.list(handler, Asked(words[0], ns, request.query), request.query)

    def create(self, handler, resource, obj):
        if (resource, obj["metadata"]["namespace"], obj["metadata"]["name"]) in self.things:
            handler.fail(409, "already exists")
        else:
            handler.send(201, self.put(resource, obj))

    def patch(self, handler, request, key):
        if key not in self.things:
            handler.fail(404, "not found")
        elif request.headers["Content-Type"] != "application/merge-patch+json":
            handler.fail(415, "the body of the request was in an unknown format")
        else:
            handler.send(200, self.put(key[0], merge(self.things[key], json.loads(request.body))))

    def list(self, handler, asked, query):
        """In chunks of what is there when each is asked for: nothing may change in between."""
        start, limit = int(query.get("continue", 0)), int(query["limit"])
        with self.lock:
            if start > 0:
                self.lock.wait_for(lambda: asked.resource not in self.slow or not self.listening)
            items = [obj for (resource, _, _), obj in self.things.items() if asked.is_about(resource, obj)]
            meta = {"resourceVersion": str(self.rv)}
        if start + limit < len(items):
            meta["continue"] = str(start + limit)
        handler.send(200, {"kind": "List", "metadata": meta, "items": items[start:start + limit]})

    def hurry(self):
        """Nothing is slow any more."""
        with self.lock:
            self.slow.clear()
            self.lock.notify_all()

    def be_busy(self, *resources):
        with self.lock:
            self.busy = set(resources)
            self.lock.notify_all()

    def watch(self, handler, asked, rv):
        handler.open_stream()
        server = self.server
        while True:
            with self.lock:
                self.lock.wait_for(lambda: self.server is not server or not self.listening or self.rv > rv or
                                   asked.resource in self.busy)
                if self.server is not server or not self.listening:
                    return
                if asked.resource in self.busy:
                    return handler.end_stream()
                new = [(what, obj) for at, what, resource, obj in self.changes
                       if at > rv and asked.is_about(resource, obj)]
                rv = self.rv
            for what, obj in new:
                handler.event(what, obj)
