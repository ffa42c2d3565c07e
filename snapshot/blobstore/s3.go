package blobstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go/logging"

	"github.com/holdfast-db/holdfast/internal/clock"
)

// s3Store keeps objects in a bucket, under a prefix.
//
// Each write is one PutObject, with the condition in a header of it: parts of an
// upload have none. The SDK's own retries are off. Ours know whether an earlier
// try may have landed, which is what a refused condition has to be asked about.
type s3Store struct {
	client *s3.Client
	http   *http.Client
	bucket string
	prefix string // Empty, or ends in a slash.
	url    string

	clock   clock.Clock
	timeout time.Duration
	tries   int
}

// The settings of an S3 URL.
const (
	setRegion    = "region"
	setEndpoint  = "endpoint"
	setPathStyle = "path-style"
	setProfile   = "profile"
	setKeyID     = "access-key-id"
	setKey       = "secret-access-key"
	setToken     = "session-token"
)

// regionDefault is what stores without regions take; others say what they want.
const regionDefault = "us-east-1"

func openS3(ctx context.Context, u *url.URL, cfg Config) (Store, error) {
	s := &s3Store{bucket: u.Host, clock: cfg.Clock, timeout: cfg.Timeout, tries: cfg.Tries}
	s.url = "s3://" + u.Host + u.Path
	fail := func(format string, args ...any) (Store, error) {
		return nil, fmt.Errorf("store URL %q: %w", s.url, fmt.Errorf(format, args...))
	}
	if u.Host == "" {
		return fail("the bucket is missing: %s", usage)
	}
	if prefix := strings.Trim(u.Path, "/"); prefix != "" {
		if err := CheckName(prefix); err != nil {
			return fail("the prefix: %w", err)
		}
		s.prefix = prefix + "/"
	}
	query, err := s3Query(u.RawQuery)
	if err != nil {
		return fail("%w", err)
	}
	if query.Has(setEndpoint) {
		s.url += "?endpoint=" + query.Get(setEndpoint)
	}
	loaded, err := s3Config(ctx, query)
	if err != nil {
		return fail("%w", err)
	}
	s.http = httpClient(loaded)
	s.client = s3.NewFromConfig(loaded, func(o *s3.Options) {
		o.HTTPClient = s.http
		o.UsePathStyle = query.Get(setPathStyle) == "true"
		if endpoint := query.Get(setEndpoint); endpoint != "" {
			o.BaseEndpoint = &endpoint
		}
		o.Retryer = aws.NopRetryer{}
		// The signature covers the hash of the contents, which every store checks;
		// trailers with checksums are known to few.
		o.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired
		o.Logger = logging.Nop{} // What matters is in errors.
	})
	return s, nil
}

// s3Query checks the settings of a URL. Its errors hold no values of secrets.
func s3Query(raw string) (url.Values, error) {
	query, err := url.ParseQuery(raw)
	if err != nil {
		return nil, errors.New("what follows the ? is not of the form name=value&name=value: write % as %25")
	}
	known := []string{setRegion, setEndpoint, setPathStyle, setProfile, setKeyID, setKey, setToken}
	for _, name := range slices.Sorted(maps.Keys(query)) {
		if !slices.Contains(known, name) {
			return nil, fmt.Errorf("setting %.40q is not known, these are: %s", name, strings.Join(known, " "))
		}
		if len(query[name]) != 1 || query.Get(name) == "" {
			return nil, fmt.Errorf("setting %s is empty or given twice", name)
		}
	}
	if err := errors.Join(checkStyle(query.Get(setPathStyle)), checkEndpoint(query.Get(setEndpoint))); err != nil {
		return nil, err
	}
	if query.Has(setKeyID) != query.Has(setKey) || query.Has(setToken) && !query.Has(setKey) {
		return nil, fmt.Errorf("%s and %s belong together, %s needs both", setKeyID, setKey, setToken)
	}
	return query, nil
}

