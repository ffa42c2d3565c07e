package pki

import "time"

const (
	validityDefault = 5 * 365 * 24 * time.Hour // 43,800 hours: a cluster made by hand is not rotated often.
	validitySlack   = 24 * time.Hour           // "5 years" asked for a minute after the authority's 5 years began is no mistake.
	backdating      = 5 * time.Minute          // Clocks of machines differ; a new certificate must not be refused as too young.
	expirySoon      = 30 * 24 * time.Hour      // Time enough to mend it before it stops the cluster.
	reloadInterval  = time.Second              // A burst of handshakes rereads the files once.
	fileBytesMax    = 1 << 20                  // A bundle of hundreds of authorities fits; a wrong file does not fill memory.
	rsaKeyBits      = 2048
)
