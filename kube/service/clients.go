package service

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	socket "github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// toForget are the ports among changes whose clients may stick to an endpoint that is
// no longer one for new connections.
func (t *Table) toForget(changes Plan) []*Port {
	var left []*Port
	for _, name := range slices.Sorted(maps.Keys(changes)) {
		had, now := t.has[name], changes[name]
		if had == nil || now == nil || had.port.Sticky == 0 || now.Sticky != had.port.Sticky || len(now.Endpoints) == 0 {
			continue
		}
		if slices.ContainsFunc(had.port.Endpoints, func(e netip.AddrPort) bool { return !slices.Contains(now.Endpoints, e) }) {
			left = append(left, now)
		}
	}
	return left
}

// forget has clients forget such endpoints. It looks again after it did: a packet that
// was on its way may have remembered one meanwhile.
func (t *Table) forget(ports []*Port) error {
	for _, p := range ports {
		for try := 0; ; try++ {
			stale, err := t.staleClients(p)
			if err == nil && len(stale) == 0 {
				break
			}
			if err == nil {
				t.begin()
				t.next.deleteElements(stickySet(p), stale)
				err = t.send()
			}
			// One whose time was over meanwhile is not there: the rest still is.
			if err != nil && (!errors.Is(err, unix.ENOENT) || try >= forgetTries) {
				return fmt.Errorf("clients of %s that stick to an endpoint that is gone: %w", p.Name, err)
			}
		}
	}
	return nil
}

// staleClients are those who stick to none of a port's endpoints.
func (t *Table) staleClients(p *Port) ([]element, error) {
	all, err := t.clients(p)
	if err != nil {
		return nil, err
	}
	var stale []element
	for ready := endpointKeys(p); len(all) > 0; all = all[1:] {
		if !ready[string(all[0].value)] {
			stale = append(stale, element{key: all[0].key})
		}
	}
	return stale, nil
}

// takeOver are the clients of a port as another table, or another map of this one, has
// them: its endpoints may be others, and the time shorter. Who connects while this is
// asked may be left out, and gets any endpoint next time.
func (t *Table) takeOver(p *Port) []element {
	all, err := t.clients(p)
	if errors.Is(err, unix.ENOENT) {
		return nil // There was none.
	}
	if err != nil {
		t.log.Warn("clients may get another endpoint than they had", "port", p.Name, "error", err)
	}
	ready := endpointKeys(p)
	most := uint64(p.Sticky.Milliseconds())
	all = slices.DeleteFunc(all, func(e element) bool {
		return len(e.key) != addressBytes || !ready[string(e.value)] || e.leftMillis == 0
	})
	for i := range all {
		all[i].leftMillis = min(all[i].leftMillis, most)
	}
	return all[:min(len(all), stickyMax)]
}

func endpointKeys(p *Port) map[string]bool {
	keys := make(map[string]bool, len(p.Endpoints))
	for _, e := range p.Endpoints {
		keys[string(endpointKey(e))] = true
	}
	return keys
}

// clients asks the kernel which clients of a port stick, and to what.
func (t *Table) clients(p *Port) ([]element, error) {
	if t.nft == nil {
		if err := t.dial(); err != nil {
			return nil, err
		}
	}
	a := &attributes{b: []byte{family, unix.NFNETLINK_V0, 0, 0}}
	a.text(unix.NFTA_SET_ELEM_LIST_TABLE, t.name)
	a.text(unix.NFTA_SET_ELEM_LIST_SET, stickyName(p))
	ask := socket.Message{
		Header: socket.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETSETELEM, Flags: socket.Request | socket.Dump}, Data: a.b,
	}
	if err := t.nft.SetDeadline(t.cfg.Clock.Wall().Add(kernelWait)); err != nil {
		return nil, err
	}
	answer, err := t.nft.Execute(ask)
	if errors.Is(err, unix.ENOENT) {
		return nil, err // All that the kernel says to it.
	}
	if err != nil {
		t.nft.Close()
		t.nft = nil
		return nil, err
	}
	var clients []element
	for _, m := range answer {
		all, err := readElements(m.Data)
		if err != nil {
			return nil, err
		}
		clients = append(clients, all...)
	}
	return clients, nil
}

// readElements reads what the kernel lists of a map.
func readElements(b []byte) ([]element, error) {
	if len(b) < attributeHeader {
		return nil, errors.New("a list of elements is cut short")
	}
	d, err := socket.NewAttributeDecoder(b[attributeHeader:]) // After the family.
	if err != nil {
		return nil, err
	}
	var all []element
	for d.Next() {
		if d.Type() != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
			continue
		}
		d.Nested(func(list *socket.AttributeDecoder) error {
			for list.Next() {
				var e element
				list.Nested(e.read)
				all = append(all, e)
			}
			return nil
		})
	}
	return all, d.Err()
}

func (e *element) read(d *socket.AttributeDecoder) error {
	value := func(to *[]byte) func(*socket.AttributeDecoder) error {
		return func(d *socket.AttributeDecoder) error {
			for d.Next() {
				if d.Type() == unix.NFTA_DATA_VALUE {
					*to = d.Bytes()
				}
			}
			return nil
		}
	}
	for d.Next() {
		switch d.Type() {
		case unix.NFTA_SET_ELEM_KEY:
			d.Nested(value(&e.key))
		case unix.NFTA_SET_ELEM_DATA:
			d.Nested(value(&e.value))
		case unix.NFTA_SET_ELEM_EXPIRATION:
			if b := d.Bytes(); len(b) == 8 {
				e.leftMillis = binary.BigEndian.Uint64(b)
			}
		}
	}
	return nil
}
