package blobstore

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/vfs"
)

// Config is what a URL does not say. Its zero value is ready.
type Config struct {
	// Create has the folder of a file URL made when it is missing. Without it a
	// missing folder is an error: who reads wants to know that the name is wrong.
	Create bool

	FS    vfs.FS      // Of file URLs. Default: the machine's.
	Clock clock.Clock // Of waits between tries. Default: the machine's.

	// Timeout ends one try of one request to an object store; a second for each
	// MiB is added. Default: 15 s. A shorter one repeats what was only slow.
	Timeout time.Duration
	// Tries is how often a request is sent that gets no answer or an error of the
	// server. Default: 8, within about 7 s when they fail at once.
	Tries int
}

func (c Config) withDefaults() Config {
	if c.FS == nil {
		c.FS = vfs.OS()
	}
	if c.Clock == nil {
		c.Clock = clock.Real()
	}
	if c.Timeout <= 0 {
		c.Timeout = 15 * time.Second
	}
	if c.Tries <= 0 {
		c.Tries = 8
	}
	return c
}

const usage = "use file:///folder or s3://bucket/prefix?region=…&endpoint=https://…"

// Open returns the store that a URL names:
//
//	file:///folder
//	s3://bucket/prefix?region=…&endpoint=https://host&path-style=true&profile=…
//
// It sends no request: an object store that is down is met by the first call.
// docs/operations/object-stores.md describes both for users.
func Open(ctx context.Context, rawURL string, cfg Config) (Store, error) {
	cfg = cfg.withDefaults()
	u, err := url.Parse(rawURL)
	if err != nil {
		var reason *url.Error // Its own text repeats the URL, secrets and all.
		if errors.As(err, &reason) {
			err = reason.Err
		}
		return nil, fmt.Errorf("store URL %s: %w: %s", withoutSecrets(rawURL), err, usage)
	}
	switch {
	case u.User != nil:
		return nil, fmt.Errorf("store URL %s holds a user or password: give credentials by the environment, a profile or the query", withoutSecrets(rawURL))
	case u.Fragment != "":
		return nil, fmt.Errorf("store URL %s has a part after #: write it as %%23 if it belongs to the name", withoutSecrets(rawURL))
	}
	switch u.Scheme {
	case "file":
		return openDir(u, cfg)
	case "s3":
		return openS3(ctx, u, cfg)
	case "":
		return nil, fmt.Errorf("store URL %s has no scheme: %s", withoutSecrets(rawURL), usage)
	default:
		return nil, fmt.Errorf("store URL %s: scheme %q is not known: %s", withoutSecrets(rawURL), u.Scheme, usage)
	}
}

// withoutSecrets cuts a URL that may be of any form down to what can be shown.
func withoutSecrets(rawURL string) string {
	shown, query, _ := strings.Cut(rawURL, "?")
	if scheme, rest, ok := strings.Cut(shown, "://"); ok {
		if at := strings.LastIndex(rest, "@"); at >= 0 {
			shown = scheme + "://…@" + rest[at+1:]
		}
	} else if strings.Contains(shown, "@") {
		shown = "…"
	}
	if query != "" {
		shown += "?…"
	}
	return fmt.Sprintf("%q", shown)
}
