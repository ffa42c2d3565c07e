package service

import (
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/hashicorp/go-hclog"
	socket "github.com/mdlayher/netlink"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/holdfast-db/holdfast/internal/clock"
)

// TableConfig says whose table it is. Node and Logger are required.
type TableConfig struct {
	Node string // The table is named after it.

	// PodCIDR are the addresses of this node's pods, PodRange those of all.
	// Default: PodCIDR. Without any others connect pods: they see to it that those of one
	// node meet through services, and node ports are reached from the node's address.
	PodCIDR, PodRange netip.Prefix

	// ServiceRange is where services have their addresses. What is sent there and is no
	// port of a service with an endpoint is refused at once. Without it, it goes where it
	// goes.
	ServiceRange netip.Prefix

	Clock  clock.Clock // Default: the machine's.
	Logger hclog.Logger
}

func (c *TableConfig) setDefaults() error {
	if !c.PodRange.IsValid() {
		c.PodRange = c.PodCIDR
	}
	if c.Clock == nil {
		c.Clock = clock.Real()
	}
	var errs []error
	if c.Node == "" {
		errs = append(errs, errors.New("no Node"))
	}
	if c.PodCIDR.IsValid() && !c.PodCIDR.Addr().Is4() {
		errs = append(errs, fmt.Errorf("PodCIDR: %v is no IPv4 range", c.PodCIDR))
	}
	if c.ServiceRange.IsValid() && !c.ServiceRange.Addr().Is4() {
		errs = append(errs, fmt.Errorf("ServiceRange: %v is no IPv4 range", c.ServiceRange))
	}
	if c.Logger == nil {
		errs = append(errs, errors.New("no Logger"))
	}
	return errors.Join(errs...)
}

// Table is the plane in the kernel. It takes root, and nf_tables with NAT.
type Table struct {
	cfg   TableConfig
	log   hclog.Logger
	name  string
	space netns.NsHandle
	nft   *socket.Conn // Nil after an error: another is opened.
	flows *netlink.Handle

	base *base               // Nil: nobody knows what there is.
	has  map[string]*program // What the kernel has, by name.
	// local counts for each pod of this node the ports that have it as an endpoint.
	local map[netip.Addr]int
	next  *batch // The transaction that is being written.

	slotKeys [][]byte // Of the numbers of slots, as far as they were needed.
}

// program is a port as the kernel has it.
type program struct {
	port  *Port
	slots []uint16 // The endpoint that each has, by its place in the port: a sixteenth of the endpoint itself.
}

func newProgram(p *Port, before []netip.AddrPort) *program {
	assigned := Assign(before, p.Endpoints)
	places := make(map[netip.AddrPort]uint16, len(p.Endpoints))
	for i, e := range p.Endpoints[:min(len(p.Endpoints), slotsMax)] {
		places[e] = uint16(i)
	}
	made := &program{port: p, slots: make([]uint16, len(assigned))}
	for slot, e := range assigned {
		made.slots[slot] = places[e]
	}
	return made
}

// assigned is the endpoint of each slot.
func (p *program) assigned() []netip.AddrPort {
	all := make([]netip.AddrPort, len(p.slots))
	for slot, i := range p.slots {
		all[slot] = p.port.Endpoints[i]
	}
	return all
}

// OpenTable opens the plane of the network namespace in which it is called. It changes
// nothing before Replace: the table of an earlier kubelet goes on.
func OpenTable(cfg TableConfig) (*Table, error) {
	if err := cfg.setDefaults(); err != nil {
		return nil, fmt.Errorf("table of services: %w", err)
	}
	t := &Table{cfg: cfg, log: cfg.Logger.Named("services"), name: tableName(cfg.Node), space: netns.None()}
	if err := t.open(); err != nil {
		t.Close()
		return nil, fmt.Errorf("table of services: %w", err)
	}
	return t, nil
}

