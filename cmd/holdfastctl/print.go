package main

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/olekukonko/tablewriter"
	"github.com/olekukonko/tablewriter/tw"

	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/proto/mvccpb"
)

// Forms of output.
const (
	formSimple   = "simple"
	formFields   = "fields"
	formJSON     = "json"
	formTable    = "table"
	formProtobuf = "protobuf"
)

var forms = []string{formFields, formJSON, formProtobuf, formSimple, formTable}

// The forms that answers to requests have. They hold no tables, in etcdctl too.
var requestForms = []string{formSimple, formFields, formJSON, formProtobuf}

// needForm refuses a form before anything is done, since a write should not
// happen and then fail to be printed.
func (c *ctl) needForm(allowed ...string) error {
	if slices.Contains(allowed, c.globals.form) {
		return nil
	}
	return badFeature("%s not supported as output format: use -w with %s", c.globals.form, strings.Join(allowed, ", "))
}

// message is a generated message.
type message interface{ MarshalVT() ([]byte, error) }

// answer is what a command has learned, in each form that it can be printed in.
type answer struct {
	simple func(p *page)
	fields func(p *page)
	table  *grid // Also the simple form, unless that is set.
	json   any
	proto  message
}

// grid is a table.
type grid struct {
	head  []string
	rows  [][]string
	plain bool // The head is not to be put into capitals and taken apart.
}

func (g *grid) add(cells ...string) { g.rows = append(g.rows, cells) }

func (c *ctl) print(a answer) error {
	p := &page{hex: c.globals.hex}
	switch c.globals.form {
	case formJSON:
		p.json(a.json)
	case formFields:
		a.fields(p)
	case formTable:
		p.table(a.table)
	case formProtobuf:
		b, err := a.proto.MarshalVT()
		if err != nil {
			return exit(exitFailed, fmt.Errorf("encode the answer: %w", err))
		}
		p.Write(b)
	case formSimple:
		if a.simple != nil {
			a.simple(p)
			break
		}
		for _, row := range a.table.rows {
			p.line(strings.Join(row, ", "))
		}
	}
	if _, err := c.out.Write(p.Bytes()); err != nil {
		return exit(exitFailed, fmt.Errorf("write the answer: %w", err))
	}
	return exit(exitFailed, p.err)
}

// page is one answer, which goes out at once.
type page struct {
	bytes.Buffer
	hex       bool
	valueOnly bool
	err       error // Of something that has no such form.
}

func (p *page) printf(format string, args ...any) { fmt.Fprintf(p, format, args...) }
func (p *page) line(args ...any)                  { fmt.Fprintln(p, args...) }

func (p *page) json(v any) {
	b, err := json.Marshal(v)
	if err != nil {
		p.err = err
		return
	}
	p.Write(append(b, '\n'))
}

func (p *page) table(g *grid) {
	config := tablewriter.NewConfigBuilder().WithRowAlignment(tw.AlignRight)
	if g.plain {
		config.WithHeaderAutoFormat(tw.Off)
	}
	t := tablewriter.NewTable(p, tablewriter.WithConfig(config.Build()))
	t.Header(g.head)
	if p.err = t.Bulk(g.rows); p.err == nil {
		p.err = t.Render()
	}
}

// kv prints a key and its value, each on a line.
func (p *page) kv(kv *mvccpb.KeyValue) {
	if !p.valueOnly {
		p.line(p.text(kv.GetKey()))
	}
	p.line(p.text(kv.GetValue()))
}

func (p *page) kvs(kvs []*mvccpb.KeyValue) {
	for _, kv := range kvs {
		p.kv(kv)
	}
}

// text is a key or value as it shall be shown.
func (p *page) text(b []byte) string {
	if !p.hex {
		return string(b)
	}
	var s strings.Builder
	for _, c := range b {
		s.WriteString(`\x` + hex.EncodeToString([]byte{c}))
	}
	return s.String()
}

// field prints a name and a value as they are.
func (p *page) field(name string, value any) { p.line(`"`+name+`" :`, value) }

// quoted prints a name and a text.
func (p *page) quoted(name, value string) { p.printf("\"%s\" : %q\n", name, value) }

// id prints the ID of a member or cluster.
func (p *page) id(name string, id uint64) {
	if p.hex {
		p.printf("\"%s\" : %x\n", name, id)
		return
	}
	p.field(name, id)
}

// lease prints the ID of a lease.
func (p *page) lease(name string, id int64) {
	if p.hex {
		p.printf("\"%s\" : %016x\n", name, id)
		return
	}
	p.field(name, id)
}

func (p *page) headerFields(h *pb.ResponseHeader) {
	p.id("ClusterID", h.GetClusterId())
	p.id("MemberID", h.GetMemberId())
	if h.GetRevision() > 0 { // Answers about members have none.
		p.field("Revision", h.GetRevision())
	}
	p.field("RaftTerm", h.GetRaftTerm())
}

func (p *page) kvFields(prefix string, kv *mvccpb.KeyValue) {
	p.quoted(prefix+"Key", string(kv.GetKey()))
	p.field(prefix+"CreateRevision", kv.GetCreateRevision())
	p.field(prefix+"ModRevision", kv.GetModRevision())
	p.field(prefix+"Version", kv.GetVersion())
	p.quoted(prefix+"Value", string(kv.GetValue()))
	p.lease(prefix+"Lease", kv.GetLease())
}

// sizeText is a number of bytes for people, in powers of a thousand.
func sizeText(n int64) string {
	const units = "kMGTPE"
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	value, unit := float64(n)/1000, 0
	for value >= 1000 && unit < len(units)-1 {
		value, unit = value/1000, unit+1
	}
	value = math.Floor(value*10+0.5) / 10 // As in etcdctl: a column of these is compared by scripts.
	if value < 10 {
		return fmt.Sprintf("%.1f %cB", value, units[unit])
	}
	return fmt.Sprintf("%.0f %cB", value, units[unit])
}
