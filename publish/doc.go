// Package publish is the publisher's journey: two images of a cryptex become a
// patch, an antipatch and a signed release.
//
// # The vendor folder
//
//	vendor.json                     product and OS version
//	keys/root-OWNER.key             one pair for each owner, offline
//	keys/targets-OWNER.key          "
//	keys/recall.key  advice.key     who may take back, who may advise
//	keys/ticket-root.key            the root of all tickets, offline
//	keys/online/{snapshot,timestamp,rollout,log}.key   what the server needs
//	repo/metadata  repo/targets     the catalog, as any web server serves it
//	prepared/ID/                    a release that waits for signatures
//	root.json  ticket-root.pem  log-key.txt  base.json   what the OS image pins,
//	                                to be put under /usr/lib/sealant
//
// # The journey
//
// Init makes the folder. Baseline publishes what an OS update installs. Prepare
// verifies the images, compares them file by file, looks for what a security
// fix must not do (Finding), makes the patches, applies each and compares every
// byte, and writes the release as a Bundle. Bundle.Sign adds one person's
// signature, on any machine. Publish puts a bundle with enough signatures into
// the catalog; with the online keys at hand devices see it at once, else after
// the server's next look at the folder.
//
// Nothing that is in the catalog changes until Publish, and what Prepare left
// behind when it was interrupted is made anew by the next one.
package publish
