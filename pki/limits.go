package pki

import "time"

const (
	validityDefault = 5 * 365 * 24 * time.Hour // 43,800 hours: a cluster made by hand is not rotated often.
	validitySlack   = 24 * time.Hour           // "5 years" asked for a minute after the authority's 5 years began is no mistake.
	backdating      = 5 * time.Minute          // Clocks of machines differ; a new certificate must not be refused as too young.
	expirySoon      = 30 * 24 * time.Hour      // Time enough to mend it before it stops the cluster.
	expiryInterval  = 24 * time.Hour           // How often it is said of a certificate that is in use.
	reloadInterval  = time.Second              // A burst of handshakes rereads the files once.
	fileBytesMax    = 1 << 20                  // A bundle of hundreds of authorities fits; a wrong file does not fill memory.
	jsonDepthMax    = 16                       // cfssl's files have six levels.
	rsaKeyBits      = 2048
	nameBytesMax    = 253  // Of DNS, without its length bytes.
	rsaKeyBitsMax   = 8192 // One of these takes seconds to make; more keeps nobody safer.
)

// pairLooks at a certificate and a key that do not belong together, pairPause
// apart: a second, in which whoever replaces them is through.
const (
	pairLooks = 10
	pairPause = 100 * time.Millisecond
)

// Renewal: early enough that a cluster which signs nothing for a tenth of the life
// loses nobody, and spread, since nodes are often made together.
const (
	rotateFirst    = 0.7
	rotateLast     = 0.9
	rotateRetryMin = time.Second
	rotateRetryMax = 5 * time.Minute
	rotateLook     = time.Hour
)
