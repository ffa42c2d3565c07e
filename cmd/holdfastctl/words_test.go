package main

import (
	"slices"
	"testing"

	"github.com/holdfast-db/holdfast/client"
)

func TestLinesComeApartAtSpacesAndQuotes(t *testing.T) {
	for line, want := range map[string][]string{
		``:                    nil,
		"  \t":                nil,
		`a b`:                 {"a", "b"},
		`put "x y" 'a "b"'`:   {"put", "x y", `a "b"`},
		`"a\x00\n" ''`:        {"a\x00\n", ""},
		`a'b c"d`:             {"a'b", `c"d`},
		`"a"b`:                {"a", "b"},
		`--flag="a b"`:        {`--flag="a`, `b"`},
		`""`:                  {""},
		"\"tab\\t\" \u00e9":   {"tab\t", "\u00e9"},
		`put -- "-x" '--y'  `: {"put", "--", "-x", "--y"},
	} {
		got, err := splitWords(line)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: %q, %v; want %q", line, got, err, want)
		}
	}
	for _, line := range []string{`"a`, `'a`, `a "b`, `"\q"`} {
		if got, err := splitWords(line); err == nil {
			t.Errorf("%q was taken for %q", line, got)
		}
	}
}

func TestComparisonsAreReadAsWritten(t *testing.T) {
	for line, want := range map[string]client.Compare{
		`mod("a") > "0"`:           client.IfModified("a", client.Greater, 0),
		`m("a") < "9"`:             client.IfModified("a", client.Less, 9),
		`create("a b") != "-1"`:    client.IfCreated("a b", client.NotEqual, -1),
		`c("a") = "1"`:             client.IfCreated("a", client.Equal, 1),
		`ver("a") =   "3"`:         client.IfVersion("a", client.Equal, 3),
		`version("\x00)")   = "3"`: client.IfVersion("\x00)", client.Equal, 3),
		`val("a") = "x \"y\""`:     client.IfValue("a", client.Equal, []byte(`x "y"`)),
		"value(`a`) = `b`":         client.IfValue("a", client.Equal, []byte("b")),
		`lease("a") = "1a2b"`:      client.IfLease("a", client.Equal, 0x1a2b),
	} {
		got, err := parseCompare(line)
		if err != nil || got.Range != want.Range || got.Target != want.Target || got.Result != want.Result ||
			got.Number != want.Number || string(got.Value) != string(want.Value) {
			t.Errorf("%s: %+v, %v; want %+v", line, got, err, want)
		}
	}
}

// FuzzTxnLines: no line of a transaction may do more than fail.
func FuzzTxnLines(f *testing.F) {
	for _, line := range []string{`mod("a") > "0"`, `put a "b c" --lease=1`, `get --prefix ''`, `del a b --range`, `val("\x00") = "`, `'`} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		if c, err := parseCompare(line); err == nil && c.Range.End != "" {
			t.Errorf("%q compares a range", line)
		}
		if op, err := parseOp(line); err == nil && op == nil {
			t.Errorf("%q is nothing", line)
		}
	})
}

func TestSizesReadAsEtcdctlWritesThem(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 B", 999: "999 B", 1000: "1.0 kB", 20480: "20 kB", 24576: "25 kB", 9949: "9.9 kB", 9950: "10 kB",
		1 << 20: "1.0 MB", 2 << 30: "2.1 GB", 8 << 30: "8.6 GB", 82_854_982: "83 MB",
	} {
		if got := sizeText(n); got != want {
			t.Errorf("%d bytes are %q, want %q", n, got, want)
		}
	}
}
