package service

import (
	"errors"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// backends are where flows to a front may have gone. None: there is no endpoint.
type backends []netip.AddrPort

// stale finds flows of UDP that no longer go where they should. A flow of TCP ends
// with its connection, but one of UDP goes on for as long as the client sends: to an
// endpoint that is gone, or past the service, if it began when there was none.
type stale struct {
	fronts map[Front]backends
}

// MatchConntrackFlow implements netlink.CustomConntrackFilter.
func (s *stale) MatchConntrackFlow(f *netlink.ConntrackFlow) bool {
	if f.Forward.Protocol != uint8(UDP) {
		return false
	}
	to, went := addrPort(f.Forward.DstIP, f.Forward.DstPort), addrPort(f.Reverse.SrcIP, f.Reverse.SrcPort)
	may, ok := s.fronts[Front{to.Addr(), to.Port()}]
	if !ok {
		may, ok = s.fronts[Front{Port: to.Port()}]
		if ok && went == to && len(may) == 0 {
			return false // Of a program of the node, which has the port now.
		}
	}
	return ok && !slices.Contains(may, went)
}

func addrPort(ip net.IP, port uint16) netip.AddrPort {
	a, _ := netip.AddrFromSlice(ip)
	return netip.AddrPortFrom(a.Unmap(), port)
}

// toCut are the ports of UDP among changes that lose an endpoint, get their first, or are
// found at another place.
func (t *Table) toCut(changes Plan) Plan {
	cut := Plan{}
	for name, p := range changes { //tidy:ordered each by itself
		had := t.has[name]
		switch {
		case p != nil && p.Protocol != UDP || had != nil && had.port.Protocol != UDP:
		case had == nil && p != nil:
			cut[name] = p
		case had != nil && p == nil:
			cut[name] = abandoned(had.port, had.port.Fronts)
		case had != nil:
			if loses(had.port, p) || len(without(p.Fronts, had.port.Fronts)) > 0 {
				cut[name] = p
			}
			if left := without(had.port.Fronts, p.Fronts); len(left) > 0 {
				cut[name+" before"] = abandoned(had.port, left)
			}
		}
	}
	return cut
}

// abandoned is a port of which nothing but some fronts is left: they tell which flows are
// meant.
func abandoned(p *Port, fronts []Front) *Port {
	gone := *p
	gone.Fronts, gone.Endpoints, gone.Draining = fronts, nil, nil
	return &gone
}

func loses(had, now *Port) bool {
	keeps := backendsOf(now)
	return slices.ContainsFunc(backendsOf(had), func(e netip.AddrPort) bool { return !slices.Contains(keeps, e) })
}

func backendsOf(p *Port) backends { return slices.Concat(p.Endpoints, p.Draining) }

// cutFlows ends flows of UDP that should not go on. The table is right even if this
// fails, so that is told and no more.
func (t *Table) cutFlows(p Plan) {
	s := &stale{fronts: map[Front]backends{}}
	for _, port := range p { //tidy:ordered a map again
		if port == nil || port.Protocol != UDP {
			continue
		}
		for _, f := range port.Fronts {
			if to := backendsOf(port); len(to) > 0 || s.fronts[f] == nil { // What one leaves another may have now.
				s.fronts[f] = to
			}
		}
	}
	if len(s.fronts) == 0 {
		return
	}
	var err error
	for range cutTries { // What changes meanwhile may hide some.
		if _, err = t.flows.ConntrackDeleteFilters(netlink.ConntrackTable, unix.AF_INET, s); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	if err != nil {
		t.log.Warn("flows of UDP to endpoints that are gone may go on until their clients are silent", "error", err)
	}
}
