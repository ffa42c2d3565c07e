package network

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"slices"
	"sync"

	"github.com/holdfast-db/holdfast/internal/vfs"
)

// ErrFull is that of a node whose range has no address left.
var ErrFull = errors.New("all addresses of the node are taken")

// pool is who has which address.
type pool struct {
	fs    vfs.FS
	file  string
	cidr  netip.Prefix
	first netip.Addr // After the gateway.
	size  uint32

	mu struct { // Held while the file is written: what it says must be the newest.
		sync.Mutex
		poolFile
	}
}

// poolFile is the pool as it is on disk.
type poolFile struct {
	CIDR      netip.Prefix
	Addresses map[string]netip.Addr // By UID.
	// Last is what was given last. The next ones are given first, so that whoever still
	// talks to a pod that is gone does not soon talk to another.
	Last netip.Addr
}

// gatewayOf is the address of the node itself among those of its pods.
func gatewayOf(cidr netip.Prefix) netip.Addr { return cidr.Addr().Next() }

// openPool reads who has what. A file of another range, or one that cannot be read,
// counts as none: the interfaces tell the same.
func openPool(fsys vfs.FS, file string, cidr netip.Prefix) (p *pool, damage error, err error) {
	p = &pool{fs: fsys, file: file, cidr: cidr, first: gatewayOf(cidr).Next(), size: uint32(1)<<(32-cidr.Bits()) - 3}
	b, err := vfs.ReadFile(fsys, file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("addresses of pods: %w", err)
	}
	var read poolFile
	if err == nil {
		damage = json.Unmarshal(b, &read)
	}
	p.mu.poolFile = poolFile{CIDR: cidr, Addresses: map[string]netip.Addr{}}
	if damage == nil && read.CIDR == cidr {
		p.mu.Last = read.Last
		for _, uid := range slices.Sorted(maps.Keys(read.Addresses)) {
			if a := read.Addresses[uid]; p.gives(a) && p.owner(a) == "" {
				p.mu.Addresses[uid] = a
			}
		}
	}
	return p, damage, nil
}

// gives reports whether an address is one for pods.
func (p *pool) gives(a netip.Addr) bool {
	i := p.index(a)
	return p.cidr.Contains(a) && i < p.size
}

func (p *pool) index(a netip.Addr) uint32 {
	if !a.Is4() {
		return p.size
	}
	return number(a) - number(p.first) // Less than the first: large.
}

func (p *pool) at(i uint32) netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], number(p.first)+i)
	return netip.AddrFrom4(b)
}

func number(a netip.Addr) uint32 {
	b := a.As4()
	return binary.BigEndian.Uint32(b[:])
}

// owner is the pod that has an address.
func (p *pool) owner(a netip.Addr) string {
	for uid, had := range p.mu.Addresses { //tidy:ordered at most one has it
		if had == a {
			return uid
		}
	}
	return ""
}

// take gives a pod an address, or tells the one that it has.
func (p *pool) take(uid string) (netip.Addr, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if a, ok := p.mu.Addresses[uid]; ok {
		return a, nil
	}
	taken := make(map[netip.Addr]bool, len(p.mu.Addresses))
	for _, a := range p.mu.Addresses { //tidy:ordered a set
		taken[a] = true
	}
	start := uint32(0)
	if p.gives(p.mu.Last) {
		start = p.index(p.mu.Last) + 1
	}
	for i := range p.size {
		a := p.at((start + i) % p.size)
		if taken[a] {
			continue
		}
		before := p.mu.Last
		p.mu.Addresses[uid], p.mu.Last = a, a
		if err := p.writeLocked(); err != nil {
			delete(p.mu.Addresses, uid)
			p.mu.Last = before
			return netip.Addr{}, err
		}
		return a, nil
	}
	return netip.Addr{}, fmt.Errorf("%d addresses of %v: %w", p.size, p.cidr, ErrFull)
}

// adopt says that a pod has an address, which its interface told. It fails if
// another has it, or if it is none to be given.
func (p *pool) adopt(uid string, a netip.Addr) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if had, ok := p.mu.Addresses[uid]; ok {
		return had == a
	}
	if !p.gives(a) || p.owner(a) != "" {
		return false
	}
	p.mu.Addresses[uid] = a
	return p.writeLocked() == nil
}

func (p *pool) release(uid string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	a, ok := p.mu.Addresses[uid]
	if !ok {
		return nil
	}
	delete(p.mu.Addresses, uid)
	if err := p.writeLocked(); err != nil {
		p.mu.Addresses[uid] = a
		return err
	}
	return nil
}

func (p *pool) uids() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Sorted(maps.Keys(p.mu.Addresses))
}

func (p *pool) writeLocked() error {
	b, err := json.Marshal(&p.mu.poolFile)
	if err == nil {
		err = vfs.ReplaceFile(p.fs, p.file, b)
	}
	if err != nil {
		return fmt.Errorf("addresses of pods: %w", err)
	}
	return nil
}
