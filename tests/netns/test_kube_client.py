# SPDX-License-Identifier: Apache-2.0
"""How the agents follow the Kubernetes API: list, watch, and each fault by its rule, against a scripted
server.

What must never happen is that objects are believed to be gone because the server is: each fault below
is followed by a look at what has been told as deleted.
"""
import base64
import json
import os
import random
import re
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest
import fake_kube
from fake_kube import FakeKube, answer, cut, error_event, lines, make_ca, make_certificate, silent, status
from procs import wait_for

TOOL = Path(os.environ.get("SLUICE_BUILD", "build")).resolve() / "tests/netns/kube_tool"
TIMES = {"backoff_min": 50, "backoff_max": 400, "missing": 100, "quiet": 400, "restart": 100, "watch": 300}


class Tool:
    """A reflector, and what it has told."""

    def __init__(self, *args, env=None, wrap=(), **times):
        chosen = {**TIMES, **times}
        argv = [*wrap, TOOL, "--times", ",".join(str(chosen[key]) for key in TIMES), "--group", fake_kube.GROUP,
                "--versions", "v1,v1beta1", "--resource", fake_kube.RESOURCE, *args]
        clean = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
        self.popen = subprocess.Popen([str(a) for a in argv], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                      stderr=subprocess.STDOUT, text=True, env={**clean, **(env or {})})
        self.told, self.log = [], []
        self.thread = threading.Thread(target=self.read, daemon=True)
        self.thread.start()

    def read(self):
        """Both by one pipe: the log says what it says before what is told after it."""
        for line in self.popen.stdout:
            if line.startswith("{"):
                self.told.append(json.loads(line))
            else:
                self.log.append(line)

    def of(self, hook):
        return [t for t in list(self.told) if t["hook"] == hook]

    def names(self, hook):
        return [t["name"] for t in self.of(hook)]

    def wait(self, hook, n=1, name=None, timeout=10):
        """Until the hook was called n times (for that name); returns the last."""
        def found():
            return [t for t in self.of(hook) if name in (None, t.get("name"))]
        wait_for(lambda: len(found()) >= n or not self.running(), timeout, f"{hook} {name or ''} x{n} in {self.log}")
        assert len(found()) >= n, self.log
        return found()[n - 1]

    def running(self):
        return self.popen.poll() is None

    def say(self, line):
        self.popen.stdin.write(line + "\n")
        self.popen.stdin.flush()

    def status(self):
        n = len(self.of("status"))
        self.say("status")
        return self.wait("status", n + 1)

    def wait_status(self, **wanted):
        return wait_for(lambda: (s := self.status()) and all(s[k] == v for k, v in wanted.items()) and s,
                        what=f"{wanted}, last {self.told[-1:]}, {self.log}")

    def call(self, method, path, body=""):
        n = len(self.of("answer"))
        self.say(f"call {method} {path} {body}".strip())
        return self.wait("answer", n + 1)

    def end(self):
        """Its exit code, with all that it said read."""
        self.popen.stdin.close()
        code = self.popen.wait(10)
        self.thread.join()
        return code

    def kill(self):
        self.popen.kill()
        self.popen.wait()
        self.thread.join()
        for stream in (self.popen.stdin, self.popen.stdout):
            stream.close()


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """A folder with ca.crt: making keys takes its time, so all tests share them."""
    folder = tmp_path_factory.mktemp("kube")
    make_ca(folder)
    return folder


@pytest.fixture
def kube(authority):
    with FakeKube(authority) as server:
        yield server


def write_config(path, kube, user=None, **cluster):
    """A kubeconfig, as JSON, which is YAML."""
    cluster = {"server": kube.url, "certificate-authority": str(kube.folder / "ca.crt"), **cluster}
    path.write_text(json.dumps({
        "apiVersion": "v1", "kind": "Config", "current-context": "c", "preferences": {"colors": True},
        "clusters": [{"name": "other", "cluster": {}}, {"name": "k", "cluster": cluster}],
        "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u", "namespace": "x"}}],
        "users": [{"name": "u", "user": {"token": "secret"} if user is None else user}]}), encoding="utf-8")
    return path


@pytest.fixture
def start(kube, tmp_path):
    """Starts a tool against `kube`; at the end each has to exit well, without a word of a sanitizer."""
    tools = []

    def start_tool(*args, server=kube, user=None, cluster=None, **options):
        path = write_config(tmp_path / f"config{len(tools)}", server, user, **(cluster or {}))
        tools.append(Tool("--kubeconfig", path, *args, **options))
        return tools[-1]

    yield start_tool
    try:
        for tool in tools:
            if tool.popen.stdin.closed:
                continue
            assert tool.end() == 0, tool.log
    finally:
        for tool in tools:
            tool.kill()


@pytest.fixture
def synced(kube, start):
    """A tool that watches a, b and c."""
    for name in "abc":
        kube.put(name)
    tool = start()
    tool.wait("synced")
    tool.wait_status(watching=True)
    return tool


def warnings(tool):
    return [line for line in list(tool.log) if " warning " in line]


def watches(kube):
    """The plain ones, which go on from a version."""
    return [r for r in kube.asked("watch") if "resourceVersion" in r.query]


