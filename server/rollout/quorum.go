package rollout

import (
	"context"
	"fmt"

	signed "github.com/sealant-os/sealant/release/catalog"
)

// Unfinished says that a list needs the signatures of more people than were at
// hand. The ceremony has those that were; it goes from one person to the next,
// and Perform publishes it.
type Unfinished struct {
	Ceremony *signed.Ceremony
}

// Error implements error.
func (u *Unfinished) Error() string {
	s := u.Ceremony.Steps()[0].Signed
	return fmt.Sprintf("%s has %d of %d signatures", u.Ceremony.Name, s.Valid, s.Threshold)
}

// Perform publishes a list that enough people have signed, and shows it to
// devices.
func (d *Desk) Perform(ctx context.Context, c *signed.Ceremony) error {
	if err := d.Repository.Perform(c); err != nil {
		return err
	}
	if len(d.Online) > 0 {
		if _, err := d.Repository.Refresh(d.Online, d.Now()); err != nil {
			return err
		}
	}
	return d.note(ctx, "list.publish", c.Name, fmt.Sprintf("%d signatures", c.Steps()[0].Signed.Valid))
}
