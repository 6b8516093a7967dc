// Package patch makes and applies patches: files that turn one exact file, known
// by its digest, into one other exact file.
//
// The parties are a publisher, who runs Make, and a device, which runs Apply
// over a source it already has. A patch carries no signature: whoever applies
// one has its digest, or its result's, from somewhere trusted. But Apply trusts
// neither patch nor source: it verifies the source's digest before it writes,
// bounds memory, size and time by what the patch declares and the caller
// allows, and verifies the result's digest at the end. The caller must use the
// result only when Apply has returned no error.
//
// A patch of a sealed image (package image) carries nothing of the verity tree,
// the trust cache and the footer: they are computed anew.
//
// The bytes are specified in spec/patch.md:
//
//	magic ‖ version ‖ length ‖ header ‖ CRC-32C
//	map       where the result's bytes come from
//	segments  what differs there, and what is new
//	CRC-32C   of everything before
//
// The rooms below: align (runs and their projection), fold and deflate
// (compressed members), delta (the walk that both sides share), entropy (models
// and coder), and for the publisher alone match and suffix.
package patch