def wait_watches(kube, n):
    wait_for(lambda: len(watches(kube)) >= n, what=f"{n} watches")
    return watches(kube)


def still_follows(tool, kube):
    """What counts in the end: the next change arrives."""
    kube.put("later")
    tool.wait("object", name="later")


# ---- list and watch ----

def test_a_list_comes_in_chunks_and_a_watch_goes_on_from_its_version(kube, start):
    for i in range(1203):
        kube.put(f"o{i}")
    rv = str(kube.rv)
    tool = start()
    tool.wait("synced")
    assert sorted(tool.names("object")) == sorted(f"o{i}" for i in range(1203))
    asked = [r.query for r in kube.asked("list")]
    assert asked == [{"limit": "500"}, {"limit": "500", "continue": f"a b&c/{rv}/500"},
                     {"limit": "500", "continue": f"a b&c/{rv}/1000"}]
    query = wait_watches(kube, 1)[0].query
    assert query["resourceVersion"] == rv and query["allowWatchBookmarks"] == "true"
    assert 300 <= int(query["timeoutSeconds"]) <= 600
    assert tool.told[-1]["hook"] == "synced", "no object after the end of the list"


def test_changes_are_told_in_order(kube, synced):
    kube.put("d")
    kube.put("a")
    kube.delete("b")
    synced.wait("deleted")
    after = synced.told[[t["hook"] for t in synced.told].index("synced") + 1:]
    assert [(t["hook"], t["name"]) for t in after if t["hook"] in ("object", "deleted")] == [
        ("object", "d"), ("object", "a"), ("deleted", "b")]
    assert synced.status()["objects"] == 3


def test_one_namespace_and_selectors(kube, start):
    tool = start("--ns", "shop", "--field-selector", "spec.nodeName=n1", "--label-selector", "a=b,c in (d)")
    tool.wait("synced")
    request = kube.asked("list")[0]
    assert request.path == f"/apis/{fake_kube.GROUP}/v1/namespaces/shop/{fake_kube.RESOURCE}"
    assert request.query["fieldSelector"] == "spec.nodeName=n1" and request.query["labelSelector"] == "a=b,c in (d)"
    assert wait_watches(kube, 1)[0].query["labelSelector"] == "a=b,c in (d)"


def test_a_bookmark_is_where_the_next_watch_begins(kube, synced):
    kube.bookmark()
    kube.end_watches()
    assert wait_watches(kube, 2)[1].query["resourceVersion"] == str(kube.rv)
    assert synced.status()["relists"] == 0


def test_a_watch_has_a_connection_of_its_own(kube, synced):
    assert synced.call("GET", "/version")["status"] == 200
    assert watches(kube)[0].peer != kube.asked("other")[0].peer


def test_a_watch_that_ends_is_opened_again_at_once_with_the_last_version(kube, synced):
    kube.put("d")
    synced.wait("object", name="d")
    rv, ended = str(kube.rv), time.monotonic()
    kube.end_watches()
    second = wait_watches(kube, 2)[1]
    assert second.query["resourceVersion"] == rv and second.at - ended < 2
    still_follows(synced, kube)
    assert synced.names("deleted") == [] and synced.status()["errors"] == 0


def test_watches_that_end_at_once_are_no_tight_loop(kube, synced):
    kube.fault("watch", *[lines()] * 5)
    kube.end_watches()
    times = [r.at for r in wait_watches(kube, 7)]
    gaps = [b - a for a, b in zip(times[1:], times[2:])]
    assert all(gap > 0.09 for gap in gaps), gaps


# ---- a list that has to begin anew ----

def test_an_expired_continue_token_begins_the_list_again(kube, start):
    for i in range(1203):
        kube.put(f"o{i}")
    kube.fault("list", lambda h, r: kube.do_list(h, r), status(410, "The provided continue parameter is too old"))
    tool = start()
    tool.wait("synced")
    assert ["continue" in r.query for r in kube.asked("list")] == [False, True, False, True, True]
    assert len(tool.names("object")) == 1203, "nothing is told twice"
    assert tool.names("deleted") == []


def check_relist(kube, tool, cause):
    """While nobody is told: one vanishes, one changes, one stays, one is new."""
    told = len(tool.told)
    kube.delete("a", told=False)
    kube.put("b", told=False)
    kube.put("d", told=False)
    cause()
    tool.wait("synced", 2)
    news = [(t["hook"], t.get("name")) for t in tool.told[told:] if t["hook"] in ("object", "deleted", "synced")]
    assert sorted(news[:-1]) == [("deleted", "a"), ("object", "b"), ("object", "d")]
    assert news[-1] == ("synced", None)
    still_follows(tool, kube)
    assert tool.status()["relists"] == 1


@pytest.mark.parametrize("gone", [
    status(410, "Gone"), error_event(410, "Expired"), error_event(410), error_event(0, "Gone")])
def test_gone_lists_again_and_tells_the_difference(kube, synced, gone):
    def cause():
        kube.fault("watch", gone)
        kube.end_watches()
    check_relist(kube, synced, cause)
    assert warnings(synced) == []


