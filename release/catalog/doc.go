// Package catalog is the signed list of everything a vendor publishes: a TUF
// repository (The Update Framework, specification 1.0). A [Repository] writes
// it, a [Client] reads and verifies it; both use go-tuf's metadata types, so
// any other TUF client reads it too.
//
// # Parties and keys
//
//	root       offline, threshold   says who may sign for the four roles below
//	targets    offline, threshold   manifests, baselines, patches, images; delegates to:
//	  recall     own keys, threshold   recall/*   what is taken back
//	  advice     own keys, threshold   advice/*   which apps an improvement may harm
//	  rollout    online                rollout/*  who is offered what
//	snapshot   online, short-lived  which versions of all metadata belong together
//	timestamp  online, short-lived  the newest snapshot
//
// The delegations are terminating: nobody else's word counts for their paths.
// A thief of the online keys can stop the news and change who is offered what,
// until the keys are replaced; it can't make a device accept content.
//
// # Files
//
//	metadata/<n>.root.json  <n>.targets.json  <n>.recall.json …  <n>.snapshot.json
//	metadata/timestamp.json
//	targets/<folder>/<sha256>.<name>
//
// That is TUF's consistent snapshot layout: a file never changes once it
// stands, except timestamp.json, whose replacement commits a new state. So any
// web server, mirror, CDN or stick can serve the folder. Targets carry a
// SHA-256 in the metadata; manifests repeat each file's SHA-384, which is also
// its name.
//
// # What a client checks
//
// Signatures and thresholds along the chain of roots from the pinned one;
// expiry against a clock that never runs behind the build time or the last
// verified time; versions that never go back; lengths before bytes are read;
// hashes. What fails is fault.Stale, except that nobody answers, which is
// fault.Unreachable or fault.Busy. A failed refresh changes nothing: the last
// whole state stays in force, on disk too.
//
// # What the caller must still check
//
// The age of that state ([Client.Checked], [Client.Expires]) where it matters;
// and the SHA-384 of every byte streamed after [Client.Locate].
package catalog
