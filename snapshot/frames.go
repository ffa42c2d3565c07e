package snapshot

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"

	"github.com/klauspost/compress/zstd"
)

// frameWriter cuts items into frames.
type frameWriter struct {
	w      io.Writer
	sha    hash.Hash     // nil: nobody will ask for it.
	zstd   *zstd.Encoder // nil: content is stored as it is.
	kind   byte
	plain  []byte // Content of the frame under way.
	packed []byte // Scratch.
	chain  uint32
	offset int64  // Written so far.
	total  uint64 // Content so far, before compression.
}

func newFrameWriter(w io.Writer, compress bool) (*frameWriter, error) {
	f := &frameWriter{w: w, sha: sha256.New(), plain: make([]byte, 0, frameBytes)}
	if compress {
		enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false))
		if err != nil {
			return nil, fmt.Errorf("zstd: %w", err)
		}
		f.zstd = enc
	}
	head := fileHeader()
	f.chain = order.Uint32(head[fileHeaderBytes-4:])
	return f, f.put(head)
}

// put writes bytes of the file.
func (f *frameWriter) put(b []byte) error {
	if f.sha != nil {
		f.sha.Write(b)
	}
	n, err := f.w.Write(b)
	f.offset += int64(n)
	if err != nil {
		return fmt.Errorf("write snapshot at offset %d: %w", f.offset, err)
	}
	return nil
}

// begin ends the frames of the kind before.
func (f *frameWriter) begin(kind byte) error {
	err := f.flush()
	f.kind = kind
	return err
}