def test_a_version_that_the_server_does_not_have_yet_lists_again(kube, synced):
    """It was set back to a backup."""
    body = {"kind": "Status", "code": 504, "message": "Too large resource version",
            "details": {"causes": [{"reason": "ResourceVersionTooLarge"}]}}

    def cause():
        kube.fault("watch", answer(body, 504))
        kube.end_watches()
    check_relist(kube, synced, cause)


def test_an_object_that_was_replaced_at_the_same_version_is_told(kube, synced):
    with kube.lock:
        kube.objects["default", "a"]["metadata"]["uid"] = "another"
    kube.fault("watch", status(410))
    kube.end_watches()
    synced.wait("synced", 2)
    assert synced.names("object") == ["a", "b", "c", "a"]


def test_gone_again_and_again_is_not_a_tight_loop(kube, synced):
    kube.oldest = 1 << 60
    kube.end_watches()
    wait_for(lambda: len(kube.asked("list")) >= 5, what="lists")
    times = [r.at for r in kube.asked("list")]
    assert times[1] - times[0] < 5 and times[4] - times[3] > 0.15
    kube.oldest = 0
    still_follows(synced, kube)


# ---- a server that does not do as asked ----

@pytest.mark.parametrize("fault", [
    status(500), status(503), status(504), cut, lines(cut=True), error_event(500, "InternalError"),
    error_event(429, "TooManyRequests", retryAfterSeconds=0), lines(b'{"type":"ADDED","obj', cut=True),
    lines(b'{"type":"ADDED","obj')])
def test_a_watch_that_fails_goes_on_from_the_same_version(kube, synced, fault):
    kube.put("d")
    synced.wait("object", name="d")
    rv = str(kube.rv)
    kube.fault("watch", fault, fault)
    kube.end_watches()
    assert [r.query["resourceVersion"] for r in wait_watches(kube, 4)[1:4]] == [rv] * 3
    still_follows(synced, kube)
    assert synced.names("deleted") == [] and len(kube.asked("list")) == 1


def test_waiting_doubles(kube, synced):
    kube.fault("watch", *[status(500)] * 6)
    kube.end_watches()
    times = [r.at for r in wait_watches(kube, 8)]
    gaps = [b - a for a, b in zip(times[1:], times[2:])]
    assert all(gap >= 0.05 for gap in gaps), gaps
    assert gaps[4] >= 0.29 and gaps[5] >= 0.29 and max(gaps) < 2, gaps
    still_follows(synced, kube)


@pytest.mark.parametrize("busy", [
    status(429, "slow down", Retry_After=1), status(503, "starting", Retry_After=1),
    error_event(429, "TooManyRequests", retryAfterSeconds=1)])
def test_retry_after_is_kept(kube, synced, busy):
    rv = watches(kube)[0].query["resourceVersion"]
    kube.fault("watch", busy)
    kube.end_watches()
    asked = wait_watches(kube, 3)
    assert 1 <= asked[2].at - asked[1].at < 2.5
    assert asked[2].query["resourceVersion"] == rv


def test_a_list_that_fails_in_the_middle_goes_on_where_it_was(kube, start):
    for i in range(1203):
        kube.put(f"o{i}")
    kube.fault("list", lambda h, r: kube.do_list(h, r), cut, status(500), status(429, Retry_After=1))
    tool = start()
    tool.wait("synced")
    assert [r.query.get("continue", "/")[-4:] for r in kube.asked("list")] == ["/"] + ["/500"] * 4 + ["1000"]
    assert len(tool.names("object")) == 1203 and tool.names("deleted") == []


def test_a_server_that_is_gone_for_long(kube, synced):
    """Nothing is deleted, one line says that it is away, one that it is back, and then all is as it was."""
    kube.stop()
    wait_for(lambda: synced.status()["errors"] >= 12, what="attempts", timeout=20)
    state = synced.status()
    assert not state["watching"] and state["synced"] and state["objects"] == 3
    assert len(warnings(synced)) == 1 and "going on with what is known" in warnings(synced)[0]
    assert kube.url in warnings(synced)[0]
    kube.start()
    still_follows(synced, kube)
    assert synced.names("deleted") == [] and len(kube.asked("list")) == 1
    assert len([line for line in synced.log if "works again" in line]) == 1
    assert len(warnings(synced)) == 1


def test_a_server_that_is_not_there_at_the_start(kube, start):
    kube.put("a")
    kube.stop()
    tool = start()
    wait_for(lambda: tool.status()["errors"] >= 3, what="attempts")
    assert tool.of("synced") == []
    kube.start()
    tool.wait("synced")
    assert tool.names("object") == ["a"]


def test_a_silent_watch_is_given_up(kube, start):
    """Longer than it was to last: the connection is a dead one."""
    kube.put("a")
    kube.fault("watch", status(422), silent)
    tool = start(watch=1)
    tool.wait_status(watching=True)
    asked = wait_watches(kube, 2)
    assert 1.3 < asked[1].at - asked[0].at < 4
    assert asked[0].query["resourceVersion"] == asked[1].query["resourceVersion"]
    still_follows(tool, kube)


def test_trouble_that_comes_and_goes_does_not_fill_the_log(kube, synced):
    kube.fault("watch", *[error_event(500)] * 5)
    kube.end_watches()
    wait_watches(kube, 7)
    still_follows(synced, kube)
    assert len(warnings(synced)) == 1 and len([line for line in synced.log if "works again" in line]) == 1


