// Package etcdctl drives holdfast with Debian's etcdctl 3.4, the oldest client
// that people still have, and with our own holdfastctl, which must print the
// same. The snapshot that the old one saves must be one that ours verifies and
// restores, and from which a member starts with every key.
package etcdctl
