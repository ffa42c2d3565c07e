package history

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/internal/vfs/vfstest"
)

// row is a KeyValue in wire form.
func row(key string, create, mod ident.Revision, version int64, value []byte, lease ident.LeaseID) []byte {
	b := protowire.AppendTag(nil, 1, protowire.BytesType)
	b = protowire.AppendString(b, key)
	for field, n := range []uint64{2: uint64(create), 3: uint64(mod), 4: uint64(version)} {
		if n > 0 {
			b = protowire.AppendTag(b, protowire.Number(field), protowire.VarintType)
			b = protowire.AppendVarint(b, n)
		}
	}
	b = protowire.AppendTag(b, 5, protowire.BytesType)
	b = protowire.AppendBytes(b, value)
	if lease != 0 {
		b = protowire.AppendTag(b, 6, protowire.VarintType)
		b = protowire.AppendVarint(b, uint64(lease))
	}
	return b
}

func put(key string, create, mod ident.Revision, version int64, value []byte) Mutation {
	return Mutation{Kind: KeyPut, Key: []byte(key), Value: row(key, create, mod, version, value, 0)}
}

// maker makes valid records of all kinds out of a seed.
type maker struct {
	*rand.Rand
	index    ident.Index
	revision ident.Revision
	time     int64
	live     map[string]Version
	keys     int // Key space.
	valueMax int
}

func newMaker(t testing.TB, seed uint64) *maker {
	t.Logf("seed %d", seed)
	return &maker{Rand: rand.New(rand.NewPCG(seed, 7)), live: make(map[string]Version), keys: 40, valueMax: 300}
}

func (m *maker) record() *Record {
	m.index += ident.Index(1 + m.IntN(3)/2)
	m.time += 1 + m.Int64N(1e9)
	rec := &Record{Index: m.index, Term: 1 + ident.Term(m.index/50), Time: m.time}
	ordinal := uint32(0)
	for range 1 + m.IntN(3) {
		g := Group{Ordinal: ordinal}
		ordinal += 1 + m.Uint32N(2)
		switch m.IntN(5) {
		case 0:
			m.rows(&g)
		default:
			m.changeKeys(&g)
		}
		rec.Groups = append(rec.Groups, g)
	}
	return rec
}

func (m *maker) rows(g *Group) {
	key := fmt.Appendf(nil, "row-%d", m.IntN(5))
	switch m.IntN(3) {
	case 0:
		g.Mutations = []Mutation{{Kind: RowPut, Table: TableLease, Key: key, Value: m.bytes()}}
	case 1:
		g.Mutations = []Mutation{{Kind: RowDelete, Table: TableUser, Key: key}}
	default:
		value := binary.BigEndian.AppendUint64(nil, uint64(m.revision))
		g.Mutations = []Mutation{{Kind: Compact, Value: value}}
	}
}

func (m *maker) changeKeys(g *Group) {
	m.revision++
	g.Revision = m.revision
	first := m.IntN(m.keys)
	for i := range 1 + m.IntN(3) {
		key := fmt.Sprintf("key/%03d", (first+i)%m.keys)
		v, alive := m.live[key]
		if alive && m.IntN(4) == 0 {
			delete(m.live, key)
			g.Mutations = append(g.Mutations, Mutation{Kind: KeyDelete, Key: []byte(key)})
			continue
		}
		if !alive {
			v = Version{Create: m.revision}
		}
		v.Mod = m.revision
		v.Version++
		m.live[key] = v
		g.Mutations = append(g.Mutations, put(key, v.Create, v.Mod, v.Version, m.bytes()))
	}
}

func (m *maker) bytes() []byte {
	b := make([]byte, m.IntN(m.valueMax))
	for i := range b {
		b[i] = byte(m.Uint32())
	}
	return b
}

// copyRecord takes a record out of its reader's hands.
func copyRecord(rec *Record) *Record {
	c := *rec
	c.Groups = append([]Group(nil), rec.Groups...)
	for i := range c.Groups {
		c.Groups[i].Mutations = append([]Mutation(nil), c.Groups[i].Mutations...)
	}
	return &c
}

func testConfig(fsys vfs.FS) Config {
	return Config{FS: fsys, Dir: "gen/history", SegmentBytes: SegmentBytesMin, RingBytes: RingBytesMin, Logger: hclog.NewNullLogger()}
}

func mustCreate(t testing.TB, cfg Config) *Log {
	t.Helper()
	l, err := Create(cfg, Mark{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func mustAppend(t testing.TB, l *Log, rec *Record) {
	t.Helper()
	if err := l.Append(rec); err != nil {
		t.Fatal(err)
	}
}

func mustSync(t testing.TB, l *Log) Mark {
	t.Helper()
	m, err := l.Sync()
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// readAll reads to the end.
func readAll(t testing.TB, r *Reader) []*Record {
	t.Helper()
	var all []*Record
	for {
		rec, err := r.Next()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, copyRecord(rec))
	}
}

// newMem has the parent folder that every history has.
func newMem(t testing.TB) *vfstest.Mem {
	t.Helper()
	mem := vfstest.NewMem()
	if err := mem.MkdirAll("gen"); err != nil {
		t.Fatal(err)
	}
	if err := mem.SyncDir("."); err != nil {
		t.Fatal(err)
	}
	return mem
}
