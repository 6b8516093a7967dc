#!/usr/bin/python3
"""Reads and makes catalogs with securesystemslib, the library that python-tuf
signs and verifies with: its canonical JSON, its keys, its signatures. The walk
over the roles is TUF's specification, section 5, written down here.

    tuf.py read FOLDER      verifies metadata/ and targets/ from 1.root.json on,
                            prints every target's SHA-384 as JSON
    tuf.py make FOLDER      makes a catalog with new keys: all roles, a threshold of
                            two, delegations, two roots, one recall list
"""
import datetime, hashlib, json, os, sys

from securesystemslib.formats import encode_canonical
from securesystemslib.keys import generate_ecdsa_key, generate_ed25519_key
from securesystemslib.signer import Key, Signature, SSlibSigner

MINUTE = datetime.timedelta(minutes=1)
NOW = datetime.datetime.utcnow().replace(microsecond=0)


def need(ok, what):
    if not ok:
        raise SystemExit("refused: " + what)


# --- reading -------------------------------------------------------------------

class Folder:
    def __init__(self, path):
        self.path = path

    def read(self, name):
        with open(os.path.join(self.path, name), "rb") as f:
            return f.read()

    def metadata(self, name, kind, keys, role, want=None):
        """One file: form, threshold of good signatures, version and expiry."""
        data = self.read("metadata/" + name)
        if want:
            need("length" not in want or want["length"] == len(data), name + " length")
            for algorithm, digest in want.get("hashes", {}).items():
                need(hashlib.new(algorithm, data).hexdigest() == digest, name + " hash")
        doc = json.loads(data)
        signed = doc["signed"]
        need(signed["_type"] == kind and signed["spec_version"].startswith("1."), name + " type")
        need(not want or signed["version"] == want["version"], name + " version")
        self.threshold(doc, keys, role, name)
        return signed

    @staticmethod
    def threshold(doc, keys, role, name):
        text, good = encode_canonical(doc["signed"]).encode(), set()
        for s in doc["signatures"]:
            if s["keyid"] not in role["keyids"] or s["keyid"] in good:
                continue
            key = Key.from_dict(s["keyid"], dict(keys[s["keyid"]]))
            try:
                key.verify_signature(Signature.from_dict(dict(s)), text)
                good.add(s["keyid"])
            except Exception:
                pass
        need(len(good) >= role["threshold"], f"{name}: {len(good)} of {role['threshold']} signatures")


def fresh(signed, name):
    need(signed["expires"] > NOW.isoformat() + "Z", name + " expired")


def read(path):
    f = Folder(path)
    first = json.loads(f.read("metadata/1.root.json"))
    root = first["signed"]
    f.threshold(first, root["keys"], root["roles"]["root"], "1.root.json")
    while os.path.exists(os.path.join(path, "metadata", f"{root['version'] + 1}.root.json")):
        name = f"{root['version'] + 1}.root.json"
        doc = json.loads(f.read("metadata/" + name))
        f.threshold(doc, root["keys"], root["roles"]["root"], name)
        f.threshold(doc, doc["signed"]["keys"], doc["signed"]["roles"]["root"], name)
        need(doc["signed"]["version"] == root["version"] + 1, name + " version")
        root = doc["signed"]
    fresh(root, "root")
    need(root["consistent_snapshot"] is True, "consistent snapshots")
    timestamp = f.metadata("timestamp.json", "timestamp", root["keys"], root["roles"]["timestamp"])
    fresh(timestamp, "timestamp")
    want = timestamp["meta"]["snapshot.json"]
    snapshot = f.metadata(f"{want['version']}.snapshot.json", "snapshot", root["keys"], root["roles"]["snapshot"], want)
    fresh(snapshot, "snapshot")
    found, todo = {}, [("targets", root["keys"], root["roles"]["targets"])]
    while todo:
        name, keys, role = todo.pop(0)
        want = snapshot["meta"][name + ".json"]
        targets = f.metadata(f"{want['version']}.{name}.json", "targets", keys, role, want)
        fresh(targets, name)
        for target, about in targets["targets"].items():
            digest = about["hashes"]["sha256"]
            folder, _, base = target.rpartition("/")
            data = f.read(os.path.join("targets", folder, digest + "." + base))
            need(len(data) == about["length"] and hashlib.sha256(data).hexdigest() == digest, target)
            found[target] = hashlib.sha384(data).hexdigest()
        delegations = targets.get("delegations") or {"keys": {}, "roles": []}
        todo += [(r["name"], delegations["keys"], r) for r in delegations["roles"]]
    print(json.dumps({"root": root["version"], "found": found}))