func checkStyle(style string) error {
	if style != "" && style != "true" && style != "false" {
		return fmt.Errorf("%s=%q is neither true nor false", setPathStyle, style)
	}
	return nil
}

func checkEndpoint(endpoint string) error {
	if endpoint == "" {
		return nil
	}
	u, err := url.Parse(endpoint)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil || u.RawQuery != "" {
		return fmt.Errorf("%s=%s is not of the form https://host:port", setEndpoint, withoutSecrets(endpoint))
	}
	return nil
}

// s3Config reads what the environment and the files of the AWS tools say, under
// what the URL says. It sends nothing.
func s3Config(ctx context.Context, query url.Values) (aws.Config, error) {
	var options []func(*config.LoadOptions) error
	if query.Has(setProfile) {
		options = append(options, config.WithSharedConfigProfile(query.Get(setProfile)))
	}
	if query.Has(setRegion) {
		options = append(options, config.WithRegion(query.Get(setRegion)))
	}
	if query.Has(setKey) {
		options = append(options, config.WithCredentialsProvider(credentials.NewStaticCredentialsProvider(
			query.Get(setKeyID), query.Get(setKey), query.Get(setToken))))
	}
	loaded, err := config.LoadDefaultConfig(ctx, options...)
	if err != nil {
		return aws.Config{}, fmt.Errorf("settings of the AWS tools (environment, ~/.aws): %w", err)
	}
	if loaded.Region == "" {
		loaded.Region = regionDefault
	}
	return loaded, nil
}

// httpClient is the SDK's with its certificates and limits, but one whose
// connections can be closed.
func httpClient(loaded aws.Config) *http.Client {
	built, ok := loaded.HTTPClient.(*awshttp.BuildableClient)
	if !ok {
		built = awshttp.NewBuildableClient()
	}
	return &http.Client{
		Transport: built.GetTransport(),
		// A young bucket answers 307. Others would turn a write into a read.
		CheckRedirect: func(r *http.Request, via []*http.Request) error {
			code := r.Response.StatusCode
			if len(via) < 5 && (code == http.StatusTemporaryRedirect || code == http.StatusPermanentRedirect) {
				return nil
			}
			return http.ErrUseLastResponse
		},
	}
}

func (s *s3Store) String() string { return s.url }

func (s *s3Store) key(name string) *string { return aws.String(s.prefix + name) }

// Get implements Store.
func (s *s3Store) Get(ctx context.Context, name string) ([]byte, Tag, error) {
	if err := CheckName(name); err != nil {
		return nil, "", s.failed("read", name, err)
	}
	var data []byte
	var tag Tag
	err := s.try(ctx, func(ctx context.Context, more func(bytes int64)) error {
		out, err := s.client.GetObject(ctx, &s3.GetObjectInput{Bucket: &s.bucket, Key: s.key(name)})
		if err != nil {
			return err
		}
		tag = Tag(aws.ToString(out.ETag))
		data, err = readBody(out, more)
		return err
	})
	if err != nil {
		return nil, "", s.failed("read", name, err)
	}
	if tag == "" {
		return nil, "", s.failed("read", name, errors.New("the answer has no ETag, which conditions need"))
	}
	return data, tag, nil
}

// readBody reads an answer whole or fails. The end is read too: there the SDK
// compares the checksum, if the store has one.
func readBody(out *s3.GetObjectOutput, more func(bytes int64)) ([]byte, error) {
	defer out.Body.Close()
	size := aws.ToInt64(out.ContentLength)
	if size > MaxObject {
		return nil, fmt.Errorf("it has %d bytes, an object at most %d: nobody wrote it as one", size, MaxObject)
	}
	more(max(size, 0))
	buffer := bytes.NewBuffer(make([]byte, 0, max(size, 0)+bytes.MinRead))
	if _, err := buffer.ReadFrom(io.LimitReader(out.Body, MaxObject+1)); err != nil {
		return nil, &transferError{err}
	}
	return buffer.Bytes(), nil
}

