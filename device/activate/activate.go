// Package activate makes content take force: it verifies images against a
// ticket, mounts them, switches what is mounted, and decides at boot which set
// the device runs.
//
// # Parties
//
// The store gives sets, tickets and images and is believed in nothing. The OS
// update's files under /usr/lib/sealant are believed: its root certificate for
// tickets, and base.json, whose digest is the baseline that every set must
// belong to. A set takes force only if its ticket verifies for this device,
// that baseline and a nonce in force, and every image has the digest, seal and
// trust cache that the ticket names. An image is verified and mounted through
// one and the same open file.
//
// # Places
//
//	/run/sealant/sets/ID/NAME    each cryptex of a set, mounted once
//	/run/sealant/staged          -> sets/ID: what an app gets when it is launched
//	/run/sealant/booted          -> sets/ID: what was attached at boot
//	/usr/lib/cryptexes/NAME      the booted content, a second mount of the same
//	/run/sealant/devices/0:47    -> sealant:NAME:DIGEST, what a mounted device holds
//
// A set is whole or not used. staged is one link for all cryptexes of a set,
// so a launch never mixes two sets; it is switched by one rename, mounts by one
// mount operation: at no moment is there nothing. Mounts are read-only and
// without device files; set-user-id bits count in cryptexes of subtype os only.
//
// # Enforcement
//
// Where the kernel has the device mapper, content is mounted through dm-verity
// with the root hash that the ticket names: every block is compared whenever it
// is read from the disk. Before that, staging reads all of the image; a boot
// reads all but the data, whose blocks the kernel compares anyway; of an os cryptex
// it has the kernel read what executes, too, since process 1 may need it. Elsewhere,
// and nowhere else, content is verified whole when it is mounted, at boot too,
// and whoever can write the image's file later can change what runs. Boot record
// and status say which it is and why; the policy trust.enforcement can forbid
// the weaker way, see [Enforcement].
//
// The package links no network code and starts no processes: sealant-boot is
// little more than its Boot.
package activate

// Enforcement says who guards the content of a mounted cryptex.
type Enforcement string

// The enforcements.
const (
	// AtMount: all bytes were compared with the ticket before they were
	// mounted; later changes on disk are not caught.
	AtMount Enforcement = "at mount"
	// Kernel: dm-verity compares every block with the ticket's root hash
	// whenever it is read from the disk.
	Kernel Enforcement = "kernel"
)
