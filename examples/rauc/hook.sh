#!/bin/sh
# slot-install of the root that does not run: puts the bundle's baseline there.
# This device's own catalog vouches for it; what runs is not touched.
set -e
[ "$1" = slot-install ] || exit 0
brought=$(mktemp -d)
slot=$(mktemp -d)
trap 'mountpoint -q "$slot" && umount "$slot"; rm -r "$brought"; rmdir "$slot"' EXIT
tar -xf "$RAUC_IMAGE_NAME" -C "$brought" --no-same-owner
mount "$RAUC_SLOT_DEVICE" "$slot"
sealant base install --into "$slot" "$brought"/base.json "$brought"/*.cryptex