# ---- who we are ----

def test_a_rotated_token_is_read_and_the_request_tried_again(kube, start, tmp_path):
    token = tmp_path / "token"
    token.write_text("  secret\n\n", encoding="ascii")
    tool = start(user={"tokenFile": str(token)})
    tool.wait("synced")
    tool.wait_status(watching=True)
    token.write_text("rotated\n", encoding="ascii")
    kube.token = "rotated"
    kube.end_watches()
    asked = wait_watches(kube, 3)
    assert [r.headers["Authorization"] for r in asked[1:3]] == ["Bearer secret", "Bearer rotated"]
    still_follows(tool, kube)
    assert tool.status()["errors"] == 0 and warnings(tool) == []
    assert "secret" not in "".join(tool.log) and "rotated" not in "".join(tool.log)


def test_a_token_that_cannot_be_read_leaves_the_old_one(kube, start, tmp_path):
    token = tmp_path / "token"
    token.write_text("secret", encoding="ascii")
    tool = start(user={"tokenFile": str(token)})
    tool.wait("synced")
    for broken in ("", "two\nlines"):
        token.write_text(broken, encoding="ascii")
        kube.fault("other", status(401))
        assert tool.call("GET", "/version")["status"] == 401
    token.unlink()
    kube.fault("other", status(401))
    assert tool.call("GET", "/version")["status"] == 401
    assert tool.call("GET", "/version")["status"] == 200, "with the old one"
    assert len(warnings(tool)) == 1 and str(token) in warnings(tool)[0]


def test_a_token_that_is_refused(kube, start):
    kube.put("a")
    kube.token = "another"
    tool = start()
    wait_for(lambda: tool.status()["errors"] >= 4, what="attempts")
    assert len(warnings(tool)) == 1 and "401" in warnings(tool)[0]
    kube.token = "secret"
    tool.wait("synced")
    assert "works again" in tool.log[-1] or "works again" in tool.log[-2]


def test_missing_rights_are_said_once_with_the_verbs(kube, synced):
    no = status(403, 'serviceentries.networking.istio.io is forbidden: User "x" cannot watch')
    kube.fault("watch", *[no] * 4)
    kube.end_watches()
    wait_watches(kube, 6)
    still_follows(synced, kube)
    assert len(warnings(synced)) == 1
    for word in ("list and watch", "serviceentries.networking.istio.io", 'User "x" cannot watch'):
        assert word in warnings(synced)[0]
    assert synced.names("deleted") == [] and len(kube.asked("list")) == 1


def test_a_server_that_has_just_been_started_may_refuse_once(kube, synced):
    """Until it has read its roles; that is no news."""
    kube.fault("watch", status(503), status(403), status(503), status(403))
    kube.end_watches()
    wait_watches(kube, 6)
    still_follows(synced, kube)
    assert [said for said in warnings(synced) if "not allowed" in said] == []


# ---- streaming lists ----

def test_a_streaming_list_needs_no_other_request(kube, start):
    kube.streaming = "yes"
    for i in range(1203):
        kube.put(f"o{i}")
    rv = str(kube.rv)
    tool = start()
    tool.wait("synced")
    assert len(tool.names("object")) == 1203 and tool.told[-1]["hook"] == "synced"
    still_follows(tool, kube)
    query = kube.asked("watch")[0].query
    assert query["sendInitialEvents"] == "true" and query["resourceVersionMatch"] == "NotOlderThan"
    assert "resourceVersion" not in query and query["allowWatchBookmarks"] == "true"
    assert kube.asked("list") == [] and len(kube.asked("watch")) == 1
    kube.end_watches()
    assert int(wait_watches(kube, 1)[0].query["resourceVersion"]) > int(rv)


def test_a_streaming_list_tells_what_vanished(kube, start):
    kube.streaming = "yes"
    for name in "abc":
        kube.put(name)
    tool = start()
    tool.wait("synced")

    def cause():
        kube.fault("watch", status(410))
        kube.end_watches()
    check_relist(kube, tool, cause)
    assert kube.asked("list") == []


@pytest.mark.parametrize("refusal", [status(400, "unknown"), status(422, "forbidden"), status(500)])
def test_a_server_that_refuses_streaming_lists(kube, start, refusal):
    kube.put("a")
    kube.streaming = "yes"
    kube.fault("watch", refusal)
    tool = start()
    tool.wait("synced")
    assert len(kube.asked("list")) == 1 and tool.names("object") == ["a"]
    assert tool.status()["errors"] == 0 and warnings(tool) == []


def test_a_server_that_ignores_streaming_lists_and_has_no_objects(kube, start):
    kube.streaming = "ignored"
    tool = start()
    tool.wait("synced")
    still_follows(tool, kube)


def test_a_server_that_ignores_streaming_lists(kube, start):
    """It sends all objects, and never the end: found out by its silence, and not asked again."""
    kube.streaming = "ignored"
    kube.put("a")
    tool = start()
    tool.wait("synced")
    assert tool.names("object") == ["a"] and len(kube.asked("list")) == 1
    kube.fault("watch", status(410))
    kube.end_watches()
    tool.wait("synced", 2)
    assert len([r for r in kube.asked("watch") if "sendInitialEvents" in r.query]) == 1
    assert tool.names("object") == ["a"] and tool.names("deleted") == []


