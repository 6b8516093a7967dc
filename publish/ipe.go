package publish

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/release"
)

// IPEOrder says which policy to write for Linux's Integrity Policy Enforcement.
type IPEOrder struct {
	Name     string   // the policy's, "sealant" if empty
	Version  string   // three numbers up to 65535: "0.0.7"; the kernel takes no lower one later
	Baseline string   // digest in hex, only this baseline and its improvements; "" for all
	Roots    []string // further root hashes of dm-verity, "HEX" or "HEX=what it is": the system's own /usr
	Recalled bool     // improvements that were recalled stay allowed
}

// maxPolicy bounds a policy, in bytes: some 6 000 root hashes.
const maxPolicy = 1 << 20

// IPE writes the text of a policy that lets only these execute: what the boot loader
// verified, and what is read from dm-verity devices with the root hashes of
// published baselines and improvements. It is signed by other tools: docs/enforcement.md.
func (v *Vendor) IPE(o IPEOrder) (string, error) {
	repo, err := v.Repository()
	if err != nil {
		return "", err
	}
	baselines, err := repo.Baselines()
	if err != nil {
		return "", err
	}
	manifests, err := repo.Manifests()
	if err != nil {
		return "", err
	}
	recalls, err := repo.RecallList(v.Product)
	if err != nil {
		return "", err
	}
	recalled := map[string]bool{}
	for _, r := range recalls.Entries {
		recalled[r.Release] = true
	}
	return ipePolicy(o, baselines, manifests, recalled)
}

func ipePolicy(o IPEOrder, baselines []release.Baseline, manifests []release.Manifest, recalled map[string]bool) (string, error) {
	if o.Name == "" {
		o.Name = "sealant"
	}
	if strings.ContainsFunc(o.Name, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune("=#\"/", r) }) || len(o.Name) > 64 {
		return "", fault.New(fault.Usage, "cannot write a policy called %q", o.Name)
	}
	if err := checkPolicyVersion(o.Version); err != nil {
		return "", err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "policy_name=%s policy_version=%s\nDEFAULT action=ALLOW\n\nDEFAULT op=EXECUTE action=DENY\n", o.Name, o.Version)
	b.WriteString("op=EXECUTE boot_verified=TRUE action=ALLOW\n")
	told := map[string]bool{}
	allow := func(root, what string) {
		if !told[root] {
			fmt.Fprintf(&b, "\n# %s\nop=EXECUTE dmverity_roothash=sha256:%s action=ALLOW\n", what, root)
		}
		told[root] = true
	}
	for _, root := range o.Roots {
		hash, what, _ := strings.Cut(root, "=")
		var h release.Hash
		if err := h.UnmarshalText([]byte(hash)); err != nil || strings.ContainsAny(what, "\n\r") {
			return "", fault.New(fault.Usage, "cannot allow the root hash %q: it is no SHA-256 in hex, with =TEXT after it at most", root)
		}
		allow(h.String(), cmp.Or(what, "the operating system"))
	}
	found := false
	slices.SortFunc(baselines, func(x, y release.Baseline) int { return strings.Compare(x.OSVersion, y.OSVersion) })
	for _, base := range baselines {
		if o.Baseline != "" && base.Digest().String() != o.Baseline {
			continue
		}
		found = true
		for _, c := range base.Cryptexes {
			allow(c.Seal.Root.String(), fmt.Sprintf("%s %s, baseline", base.OSVersion, c.Name))
		}
		for _, m := range manifests {
			if m.Baseline != base.Digest() || recalled[m.ID] && !o.Recalled {
				continue
			}
			for _, c := range m.Cryptexes {
				allow(c.To.Seal.Root.String(), fmt.Sprintf("%s %s, %s %s", base.OSVersion, c.Name, m.Label(), m.ID))
			}
		}
	}
	if !found {
		return "", fault.New(fault.Usage, "cannot write a policy: no such baseline is published").Hint("sealpub release baseline publishes one")
	}
	if b.Len() > maxPolicy {
		return "", fault.New(fault.Failed, "cannot write a policy of %d bytes, at most %d", b.Len(), maxPolicy).Hint("--baseline takes one baseline only")
	}
	return b.String(), nil
}

func checkPolicyVersion(s string) error {
	parts := strings.Split(s, ".")
	ok := len(parts) == 3
	for _, p := range parts {
		n, err := strconv.ParseUint(p, 10, 16)
		ok = ok && err == nil && strconv.FormatUint(n, 10) == p
	}
	if !ok {
		return fault.New(fault.Usage, "cannot use the policy version %q: it is three numbers, 0.0.7", s)
	}
	return nil
}
