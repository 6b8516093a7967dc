package catalog

import (
	"crypto"
	"errors"
	"slices"
	"testing"
	"time"
)

// edge is one delegation: paths are all paths where empty.
type edge struct {
	above, role string
	terminating bool
	paths       string
}

// TestConformanceDelegations has the cases of test_graph_traversal: the roles
// that a look-up must visit, in that order. Names are in small letters here,
// since this client takes no others.
func TestConformanceDelegations(t *testing.T) {
	for name, tt := range map[string]struct {
		edges   []edge
		visited []string
	}{
		"basic-delegation":         {[]edge{{"targets", "a", false, ""}}, []string{"a"}},
		"single-level-delegations": {[]edge{{"targets", "a", false, ""}, {"targets", "b", false, ""}}, []string{"a", "b"}},
		"two-level-delegations":    {[]edge{{"targets", "a", false, ""}, {"targets", "b", false, ""}, {"b", "c", false, ""}}, []string{"a", "b", "c"}},
		"two-level-test-DFS-order-of-traversal": {
			[]edge{{"targets", "a", false, ""}, {"targets", "b", false, ""}, {"a", "c", false, ""}, {"a", "d", false, ""}},
			[]string{"a", "c", "d", "b"},
		},
		"three-level-delegation-test-DFS-order-of-traversal": {
			[]edge{{"targets", "a", false, ""}, {"targets", "b", false, ""}, {"a", "c", false, ""}, {"c", "d", false, ""}},
			[]string{"a", "c", "d", "b"},
		},
		"two-level-terminating-ignores-all-but-roles-descendants": {
			[]edge{{"targets", "a", false, ""}, {"targets", "b", false, ""}, {"a", "c", true, ""}, {"a", "d", false, ""}},
			[]string{"a", "c"},
		},
		"three-level-terminating-ignores-all-but-roles-descendants": {
			[]edge{{"targets", "a", false, ""}, {"targets", "b", false, ""}, {"a", "c", true, ""}, {"c", "d", false, ""}},
			[]string{"a", "c", "d"},
		},
		"two-level-ignores-all-branches-not-matching-paths": {
			[]edge{{"targets", "a", false, "*.py"}, {"targets", "b", false, ""}, {"a", "c", false, ""}},
			[]string{"b"},
		},
		"three-level-ignores-all-branches-not-matching-paths": {
			[]edge{{"targets", "a", false, ""}, {"targets", "b", false, ""}, {"a", "c", false, "*.py"}, {"c", "d", false, ""}},
			[]string{"a", "b"},
		},
		"cyclic-graph": {
			[]edge{{"targets", "a", false, ""}, {"targets", "b", false, ""}, {"b", "c", false, ""}, {"c", "d", false, ""}, {"d", "b", false, ""}},
			[]string{"a", "b", "c", "d"},
		},
		"two-roles-delegating-to-a-third": {
			[]edge{{"targets", "a", false, ""}, {"targets", "b", false, ""}, {"b", "c", false, ""}, {"a", "c", false, ""}},
			[]string{"a", "c", "b"},
		},
		"two-roles-delegating-to-a-third-different-paths": {
			[]edge{{"targets", "a", false, ""}, {"targets", "b", false, ""}, {"b", "c", false, ""}, {"a", "c", false, "*.py"}},
			[]string{"a", "b", "c"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSimulator(t)
			roles := []string{}
			for _, e := range tt.edges {
				if !slices.Contains(roles, e.role) {
					roles = append(roles, e.role)
				}
				paths := e.paths
				if paths == "" {
					paths = "*"
				}
				s.delegate(e.above, e.role, e.terminating, paths)
				s.target(e.role, "wanted", "by "+e.role)
			}
			s.publish(slices.Concat(roles, []string{Targets, Snapshot, Timestamp})...)
			c := s.client()
			// Whoever is asked first answers; then it no longer does.
			for i, role := range tt.visited {
				n := int64(i + 2)
				c.accepts(1, n, n, n)
				c.downloads("wanted", "by "+role)
				delete(s.roles[role].Signed.Targets, "wanted")
				s.publish(role, Targets, Snapshot, Timestamp)
			}
			n := int64(len(tt.visited) + 2)
			c.accepts(1, n, n, n)
			if _, err := c.Locate("wanted"); !errors.Is(err, ErrNoTarget) {
				t.Errorf("somebody else was asked: %v", err)
			}
		})
	}
}