@pytest.mark.parametrize("early", [True, False])
def test_a_streaming_list_that_ends_too_early_is_no_list(kube, start, early):
    kube.streaming = "yes"
    for name in "abc":
        kube.put(name)
    first = {"type": "ADDED", "object": kube.objects["default", "a"]}
    kube.fault("watch", lines(first, cut=early))
    tool = start()
    tool.wait("synced")
    assert sorted(tool.names("object")) == ["a", "b", "c"] and tool.names("deleted") == []
    assert len(tool.of("synced")) == 1 and len(kube.asked("list")) == 1
    still_follows(tool, kube)


# ---- which kinds there are ----

def test_a_kind_that_appears_later(kube, start):
    kube.served = False
    tool = start()
    tool.wait("synced")
    assert tool.status() | {"served": False, "synced": True, "objects": 0} == tool.status()
    assert len(kube.asked("group")) >= 3 and kube.asked("kinds") == []
    kube.served = True
    kube.put("a")
    tool.wait("object", name="a")
    tool.wait_status(served=True, watching=True)


def test_a_kind_that_is_said_to_be_missing_by_a_server_that_has_just_started(kube, synced):
    for n in (2, 3):
        kube.fault("watch", status(404))
        kube.fault("group", status(404), status(404))
        kube.end_watches()
        synced.wait("synced", n)
        synced.wait_status(watching=True)
    still_follows(synced, kube)
    assert synced.names("deleted") == []


def test_a_kind_that_is_gone_for_good(kube, synced):
    kube.served = False
    kube.end_watches()
    synced.wait("synced", 2)
    assert sorted(synced.names("deleted")) == ["a", "b", "c"]
    assert not synced.status()["served"]
    kube.served = True
    synced.wait("synced", 3)
    assert synced.status()["objects"] == 3


@pytest.mark.parametrize("versions,preferred,kinds,wanted", [
    (["v1", "v1beta1"], "v1", {"v1": True, "v1beta1": True}, "v1"),
    (["v1", "v1beta1"], "v1beta1", {"v1": True, "v1beta1": True}, "v1beta1"),
    (["v2", "v1beta1"], "v2", {"v2": True, "v1beta1": True}, "v1beta1"),
    (["v1", "v1beta1"], "v1", {"v1": False, "v1beta1": True}, "v1beta1"),
    (["v1", "v1beta1"], "v1", {"v1beta1": True}, "v1beta1"),
])
def test_which_version(kube, start, versions, preferred, kinds, wanted):
    kube.versions, kube.preferred = versions, preferred
    kube.kinds = {v: [fake_kube.RESOURCE] if has else ["gateways"] for v, has in kinds.items()}
    start().wait("synced")
    assert kube.asked("list")[0].path == f"/apis/{fake_kube.GROUP}/{wanted}/{fake_kube.RESOURCE}"


def test_no_version_that_is_understood(kube, start):
    kube.versions, kube.preferred, kube.kinds = ["v2"], "v2", {"v2": [fake_kube.RESOURCE]}
    tool = start()
    tool.wait("synced")
    assert not tool.status()["served"] and kube.asked("list") == []


def test_trouble_when_asking_for_kinds_is_not_a_missing_kind(kube, start):
    kube.put("a")
    kube.fault("group", *[status(503), cut, status(500), answer(b"<html>", 200)])
    kube.fault("kinds", status(500))
    tool = start()
    tool.wait("synced")
    assert tool.names("object") == ["a"] and tool.status()["served"]


# ---- what is no answer ----

POISON = {
    "number": '"status":{"n":123456789012345678901234567890,"m":-99999999999999999999}',
    "nul": '"status":{"a\\u0000b":"\\u0000","c":"\\\\u0000"}',
    "depth": '"status":' + '{"a":[' * 3000 + '"]"' + "]}" * 3000,
}


@pytest.mark.parametrize("poison", POISON)
@pytest.mark.parametrize("way", ["list", "watch"])
def test_an_object_that_hides_the_others(kube, start, poison, way):
    """Whoever may write one object must not be able to have all the others unread."""
    bad = json.dumps(kube.make("bad"))[:-1] + "," + POISON[poison] + "}"
    kube.put("a")
    kube.put("z")
    good = [json.dumps(o) for o in kube.objects.values()]
    if way == "list":
        body = '{"metadata":{"resourceVersion":"%d"},"items":[%s]}' % (kube.rv, ",".join([good[0], bad, good[1]]))
        kube.fault("list", answer(body.encode()))
    else:
        kube.fault("watch", status(422), lines(b'{"type":"ADDED","object":%s}\n' % bad.encode()))
    tool = start()
    tool.wait("object", name="bad")
    tool.wait("synced")
    assert sorted(tool.names("object")) == ["a", "bad", "z"]
    still_follows(tool, kube)
    assert tool.status()["errors"] == 0


