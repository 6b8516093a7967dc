package e2e

import (
	"encoding/hex"
	"path/filepath"
	"testing"
	"time"

	"github.com/sealant-os/sealant/device"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/server"
	"github.com/sealant-os/sealant/server/store"
	"github.com/sealant-os/sealant/test/maker"
	"github.com/sealant-os/sealant/trust/tpm"
)

// TestEnrolByMaker enrols devices whose TPMs nobody listed, because their maker
// certified them: each with the first sort of endorsement key that the maker
// did. A revoked TPM stays out, and another maker's certificates say nothing.
func TestEnrolByMaker(t *testing.T) {
	v := newVendor(t)
	known, foreign := maker.New(t), maker.New(t)
	m, stranger, thief := v.machine(""), v.machine(""), v.machine("")
	m.fitTPMWith(known.TPM(t))
	stranger.fitTPMWith(foreign.TPM(t))
	memory := known.TPM(t)
	thief.fitTPMWith(memory)
	v.world.Pass(time.Minute) // the world's clock stood still while the certificates were made

	_, err := m.open().Enroll(t.Context(), device.EnrollOptions{}, user, nil)
	wantKind(t, err, fault.Refused) // the server believes no maker yet
	makers, err := tpm.NewMakers(known.Certificates(t))
	v.must(err)
	v.node = v.world.Start(filepath.Join(v.dir, "server.db"), func(c *server.Config) { c.Makers = makers })

	r, err := m.open().Enroll(t.Context(), device.EnrollOptions{}, user, m.log)
	if err != nil || r.Identity != device.IdentityTPM {
		t.Fatalf("%+v, %v", r, err)
	}
	_, err = stranger.open().Enroll(t.Context(), device.EnrollOptions{}, user, nil)
	wantKind(t, err, fault.Refused)

	listed := 0
	v.must(v.node.DB.EachEndorsement(t.Context(), func(e store.Endorsement) error {
		listed++
		if e.Note != store.NoteCertified {
			t.Errorf("%s: %q", hex.EncodeToString(e.ID[:4]), e.Note)
		}
		return nil
	}))
	if listed != 1 {
		t.Errorf("%d TPMs are listed, want the one", listed)
	}

	// The operator revokes a TPM by both of its certified keys: its
	// certificates don't bring it back.
	chip := thief.openTPM()
	for _, sort := range tpm.Sorts(chip) {
		ek, err := sort.Read(chip)
		v.must(err)
		id, err := ek.ID()
		v.must(err)
		v.must(v.node.DB.AddEndorsement(t.Context(), id, "stolen", v.world.Now()))
		v.must(v.node.DB.RevokeEndorsement(t.Context(), id, v.world.Now()))
	}
	_, err = thief.open().Enroll(t.Context(), device.EnrollOptions{}, user, nil)
	wantKind(t, err, fault.Refused)
}
