package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"reflect"
	"slices"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/api/resource"
)

// exponentDigitsMin of an exponent are what nobody needs: a thousandth is -3. Package
// resource works out ten to that power: to round a quantity of a negative one up, at
// once if it has more digits than an int64 (exactDigitsMax), and else whenever two are
// compared. For 1e-99999 that takes milliseconds, and an object holds many; for
// 1e-999999999 it takes all memory. An exponent of more than 31 bits becomes another.
// So what is worked out while it is read is refused before that (checkStored, checkJSON),
// where names and labels may look the same; and the rest after it, where it is known
// what a quantity is (checkMade).
const (
	exponentDigitsMin  = 4
	exactDigitsMax     = 18
	exponentDigitsWide = 10 // May be more than 31 bits.
)

// ParseQuantity reads a quantity that somebody wrote.
func ParseQuantity(text string) (resource.Quantity, error) {
	if _, _, exponent := parts(text); exponent >= exponentDigitsMin {
		return resource.Quantity{}, fmt.Errorf("the quantity %.40q has an absurd exponent", text)
	}
	return resource.ParseQuantity(text)
}

// parts are how many digits a quantity has before its exponent, whether that is
// negative, and how many digits it has. A text that is none has none.
func parts(text string) (mantissa int, negative bool, exponent int) {
	i := strings.LastIndexAny(text, "eE")
	if i < 1 || strings.Trim(text[:i], "0123456789.+-") != "" {
		return 0, false, 0
	}
	digits := text[i+1:]
	if digits != "" && (digits[0] == '-' || digits[0] == '+') {
		negative, digits = digits[0] == '-', digits[1:]
	}
	if strings.Trim(digits, "0123456789") != "" {
		return 0, false, 0
	}
	return i - strings.Count(text[:i], ".") - strings.Count(text[:i], "+") - strings.Count(text[:i], "-"), negative, len(digits)
}

// workedOut reports whether such a quantity is worked out while it is read.
func workedOut(mantissa int, negative bool, exponent int) bool {
	return exponent >= exponentDigitsMin && (negative || mantissa > exactDigitsMax || exponent >= exponentDigitsWide)
}

// measured are the kinds that hold quantities.
func (k *Kind) measured() bool {
	return slices.Contains([]string{"Pod", "Node", "ReplicaSet", "Deployment", "HorizontalPodAutoscaler"}, k.Name)
}

func errEndless(k *Kind, text string) error {
	return fmt.Errorf("%s: %w: the quantity %.40q has an absurd exponent", k.Name, ErrEncoding, text)
}

// checkStored looks for such quantities in the stored form: in a field 1 that is text,
// which is the only one that a quantity has. Suspect: there may be some that are read
// quickly.
func checkStored(k *Kind, stored []byte) (suspect bool, err error) {
	if !k.measured() {
		return false, nil
	}
	for i, c := range stored {
		if c|0x20 != 'e' {
			continue
		}
		negative, first := signed(stored, i+1)
		end := first
		for end < len(stored) && digit(stored[end]) { // What follows may look like a digit too.
			end++
		}
		if end-first < exponentDigitsMin {
			continue
		}
		suspect = true
		mantissa := 0
		for start := i - 1; start >= 0 && strings.IndexByte("0123456789.+-", stored[start]) >= 0; start-- {
			if digit(stored[start]) {
				mantissa++
			}
			if workedOut(mantissa, negative, end-first) && heads(stored[:start], first+exponentDigitsMin-start, end-start) {
				return true, errEndless(k, string(stored[start:end]))
			}
		}
	}
	return suspect, nil
}

// signed skips a sign.
func signed(text []byte, at int) (negative bool, next int) {
	if at < len(text) && (text[at] == '-' || text[at] == '+') {
		return text[at] == '-', at + 1
	}
	return false, at
}

// heads reports whether what stands before a text can say that it is a field 1 of so
// many bytes. Of a length that takes two bytes, or is written in more than it needs, only
// the last is looked at.
func heads(before []byte, least, most int) bool {
	l := len(before)
	if l < 2 {
		return false
	}
	n := int(before[l-1])
	return least <= n && n <= most && (before[l-2] == 0x0a || before[l-2] >= 0x80) || most >= 0x80 || n == 0 && before[l-2] >= 0x80
}

// checkJSON looks for such quantities in JSON, where they are texts or numbers. Suspect:
// as checkStored.
func checkJSON(k *Kind, text []byte) (suspect bool, err error) {
	if !k.measured() || !bytes.Contains(text, []byte(`\u`)) && !suspicious(text) {
		return false, nil
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	for {
		token, err := d.Token()
		if err != nil {
			if err == io.EOF {
				return true, nil
			}
			return true, fmt.Errorf("%s: %w: %w", k.Name, ErrEncoding, err)
		}
		value, _ := token.(string)
		if number, ok := token.(json.Number); ok {
			value = string(number)
		}
		if workedOut(parts(strings.TrimSpace(value))) {
			return true, errEndless(k, value)
		}
	}
}

// suspicious is quick, and true more often than it need be.
func suspicious(text []byte) bool {
	for i, c := range text {
		if c|0x20 != 'e' {
			continue
		}
		_, first := signed(text, i+1)
		if first+exponentDigitsMin <= len(text) && len(bytes.Trim(text[first:first+exponentDigitsMin], "0123456789")) == 0 {
			return true
		}
	}
	return false
}

// checkMade looks for quantities that were read quickly, and are worked out when they
// are compared.
func checkMade(k *Kind, o Object) error {
	if absurd(reflect.ValueOf(o)) {
		return fmt.Errorf("%s: %w: a quantity has an absurd exponent", k.Name, ErrEncoding)
	}
	return nil
}

// absurd looks through all of a value that may hold quantities. That a power is not
// finite is known without working it out.
func absurd(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Pointer:
		return !v.IsNil() && absurd(v.Elem())
	case reflect.Struct:
		if q, ok := reflect.TypeAssert[resource.Quantity](v); ok {
			return !(math.Abs(q.AsApproximateFloat64()) <= math.MaxFloat64) // Or 0 times infinity.
		}
		for _, i := range quantityFields(v.Type()) {
			if absurd(v.Field(i)) {
				return true
			}
		}
	case reflect.Slice:
		for i := range v.Len() {
			if absurd(v.Index(i)) {
				return true
			}
		}
	case reflect.Map:
		for i := v.MapRange(); i.Next(); {
			if absurd(i.Value()) {
				return true
			}
		}
	}
	return false
}

// quantityFieldsOf remembers what quantityFields found: looking through types takes
// longer than looking through an object.
var quantityFieldsOf sync.Map

// quantityFields are the fields of a struct under which there may be a quantity.
func quantityFields(t reflect.Type) []int {
	if known, ok := quantityFieldsOf.Load(t); ok {
		return known.([]int)
	}
	var fields []int
	for i := range t.NumField() {
		if f := t.Field(i); f.IsExported() && mayHoldQuantities(f.Type) {
			fields = append(fields, i)
		}
	}
	quantityFieldsOf.Store(t, fields)
	return fields
}

func mayHoldQuantities(t reflect.Type) bool {
	if t == reflect.TypeFor[resource.Quantity]() {
		return true
	}
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Map:
		return mayHoldQuantities(t.Elem())
	case reflect.Struct:
		return len(quantityFields(t)) > 0
	}
	return false
}

func digit(c byte) bool { return c >= '0' && c <= '9' }