JUNK = [b"null\n", b"[]\n", b"{}\n", b"\n", b"\x00\xff\n", b"{\n", b'"x"\n', b'{"type":1,"object":2}\n',
        b'{"type":"ADDED"}\n', b'{"type":"ADDED","object":[]}\n', b'{"type":"ADDED","object":{"metadata":7}}\n',
        b'{"type":"ADDED","object":{"metadata":{"name":{},"resourceVersion":"1"}}}\n',
        b'{"type":"ADDED","object":{"metadata":{"name":"x","resourceVersion":1}}}\n',
        b'{"type":"DELETED","object":{"metadata":{"name":"","resourceVersion":"1"}}}\n',
        b'{"type":"DELETED","object":{"metadata":{"name":"%s","resourceVersion":"1"}}}\n' % (b"x" * 400),
        b'{"type":"NEWS","object":{"metadata":{"name":"x","resourceVersion":"1"}}}\n',
        b'{"type":"BOOKMARK","object":{"metadata":{}}}\n']


@pytest.mark.parametrize("junk", JUNK)
def test_a_line_that_is_no_event_lists_again(kube, synced, junk):
    kube.fault("watch", lines(junk))
    kube.end_watches()
    synced.wait("synced", 2)
    still_follows(synced, kube)
    assert synced.names("deleted") == [] and len(warnings(synced)) == 1


@pytest.mark.parametrize("body", [
    b"", b"null", b"[]", b"{}", b"\xff", b'{"metadata":{},"items":[]}',
    b'{"metadata":{"resourceVersion":5},"items":[]}',
    b'{"metadata":{"resourceVersion":"5"}}', b'{"metadata":{"resourceVersion":"5"},"items":{}}',
    b'{"metadata":{"resourceVersion":"5","continue":', b"<html>no</html>"])
def test_a_list_that_is_none(kube, synced, body):
    kube.fault("watch", status(410))
    kube.fault("list", answer(body), answer(body))
    kube.end_watches()
    synced.wait("synced", 2)
    still_follows(synced, kube)
    assert synced.names("deleted") == [] and len(kube.asked("list")) == 4
    assert len(warnings(synced)) == 1


def test_items_that_are_none_are_left_out(kube, start):
    kube.put("a")
    items = [None, 1, [], {}, {"metadata": {"name": 5}}, {"metadata": {"name": "x"}}, kube.objects["default", "a"]]
    kube.fault("list", answer({"metadata": {"resourceVersion": str(kube.rv)}, "items": items}))
    tool = start()
    tool.wait("synced")
    assert tool.names("object") == ["a"] and tool.status()["errors"] == 6
    still_follows(tool, kube)


def test_an_empty_list_may_be_null(kube, start):
    kube.fault("list", answer({"metadata": {"resourceVersion": str(kube.rv)}, "items": None}))
    start().wait("synced")
    assert len(kube.asked("list")) == 1


def test_a_line_without_end(kube, synced):
    kube.fault("watch", lines(*[b"x" * 1000000] * 18))
    kube.end_watches()
    synced.wait("synced", 2, timeout=20)
    assert "larger than 16 MiB" in "".join(synced.log)
    still_follows(synced, kube)


def test_large_objects_come_in_smaller_chunks(kube, start):
    for i in range(100):
        kube.put(f"o{i:03}", spec={"x": "y" * 250000})
    for i in range(100, 200):
        kube.put(f"o{i:03}")
    tool = start()
    tool.wait("synced", timeout=60)
    assert tool.names("object") == [f"o{i:03}" for i in range(200)]
    limits = [int(r.query["limit"]) for r in kube.asked("list")]
    assert limits[:4] == [500, 125, 31, 39] and max(limits[4:]) > 31, limits


def test_what_is_large_as_json_takes_bounded_memory(kube, start):
    """A field that nobody asks for can be made of a hundred thousand small ones."""
    for i in range(30):
        kube.put(f"o{i}", status={"x": [{}] * 400000})
    tool = start()
    tool.wait("synced", timeout=120)
    assert len(tool.names("object")) == 30
    status = Path(f"/proc/{tool.popen.pid}/status").read_text(encoding="ascii")
    peak = int(re.search(r"^VmHWM:\s*(\d+) kB$", status, re.M)[1])
    assert peak < 1000000, f"{peak} kB"


def mutate(rng, data):
    """Bytes changed, cut out, doubled; values of another type."""
    data = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data)) if data else 0
        way = rng.randrange(5)
        if way == 0 and data:
            data[at] = rng.randrange(256)
        elif way == 1:
            del data[at:at + rng.randint(1, 40)]
        elif way == 2:
            data[at:at] = data[at:at + rng.randint(1, 40)]
        elif way == 3:
            data[at:at] = rng.choice([b"null", b"{}", b"[", b"]", b'"', b"1e999", b"\\u0000", b"9" * 30, b"\n"])
        else:
            del data[at:]
    return bytes(data)


