# SPDX-License-Identifier: Apache-2.0
"""Our definition of ServiceEntry: the fields that agents read, refused early where one field tells."""
import copy
import re

import pytest
from tree import DEPLOY, REPO, of_kind

DECODE = (REPO / "agent" / "resource" / "decode.c").read_text()
PROTOCOLS = (REPO / "agent" / "registry" / "protocol.c").read_text()


@pytest.fixture(name="crd", scope="module")
def read_crd():
    crd, = of_kind(DEPLOY / "crds", "CustomResourceDefinition")
    return crd


@pytest.fixture(name="spec", scope="module")
def spec_schema(crd):
    return crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]


def test_it_can_take_the_place_of_istios(crd):
    assert crd["apiVersion"] == "apiextensions.k8s.io/v1"
    names = crd["spec"]["names"]
    assert crd["metadata"]["name"] == "serviceentries.networking.istio.io"
    assert (names["plural"], crd["spec"]["group"]) == ("serviceentries", "networking.istio.io")
    assert names["kind"] == "ServiceEntry" and names["listKind"] == "ServiceEntryList"
    assert crd["spec"]["scope"] == "Namespaced" and crd["spec"]["conversion"] == {"strategy": "None"}
    versions = crd["spec"]["versions"]
    assert [v["name"] for v in versions] == ["v1", "v1beta1", "v1alpha3"]
    assert all(v["served"] for v in versions) and [v["storage"] for v in versions] == [True, False, False]
    for v in versions[1:]:
        assert v["schema"] == versions[0]["schema"] and v["subresources"] == {"status": {}}


def every_schema(schema, way=()):
    yield way, schema
    for name, child in schema.get("properties", {}).items():
        yield from every_schema(child, (*way, name))
    for word in ("items", "additionalProperties"):
        if word in schema:
            yield from every_schema(schema[word], (*way, word))


def test_old_servers_understand_every_word(crd):
    known = {"type", "description", "properties", "required", "items", "additionalProperties", "enum", "pattern",
             "minLength", "maxLength", "minItems", "maxItems", "minimum", "maximum", "maxProperties", "format",
             "x-kubernetes-list-type", "x-kubernetes-list-map-keys", "x-kubernetes-preserve-unknown-fields"}
    for way, schema in every_schema(crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]):
        assert set(schema) <= known and "type" in schema, way
        assert not {"properties", "additionalProperties"} <= set(schema), way
        assert set(schema.get("required", [])) <= set(schema.get("properties", {})), way


# ---- beside what the agent reads ----

def read_by(function):
    """The names in the table of fields of a function of decode.c."""
    body = re.search(rf"^static void {function}\(.*?^}}", DECODE, re.DOTALL | re.MULTILINE).group()
    return set(re.findall(r'\{"(\w+)", \w+, ', body))


@pytest.mark.parametrize("function, way", [
    ("read_spec", []),
    ("read_port", ["properties", "ports", "items"]),
    ("read_endpoint", ["properties", "endpoints", "items"]),
    ("read_selector", ["properties", "workloadSelector"]),
])
def test_the_fields_are_those_that_agents_read(spec, function, way):
    for step in way:
        spec = spec[step]
    assert set(spec["properties"]) == read_by(function) != set()


def test_the_words_are_those_that_agents_read(spec):
    fields = spec["properties"]
    resolutions = re.findall(r'\[RESOLUTION_\w+\] = "(\w+)"', PROTOCOLS)
    assert set(fields["resolution"]["enum"]) == set(resolutions) != set()
    pattern = fields["ports"]["items"]["properties"]["protocol"]["pattern"]
    protocols = re.findall(r'\[PROTOCOL_\w+\] = "([\w-]*)"', PROTOCOLS)
    assert len(protocols) > 10
    for word in protocols:
        for form in (word, word.lower(), word.upper(), word.title()):
            assert re.search(pattern, form), form
    for word in ("HTTPX", "HTTP3", "TL", "SCTP", "TCP ", "GRPC-", "XTCP"):
        assert not re.search(pattern, word), word


# ---- what it lets in: the part of OpenAPI that it uses ----

KINDS = {"object": dict, "array": list, "string": str, "integer": int}


def errors(schema, value, way="spec"):
    if not isinstance(value, KINDS[schema["type"]]) or isinstance(value, bool):
        yield way
        return
    length = {"string": "Length", "array": "Items", "object": "Properties"}.get(schema["type"])
    size, low, high = (value, "minimum", "maximum") if length is None else (len(value), f"min{length}", f"max{length}")
    if not schema.get(low, size) <= size <= schema.get(high, size):
        yield way
    if "enum" in schema and value not in schema["enum"]:
        yield way
    if "pattern" in schema and not re.search(schema["pattern"], value):
        yield way
    if schema["type"] == "object":
        for name in set(schema.get("required", [])) - set(value):
            yield f"{way}.{name}"
        for name, child in value.items():
            inner = schema.get("properties", {}).get(name, schema.get("additionalProperties"))
            if inner is None:
                yield f"{way}.{name}"
            else:
                yield from errors(inner, child, f"{way}.{name}")
    if schema["type"] == "array":
        keys = schema.get("x-kubernetes-list-map-keys")
        known = [tuple(item.get(k) for k in keys) if keys else item for item in value]
        unique = "x-kubernetes-list-type" in schema
        for i, item in enumerate(value):
            yield from errors(schema["items"], item, f"{way}[{i}]")
            if unique and known[i] in known[:i]:
                yield f"{way}[{i}]"


