# SPDX-License-Identifier: Apache-2.0
"""Keys, certificates, tokens and kubeconfigs of a cluster."""
import json
import subprocess

ADDRESS = "172.30.0.1"
URL = f"https://{ADDRESS}:6443"
SERVICE_ADDRESS = "10.96.0.1"
# Users with everything allowed, and kube-proxy; nodes are added by number.
MASTERS = ("admin", "controller-manager", "scheduler")


def _openssl(folder, *args):
    subprocess.run(["openssl", *args], cwd=folder, check=True, capture_output=True)


def _make_certificates(folder):
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    names = ["DNS:kubernetes", "DNS:kubernetes.default", "DNS:kubernetes.default.svc", "DNS:localhost",
             "IP:127.0.0.1", f"IP:{SERVICE_ADDRESS}", f"IP:{ADDRESS}"]
    _openssl(folder, "genrsa", "-out", "sa.key", "2048")
    _openssl(folder, "req", "-x509", *curve, "-keyout", "ca.key", "-out", "ca.crt", "-days", "30",
             "-subj", "/CN=Kubernetes test CA", "-addext", "keyUsage=critical,keyCertSign,cRLSign")
    # One certificate: the API server's, and its own as a client of kubelets (hence system:masters).
    _openssl(folder, "req", *curve, "-keyout", "apiserver.key", "-out", "apiserver.csr",
             "-subj", "/O=system:masters/CN=kube-apiserver",
             "-addext", f"subjectAltName={','.join(names)}",
             "-addext", "extendedKeyUsage=serverAuth,clientAuth")
    _openssl(folder, "x509", "-req", "-in", "apiserver.csr", "-CA", "ca.crt", "-CAkey", "ca.key",
             "-CAcreateserial", "-copy_extensions", "copy", "-days", "30", "-out", "apiserver.crt")


def _kubeconfig(folder, user):
    return json.dumps({
        "apiVersion": "v1", "kind": "Config", "current-context": "it",
        "contexts": [{"name": "it", "context": {"cluster": "it", "user": user}}],
        "clusters": [{"name": "it", "cluster": {
            "server": URL, "certificate-authority": str(folder / "ca.crt")}}],
        "users": [{"name": user, "user": {"token": f"{user}-token"}}]})


def make(folder, nodes):
    """Fills the folder: ca.crt, apiserver.{crt,key}, sa.key, tokens.csv and USER.kubeconfig."""
    folder.mkdir()
    _make_certificates(folder)
    users = {user: (user, "system:masters") for user in MASTERS}
    users["proxy"] = ("system:kube-proxy", "proxy")
    users |= {node: (f"system:node:{node}", "system:nodes") for node in nodes}
    (folder / "tokens.csv").write_text("".join(
        f"{user}-token,{name},{user},{group}\n" for user, (name, group) in users.items()), "ascii")
    for user in users:
        (folder / f"{user}.kubeconfig").write_text(_kubeconfig(folder, user), "ascii")
