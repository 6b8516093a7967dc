#!/usr/bin/env python3
"""A second implementation of spec/ticket.md and spec/image4.md, written from the
pages with Python's standard library and the openssl command line.

    python3 reference.py verify *.txt       judges vectors, exit code 1 if one differs
    python3 reference.py make               writes the vectors other-*.txt with new keys

It shares nothing with the Go packages, so agreement means something.
"""
import base64, hashlib, os, subprocess, sys, tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
OID_CONSTRAINTS = bytes.fromhex("2a864886f7636406010f")
OID_KEY_USAGE, OID_BASIC = b"\x55\x1d\x0f", b"\x55\x1d\x13"
SHA384_ECDSA = bytes.fromhex("300a06082a8648ce3d040303")
SHA384_RSA = bytes.fromhex("300d06092a864886f70d01010c0500")


class Refused(Exception):
    def __init__(self, *reasons):
        self.reasons = reasons


def need(ok, *reasons):
    if not ok:
        raise Refused(*reasons)


# --- reading DER -------------------------------------------------------------

class Reader:
    """Walks over elements; every length must be in its shortest form."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def more(self):
        return self.at < len(self.data)

    def byte(self):
        need(self.more(), "truncated", "malformed")
        self.at += 1
        return self.data[self.at - 1]

    def element(self):
        """(tag bytes, content, whole)"""
        start = self.at
        tag = bytes([self.byte()])
        if tag[0] & 0x1F == 0x1F:
            while True:
                tag += bytes([self.byte()])
                need(len(tag) <= 6, "malformed")
                if tag[-1] < 0x80:
                    break
        n = self.byte()
        if n >= 0x80:
            need(n in (0x81, 0x82), "non-canonical")
            size, n = n - 0x80, 0
            for _ in range(size):
                n = n << 8 | self.byte()
            need(n >= (0x80 if size == 1 else 0x100), "non-canonical")
        need(self.at + n <= len(self.data), "truncated", "malformed")
        self.at += n
        return tag, self.data[self.at - n:self.at], self.data[start:self.at]

    def take(self, tag, reason="malformed"):
        t, content, whole = self.element()
        need(t == bytes([tag]), reason, "non-canonical")
        return content, whole

    def end(self):
        need(not self.more(), "extra bytes")


def code_tag(code):
    n = int.from_bytes(code, "big")
    return bytes([0xFF] + [0x80 | n >> s & 0x7F for s in (28, 21, 14, 7)] + [n & 0x7F])


def read_property(r, wild, depth):
    tag, content, _ = r.element()
    need(len(tag) == 6 and tag[0] == 0xFF, "malformed")
    outer = Reader(content)
    inside, _ = outer.take(0x30)
    outer.end()
    s = Reader(inside)
    code, _ = s.take(0x16)
    need(len(code) == 4 and all(0x20 <= c <= 0x7E for c in code) and code_tag(code) == tag, "malformed")
    value = read_value(s, wild, depth)
    s.end()
    return code, value


def read_value(r, wild, depth):
    tag, content, whole = r.element()
    if tag == b"\x01":
        need(content in (b"\x00", b"\xff"), "non-canonical")
        return ("bool", content == b"\xff")
    if tag == b"\x02":
        need(0 < len(content) <= 9 and content[0] < 0x80, "non-canonical")
        need(len(content) == 1 or content[0] or content[1] >= 0x80, "non-canonical")
        need(len(content) < 9 or content[0] == 0, "non-canonical")
        return ("int", int.from_bytes(content, "big"))
    if tag == b"\x04":
        need(len(content) <= 4096, "malformed")
        return ("octets", content)
    if tag == b"\x05":
        need(content == b"", "malformed")
        return ("null",)
    if tag == b"\x31":
        return ("set", read_set(whole, False, depth + 1))
    if wild and whole == b"\xa0\x02\x05\x00":
        return ("required",)
    if wild and whole == b"\xa1\x02\x05\x00":
        return ("allowed",)
    raise Refused("malformed")


def read_set(whole, wild, depth):
    need(depth <= 4, "malformed")
    r = Reader(whole)
    content, _ = r.take(0x31)
    r.end()
    r, before, out = Reader(content), b"", {}
    while r.more():
        start = r.at
        code, value = read_property(r, wild, depth)
        encoding = content[start:r.at]
        need(before < encoding and code not in out, "non-canonical")
        out[code], before = value, encoding
    return out


def as_set(value):
    need(value is not None and value[0] == "set", "malformed")
    return value[1]


# --- the ticket --------------------------------------------------------------

def parse(der):
    need(len(der) <= 32768, "malformed")
    whole = Reader(der)
    content, _ = whole.take(0x30)
    whole.end()
    r = Reader(content)
    magic, _ = r.take(0x16)
    version, _ = r.take(0x02)
    need(magic == b"IM4M" and version == b"\x00", "malformed", "non-canonical")
    tag, _, signed = r.element()
    need(tag == b"\x31", "malformed")
    body = read_set(signed, False, 1)
    need(list(body) == [b"MANB"], "malformed")
    manb = as_set(body[b"MANB"])
    signature, _ = r.take(0x04)
    certificates, _ = r.take(0x30)
    r.end()
    r = Reader(certificates)
    _, leaf = r.take(0x30)
    r.end()
    need(1 <= len(signature) <= 1024 and len(leaf) <= 8192, "malformed")
    members = {c: as_set(v) for c, v in manb.items()}
    need(b"MANP" in members, "malformed")
    manp = members.pop(b"MANP")
    return manp, members, signed, signature, leaf


def octets(p, code, least, most=None):
    need(code in p and p[code][0] == "octets" and least <= len(p[code][1]) <= (most or least), "malformed")
    v = p[code][1]
    need(least < 32 or v.strip(b"\x00"), "malformed")
    return v


def text(p, code, most, alphabet):
    v = octets(p, code, 1, most)
    need(all(c in alphabet for c in v), "malformed")
    return v.decode()


def number(p, code, most):
    need(code in p and p[code][0] == "int" and 0 < p[code][1] <= most, "malformed")
    return p[code][1]


LOWER, DIGITS = b"abcdefghijklmnopqrstuvwxyz", b"0123456789"


def claims(manp, objects):
    c = {
        "device": octets(manp, b"UDID", 32), "product": text(manp, b"prod", 64, bytes(range(0x21, 0x7F))),
        "baseline": octets(manp, b"bdig", 48), "domain": number(manp, b"ndom", 2**32 - 1), "release": None, "nonce": None,
    }
    wanted = {b"UDID", b"prod", b"bdig", b"ndom"}
    if b"rels" in manp or b"cnch" in manp:
        c["release"] = text(manp, b"rels", 64, LOWER + LOWER.upper() + DIGITS + b"._-")
        need(c["release"][0] != ".", "malformed")
        c["nonce"] = octets(manp, b"cnch", 48)
        wanted |= {b"rels", b"cnch"}
    need(set(manp) == wanted, "malformed")
    n = len(objects) // 3
    names = [b"%s%02d" % (kind, i) for kind in (b"cx", b"sv", b"tc") for i in range(n)]
    need(1 <= n <= 32 and sorted(objects) == names, "malformed")
    c["set"] = []
    for i in range(n):
        cx, sv, tc = (objects[b"%s%02d" % (kind, i)] for kind in (b"cx", b"sv", b"tc"))
        need(set(cx) == {b"DGST", b"name", b"styp"} and set(sv) == {b"DGST", b"root"} and set(tc) == {b"DGST"}, "malformed")
        c["set"].append((text(cx, b"name", 31, LOWER + DIGITS + b"-"), number(cx, b"styp", 2), octets(cx, b"DGST", 48),
                         octets(sv, b"DGST", 48), octets(sv, b"root", 32), octets(tc, b"DGST", 48)))
    found = [x[0] for x in c["set"]]
    need(found == sorted(set(found)), "malformed")
    return c


# --- certificates and signatures ---------------------------------------------

def certificate(der):
    """The parts of a certificate that matter here."""
    r = Reader(der)
    content, _ = r.take(0x30)
    r.end()
    r = Reader(content)
    tbs_content, tbs = r.take(0x30)
    _, outer = r.take(0x30)
    signature, _ = r.take(0x03)
    r.end()
    need(signature[:1] == b"\x00", "malformed")
    t = Reader(tbs_content)
    tag, version, _ = t.element()
    need(tag == b"\xa0", "malformed")
    t.take(0x02)
    _, inner = t.take(0x30)
    _, issuer = t.take(0x30)
    t.take(0x30)
    _, subject = t.take(0x30)
    _, spki = t.take(0x30)
    extensions = {}
    while t.more():
        tag, content, _ = t.element()
        if tag != b"\xa3":
            continue
        r = Reader(content)
        r = Reader(r.take(0x30)[0])
        while r.more():
            e = Reader(r.take(0x30)[0])
            oid, _ = e.take(0x06)
            tag, value, _ = e.element()
            critical = False
            if tag == b"\x01":
                critical = True
                tag, value, _ = e.element()
            e.end()
            need(oid not in extensions, "malformed")
            extensions[oid] = (critical, value)
    need(inner == outer, "malformed")
    return dict(tbs=tbs, algorithm=inner, signature=signature[1:], version=version, issuer=issuer, subject=subject, spki=spki, extensions=extensions)


P384 = bytes.fromhex("3076301006072a8648ce3d020106052b81040022036200")


def key_kind(spki):
    """ec, rsa or None"""
    if spki.startswith(P384) and len(spki) == len(P384) + 97:
        return "ec"
    r = Reader(Reader(spki).take(0x30)[0])
    algorithm, _ = r.take(0x30)
    bits, _ = r.take(0x03)
    if algorithm == bytes.fromhex("06092a864886f70d0101010500"):
        r = Reader(Reader(bits[1:]).take(0x30)[0])
        n, e = int.from_bytes(r.take(0x02)[0], "big"), int.from_bytes(r.take(0x02)[0], "big")
        if n.bit_length() == 4096 and e == 65537:
            return "rsa"
    return None


def openssl(*args, **kw):
    return subprocess.run(["openssl", *args], capture_output=True, **kw)


def verifies(spki, message, signature):
    with tempfile.TemporaryDirectory() as d:
        at = lambda name: os.path.join(d, name)
        for name, data in (("m", message), ("s", signature), ("spki", spki)):
            with open(at(name), "wb") as f:
                f.write(data)
        openssl("pkey", "-pubin", "-inform", "DER", "-in", at("spki"), "-out", at("pub"), check=True)
        return openssl("dgst", "-sha384", "-verify", at("pub"), "-signature", at("s"), at("m")).returncode == 0


def basic_is_authority(ext):
    return bool(ext) and b"\x01\x01\xff" in ext[1]


def usage_has(ext, bit):
    if not ext:
        return True
    bits = Reader(ext[1]).take(0x03)[0]
    return len(bits) > 1 and bool(bits[1] & 0x80 >> bit)


def check_leaf(leaf, root):
    kind = key_kind(root["spki"])
    need(kind and basic_is_authority(root["extensions"].get(OID_BASIC)) and usage_has(root["extensions"].get(OID_KEY_USAGE), 5), "wrong key")
    need(leaf["issuer"] == root["subject"], "wrong key")
    need(leaf["algorithm"] == {"ec": SHA384_ECDSA, "rsa": SHA384_RSA}[kind], "wrong leaf", "wrong key")
    need(verifies(root["spki"], leaf["tbs"], leaf["signature"]), "wrong key")
    ext = leaf["extensions"]
    need(key_kind(leaf["spki"]), "wrong leaf")
    need(leaf["version"] == b"\x02\x01\x02" and not basic_is_authority(ext.get(OID_BASIC)) and usage_has(ext.get(OID_KEY_USAGE), 0), "wrong leaf")
    for oid, (critical, _) in ext.items():
        need(not critical or oid in (OID_KEY_USAGE, OID_BASIC, OID_CONSTRAINTS), "wrong leaf")
    need(OID_CONSTRAINTS in ext and ext[OID_CONSTRAINTS][0], "wrong leaf")
    try:
        groups = read_constraints(ext[OID_CONSTRAINTS][1])
    except Refused:
        raise Refused("wrong leaf")
    return groups


def read_constraints(der):
    r = Reader(der)
    content, _ = r.take(0x31)
    r.end()
    r, out = Reader(content), {}
    for want in (b"MANP", b"OBJP"):
        tag, inside, _ = r.element()
        need(tag == code_tag(want), "malformed")
        s = Reader(Reader(inside).take(0x30)[0])
        need(s.take(0x16)[0] == want, "malformed")
        out[want] = read_set(s.element()[2], True, 2)
        s.end()
    r.end()
    return out


def obeys(rules, properties):
    for code, rule in rules.items():
        if rule[0] == "allowed":
            continue
        need(code in properties, "leaf constraint")
        need(rule[0] == "required" or rule == properties[code], "leaf constraint")
    need(all(code in rules for code in properties), "leaf constraint")


def judge(v):
    manp, objects, signed, signature, leaf_der = parse(v["der"])
    c = claims(manp, objects)
    leaf = certificate(leaf_der)
    with open(os.path.join(HERE, v["root"])) as f:
        pem = "".join(line for line in f if "-----" not in line)
    groups = check_leaf(leaf, certificate(base64.b64decode(pem)))
    need(verifies(leaf["spki"], signed, signature), "wrong key")
    obeys(groups[b"MANP"], manp)
    for o in objects.values():
        obeys(groups[b"OBJP"], o)
    need(c["device"] == v["device"], "wrong device")
    need(c["product"] == v["product"], "wrong product")
    need(c["baseline"] == v["baseline"], "wrong baseline")
    need(c["domain"] == 1 and c["nonce"] == v["nonce"], "wrong nonce")
    need(c["release"] == v["release"], "wrong release")
    need([x[0] for x in c["set"]] == [x[0] for x in v["set"]], "wrong set")
    for got, want in zip(c["set"], v["set"]):
        need(got[2] == want[2], "wrong image")
        need(got[3:5] == want[3:5], "wrong seal")
        need(got[5] == want[5], "wrong trust cache")
        need(got[1] == want[1], "wrong subtype")


# --- vectors -----------------------------------------------------------------

def read_vector(path):
    with open(path) as f:
        head, body = f.read().split("\n\n", 1)
    v = {"set": [], "release": None, "der": base64.b64decode(body)}
    for line in head.split("\n"):
        key, value = line.split(": ", 1)
        if key in ("device", "baseline", "nonce"):
            v[key] = None if value == "none" else bytes.fromhex(value)
        elif key == "cryptex":
            name, subtype, *digests = value.split()
            v["set"].append((name, int(subtype), *map(bytes.fromhex, digests)))
        else:
            v[key] = value
    return v


def verify(paths):
    wrong = 0
    for path in paths:
        v = read_vector(path)
        try:
            judge(v)
            got = ("ok",)
        except Refused as r:
            got = r.reasons
        if v["expect"] not in got:
            wrong += 1
            print(f"{os.path.basename(path)}: expect {v['expect']}, got {' or '.join(got)}")
    print(f"{len(paths) - wrong} of {len(paths)} vectors judged as expected")
    return wrong


# --- making tickets ----------------------------------------------------------

def tlv(tag, content):
    n = len(content)
    length = bytes([n]) if n < 0x80 else bytes([0x81, n]) if n < 0x100 else bytes([0x82, n >> 8, n & 0xFF])
    return tag + length + content


def prop(code, value):
    return tlv(code_tag(code), tlv(b"\x30", tlv(b"\x16", code) + value))


def dset(members):
    return tlv(b"\x31", b"".join(sorted(members)))


def oct(b):
    return tlv(b"\x04", b)


def integer(n):
    return tlv(b"\x02", n.to_bytes(n.bit_length() // 8 + 1, "big"))


REQUIRED, ALLOWED = b"\xa0\x02\x05\x00", b"\xa1\x02\x05\x00"


def constraints(product):
    manp = [prop(b"UDID", REQUIRED), prop(b"bdig", REQUIRED), prop(b"prod", oct(product)), prop(b"ndom", integer(1)), prop(b"rels", ALLOWED), prop(b"cnch", ALLOWED)]
    objp = [prop(b"DGST", REQUIRED), prop(b"name", ALLOWED), prop(b"styp", ALLOWED), prop(b"root", ALLOWED)]
    return dset([prop(b"MANP", dset(manp)), prop(b"OBJP", dset(objp))])


def make():
    digest = lambda s: hashlib.sha384(s.encode()).digest()
    kinds = {"ec": ["EC", "-pkeyopt", "ec_paramgen_curve:P-384"], "rsa": ["RSA", "-pkeyopt", "rsa_keygen_bits:4096"],
             "rsa2048": ["RSA", "-pkeyopt", "rsa_keygen_bits:2048"], "p256": ["EC", "-pkeyopt", "ec_paramgen_curve:P-256"]}
    with tempfile.TemporaryDirectory() as d:
        at = lambda name: os.path.join(d, name)

        def run(*args):
            openssl(*args, check=True)

        def root(name, kind):
            run("genpkey", "-algorithm", *kinds[kind], "-out", at(name + ".key"))
            run("req", "-x509", "-new", "-sha384", "-key", at(name + ".key"), "-subj", f"/CN={name}", "-days", "7300", "-out", os.path.join(HERE, name + ".pem"),
                "-addext", "basicConstraints=critical,CA:TRUE,pathlen:0", "-addext", "keyUsage=critical,keyCertSign")

        def leaf(name, kind, issuer, product=b"ExampleOS"):
            run("genpkey", "-algorithm", *kinds[kind], "-out", at(name + ".key"))
            run("req", "-new", "-key", at(name + ".key"), "-subj", f"/CN={name}", "-out", at(name + ".csr"))
            with open(at("ext"), "w") as f:
                f.write("basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n")
                f.write("1.2.840.113635.100.6.1.15=critical,DER:" + constraints(product).hex() + "\n")
            run("x509", "-req", "-sha384", "-in", at(name + ".csr"), "-CA", os.path.join(HERE, issuer + ".pem"), "-CAkey", at(issuer + ".key"),
                "-set_serial", "0x" + os.urandom(15).hex(), "-days", "1", "-extfile", at("ext"), "-outform", "DER", "-out", at(name + ".der"))

        def ticket(signer, v):
            manp = [prop(b"UDID", oct(v["device"])), prop(b"prod", oct(v["product"].encode())), prop(b"bdig", oct(v["baseline"])), prop(b"ndom", integer(1))]
            if v["release"]:
                manp += [prop(b"rels", oct(v["release"].encode())), prop(b"cnch", oct(v["nonce"]))]
            members = [prop(b"MANP", dset(manp))]
            for i, (name, subtype, image, seal, rooth, cache) in enumerate(v["set"]):
                members += [
                    prop(b"cx%02d" % i, dset([prop(b"DGST", oct(image)), prop(b"name", oct(name.encode())), prop(b"styp", integer(subtype))])),
                    prop(b"sv%02d" % i, dset([prop(b"DGST", oct(seal)), prop(b"root", oct(rooth))])),
                    prop(b"tc%02d" % i, dset([prop(b"DGST", oct(cache))]))]
            signed = dset([prop(b"MANB", dset(members))])
            with open(at("signed"), "wb") as f:
                f.write(signed)
            run("dgst", "-sha384", "-sign", at(signer + ".key"), "-out", at("signature"), at("signed"))
            with open(at("signature"), "rb") as f, open(at(signer + ".der"), "rb") as g:
                return tlv(b"\x30", tlv(b"\x16", b"IM4M") + integer(0) + signed + oct(f.read()) + tlv(b"\x30", g.read()))

        def write(name, expect, comment, rootname, v, der):
            with open(os.path.join(HERE, name + ".txt"), "w") as f:
                f.write(f"comment: {comment}\nexpect: {expect}\nroot: {rootname}.pem\ndevice: {v['device'].hex()}\nproduct: {v['product']}\nbaseline: {v['baseline'].hex()}\n")
                f.write(f"nonce: {v['nonce'].hex()}\nrelease: {v['release']}\n" if v["release"] else "nonce: none\n")
                for name, subtype, *digests in v["set"]:
                    f.write(f"cryptex: {name} {subtype} {' '.join(x.hex() for x in digests)}\n")
                b = base64.b64encode(der).decode()
                f.write("\n" + "".join(b[i:i + 76] + "\n" for i in range(0, len(b), 76)))

        member = lambda name, subtype: (name, subtype, digest(name + " i"), digest(name + " s"), digest(name + " r")[:32], digest(name + " t"))
        v = {"device": digest("dev")[:32], "product": "ExampleOS", "baseline": digest("base"), "nonce": digest("nonce"), "release": "SI-2026-0042",
             "set": [member("os", 1), member("tls", 1), member("web", 2)]}
        b = dict(v, nonce=None, release=None)
        root("other-ec-root", "ec")
        root("other-rsa-root", "rsa")
        leaf("ec-ec", "ec", "other-ec-root")
        leaf("rsa-ec", "rsa", "other-ec-root")
        leaf("ec-rsa", "ec", "other-rsa-root")
        leaf("rsa-rsa", "rsa", "other-rsa-root")
        leaf("rsa2048", "rsa2048", "other-ec-root")
        leaf("p256", "p256", "other-ec-root")
        leaf("otherproduct", "ec", "other-ec-root", b"OtherOS")
        write("other-ok", "ok", "made with openssl: P-384 under P-384", "other-ec-root", v, ticket("ec-ec", v))
        write("other-ok-baseline", "ok", "made with openssl: a baseline", "other-ec-root", b, ticket("ec-ec", b))
        write("other-ok-rsa-leaf", "ok", "made with openssl: RSA-4096 under P-384", "other-ec-root", v, ticket("rsa-ec", v))
        write("other-ok-rsa-root", "ok", "made with openssl: P-384 under RSA-4096", "other-rsa-root", v, ticket("ec-rsa", v))
        write("other-ok-rsa", "ok", "made with openssl: RSA-4096 under RSA-4096", "other-rsa-root", v, ticket("rsa-rsa", v))
        write("other-wrong-leaf-rsa2048", "wrong leaf", "a leaf with an RSA key of 2 048 bits", "other-ec-root", v, ticket("rsa2048", v))
        write("other-wrong-leaf-p256", "wrong leaf", "a leaf with a P-256 key", "other-ec-root", v, ticket("p256", v))
        write("other-leaf-constraint", "leaf constraint", "a leaf for another product", "other-ec-root", v, ticket("otherproduct", v))
        write("other-wrong-key", "wrong key", "the other root", "other-rsa-root", v, ticket("ec-ec", v))
        broken = bytearray(ticket("rsa-ec", v))
        broken[broken.rindex(b"\x04\x82\x02\x00") + 100] ^= 1
        write("other-wrong-key-rsa", "wrong key", "one bit of an RSA signature changed", "other-ec-root", v, bytes(broken))


if __name__ == "__main__":
    if sys.argv[1:2] == ["verify"]:
        sys.exit(1 if verify(sys.argv[2:]) else 0)
    if sys.argv[1:] == ["make"]:
        sys.exit(make())
    sys.exit(__doc__)