// GetRange implements Store.
func (s *s3Store) GetRange(ctx context.Context, name string, offset, length int64) ([]byte, error) {
	if err := CheckRange(name, offset, length); err != nil {
		return nil, s.failed("read", name, err)
	}
	if length == 0 || offset >= MaxObject { // HTTP knows no empty range.
		if _, err := s.head(ctx, name); err != nil {
			return nil, s.failed("read", name, err)
		}
		return []byte{}, nil
	}
	length = min(length, MaxObject)
	wanted := fmt.Sprintf("bytes=%d-%d", offset, offset+length-1)
	var data []byte
	err := s.try(ctx, func(ctx context.Context, more func(bytes int64)) error {
		out, err := s.client.GetObject(ctx, &s3.GetObjectInput{Bucket: &s.bucket, Key: s.key(name), Range: &wanted})
		if status(err) == http.StatusRequestedRangeNotSatisfiable {
			data = []byte{}
			return nil
		}
		if err != nil {
			return err
		}
		data, err = readBody(out, more)
		begins := "bytes " + strconv.FormatInt(offset, 10) + "-"
		if err == nil && len(data) > 0 && (int64(len(data)) > length || !strings.HasPrefix(aws.ToString(out.ContentRange), begins)) {
			err = errors.New("the store does not answer with the range that was asked for")
		}
		return err
	})
	if err != nil {
		return nil, s.failed("read", name, err)
	}
	return data, nil
}

func (s *s3Store) head(ctx context.Context, name string) (*s3.HeadObjectOutput, error) {
	var out *s3.HeadObjectOutput
	err := s.try(ctx, func(ctx context.Context, _ func(bytes int64)) (err error) {
		out, err = s.client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &s.bucket, Key: s.key(name)})
		return err
	})
	return out, err
}

// List implements Store. Each page begins after the last name of the one before,
// so that one which fails is asked for again.
func (s *s3Store) List(ctx context.Context, prefix, after string, fn func(Object) error) error {
	last := ""
	if after != "" {
		last = s.prefix + after
	}
	for {
		var page *s3.ListObjectsV2Output
		err := s.try(ctx, func(ctx context.Context, _ func(bytes int64)) (err error) {
			in := &s3.ListObjectsV2Input{Bucket: &s.bucket, Prefix: s.key(prefix)}
			if last != "" {
				in.StartAfter = &last
			}
			page, err = s.client.ListObjectsV2(ctx, in)
			return err
		})
		if err != nil {
			return s.failed("list", prefix, err)
		}
		for _, o := range page.Contents {
			key := aws.ToString(o.Key)
			if key <= last {
				return s.failed("list", prefix, fmt.Errorf("the store lists %q after %q: lists must be in the order of names, which those of directory buckets are not", key, last))
			}
			last = key
			name, ours := strings.CutPrefix(key, s.prefix)
			if !ours || CheckName(name) != nil {
				continue // Somebody else put it there.
			}
			if err := fn(Object{Name: name, Size: aws.ToInt64(o.Size), Modified: aws.ToTime(o.LastModified)}); err != nil {
				return err
			}
			if err := ctx.Err(); err != nil {
				return s.failed("list", prefix, err)
			}
		}
		if !aws.ToBool(page.IsTruncated) {
			return nil
		}
		if len(page.Contents) == 0 {
			return s.failed("list", prefix, errors.New("the store says that there is more and lists nothing"))
		}
	}
}

// Delete implements Store.
func (s *s3Store) Delete(ctx context.Context, name string) error {
	if err := CheckName(name); err != nil {
		return s.failed("delete", name, err)
	}
	err := s.try(ctx, func(ctx context.Context, _ func(bytes int64)) error {
		_, err := s.client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &s.bucket, Key: s.key(name)})
		return err
	})
	if err != nil && code(err) != "NoSuchKey" {
		return s.failed("delete", name, err)
	}
	return nil
}

// Close implements Store.
func (s *s3Store) Close() error {
	s.http.CloseIdleConnections()
	return nil
}