# --- making --------------------------------------------------------------------

def make(path):
    signers = {}

    def role(threshold, *sorts):
        ids = []
        for sort in sorts:
            key = generate_ed25519_key() if sort == "ed25519" else generate_ecdsa_key()
            signers[key["keyid"]] = SSlibSigner(key)
            ids.append((key["keyid"], {"keytype": key["keytype"], "scheme": key["scheme"], "keyval": {"public": key["keyval"]["public"]}}))
        return {"keyids": [i for i, _ in ids], "threshold": threshold}, dict(ids)

    def write(name, signed, ids):
        text = encode_canonical(signed).encode()
        doc = {"signatures": [signers[i].sign(text).to_dict() for i in ids], "signed": signed}
        data = json.dumps(doc, indent=1).encode()
        with open(os.path.join(path, "metadata", name), "wb") as f:
            f.write(data)
        return {"version": signed["version"], "length": len(data), "hashes": {"sha256": hashlib.sha256(data).hexdigest()}}

    def head(kind, version, days):
        return {"_type": kind, "spec_version": "1.0.31", "version": version, "expires": (NOW + datetime.timedelta(days=days)).isoformat() + "Z"}

    def put(name, data):
        digest = hashlib.sha256(data).hexdigest()
        folder, _, base = name.rpartition("/")
        os.makedirs(os.path.join(path, "targets", folder), exist_ok=True)
        with open(os.path.join(path, "targets", folder, digest + "." + base), "wb") as f:
            f.write(data)
        return {"length": len(data), "hashes": {"sha256": digest}}

    os.makedirs(os.path.join(path, "metadata"))
    roles, keys = {}, {}
    for name, (threshold, *sorts) in {
        "root": (2, "ed25519", "ecdsa", "ed25519"), "targets": (2, "ed25519", "ecdsa"),
        "snapshot": (1, "ed25519"), "timestamp": (1, "ecdsa"),
    }.items():
        roles[name], new = role(threshold, *sorts)
        keys.update(new)
    root = {**head("root", 1, 365), "consistent_snapshot": True, "keys": keys, "roles": roles}
    write("1.root.json", root, roles["root"]["keyids"])
    old = roles["timestamp"]["keyids"]
    roles["timestamp"], new = role(1, "ed25519")
    keys = {**{k: v for k, v in keys.items() if k not in old}, **new}
    write("2.root.json", {**root, "version": 2, "keys": keys, "roles": roles}, roles["root"]["keyids"])
    meta, delegated, below = {}, [], {}
    recall = json.loads(sys.stdin.read())
    for name, targets in {"recall": {"recall/list.json": put("recall/list.json", recall["recall"].encode())}, "advice": {}, "rollout": {}}.items():
        r, new = role(1, "ed25519")
        below.update(new)
        delegated.append({"name": name, **r, "terminating": True, "paths": [name + "/*"]})
        meta[name + ".json"] = write(f"1.{name}.json", {**head("targets", 1, 90), "targets": targets}, r["keyids"])
    meta["targets.json"] = write("1.targets.json", {
        **head("targets", 1, 365), "targets": {"patches/abc": put("patches/abc", b"a patch, made by others\n")},
        "delegations": {"keys": below, "roles": delegated},
    }, roles["targets"]["keyids"])
    snapshot = write("1.snapshot.json", {**head("snapshot", 1, 14), "meta": meta}, roles["snapshot"]["keyids"])
    write("timestamp.json", {**head("timestamp", 1, 7), "meta": {"snapshot.json": snapshot}}, roles["timestamp"]["keyids"])


if __name__ == "__main__":
    {"read": read, "make": make}[sys.argv[1]](sys.argv[2])
