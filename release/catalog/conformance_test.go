package catalog

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// TestConformance has the cases of the public suite for TUF clients,
// github.com/theupdateframework/tuf-conformance at eec841c, that apply to this
// client. Each is named as there; the file is the prefix.
//
//	basic/…        tuf_conformance/test_basic.py
//	expiration/…   tuf_conformance/test_expiration.py
//	download/…     tuf_conformance/test_file_download.py
//	keys/…         tuf_conformance/test_keys.py
//	quoting/…      tuf_conformance/test_quoting_issues.py
//	rollback/…     tuf_conformance/test_rollback.py
//	graphs/…       tuf_conformance/test_updater_delegation_graphs.py (TestConformanceDelegations)
//	rotations/…    tuf_conformance/test_updater_key_rotations.py (TestConformanceRotations)
//
// Not taken over, since they are about the suite's own program or about what
// this client does not have: test_implicit_refresh (Refresh is explicit),
// test_faketime, test_static_repositories, test_repository_simulator,
// test_download_with_hash_algorithms beyond SHA-256, RSA keys.
//
// The client is stricter in one way: a state is taken as a whole or not at all,
// so where the suite expects the timestamp to move and the snapshot to stay,
// both stay. Delegated metadata is part of the state.
func TestConformance(t *testing.T) {
	for name, run := range conformance {
		t.Run(name, func(t *testing.T) { run(newSimulator(t)) })
	}
}

