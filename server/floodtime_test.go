//go:build !slow

package server_test

import "time"

// floodTime is how long TestFlood floods; -tags slow makes it longer.
const floodTime = 2 * time.Second
