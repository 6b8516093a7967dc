// Package release holds the documents in which a vendor says what a device may
// run: which baseline an OS update installed, what an improvement changes, which
// improvement is taken back, which apps it is known to harm, and to how many
// devices it is offered.
//
// # Parties
//
// The publisher writes [Baseline] and [Manifest]; the holder of the recall key
// writes the [RecallList], the holder of the advice key the [AdviceList], and
// the server the [Rollout]. Devices, servers and people read all five. None of
// them is signed by itself: each is a target of the catalog (package
// release/catalog), whose roles say who may write it. A caller that got bytes
// from anywhere else has checked nothing by parsing them.
//
// # Bytes
//
// Every document is one JSON object in the canonical form of RFC 8785: members
// sorted, no white space, integers only. Parsing accepts that form alone: it
// decodes strictly, validates every field, encodes again and compares. So a
// duplicate member, an unknown member, other spelling or order, trailing bytes
// or broken UTF-8 are all refused, and a document has exactly one digest: the
// SHA-384 of its bytes. The first member of each type's description is "schema",
// the document's name and version ("sealant.release/1"); a reader refuses every
// other.
//
// Sizes are limited before anything is read: see the Max constants.
//
// # Where they stand in the catalog
//
//	baselines/<digest>.json   Baseline, by its digest
//	releases/<id>.json        Manifest
//	patches/<digest>          a patch or antipatch, by the SHA-384 of the file
//	images/<digest>           a whole cryptex, by the SHA-384 of the file
//	recall/list.json          RecallList  (role recall)
//	advice/list.json          AdviceList  (role advice)
//	rollout/list.json         Rollout     (role rollout)
//
// The pages spec/manifest.md, baseline.md, recall.md, advice.md and rollout.md
// give every field; spec/vectors/release has documents with what to expect.
//
// # What the caller must still check
//
// That the document came through the catalog; that a manifest's baseline is the
// device's own, by digest and never by version text; that the images it names
// have the digests and seals it says.
package release