@pytest.mark.parametrize("seed", range(4))
def test_answers_that_were_broken_on_the_way(kube, start, seed):
    rng = random.Random(seed)
    for name in "abc":
        kube.put(name)
    rv = str(kube.rv)
    bodies = {
        "list": json.dumps({"metadata": {"resourceVersion": rv}, "items": list(kube.objects.values())}).encode(),
        "watch": json.dumps({"type": "MODIFIED", "object": kube.objects["default", "a"]}).encode() + b"\n",
        "group": json.dumps({"preferredVersion": {"version": "v1"}, "versions": [{"version": "v1"}]}).encode(),
        "kinds": json.dumps({"resources": [{"name": fake_kube.RESOURCE}]}).encode()}
    for kind, body in bodies.items():
        send = lines if kind == "watch" else answer
        kube.fault(kind, *[send(mutate(rng, body)) for _ in range(100)])
    tool = start(backoff_min=1, backoff_max=2, missing=2, restart=1)
    wait_for(lambda: not kube.faults["watch"] and not kube.faults["list"] or not tool.running(), 60,
             "all that is broken to be used up")
    for queue in kube.faults.values():
        queue.clear()
    kube.put("later")
    tool.wait("object", name="later", timeout=30)
    kube.fault("watch", status(410))
    kube.end_watches()
    tool.wait_status(objects=4, served=True)


# ---- requests of other kinds ----

def test_calls(kube, synced):
    made = synced.call("POST", "/api/v1/namespaces/x/events", '{"a": 1}')
    assert (made["r"], made["status"]) == (0, 201)
    assert made["json"] == {"method": "POST", "path": "/api/v1/namespaces/x/events", "type": "application/json",
                            "body": '{"a": 1}'}
    kube.fault("other", status(409, "it exists"), status(429, Retry_After=7), answer(b"oops\n\x01", 500))
    assert synced.call("DELETE", "/x") | {"status": 409, "text": "it exists"} == synced.of("answer")[-1]
    assert synced.call("GET", "/x")["retry_after"] == 7
    assert synced.call("GET", "/x")["text"] == "oops  "
    kube.fault("other", answer(b"{", 200), answer(b"", 200))
    assert synced.call("GET", "/x")["r"] == -74
    assert synced.call("GET", "/x") | {"r": 0, "status": 200, "json": None} == synced.of("answer")[-1]
    kube.stop()
    assert synced.call("GET", "/x")["r"] == -111


def test_many_calls_at_once(kube, synced):
    for i in range(50):
        synced.say(f"call GET /x{i}")
    synced.wait("answer", 50)
    assert {a["json"]["path"] for a in synced.of("answer")} == {f"/x{i}" for i in range(50)}


def test_redirects_are_not_followed(kube, synced):
    kube.fault("other", answer({}, 307, Location=f"{kube.url}/elsewhere"))
    assert synced.call("GET", "/x")["status"] == 307
    assert [r.path for r in kube.asked("other")] == ["/x"]


def test_ending_in_the_middle_of_everything(kube, start):
    """Its memory is looked after by the sanitizers."""
    for i in range(2000):
        kube.put(f"o{i}")
    for n in (1, 300, 501, 1999):
        tool = start()
        tool.wait("object", n)
        tool.say("call GET /x")
        tool.say("forget")
        assert tool.end() == 0, tool.log


# ---- whom we believe ----

def fails(tool, words):
    """It has not come to the server, and says why."""
    wait_for(lambda: warnings(tool), what="a warning")
    assert any(word in warnings(tool)[0] for word in words), tool.log
    assert tool.of("synced") == []


def test_a_server_of_another_authority(kube, start, tmp_path):
    make_ca(tmp_path, "other")
    tool = start(cluster={"certificate-authority": str(tmp_path / "other.crt")})
    fails(tool, ["SSL certificate problem"])
    assert kube.requests == []


def test_a_server_of_another_name(authority, start):
    with FakeKube(authority, names=["DNS:kubernetes.default"]) as other:
        fails(start(server=other), ["SSL: no alternative certificate subject name"])
        assert other.requests == []
        start(server=other, cluster={"tls-server-name": "kubernetes.default"}).wait("synced")


def test_the_authorities_of_the_system_are_not_those_of_the_cluster(authority, start, tmp_path):
    """Any of them could otherwise speak for the API server."""
    trusted, own = tmp_path / "trusted", tmp_path / "own"
    for folder in (trusted, own):
        folder.mkdir()
        make_ca(folder, subject=folder.name)  # of one name, only the first would be looked at
    subprocess.run(["openssl", "rehash", trusted], check=True, capture_output=True)
    (trusted / "ca-certificates.crt").write_bytes((trusted / "ca.crt").read_bytes())
    here = ["unshare", "-m", "sh", "-c", f'mount --bind {trusted} /etc/ssl/certs && exec "$@"', "sh"]
    with FakeKube(trusted) as server:
        alone = start(server=server, cluster={"certificate-authority": None}, wrap=here)
        alone.wait("synced")
        seen = len(server.requests)
        fails(start(server=server, cluster={"certificate-authority": str(own / "ca.crt")}, wrap=here),
              ["SSL certificate problem"])
        data = base64.b64encode((own / "ca.crt").read_bytes()).decode()
        fails(start(server=server, cluster={"certificate-authority-data": data}, wrap=here),
              ["SSL certificate problem"])
        assert len(server.requests) == seen + len([r for r in server.requests[seen:] if r.kind == "watch"])


