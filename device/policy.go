package device

import (
	"context"

	"github.com/sealant-os/sealant/device/policy"
)

// Rules is the policy in force.
type Rules struct {
	Settings []policy.Setting `json:"settings"`
}

// Policy lists every key with its value and the file that won.
func (d *Device) Policy(context.Context) (Rules, error) {
	return Rules{Settings: d.Config.Origins}, nil
}