func (t *Table) open() (err error) {
	if t.space, err = netns.Get(); err != nil {
		return fmt.Errorf("its namespace: %w", err)
	}
	if err = t.dial(); err != nil {
		return err
	}
	if t.flows, err = netlink.NewHandleAt(t.space, unix.NETLINK_NETFILTER); err != nil {
		return fmt.Errorf("connection tracking: %w", err)
	}
	return nil
}

// dial opens the connection to the kernel.
func (t *Table) dial() error {
	c, err := socket.Dial(unix.NETLINK_NETFILTER, &socket.Config{NetNS: int(t.space)})
	if err != nil {
		return fmt.Errorf("netlink: %w", err)
	}
	if err := errors.Join(c.SetReadBuffer(socketBytes), c.SetWriteBuffer(socketBytes)); err != nil {
		c.Close()
		return fmt.Errorf("netlink: %w", err)
	}
	t.nft = c
	return nil
}

// Close implements Plane.
func (t *Table) Close() error {
	var errs []error
	if t.nft != nil {
		errs = append(errs, t.nft.Close())
		t.nft = nil
	}
	if t.flows != nil {
		t.flows.Close()
	}
	if t.space.IsOpen() {
		errs = append(errs, t.space.Close())
	}
	return errors.Join(errs...)
}

// Purge removes the table: no service is reached any more.
func (t *Table) Purge() error {
	t.begin()
	t.next.addTable() // So that there is one to delete.
	t.next.deleteTable()
	t.base = nil
	return t.send()
}

func (t *Table) begin() { t.next = &batch{table: t.name} }

// send makes the transaction true. What else the kernel may say after an error must not
// be taken for an answer to the next, so that begins anew.
func (t *Table) send() error {
	if t.nft == nil {
		if err := t.dial(); err != nil {
			return err
		}
	}
	// A kernel that says nothing must not hold up all services.
	err := t.nft.SetDeadline(t.cfg.Clock.Wall().Add(kernelWait))
	if err == nil {
		err = t.next.send(t.nft)
	}
	t.next = nil
	if err != nil {
		t.nft.Close()
		t.nft = nil
	}
	return err
}

func tableName(node string) string {
	sum := sha256.Sum256([]byte(node))
	return "holdfast-" + strings.ToLower(base32.StdEncoding.EncodeToString(sum[:]))[:8] + "-services"
}

// Replace implements Plane: the old table and the new are one transaction.
func (t *Table) Replace(p Plan) error {
	t.has, t.local = map[string]*program{}, map[netip.Addr]int{}
	t.begin()
	t.next.addTable() // So that there is one to delete.
	t.next.deleteTable()
	t.next.addTable()
	t.base = t.makeBase()
	if err := t.change(p); err != nil {
		t.base = nil
		return fmt.Errorf("replace the table of services: %w", err)
	}
	t.cutFlows(p)
	return nil
}

// Update implements Plane: all changes are one transaction.
func (t *Table) Update(changes Plan) error {
	if t.base == nil {
		return errors.New("update the table of services: it was never made whole")
	}
	cut, left := t.toCut(changes), t.toForget(changes)
	t.begin()
	if err := t.change(changes); err != nil {
		t.base = nil
		return fmt.Errorf("change the table of services: %w", err)
	}
	t.cutFlows(cut)
	return t.forget(left)
}

// Stands implements Plane. Who loads rules of his own may begin with an empty ruleset.
func (t *Table) Stands() (bool, error) {
	nft, err := nftables.New(nftables.WithNetNSFd(int(t.space)))
	if err != nil {
		return false, fmt.Errorf("look for the table of services: %w", err)
	}
	_, err = nft.ListTableOfFamily(t.name, nftables.TableFamilyIPv4)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for the table of services: %w", err)
	}
	return true, nil
}

// step is what becomes of one port. Nil: it is not, or has no endpoint.
type step struct {
	had, now *program
	moves    bool    // Nothing but slots and fronts change.
	gone     []Front // That lead to it no longer.
	come     []Front
}