@pytest.mark.parametrize("inline", [True, False])
def test_a_client_certificate(authority, start, inline):
    make_certificate(authority, "agent", ["DNS:agent"])
    user = {"client-certificate": "agent.crt", "client-key": "agent.key"}
    files = {key: authority / name for key, name in user.items()}
    user = {f"{k}-data": base64.encodebytes(f.read_bytes()).decode() if inline else "" for k, f in files.items()} | \
        ({} if inline else {k: str(f) for k, f in files.items()})
    with FakeKube(authority, client_ca=authority / "ca.crt") as server:
        server.token = None
        server.put("a")
        fails(start(server=server), [""])
        assert server.requests == []
        ca = base64.b64encode((authority / "ca.crt").read_bytes()).decode()
        tool = start(server=server, user=user, cluster={"certificate-authority-data": ca})
        tool.wait("object", name="a")
        assert "Authorization" not in server.requests[-1].headers


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_in_a_pod(authority, address, tmp_path):
    token = tmp_path / "token"
    token.write_text("secret\n", encoding="ascii")
    with FakeKube(authority, address=address) as server:
        server.put("a")
        tool = Tool("--token-file", token, "--ca-file", authority / "ca.crt",
                    env={"KUBERNETES_SERVICE_HOST": address, "KUBERNETES_SERVICE_PORT": str(server.port)})
        try:
            tool.wait("object", name="a")
            assert tool.end() == 0
        finally:
            tool.kill()


@pytest.mark.parametrize("user,cluster,words", [
    ({}, {"server": "http://127.0.0.1:1"}, "must begin with https://"),
    ({}, {"server": "127.0.0.1:1"}, "must be a URL"),
    ({}, {"server": None}, "clusters[1].cluster.server: is missing"),
    ({}, {"server": "https://me@127.0.0.1"}, "neither a user nor"),
    ({}, {"insecure-skip-tls-verify": True}, "insecure-skip-tls-verify: is not accepted"),
    ({}, {"certificate-authority": "gone.crt"}, "gone.crt'"),
    ({}, {"certificate-authority-data": "%%%"}, "certificate-authority-data: must be base64"),
    ({"exec": {"command": "aws"}}, {}, "users[0].user.exec: is not supported"),
    ({"auth-provider": {"name": "gcp"}}, {}, "auth-provider: is not supported"),
    ({"username": "me", "password": "x"}, {}, "username: is not supported"),
    ({"as": "admin"}, {}, "users[0].user.as: is not supported"),
    ({"token": 5}, {}, "put it in quotes"),
    ({"token": "a\nX-Evil: 1"}, {}, "holds a character"),
    ({"tokenFile": "gone"}, {}, "cannot read token"),
    ({"client-certificate": "/etc/hostname"}, {}, "needs both"),
])
def test_a_kubeconfig_that_is_refused(kube, start, user, cluster, words):
    tool = start(user=user, cluster=cluster)
    assert tool.end() == 1
    assert words in tool.log[0] and len(tool.log) == 1 and kube.requests == []


@pytest.mark.parametrize("text,words", [
    ("", "is no kubeconfig"), ("a: [", "did not find"), ("a: 1", "current-context: is missing"),
    ("current-context: x", "contexts: must be a list"),
    ("current-context: x\ncontexts: [{name: y}]", "contexts: there is no 'x'"),
    ("current-context: x\ncontexts: [{name: x}]", "contexts[0]: has no context"),
    ("current-context: x\ncontexts: [1, {name: x, context: {user: u}}]", "names no cluster"),
    ("current-context: x\ncontexts: [{name: x, context: {cluster: c}}]\nclusters: []", "there is no 'c'"),
])
def test_what_is_no_kubeconfig(tmp_path, text, words):
    path = tmp_path / "config"
    path.write_text(text, encoding="ascii")
    tool = Tool("--kubeconfig", path)
    try:
        assert tool.end() == 1
        assert words in tool.log[0] and str(path) in tool.log[0]
    finally:
        tool.kill()


def test_neither_a_pod_nor_a_kubeconfig():
    tool = Tool(env={"KUBERNETES_SERVICE_HOST": ""})
    try:
        assert tool.end() == 1 and "name a kubeconfig" in tool.log[0]
    finally:
        tool.kill()


class Proxy(threading.Thread):
    """Of HTTP, for one CONNECT after the other; keeps what it was sent."""

    def __init__(self):
        super().__init__(daemon=True)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.heads = []
        self.start()

    def run(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(client,), daemon=True).start()

    def serve(self, client):
        head = b""
        while b"\r\n\r\n" not in head and (more := client.recv(4096)):
            head += more
        self.heads.append(head.decode())
        host, port = head.split()[1].decode().rsplit(":", 1)
        server = socket.create_connection((host, int(port)))
        client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        threading.Thread(target=self.copy, args=(server, client), daemon=True).start()
        self.copy(client, server)

    @staticmethod
    def copy(source, to):
        try:
            while data := source.recv(65536):
                to.sendall(data)
            to.shutdown(socket.SHUT_WR)
        except OSError:
            pass


def test_a_proxy_on_the_way_does_not_see_the_token(kube, start):
    proxy = Proxy()
    kube.put("a")
    tool = start(cluster={"proxy-url": f"http://127.0.0.1:{proxy.listener.getsockname()[1]}"})
    tool.wait("object", name="a")
    assert proxy.heads[0].startswith(f"CONNECT 127.0.0.1:{kube.port} ")
    assert all("secret" not in head and "Authorization" not in head for head in proxy.heads)
    proxy.listener.close()
