package archive

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"filippo.io/age"
	"github.com/klauspost/compress/zstd"
)

// Recipients are the keys for which objects are encrypted. None: they are not.
type Recipients struct {
	names []string
	keys  []age.Recipient
}

// ParseRecipients reads age public keys, as --archive-recipients names them.
func ParseRecipients(names []string) (Recipients, error) {
	var r Recipients
	for _, name := range names {
		key, err := age.ParseX25519Recipient(name)
		if err != nil {
			return r, fmt.Errorf("recipient %q is not an age public key (age1…): %w: %w", name, ErrInvalid, err)
		}
		r.names, r.keys = append(r.names, name), append(r.keys, key)
	}
	if len(names) > recipientsMax {
		return r, fmt.Errorf("%d recipients, at most %d: %w", len(names), recipientsMax, ErrInvalid)
	}
	return r, nil
}

// Identities are the secret keys that open objects.
type Identities []age.Identity

// ParseIdentities reads an age identity file.
func ParseIdentities(r io.Reader) (Identities, error) {
	list, err := age.ParseIdentities(r)
	if err != nil {
		return nil, fmt.Errorf("identity file: %w: %w", ErrInvalid, err)
	}
	return list, nil
}

// sealer turns content into objects. One goroutine.
type sealer struct {
	recipients Recipients
	zstd       *zstd.Encoder
}

func newSealer(r Recipients) (*sealer, error) {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedDefault), zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false))
	if err != nil {
		return nil, fmt.Errorf("zstd: %w", err)
	}
	return &sealer{recipients: r, zstd: enc}, nil
}

// seal compresses if that helps, encrypts if there are recipients, and frames.
func (s *sealer) seal(h head, plain []byte) ([]byte, error) {
	if len(plain) > recordsBytesMax {
		return nil, fmt.Errorf("%d bytes, at most %d: %w", len(plain), recordsBytesMax, ErrTooLarge)
	}
	h.Plain, h.Codec, h.Recipients = int64(len(plain)), codecNone, s.recipients.names
	stored := plain
	if h.Kind == kindLog { // A base's stream is compressed.
		if packed := s.zstd.EncodeAll(plain, nil); len(packed) < len(plain) {
			stored, h.Codec = packed, codecZstd
		}
	}
	if len(s.recipients.keys) > 0 {
		var b bytes.Buffer
		w, err := age.Encrypt(&b, s.recipients.keys...)
		if err == nil {
			_, err = w.Write(stored)
		}
		if err == nil {
			err = w.Close()
		}
		if err != nil {
			return nil, fmt.Errorf("encrypt for %s: %w", strings.Join(s.recipients.names, ", "), err)
		}
		stored = b.Bytes()
	}
	return encodeObject(h, stored)
}

// opener turns objects into content. Many goroutines.
type opener struct {
	identities Identities
	zstd       *zstd.Decoder
}

func newOpener(ids Identities) (*opener, error) {
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecoderMaxMemory(recordsBytesMax), zstd.WithDecodeBuffersBelow(0))
	if err != nil {
		return nil, fmt.Errorf("zstd: %w", err)
	}
	return &opener{identities: ids, zstd: dec}, nil
}

// open verifies an object and returns its content, and the SHA-256 of all of it.
func (o *opener) open(name string, data []byte) (h head, content []byte, whole Sum, err error) {
	h, stored, whole, err := decodeObject(name, data)
	if err != nil {
		return h, nil, whole, err
	}
	content = stored
	if len(h.Recipients) > 0 {
		if content, err = o.decrypt(name, &h, stored); err != nil {
			return h, nil, whole, err
		}
	}
	if h.Codec == codecZstd {
		content, err = o.zstd.DecodeAll(content, nil)
		if err != nil {
			return h, nil, whole, damagef(name, fixedHeadBytes, "content does not decompress: %v", err)
		}
	}
	if int64(len(content)) != h.Plain {
		return h, nil, whole, damagef(name, fixedHeadBytes, "content has %d bytes, its head says %d", len(content), h.Plain)
	}
	return h, content, whole, nil
}

func (o *opener) decrypt(name string, h *head, stored []byte) ([]byte, error) {
	who := strings.Join(h.Recipients, ", ")
	if len(o.identities) == 0 {
		return nil, fmt.Errorf("object %s is encrypted for %s, and no identity file was given: %w", name, who, ErrNoKey)
	}
	r, err := age.Decrypt(bytes.NewReader(stored), o.identities...)
	if noMatch := (*age.NoIdentityMatchError)(nil); errors.As(err, &noMatch) {
		return nil, fmt.Errorf("object %s is encrypted for %s: %w", name, who, ErrNoKey)
	}
	if err != nil {
		return nil, damagef(name, fixedHeadBytes, "it does not decrypt for %s: %v", who, err)
	}
	plain, err := io.ReadAll(io.LimitReader(r, objectBytesMax))
	if err != nil {
		return nil, damagef(name, fixedHeadBytes, "it does not decrypt for %s: %v", who, err)
	}
	return plain, nil
}