// change makes changes one transaction. Whatever goes, goes first: an address may have
// gone from one service to another.
func (t *Table) change(changes Plan) error {
	names := slices.Sorted(maps.Keys(changes))
	steps := make([]step, 0, len(names))
	for _, name := range names {
		steps = append(steps, t.step(name, changes[name]))
	}
	t.fronts(steps, false)
	for _, s := range steps {
		if s.had != nil && !s.moves {
			t.removeProgram(s.had)
		}
	}
	for _, s := range steps {
		switch {
		case s.moves:
			t.moveSlots(s.had, s.now)
		case s.now != nil:
			t.addProgram(s.now)
		}
	}
	t.fronts(steps, true)
	t.hairpins(steps)
	for i, s := range steps {
		if s.now == nil {
			delete(t.has, names[i])
		} else {
			t.has[names[i]] = s.now
		}
	}
	return t.send()
}

func (t *Table) step(name string, p *Port) step {
	s := step{had: t.has[name]}
	var slots []netip.AddrPort
	if s.had != nil {
		s.gone, slots = s.had.port.Fronts, s.had.assigned()
	}
	if p == nil || len(p.Endpoints) == 0 {
		return s
	}
	s.now, s.come = newProgram(p, slots), p.Fronts
	if s.had == nil || len(s.had.slots) != len(s.now.slots) || s.had.port.Sticky != p.Sticky {
		return s
	}
	s.moves = true
	s.gone, s.come = without(s.had.port.Fronts, p.Fronts), without(p.Fronts, s.had.port.Fronts)
	return s
}

func without(all, those []Front) []Front {
	var left []Front
	for _, f := range all {
		if !slices.Contains(those, f) {
			left = append(left, f)
		}
	}
	return left
}

// fronts changes what leads to programs, and to what remembers their clients.
func (t *Table) fronts(steps []step, add bool) {
	var services, nodePorts, external, sticky, stickyPorts []element
	for _, s := range steps {
		p, fronts := s.had, s.gone
		if add {
			p, fronts = s.now, s.come
		}
		for _, f := range fronts {
			to, kept := &services, &sticky
			if !f.Address.IsValid() {
				to, kept = &nodePorts, &stickyPorts
				external = append(external, element{key: portKey(p.port.Protocol, f.Port)})
			}
			*to = append(*to, frontElement(p.port, f, chainName(p.port)))
			if p.port.Sticky > 0 {
				*kept = append(*kept, frontElement(p.port, f, stickyName(p.port)))
			}
		}
	}
	do := t.next.deleteElements
	if add {
		do = t.next.addElements
	}
	do(t.base.services, services)
	do(t.base.nodePorts, nodePorts)
	do(t.base.external, external)
	do(t.base.sticky, sticky)
	do(t.base.stickyPorts, stickyPorts)
}

// count adds to how many ports have pods of this node as endpoints.
func (t *Table) count(p *program, by int) {
	if p == nil {
		return
	}
	seen := map[netip.Addr]bool{}
	for _, e := range p.port.Endpoints {
		if a := e.Addr(); t.cfg.PodCIDR.Contains(a) && !seen[a] {
			seen[a] = true
			t.local[a] += by
			if t.local[a] == 0 {
				delete(t.local, a)
			}
		}
	}
}

// hairpins tells the kernel which pods may meet themselves.
func (t *Table) hairpins(steps []step) {
	before := maps.Clone(t.local)
	for _, s := range steps {
		t.count(s.had, -1)
		t.count(s.now, 1)
	}
	only := func(all, others map[netip.Addr]int) []element {
		var pairs []element
		for _, a := range slices.SortedFunc(maps.Keys(all), netip.Addr.Compare) {
			if others[a] == 0 {
				pairs = append(pairs, element{key: slices.Concat(a.AsSlice(), a.AsSlice())})
			}
		}
		return pairs
	}
	t.next.deleteElements(t.base.hairpins, only(before, t.local))
	t.next.addElements(t.base.hairpins, only(t.local, before))
}
