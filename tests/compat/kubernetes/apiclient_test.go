package kubernetes

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/apis/example"
)

// What writers note on objects.
const (
	stampNote = "by"
	countNote = "count"
)

// callTimeout is how long a client waits for an answer.
const callTimeout = 10 * time.Second

// api speaks to an API server as kubectl does, and repeats nothing by itself.
type api struct {
	http *http.Client
	base string
}

// path of a resource, of what a namespace has of it, or of one object.
func path(scope string) string {
	resource, rest, _ := strings.Cut(scope, "/")
	namespace, name, _ := strings.Cut(rest, "/")
	p := "/apis/" + example.GroupName + "/v1/"
	if namespace != "" {
		p += "namespaces/" + namespace + "/"
	}
	p += resource
	if name != "" {
		p += "/" + name
	}
	return p
}

// call asks, and reads the answer into out if it is one of success. An error
// means that there is no answer.
func (a *api) call(ctx context.Context, method, scope string, query url.Values, body, out any) (status int, err error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	res, err := a.send(ctx, method, scope, query, body)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, err
	}
	if res.StatusCode >= http.StatusMultipleChoices {
		return res.StatusCode, nil
	}
	return res.StatusCode, json.Unmarshal(answer, out)
}

func (a *api) send(ctx context.Context, method, scope string, query url.Values, body any) (*http.Response, error) {
	var text []byte
	if body != nil {
		var err error
		if text, err = json.Marshal(body); err != nil {
			return nil, err
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, a.base+path(scope)+"?"+query.Encode(), bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	if method == http.MethodPatch {
		req.Header.Set("Content-Type", "application/merge-patch+json")
	}
	return a.http.Do(req)
}

// object is what all of them have.
type object = metav1.PartialObjectMetadata

func revisionOf(text string) int64 {
	n, _ := strconv.ParseInt(text, 10, 64) // What an API server sends is a number.
	return n
}

func keyOf(resource string, o *object) string { return resource + "/" + o.Namespace + "/" + o.Name }

func countOf(o *object) int {
	n, _ := strconv.Atoi(o.Annotations[countNote]) // Absent is none.
	return n
}

var (
	errExpired = errors.New("expired")                          // What was compacted is asked for.
	errTorn    = errors.New("pages of one list of two moments") // A violation.
)

// list reads all pages of a list; a limit of 0 makes it one.
func (a *api) list(ctx context.Context, scope string, query url.Values, limit int) (view, error) {
	resource, _, _ := strings.Cut(scope, "/")
	v := view{scope: scope, objects: map[string]int64{}}
	for {
		if limit > 0 {
			query.Set("limit", strconv.Itoa(limit))
		}
		var page metav1.PartialObjectMetadataList
		status, err := a.call(ctx, http.MethodGet, strings.TrimSuffix(scope, "/"), query, nil, &page)
		switch {
		case err != nil:
			return v, err
		case status == http.StatusGone:
			return v, errExpired
		case status != http.StatusOK:
			return v, fmt.Errorf("a list of %s: status %d", scope, status)
		}
		at := revisionOf(page.ResourceVersion)
		if v.revision != 0 && at != v.revision {
			return v, fmt.Errorf("%w: %s at %d and %d", errTorn, scope, v.revision, at)
		}
		v.revision = at
		for i := range page.Items {
			v.objects[keyOf(resource, &page.Items[i])] = revisionOf(page.Items[i].ResourceVersion)
		}
		if page.Continue == "" {
			return v, nil
		}
		query = url.Values{"continue": {page.Continue}}
	}
}

// event is one line of a watch.
type event struct {
	Type   string
	Object struct {
		object
		Code int
	}
}

// watch reads events until the API server ends it, or until each says stop.
func (a *api) watch(ctx context.Context, scope string, query url.Values, each func(event) (stop bool)) error {
	query.Set("watch", "1")
	query.Set("allowWatchBookmarks", "true")
	res, err := a.send(ctx, http.MethodGet, strings.TrimSuffix(scope, "/"), query, nil)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	switch res.StatusCode {
	case http.StatusOK:
	case http.StatusGone:
		return errExpired
	default:
		return fmt.Errorf("a watch of %s: status %d", scope, res.StatusCode)
	}
	lines := json.NewDecoder(res.Body)
	for {
		var e event
		switch err := lines.Decode(&e); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case e.Type == "ERROR" && e.Object.Code == http.StatusGone:
			return errExpired
		case e.Type == "ERROR":
			return fmt.Errorf("a watch of %s: code %d", scope, e.Object.Code)
		case each(e):
			return nil
		}
	}
}
