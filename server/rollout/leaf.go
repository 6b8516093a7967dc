package rollout

import (
	"context"
	"fmt"
	"strings"

	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/release"
	signed "github.com/sealant-os/sealant/release/catalog"
	"github.com/sealant-os/sealant/server/catalog"
)

// RevokeLeaf takes back the certificate of a signing service: servers stop
// signing with it and devices stage nothing that it signed, as soon as they
// have seen the catalog. It says whether the leaf was revoked before.
func (d *Desk) RevokeLeaf(ctx context.Context, id release.Hash, reason string) (again bool, err error) {
	fail := func(err error) (bool, error) {
		return false, fault.New(fault.KindOf(err), "cannot revoke the leaf: %w", err)
	}
	view, err := d.Source.View(ctx)
	if err != nil {
		return fail(err)
	}
	product := ""
	view.Sets(func(s *catalog.Set) { product = s.Product })
	if product == "" {
		return fail(fault.New(fault.Usage, "the catalog has no baseline yet, so no device trusts the leaf"))
	}
	reason = strings.TrimSpace(reason)
	e := release.RevokedLeaf{ID: id, Reason: reason, Date: release.Time(d.Now())}
	list, err := d.Repository.RecallList(product)
	if err != nil {
		return fail(err)
	}
	// What is wrong with the words shows before anything is asked of a key.
	if _, err := list.WithLeaf(e).Encode(); err != nil {
		return fail(fault.New(fault.Usage, "%w", err))
	}
	err = d.publish(signed.Recall, release.RecallPath, d.Recallers, func() (document, error) {
		list, err := d.Repository.RecallList(product)
		if err != nil {
			return nil, err
		}
		if again = revokes(list, id); again {
			return nil, nil
		}
		return list.WithLeaf(e), nil
	})
	if err != nil {
		return fail(err)
	}
	if again {
		return true, nil
	}
	return false, d.note(ctx, "leaf.revoke", fmt.Sprintf("%.16s", id), reason)
}

func revokes(l release.RecallList, id release.Hash) bool {
	for _, e := range l.Leaves {
		if e.ID == id {
			return true
		}
	}
	return false
}
