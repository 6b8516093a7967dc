package main

import (
	"os"
	"strconv"

	"github.com/sealant-os/sealant/internal/fault"
)

// sourceDate is the time that no file of an image may be newer than: the
// SOURCE_DATE_EPOCH of the environment, 0 where it is not set. See
// https://reproducible-builds.org/specs/source-date-epoch/.
func sourceDate() (int64, error) {
	text, set := os.LookupEnv("SOURCE_DATE_EPOCH")
	if !set {
		return 0, nil
	}
	latest, err := strconv.ParseInt(text, 10, 64)
	if err != nil || latest <= 0 {
		return 0, fault.New(fault.Usage, "cannot use SOURCE_DATE_EPOCH %.40q: not a number of seconds", text)
	}
	return latest, nil
}
