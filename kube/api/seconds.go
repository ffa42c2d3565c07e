package api

import "time"

// SecondsMax of a field, a year: whoever says more means never, and a time cannot hold
// three hundred of them.
const SecondsMax = 365 * 24 * 3600

// Seconds is a field that counts them as a time, of a year at most.
func Seconds(n int64) time.Duration {
	return time.Duration(min(max(n, 0), SecondsMax)) * time.Second
}
