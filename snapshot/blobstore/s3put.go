package blobstore

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"net/http"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// writeMark is the metadata of an object that names the call which wrote it.
const writeMark = "holdfast-write"

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Put implements Store.
func (s *s3Store) Put(ctx context.Context, name string, data []byte, c Condition) (Tag, error) {
	if err := CheckPut(name, data, c); err != nil {
		return "", s.failed("write", name, err)
	}
	mark := rand.Text()
	in := s3.PutObjectInput{
		Bucket: &s.bucket, Key: s.key(name),
		ContentLength:  aws.Int64(int64(len(data))),
		ChecksumCRC32C: aws.String(checksum(data)),
		Metadata:       map[string]string{writeMark: mark},
	}
	if c.Absent {
		in.IfNoneMatch = aws.String("*")
	}
	if c.Match != "" {
		in.IfMatch = aws.String(string(c.Match))
	}
	var tag Tag
	sent := 0
	err := s.try(ctx, func(ctx context.Context, more func(bytes int64)) error {
		more(int64(len(data)))
		sent++
		again := in
		again.Body = bytes.NewReader(data)
		out, err := s.client.PutObject(ctx, &again)
		if err == nil {
			tag = Tag(aws.ToString(out.ETag))
		}
		return refused(err, c)
	})
	if errors.Is(err, ErrCondition) && sent > 1 {
		tag, err = s.ours(ctx, name, mark)
	}
	if err != nil {
		return "", s.failed("write", name, err)
	}
	if tag == "" {
		return "", s.failed("write", name, errors.New("the answer has no ETag, which conditions need"))
	}
	return tag, nil
}

func checksum(data []byte) string {
	return base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, crc32.Checksum(data, castagnoli)))
}

// refused finds the answers that mean a condition. 409 is not among them: two
// writes met, and the store asks both to try again.
func refused(err error, c Condition) error {
	if c == (Condition{}) {
		return err
	}
	switch {
	case status(err) == http.StatusPreconditionFailed:
		return ErrCondition
	case c.Match != "" && code(err) == "NoSuchKey":
		return ErrCondition
	case status(err) == http.StatusNotImplemented:
		return errors.Join(ErrUnsupported, err)
	}
	return err
}

// ours asks whether what refused the last try was an earlier one of the same
// call, whose answer was lost. Equal bytes would not show it: somebody else may
// have written the same. One that was replaced meanwhile is not found.
func (s *s3Store) ours(ctx context.Context, name, mark string) (Tag, error) {
	out, err := s.head(ctx, name)
	if status(err) == http.StatusNotFound {
		return "", ErrCondition
	}
	if err != nil {
		return "", err
	}
	if out.Metadata[writeMark] != mark {
		return "", ErrCondition
	}
	return Tag(aws.ToString(out.ETag)), nil
}
