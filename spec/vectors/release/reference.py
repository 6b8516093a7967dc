"""A second reader of the vectors: digests and canonical form of the good
documents, and the places of devices in a rollout. Run: python3 reference.py"""
import glob
import hashlib
import json
import os

here = os.path.dirname(os.path.abspath(__file__))
count = 0
for name in sorted(glob.glob(os.path.join(here, "*.txt"))):
    with open(name, "rb") as f:
        head, _, body = f.read().partition(b"\n\n")
    header = dict(line.split(": ", 1) for line in head.decode().split("\n"))
    body = body[:-1]
    if header["expect"] != "ok":
        continue
    again = json.dumps(json.loads(body), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert again.encode() == body, name
    assert hashlib.sha384(body).hexdigest() == header["digest"], name
    count += 1
assert count >= 6

places = 0
with open(os.path.join(here, "..", "rollout", "places.txt")) as f:
    for line in f:
        if line.startswith("#"):
            continue
        device, release, salt, first = line.split()
        text = b"\0".join([b"sealant rollout 1", release.encode(), salt.encode(), bytes.fromhex(device)])
        place = int.from_bytes(hashlib.sha256(text).digest()[:4], "big")
        assert min(p for p in range(101) if place * 100 < p << 32) == int(first), line
        places += 1
assert places >= 10
print("good documents:", count, "places:", places)