GOOD = {
    "hosts": ["www.example.com", "*.api.example.com"],
    "addresses": ["192.0.2.7", "198.51.100.0/24", "2001:db8::/32"],
    "ports": [{"number": 443, "name": "tls", "protocol": "TLS", "targetPort": 8443}],
    "location": "MESH_EXTERNAL",
    "resolution": "STATIC",
    "endpoints": [{"address": "192.0.2.8", "ports": {"tls": 9443}, "weight": 3, "labels": {"a": "b"},
                   "network": "n", "locality": "l", "serviceAccount": "s"}],
    "exportTo": [".", "shop"],
    "subjectAltNames": ["spiffe://example/x"],
}


def with_field(way, value):
    spec = copy.deepcopy(GOOD)
    place = spec
    for step in way[:-1]:
        place = place[step]
    place[way[-1]] = value
    return spec


HOST, PORT, ENDPOINT = ("hosts", 0), ("ports", 0), ("endpoints", 0)


@pytest.mark.parametrize("way, value", [
    (HOST, "WWW.Example.com"), (HOST, "example.com."), (HOST, "localhost"), (HOST, "xn--bcher-kva.example"),
    (HOST, "*.com"), (HOST, "1.example.2x"), (HOST, "a.1-2"), (HOST, "3com.example"),
    (("addresses", 0), "::1"), (("addresses", 0), "::ffff:192.0.2.1"), (("addresses",), []),
    ((*PORT, "number"), 1), ((*PORT, "number"), 65535), ((*PORT, "protocol"), "http"), ((*PORT, "protocol"), ""),
    ((*PORT, "name"), "HTTP-1"), ((*PORT, "targetPort"), 0), (("ports",), []),
    ((*ENDPOINT, "address"), "db.example.com"), ((*ENDPOINT, "address"), "2001:db8::1"),
    ((*ENDPOINT, "address"), "::1"), ((*ENDPOINT, "weight"), 4294967295),
    (("exportTo",), ["*"]), (("exportTo",), ["~"]), (("exportTo",), []),
    (("workloadSelector",), {"labels": {"app": "x"}}), (("resolution",), "DYNAMIC_DNS"),
])
def test_it_lets_in(spec, way, value):
    assert not list(errors(spec, with_field(way, value)))


@pytest.mark.parametrize("way, value", [
    (("hosts",), []), (HOST, ""), (HOST, "*"), (HOST, "*example.com"), (HOST, "a.*.example.com"), (HOST, "192.0.2.1"),
    (HOST, "2001:db8::1"), (HOST, "-a.example"), (HOST, "a-.example"), (HOST, "a..example"), (HOST, ".example"),
    (HOST, "a.example/x"), (HOST, "a.example:443"), (HOST, "a_b.example"), (HOST, "a example"), (HOST, "a.42"),
    (HOST, "b\u00fccher.example"), (HOST, "a." * 127 + "example"), (HOST, 1), (HOST, "https://a.example"),
    (("addresses", 0), "example.com"), (("addresses", 0), "192.0.2.0/"), (("addresses", 0), "192.0.2.0/1234"),
    ((*PORT, "number"), 0), ((*PORT, "number"), 65536), ((*PORT, "number"), "443"), ((*PORT, "protocol"), "TSL"),
    ((*PORT, "name"), ""), ((*PORT, "name"), "-a"), ((*PORT, "name"), "a" * 64), ((*PORT, "name"), "a_b"),
    ((*PORT, "targetPort"), 65536), ((*PORT, "port"), 443), ((*PORT, "targetPort"), -1),
    (("ports",), [{"name": "a", "number": 1}, {"name": "a", "number": 2}]), (("ports",), [{"name": "a"}]),
    (("ports",), [{"number": 1}]), (("resolution",), "dns"), (("resolution",), ""), (("location",), "OUTSIDE"),
    ((*ENDPOINT, "address"), "unix:///run/x"), ((*ENDPOINT, "address"), ""), ((*ENDPOINT, "ports"), {"tls": 0}),
    ((*ENDPOINT, "weight"), -1), ((*ENDPOINT, "address"), "*.example.com"), (("endpoints",), [{"weight": 1}]),
    (("exportTo",), [".", "."]), (("exportTo",), ["Shop"]), (("exportTo",), ["a/b"]), (("exportTo",), [""]),
    (("exportto",), ["."]), (("subjectAltNames",), "x"),
])
def test_it_refuses(spec, way, value):
    assert list(errors(spec, with_field(way, value)))


def test_no_entry_is_without_hosts(spec):
    assert list(errors(spec, {})) == ["spec.hosts"]
    assert not list(errors(spec, {"hosts": ["a.example"]}))
