//go:build slow

package server_test

import "time"

// floodTime is how long TestFlood floods.
const floodTime = time.Minute