// TestConformanceSearch is test_targetfile_search.
func TestConformanceSearch(t *testing.T) {
	s := newSimulator(t)
	for _, e := range []struct {
		above, role string
		paths       []string
	}{
		{"targets", "a", []string{"*.doc", "*.md", "foo-?.tgz"}},
		{"targets", "b", []string{"releases/*/*"}},
		{"b", "c", []string{"releases/x/*"}},
		{"b", "d", []string{"releases/y/*.zip"}},
	} {
		s.delegate(e.above, e.role, false, e.paths...)
	}
	files := []struct {
		role, name string
		found      bool
	}{
		{"targets", "targetfile", true},
		{"a", "README.md", true},
		{"a", "releases/README.md", false}, // a wildcard ends at a slash
		{"a", "foo-1.tgz", true},
		{"a", "foo-alpha.tgz", false},
		{"a", "README.MD", false},
		{"c", "releases/x/x_v1", true},
		{"d", "releases/y/y_v1.zip", true},
		{"d", "releases/z/z_v1.zip", false}, // not delegated all the way
	}
	for _, f := range files {
		s.target(f.role, f.name, f.role+" has "+f.name)
	}
	s.publish("a", "b", "c", "d", Targets, Snapshot, Timestamp)
	c := s.client()
	c.accepts(1, 2, 2, 2)
	for _, f := range files {
		want := f.role + " has " + f.name
		if !f.found {
			want = ""
		}
		c.downloads(f.name, want)
	}
}

// TestConformanceDiamond is test_cached_role_is_verified_against_current_delegator:
// two roles delegate to a third, each with another key, and it is signed with
// one of the two. This client refuses the whole state.
func TestConformanceDiamond(t *testing.T) {
	for _, both := range []bool{true, false} {
		s := newSimulator(t)
		s.delegate(Targets, "parent-a", false, "team-a/*")
		s.delegate(Targets, "parent-b", false, "team-b/*")
		s.delegate("parent-a", "release", false, "team-a/*")
		first := s.signers["release"]
		s.signers["release"] = []crypto.Signer{s.newKey()}
		s.delegate("parent-b", "release", false, "team-b/*")
		if both {
			s.signers["release"] = append(s.signers["release"], first...)
		} else {
			s.signers["release"] = first
		}
		s.target("release", "team-a/app", "a")
		s.target("release", "team-b/app", "b")
		s.publish("release", "parent-a", "parent-b", Targets, Snapshot, Timestamp)
		c := s.client()
		if both {
			c.accepts(1, 2, 2, 2)
			c.downloads("team-a/app", "a")
			c.downloads("team-b/app", "b")
			continue
		}
		c.refuses(1, 0, 0, 0)
		c.downloads("team-b/app", "")
	}
}

// TestConformanceNotInSnapshot is test_delegation_not_in_snapshot.
func TestConformanceNotInSnapshot(t *testing.T) {
	s := newSimulator(t)
	s.delegate(Targets, "delegated", false, "*")
	s.target("delegated", "file", "content")
	s.publish("delegated", Targets)
	delete(s.snapshot.Signed.Meta, "delegated.json")
	s.publish(Snapshot, Timestamp)
	c := s.client()
	c.refuses(1, 0, 0, 0)
	c.downloads("file", "")
}

// signing is one version's keys, threshold, and who signed, by number.
type signing struct {
	keys      []int
	threshold int
	sigs      []int
}