var conformance = map[string]func(s *simulator){
	"basic/test_basic_refresh_requests": func(s *simulator) {
		c := s.client()
		s.hashes = true // without them, as the suite has it, targets is asked for each time
		s.publish(Targets, Snapshot, Timestamp)
		s.asked = nil
		c.accepts(1, 2, 2, 2)
		for _, want := range []string{"2.root.json", "timestamp.json", "2.snapshot.json", "2.targets.json"} {
			if !s.asked["metadata/"+want] {
				s.t.Errorf("%s was not asked for", want)
			}
		}
		if len(s.asked) != 4 {
			s.t.Errorf("asked for %v", s.asked)
		}
		s.asked = nil
		c.accepts(1, 2, 2, 2)
		if len(s.asked) != 2 {
			s.t.Errorf("then asked for %v", s.asked)
		}
	},
	"basic/test_invalid_initial_root": func(s *simulator) {
		if _, err := New(Config{Root: []byte("hello"), Dir: s.t.TempDir(), Remote: s}); err == nil || len(s.asked) > 0 {
			s.t.Errorf("%v; asked for %v", err, s.asked)
		}
	},
	"basic/test_unsigned_initial_root": func(s *simulator) {
		s.root.Signatures[0].Signature[0] ^= 1
		data, err := s.root.ToBytes(false)
		s.must(err)
		if _, err := New(Config{Root: data, Dir: s.t.TempDir(), Remote: s}); err == nil || len(s.asked) > 0 {
			s.t.Errorf("%v; asked for %v", err, s.asked)
		}
	},
	"basic/test_unsigned_metadata": func(s *simulator) {
		for _, role := range []string{Root, Timestamp, Snapshot, Targets} {
			s := newSimulator(s.t)
			c := s.client()
			s.signers[role] = []crypto.Signer{s.newKey()}
			s.publish(Root, Targets, Snapshot, Timestamp)
			if role == Root {
				c.refuses(1, 0, 0, 0)
			} else {
				c.refuses(2, 0, 0, 0)
			}
		}
	},
	"basic/test_url_and_metadata_version_mismatch": func(s *simulator) {
		for _, role := range []string{Root, Snapshot, Targets} {
			s := newSimulator(s.t)
			c := s.client()
			s.publish(Root, Targets, Snapshot, Timestamp)
			name := func(n int64) string { return "metadata/" + metadataName(role, n) }
			s.publish(role)
			s.files[name(2)] = s.files[name(3)] // version 3 under the name of version 2
			delete(s.files, name(3))
			if role == Root {
				c.refuses(1, 0, 0, 0)
			} else {
				c.refuses(2, 0, 0, 0)
			}
		}
	},
	"basic/test_timestamp_content_changes": func(s *simulator) {
		c := s.client()
		c.accepts(1, 1, 1, 1)
		s.timestamp.Signed.Meta["snapshot.json"].Version = 100
		show(s, Timestamp, 0, s.timestamp) // the same version
		s.asked = nil
		c.accepts(1, 1, 1, 1)
		if s.asked["metadata/100.snapshot.json"] {
			s.t.Error("the changed timestamp was believed")
		}
	},
	"basic/test_basic_metadata_hash_support": func(s *simulator) {
		c := s.client()
		s.hashes = true
		s.publish(Targets, Snapshot, Timestamp)
		c.accepts(1, 2, 2, 2)
	},
	"basic/test_targets_hash_mismatch": func(s *simulator) {
		c := s.client()
		s.hashes = true
		s.publish(Targets, Snapshot, Timestamp)
		c.accepts(1, 2, 2, 2)
		s.publish(Targets)
		s.snapshot.Signed.Meta["targets.json"].Hashes["sha256"][0] ^= 1
		s.publish(Snapshot, Timestamp)
		c.refuses(1, 2, 2, 2)
		s.publish(Targets)
		s.snapshot.Signed.Meta["targets.json"].Length-- // and the length
		s.publish(Snapshot, Timestamp)
		c.refuses(1, 2, 2, 2)
	},
	"basic/test_snapshot_hash_mismatch": func(s *simulator) {
		c := s.client()
		s.hashes = true
		s.publish(Targets, Snapshot, Timestamp)
		c.accepts(1, 2, 2, 2)
		s.publish(Snapshot)
		s.timestamp.Signed.Meta["snapshot.json"].Hashes["sha256"][0] ^= 1
		s.publish(Timestamp)
		c.refuses(1, 2, 2, 2)
		s.publish(Snapshot)
		s.timestamp.Signed.Meta["snapshot.json"].Length--
		s.publish(Timestamp)
		c.refuses(1, 2, 2, 2)
	},
	"basic/test_metadata_bytes_match": func(s *simulator) {
		c := s.client()
		data := s.files["metadata/1.targets.json"]
		s.files["metadata/1.targets.json"] = append([]byte("\n \n"), data...)
		c.accepts(1, 1, 1, 1)
		if string(c.raw[Targets]) != string(s.files["metadata/1.targets.json"]) {
			s.t.Error("other bytes were kept than were served")
		}
	},
	"basic/test_custom_fields": func(s *simulator) {
		c := s.client()
		s.root.Signed.UnrecognizedFields = map[string]any{"extra": "value"}
		s.timestamp.Signed.UnrecognizedFields = map[string]any{"extra": []any{"value"}}
		s.snapshot.Signed.UnrecognizedFields = map[string]any{"extra": map[string]any{"a": "b"}}
		s.roles[Targets].Signed.UnrecognizedFields = map[string]any{"extra": "value"}
		s.publish(Root, Targets, Snapshot, Timestamp)
		c.accepts(2, 2, 2, 2)
	},
	"basic/test_snapshot_404": func(s *simulator) { missing(s, Snapshot) },
	"basic/test_targets_404":  func(s *simulator) { missing(s, Targets) },
	"basic/test_timestamp_404": func(s *simulator) {
		c := s.client()
		c.accepts(1, 1, 1, 1)
		delete(s.files, "metadata/timestamp.json")
		c.refuses(1, 1, 1, 1)
	},
	"basic/test_incorrect_metadata_type": func(s *simulator) {
		c := s.client()
		s.signers[Targets] = slices.Concat(s.signers[Targets], s.signers[Snapshot])
		s.snapshot.Signed.Type = Targets
		s.publish(Targets, Snapshot, Timestamp)
		c.refuses(1, 0, 0, 0)
	},

	"expiration/test_root_expired": func(s *simulator) {
		c := s.client()
		c.accepts(1, 1, 1, 1)
		s.publish(Root)
		c.accepts(2, 1, 1, 1)
		s.root.Signed.Expires = days(-1)
		s.publish(Root, Targets, Snapshot, Timestamp)
		c.refuses(3, 1, 1, 1) // freezing is judged after the root was kept
	},
	"expiration/test_timestamp_expired": func(s *simulator) {
		c := s.client()
		c.accepts(1, 1, 1, 1)
		s.timestamp.Signed.Expires = days(-1)
		s.publish(Timestamp)
		c.refuses(1, 1, 1, 1)
	},
	"expiration/test_snapshot_expired": func(s *simulator) {
		c := s.client()
		c.accepts(1, 1, 1, 1)
		s.snapshot.Signed.Expires = days(-1)
		s.publish(Snapshot, Timestamp)
		c.refuses(1, 1, 1, 1)
	},
	"expiration/test_targets_expired": func(s *simulator) {
		c := s.client()
		c.accepts(1, 1, 1, 1)
		s.roles[Targets].Signed.Expires = days(-1)
		s.publish(Targets, Snapshot, Timestamp)
		c.refuses(1, 1, 1, 1)
	},
	"expiration/test_expired_local_root": func(s *simulator) {
		c := s.client()
		s.root.Signed.Expires = days(7)
		s.publish(Root)
		c.accepts(2, 1, 1, 1)
		c.now = days(8)
		c.refuses(2, 1, 1, 1)
		s.root.Signed.Expires = days(20)
		s.publish(Root)
		c.accepts(3, 1, 1, 1)
	},
	"expiration/test_expired_local_timestamp": func(s *simulator) {
		c := s.client()
		s.timestamp.Signed.Expires = days(7)
		s.publish(Timestamp)
		c.accepts(1, 2, 1, 1)
		s.publish(Targets, Snapshot)
		s.timestamp.Signed.Expires = days(21)
		s.publish(Timestamp)
		c.now = days(18)
		c.accepts(1, 3, 2, 2)
	},

	"download/test_client_downloads_expected_file": func(s *simulator) {
		c := s.client()
		s.target(Targets, "test_file.txt", "test file contents")
		s.target(Targets, "path/to/a/dir/file", "in a folder")
		s.publish(Targets, Snapshot, Timestamp)
		c.accepts(1, 2, 2, 2)
		c.downloads("test_file.txt", "test file contents")
		c.downloads("path/to/a/dir/file", "in a folder")
		c.downloads("file", "")
	},
	"download/test_repository_substitutes_target_file": func(s *simulator) {
		c := s.client()
		s.target(Targets, "one", "content 1")
		s.target(Targets, "two", "content 2")
		s.publish(Targets, Snapshot, Timestamp)
		c.accepts(1, 2, 2, 2)
		c.downloads("one", "content 1")
		s.files[s.remote("one", "content 1")] = []byte("malicious")
		s.files[s.remote("two", "content 2")] = []byte("malicious")
		c.downloads("one", "content 1") // kept
		c.downloads("two", "")
		for _, bad := range []string{"content 3", "content", "content 2 and more", ""} { // hash, and lengths
			s.files[s.remote("two", "content 2")] = []byte(bad)
			c.downloads("two", "")
		}
	},
	"download/test_multiple_changes_to_target": func(s *simulator) {
		c := s.client()
		for i := range 10 {
			content := fmt.Sprint("content ", i)
			s.target(Targets, "file", content)
			s.publish(Targets, Snapshot, Timestamp)
			if i%2 == 0 {
				n := int64(i + 2)
				c.accepts(1, n, n, n)
				c.downloads("file", content)
				continue
			}
			s.files[s.remote("file", content)] = []byte("malicious")
			n := int64(i + 2)
			c.accepts(1, n, n, n)
			c.downloads("file", "")
		}
	},
	"download/test_download_with_unknown_hash_algorithm": func(s *simulator) {
		c := s.client()
		s.target(Targets, "file", "content")
		f := s.roles[Targets].Signed.Targets["file"]
		f.Hashes = metadata.Hashes{"unknown-algorithm": f.Hashes["sha256"]}
		s.publish(Targets, Snapshot, Timestamp)
		c.accepts(1, 2, 2, 2)
		c.downloads("file", "")
	},
	"download/test_artifact_cache": func(s *simulator) {
		c := s.client()
		s.target(Targets, "file", "content")
		s.publish(Targets, Snapshot, Timestamp)
		c.accepts(1, 2, 2, 2)
		c.downloads("file", "content")
		s.asked = nil
		c.downloads("file", "content")
		if len(s.asked) > 0 {
			s.t.Errorf("asked again for %v", s.asked)
		}
	},

	"keys/test_snapshot_does_not_meet_threshold": func(s *simulator) {
		s.root.Signed.Roles[Snapshot].Threshold = 3
		s.addKey(Snapshot)
		s.addKey(Snapshot)
		s.publish(Root, Targets, Snapshot, Timestamp)
		c := s.client()
		c.accepts(2, 2, 2, 2)
		s.signers[Snapshot] = s.signers[Snapshot][:2]
		s.publish(Targets, Snapshot, Timestamp)
		c.refuses(2, 2, 2, 2)
	},
	"keys/test_snapshot_has_too_few_keys": func(s *simulator) {
		c := s.client()
		for range 4 {
			s.addKey(Snapshot)
		}
		s.root.Signed.Roles[Snapshot].Threshold = 6
		s.publish(Root, Snapshot, Timestamp)
		c.refuses(2, 0, 0, 0)
	},
	"keys/test_duplicate_keys": func(s *simulator) {
		c := s.client()
		k := s.newKey()
		for range 9 {
			s.trust(Snapshot, k)
		}
		s.root.Signed.Roles[Snapshot].Threshold = 6
		s.signers[Snapshot] = append(s.signers[Snapshot], k)
		s.publish(Root, Snapshot, Timestamp)
		last := s.snapshot.Signatures[len(s.snapshot.Signatures)-1]
		for range 8 {
			s.snapshot.Signatures = append(s.snapshot.Signatures, last)
		}
		put(s, Snapshot, 2, s.snapshot)
		c.Refresh(context.Background())
		if c.version(Snapshot) != 0 {
			s.t.Error("one key counted as six")
		}
	},
	"keys/test_duplicate_sig_keyids": func(s *simulator) {
		c := s.client()
		s.snapshot.Signatures = append(s.snapshot.Signatures, s.snapshot.Signatures[0])
		put(s, Snapshot, 1, s.snapshot)
		c.refuses(1, 0, 0, 0)
	},
	"keys/test_keytype_and_scheme": func(s *simulator) {
		p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		s.must(err)
		for _, k := range []crypto.Signer{p256, key("another")} {
			s := newSimulator(s.t)
			c := s.client()
			s.trust(Root, k)
			s.signers[Root] = append(s.signers[Root], k)
			s.root.Signed.Roles[Root].Threshold = 2
			s.publish(Root)
			c.accepts(2, 1, 1, 1)
			s.publish(Root)
			sig := s.root.Signatures[1].Signature
			sig[len(sig)-1] ^= 1
			put(s, Root, 3, s.root)
			c.refuses(2, 1, 1, 1)
		}
	},
	"keys/test_invalid_sig_in_valid_metadata": func(s *simulator) {
		c := s.client()
		wrong := s.timestamp.Signatures[0]
		s.addKey(Timestamp)
		s.publish(Root, Timestamp)
		for i, sig := range [][]byte{wrong.Signature, {}} {
			at := slices.IndexFunc(s.timestamp.Signatures, func(x metadata.Signature) bool { return x.KeyID == wrong.KeyID })
			s.timestamp.Signatures[at].Signature = sig
			put(s, Timestamp, 0, s.timestamp)
			c.accepts(2, int64(2+i), 1, 1)
			s.publish(Timestamp)
		}
	},

	"quoting/test_unusual_role_name": func(s *simulator) {
		for _, role := range []string{"?", "#", "/delegatedrole", "../delegatedrole", "root", "timestamp", ".", ""} {
			s := newSimulator(s.t)
			c := s.client()
			s.delegate(Targets, role, false, "*")
			s.publish(Targets, Snapshot, Timestamp)
			s.snapshot.Signed.Meta[role+".json"] = &metadata.MetaFiles{Version: 1}
			s.asked = nil
			c.refuses(1, 0, 0, 0) // such names are refused, not quoted
			for name := range s.asked {
				if strings.Contains(name, "..") || strings.Contains(name, "?") {
					s.t.Errorf("asked for %s", name)
				}
			}
		}
	},
	"quoting/test_unusual_target_name": func(s *simulator) {
		c := s.client()
		for _, name := range []string{"with space", "100%25", "a?b#c", "ünï/cödé", "a+b&c=d"} {
			s.target(Targets, name, "content of "+name)
		}
		s.target(Targets, "../escape", "no")
		s.publish(Targets, Snapshot, Timestamp)
		c.accepts(1, 2, 2, 2)
		for _, name := range []string{"with space", "100%25", "a?b#c", "ünï/cödé", "a+b&c=d"} {
			c.downloads(name, "content of "+name)
		}
		c.downloads("100%", "")
		c.downloads("../escape", "")
	},

	"rollback/test_new_timestamp_version_rollback": func(s *simulator) {
		c := s.client()
		s.publish(Timestamp)
		c.accepts(1, 2, 1, 1)
		s.timestamp.Signed.Version = 0
		s.publish(Timestamp)
		c.refuses(1, 2, 1, 1)
	},
	"rollback/test_snapshot_rollback": func(s *simulator) {
		for _, hashes := range []bool{false, true} {
			s := newSimulator(s.t)
			s.hashes = hashes
			c := s.client()
			s.publish(Snapshot, Timestamp)
			c.accepts(1, 2, 2, 1)
			s.snapshot.Signed.Version = 0
			s.publish(Snapshot, Timestamp)
			c.refuses(1, 2, 2, 1)
		}
	},
	"rollback/test_targets_rollback": func(s *simulator) {
		for _, hashes := range []bool{false, true} {
			s := newSimulator(s.t)
			s.hashes = hashes
			c := s.client()
			s.publish(Targets, Snapshot, Timestamp)
			c.accepts(1, 2, 2, 2)
			s.roles[Targets].Signed.Version = 0
			s.publish(Targets, Snapshot, Timestamp)
			c.refuses(1, 2, 2, 2)
		}
	},
	"rollback/test_targets_role_removal": func(s *simulator) {
		c := s.client()
		s.delegate(Targets, "delegated", false, "delegatedpath/*")
		s.publish("delegated", Targets, Snapshot, Timestamp)
		c.accepts(1, 2, 2, 2)
		delete(s.snapshot.Signed.Meta, "delegated.json")
		s.publish(Snapshot, Timestamp)
		c.refuses(1, 2, 2, 2)
	},
	"rollback/test_targets_fast_forward_recovery": func(s *simulator) {
		c := s.client()
		s.roles[Targets].Signed.Version = 98
		s.publish(Targets, Snapshot, Timestamp)
		c.accepts(1, 2, 2, 99)
		s.rotate(Snapshot)
		s.roles[Targets].Signed.Version = 0
		s.publish(Root, Targets, Snapshot, Timestamp)
		c.accepts(2, 3, 3, 1)
	},
	"rollback/test_new_snapshot_fast_forward_recovery": func(s *simulator) {
		c := s.client()
		s.snapshot.Signed.Version = 99
		s.publish(Snapshot, Timestamp)
		c.accepts(1, 2, 100, 1)
		s.rotate(Snapshot)
		s.rotate(Timestamp)
		s.snapshot.Signed.Version = 0
		s.publish(Root, Targets, Snapshot, Timestamp)
		c.accepts(2, 3, 1, 2)
	},
	"rollback/test_new_timestamp_fast_forward_recovery": func(s *simulator) {
		c := s.client()
		s.timestamp.Signed.Version = 99
		s.publish(Timestamp)
		c.accepts(1, 100, 1, 1)
		s.rotate(Timestamp)
		s.timestamp.Signed.Version = 0
		s.publish(Root, Timestamp)
		c.accepts(2, 1, 1, 1)
	},
}

// missing takes a version away that the role above names.
func missing(s *simulator, role string) {
	c := s.client()
	c.accepts(1, 1, 1, 1)
	s.publish(Targets, Snapshot, Timestamp)
	delete(s.files, "metadata/2."+role+".json")
	c.refuses(1, 1, 1, 1)
}