// add appends a part of an item.
func (f *frameWriter) add(b []byte) error {
	for len(b) > 0 {
		n := min(len(b), frameBytes-len(f.plain))
		f.plain = append(f.plain, b[:n]...)
		b = b[n:]
		if len(f.plain) == frameBytes {
			if err := f.flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

// addSized appends a length and bytes.
func (f *frameWriter) addSized(b []byte) error {
	var length [binary.MaxVarintLen64]byte
	if err := f.add(length[:binary.PutUvarint(length[:], uint64(len(b)))]); err != nil {
		return err
	}
	return f.add(b)
}

func (f *frameWriter) flush() error {
	if len(f.plain) == 0 {
		return nil
	}
	head := frameHead{plain: uint32(len(f.plain)), kind: f.kind}
	content := f.plain
	if f.zstd != nil {
		if f.packed = f.zstd.EncodeAll(f.plain, f.packed[:0]); len(f.packed) < len(f.plain) {
			content, head.codec = f.packed, codecZstd
		}
	}
	head.length, head.crc = uint32(len(content)), crc32.Checksum(content, castagnoli)
	if err := f.put(head.append(nil, f.chain)); err != nil {
		return err
	}
	f.chain = head.crc
	f.total += uint64(len(f.plain))
	f.plain = f.plain[:0]
	return f.put(content)
}

// finish pads the file and proves it.
func (f *frameWriter) finish() error {
	if err := f.flush(); err != nil {
		return err
	}
	if over := f.offset % padBytes; over != 0 {
		if err := f.put(make([]byte, padBytes-over)); err != nil {
			return err
		}
	}
	if f.sha == nil {
		return f.put(make([]byte, hashBytes))
	}
	return f.put(f.sha.Sum(nil))
}

// frameReader gives items back. It believes nothing that it has not checked.
type frameReader struct {
	r      io.Reader
	sha    hash.Hash // nil: it is of no interest.
	zstd   *zstd.Decoder
	stored []byte // Scratch for content as it is stored,
	rows   []byte // and for that of base, of which there is most.
	chain  uint32
	offset int64  // Read so far.
	frame  int64  // Where the frame in plain begins.
	kind   byte   // Of that frame; 0 before the first.
	plain  []byte // What is left of it.
	total  uint64
}

func newFrameReader(r io.Reader) (*frameReader, error) {
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(2*frameBytes), zstd.WithDecodeBuffersBelow(0))
	if err != nil {
		return nil, fmt.Errorf("zstd: %w", err)
	}
	f := &frameReader{r: r, sha: sha256.New(), zstd: dec}
	var head [fileHeaderBytes]byte
	if err := f.fill(head[:]); err != nil {
		return nil, err
	}
	if string(head[:len(magic)]) != magic {
		return nil, fmt.Errorf("it begins with %q: %w", head[:len(magic)], ErrNotSnapshot)
	}
	f.chain = order.Uint32(head[12:])
	if f.chain != crc32.Checksum(head[:12], castagnoli) {
		return nil, &DamageError{len64(magic), "file header has a wrong checksum"}
	}
	if v := order.Uint32(head[8:]); v != FormatVersion {
		return nil, fmt.Errorf("it has format %d, this program reads %d: %w", v, FormatVersion, ErrNewerFormat)
	}
	return f, nil
}

func len64(s string) int64 { return int64(len(s)) }

func (f *frameReader) close() { f.zstd.Close() }

// fill reads all of b, bytes of the file.
func (f *frameReader) fill(b []byte) error {
	n, err := io.ReadFull(f.r, b)
	if f.sha != nil {
		f.sha.Write(b[:n])
	}
	f.offset += int64(n)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return &DamageError{f.offset, "the file ends before its end"}
	}
	if err != nil {
		return fmt.Errorf("read snapshot at offset %d: %w", f.offset, err)
	}
	return nil
}

// damaged names the frame at hand.
func (f *frameReader) damaged(format string, args ...any) error {
	return &DamageError{f.frame, fmt.Sprintf(format, args...)}
}

// next reads a frame. The one before must be used up.
func (f *frameReader) next() error {
	f.frame = f.offset
	var b [frameHeadBytes]byte
	if err := f.fill(b[:]); err != nil {
		return err
	}
	head, reason := decodeFrameHead(b[:], f.chain)
	if reason != "" {
		return f.damaged("%s", reason)
	}
	if head.kind < f.kind || head.kind == f.kind && (head.kind == kindHeader || head.kind == kindEnd) || f.kind == 0 && head.kind != kindHeader {
		return f.damaged("frame of kind %d after one of kind %d", head.kind, f.kind)
	}
	content := f.room(head)
	if err := f.fill(content); err != nil {
		return err
	}
	if got := crc32.Checksum(content, castagnoli); got != head.crc {
		return &DamageError{f.frame + frameHeadBytes, fmt.Sprintf("content of a frame has checksum %08x, not %08x", got, head.crc)}
	}
	f.chain, f.kind, f.plain = head.crc, head.kind, content
	if head.codec == codecZstd {
		plain, err := f.decompress(head, content)
		if err != nil || len(plain) != int(head.plain) {
			return f.damaged("frame does not decompress to %d bytes: %d, %v", head.plain, len(plain), err)
		}
		f.plain = plain
	}
	f.total += uint64(len(f.plain))
	return nil
}

// room is where the stored content of a frame goes. It is used again, but where
// items lie in it that are kept.
func (f *frameReader) room(head frameHead) []byte {
	if head.codec != codecZstd && head.kind != kindBase {
		return make([]byte, head.length)
	}
	if cap(f.stored) < int(head.length) {
		f.stored = make([]byte, storedBytesMax)
	}
	return f.stored[:head.length]
}

func (f *frameReader) decompress(head frameHead, stored []byte) ([]byte, error) {
	if head.kind != kindBase {
		return f.zstd.DecodeAll(stored, make([]byte, 0, head.plain))
	}
	if f.rows == nil {
		f.rows = make([]byte, 0, frameBytes)
	}
	return f.zstd.DecodeAll(stored, f.rows)
}

// more reports whether there is another item of this kind.
func (f *frameReader) more(kind byte) (bool, error) {
	if len(f.plain) == 0 {
		if f.kind == kindEnd {
			return false, nil
		}
		if err := f.next(); err != nil {
			return false, err
		}
	}
	if f.kind < kind {
		return false, f.damaged("%d bytes are left in a frame of kind %d", len(f.plain), f.kind)
	}
	return f.kind == kind, nil
}

// part returns at least one byte of the item under way, which must go on.
func (f *frameReader) part(kind byte) ([]byte, error) {
	more, err := f.more(kind)
	if err != nil {
		return nil, err
	}
	if !more {
		return nil, f.damaged("an item of kind %d is cut off", kind)
	}
	return f.plain, nil
}

func (f *frameReader) byte(kind byte) (byte, error) {
	part, err := f.part(kind)
	if err != nil {
		return 0, err
	}
	f.plain = part[1:]
	return part[0], nil
}

// sized returns a length and as many bytes. Those of base are good until the next
// call, all others for ever.
func (f *frameReader) sized(kind byte) ([]byte, error) {
	var length uint64
	for shift := 0; ; shift += 7 {
		b, err := f.byte(kind)
		if err != nil {
			return nil, err
		}
		length |= uint64(b&0x7f) << shift
		if b < 0x80 {
			if b == 0 && shift > 0 || length > itemBytesMax {
				return nil, f.damaged("impossible length of an item")
			}
			break
		}
		if shift > 28 {
			return nil, f.damaged("impossible length of an item")
		}
	}
	if length <= uint64(len(f.plain)) {
		item := f.plain[:length:length]
		f.plain = f.plain[length:]
		return item, nil
	}
	var item []byte // Grows with what is really there, not with what a length claims.
	for uint64(len(item)) < length {
		part, err := f.part(kind)
		if err != nil {
			return nil, err
		}
		n := min(uint64(len(part)), length-uint64(len(item)))
		item = append(item, part[:n]...)
		f.plain = part[n:]
	}
	return item, nil
}

// whole returns the content of the one frame of a kind.
func (f *frameReader) whole(kind byte) ([]byte, error) {
	content, err := f.part(kind)
	f.plain = nil
	return content, err
}

// finish reads what follows the last frame, to the end of the file. Without
// hashed the hash may be missing or another's.
func (f *frameReader) finish(hashed bool) error {
	if err := f.padding(); err != nil {
		return err
	}
	var want []byte
	if f.sha != nil {
		want = f.sha.Sum(nil)
	}
	got := make([]byte, hashBytes)
	start := f.offset
	if n, err := io.ReadFull(f.r, got); errors.Is(err, io.EOF) && n == 0 {
		if !hashed {
			return nil
		}
		return ErrNoHash
	} else if errors.Is(err, io.ErrUnexpectedEOF) {
		return &DamageError{start + int64(n), "the file ends before its end"}
	} else if err != nil {
		return fmt.Errorf("read snapshot at offset %d: %w", start, err)
	}
	if hashed && f.sha != nil && string(got) != string(want) {
		return &DamageError{start, fmt.Sprintf("SHA-256 is %x, says %x", want, got)}
	}
	if n, err := f.r.Read(make([]byte, 1)); n > 0 {
		return &DamageError{start + hashBytes, "bytes after the end"}
	} else if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read snapshot at offset %d: %w", start+hashBytes, err)
	}
	return nil
}

// padding reads zeroes up to where the hash begins.
func (f *frameReader) padding() error {
	over := f.offset % padBytes
	if over == 0 {
		return nil
	}
	pad := make([]byte, padBytes-over)
	start := f.offset
	if err := f.fill(pad); err != nil {
		return err
	}
	for i, b := range pad {
		if b != 0 {
			return &DamageError{start + int64(i), "padding is not zero"}
		}
	}
	return nil
}