// TestConformanceRotations has the cases of test_root_rotation: the chain of
// roots from version 1 on, and whether its end is reached.
func TestConformanceRotations(t *testing.T) {
	five, moved, others := []int{0, 1, 2, 3, 4}, []int{0, 1, 3, 4, 5}, []int{5, 6, 7, 8, 9}
	three := []int{1, 2, 3}
	for name, tt := range map[string]struct {
		chain []signing
		good  bool
	}{
		"1-of-1-key-rotation":                                             {[]signing{{[]int{1}, 1, []int{1}}, {[]int{2}, 1, []int{2, 1}}, {[]int{2}, 1, []int{2}}}, true},
		"1-of-1-key-rotation-unused-signatures":                           {[]signing{{[]int{1}, 1, []int{3, 1, 4}}, {[]int{2}, 1, []int{3, 2, 1, 4}}, {[]int{2}, 1, []int{3, 2, 4}}}, true},
		"1-of-1-key-rotation-fail-not-signed-with-old-key":                {[]signing{{[]int{1}, 1, []int{1}}, {[]int{2}, 1, []int{2, 3, 4}}}, false},
		"1-of-1-key-rotation-fail-not-signed-with-new-key":                {[]signing{{[]int{1}, 1, []int{1}}, {[]int{2}, 1, []int{1, 3, 4}}}, false},
		"3-of-5-sign-with-different-keycombos":                            {[]signing{{five, 3, []int{0, 2, 4}}, {five, 3, []int{0, 4, 1}}, {five, 3, []int{0, 1, 3}}, {five, 3, []int{0, 1, 3}}}, true},
		"3-of-5-one-key-rotated":                                          {[]signing{{five, 3, []int{0, 2, 4}}, {moved, 3, []int{0, 4, 1}}}, true},
		"3-of-5-one-key-rotate-fails-not-signed-with-3-new-keys":          {[]signing{{five, 3, []int{0, 2, 4}}, {moved, 3, []int{0, 2, 4}}}, false},
		"3-of-5-one-key-rotate-fails-not-signed-with-3-old-keys":          {[]signing{{five, 3, []int{0, 2, 4}}, {moved, 3, []int{0, 4, 5}}}, false},
		"3-of-5-one-key-rotated-with-intermediate-step":                   {[]signing{{five, 3, []int{0, 2, 4}}, {moved, 3, []int{0, 2, 4, 5}}, {moved, 3, []int{0, 4, 5}}}, true},
		"3-of-5-all-keys-rotated-with-intermediate-step":                  {[]signing{{five, 3, []int{0, 2, 4}}, {others, 3, []int{0, 2, 4, 5, 6, 7}}, {others, 3, []int{5, 6, 7}}}, true},
		"1-of-3-threshold-increase-to-2-of-3":                             {[]signing{{three, 1, []int{1}}, {three, 2, []int{1, 2}}}, true},
		"1-of-3-threshold-bump-to-2-of-3-fails-new-threshold-not-reached": {[]signing{{three, 1, []int{1}}, {three, 2, []int{2}}}, false},
		"2-of-3-threshold-decrease-to-1-of-3":                             {[]signing{{three, 2, []int{1, 2}}, {three, 1, []int{1, 2}}, {three, 1, []int{1}}}, true},
		"2-of-3-threshold-decr-to-1-of-3-fails-old-threshold-not-eached":  {[]signing{{three, 2, []int{1, 2}}, {three, 1, []int{1}}}, false},
		"1-of-2-threshold-increase-to-2-of-2":                             {[]signing{{[]int{1}, 1, []int{1}}, {[]int{1, 2}, 2, []int{1, 2}}}, true},
		"a version is skipped, though the one after it would be good":     {[]signing{{[]int{1}, 1, []int{1}}, {}, {[]int{1}, 1, []int{1}}}, false},
		"a key that no role names signs":                                  {[]signing{{[]int{1}, 2, []int{1, 9}}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSimulator(t)
			s.root.Signed.Version = 0
			delete(s.files, "metadata/1.root.json")
			var pool []crypto.Signer
			for range 10 {
				pool = append(pool, s.newKey())
			}
			for _, v := range tt.chain {
				if v.threshold == 0 {
					s.root.Signed.Version++ // nobody sees it
					continue
				}
				s.forget(Root)
				s.root.Signed.Roles[Root].Threshold = v.threshold
				for _, k := range v.keys {
					s.trust(Root, pool[k])
				}
				for _, k := range v.sigs {
					s.signers[Root] = append(s.signers[Root], pool[k])
				}
				s.publish(Root)
			}
			c := &conforming{device: &device{dir: t.TempDir(), now: start}, s: s}
			var err error
			c.Client, err = New(Config{Root: s.files["metadata/1.root.json"], Dir: c.dir, Remote: s, Now: func() time.Time { return start }})
			end := int64(len(tt.chain))
			switch {
			case end == 1:
				if err == nil {
					t.Error("accepted")
				}
			case tt.good:
				s.must(err)
				c.accepts(end, 1, 1, 1)
			case len(tt.chain[1].keys) == 0:
				s.must(err)
				c.accepts(1, 1, 1, 1) // the chain ends at the gap
			default:
				s.must(err)
				c.refuses(end-1, 0, 0, 0)
			}
		})
	}
}

// TestConformanceOtherRotations has the cases of test_non_root_rotations, for
// each role alone.
func TestConformanceOtherRotations(t *testing.T) {
	five, moved := []int{0, 1, 2, 3, 4}, []int{0, 1, 3, 4, 5}
	for name, tt := range map[string]struct {
		signing
		good bool
	}{
		"1-of-1-key-rotation":                                            {signing{[]int{2}, 1, []int{2}}, true},
		"1-of-1-key-rotation-unused-signatures":                          {signing{[]int{1}, 1, []int{3, 1, 4}}, true},
		"1-of-1-key-rotation-fail-not-signed-with-new-key":               {signing{[]int{2}, 1, []int{1, 3, 4}}, false},
		"3-of-5-one-key-signature-wrong-not-signed-with-3-expected-keys": {signing{moved, 3, []int{0, 2, 4}}, false},
		"2-of-5-one-key-signature-mising-threshold-not-reached":          {signing{moved, 3, []int{0, 4}}, false},
		"3-of-5-sign-first-combo":                                        {signing{five, 3, []int{0, 2, 4}}, true},
		"3-of-5-sign-second-combo":                                       {signing{five, 3, []int{0, 4, 1}}, true},
		"3-of-5-sign-third-combo":                                        {signing{five, 3, []int{0, 1, 3}}, true},
		"3-of-5-sign-fourth-combo":                                       {signing{five, 3, []int{1, 2, 3}}, true},
		"3-of-5-sign-fifth-combo":                                        {signing{five, 3, []int{2, 3, 4}}, true},
	} {
		t.Run(name, func(t *testing.T) {
			for _, role := range []string{Timestamp, Snapshot, Targets} {
				s := newSimulator(t)
				c := s.client()
				var pool []crypto.Signer
				for range 10 {
					pool = append(pool, s.newKey())
				}
				s.forget(role)
				s.root.Signed.Roles[role].Threshold = tt.threshold
				for _, k := range tt.keys {
					s.trust(role, pool[k])
				}
				for _, k := range tt.sigs {
					s.signers[role] = append(s.signers[role], pool[k])
				}
				s.publish(Root, Targets, Snapshot, Timestamp)
				if tt.good {
					c.accepts(2, 2, 2, 2)
				} else {
					c.refuses(2, 0, 0, 0)
				}
			}
		})
	}
}
