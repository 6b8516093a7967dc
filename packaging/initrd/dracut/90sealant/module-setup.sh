#!/bin/bash
# Puts sealant-boot into the initrd, for systems that need a cryptex before
# their own units run: one that holds libraries of process 1 (subtype os). Where
# base.json knows only apps, sealant-boot.service attaches them later. Where
# there is no base.json yet, as while an image is built, it is included.

check() {
	[[ ! -e $dracutsysrootdir/usr/lib/sealant/base.json ]] || grep -q '"subtype": *"os"' "$dracutsysrootdir/usr/lib/sealant/base.json" || return 255
	require_binaries /usr/lib/sealant/sealant-boot mount modprobe || return 1
	return 0
}

depends() {
	echo systemd systemd-initrd
}

installkernel() {
	# tpm_crb, tpm_tis: a device's key may be in its TPM, and its nonce counter with it.
	hostonly='' instmods loop dm_mod dm_verity erofs sha256_generic sha256_ssse3 sha256-ce sha256-arm64 =drivers/char/tpm
}

install() {
	inst_multiple mount modprobe rm
	inst_simple /usr/lib/sealant/sealant-boot
	inst_simple /usr/libexec/sealant/initrd-attach
	inst_simple /usr/libexec/sealant/sealant-initrd.service "$systemdsystemunitdir/sealant-initrd.service"
	$SYSTEMCTL -q --root "$initdir" add-wants initrd.target sealant-initrd.service
}
