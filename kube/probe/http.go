package probe

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// userAgent begins as that of Kubernetes' probes: access logs are filtered by it.
const userAgent = "kube-probe/holdfast"

func (t *Target) askHTTP(ctx context.Context, g *corev1.HTTPGetAction, timeout time.Duration) result {
	answer, body, err := t.get(ctx, g)
	switch {
	case late(ctx):
		return failed("no answer to an HTTP request within %s", timeout)
	case err != nil && answer == nil && errors.Is(err, errRequest):
		return result{err: err}
	case err != nil:
		return failed("%s", err)
	case answer.StatusCode >= 300 && answer.StatusCode < 400:
		return result{healthy: true, warning: true, message: "Probe terminated redirects, Response body: " + body}
	case answer.StatusCode >= 200 && answer.StatusCode < 300:
		return result{healthy: true}
	}
	return failed("HTTP probe failed with statuscode: %d", answer.StatusCode)
}

var errRequest = errors.New("there is no such request")

// get makes one request, follows redirects within the host, and reads the beginning
// of the answer.
func (t *Target) get(ctx context.Context, g *corev1.HTTPGetAction) (answer *http.Response, body string, err error) {
	request, err := t.request(ctx, g)
	if err != nil {
		return nil, "", err
	}
	// A transport for each request: nothing is kept between probes, least of all a
	// connection to a container that has gone.
	transport := &http.Transport{
		DialContext:            t.connect,
		TLSClientConfig:        &tls.Config{InsecureSkipVerify: true}, // As Kubernetes: a probe asks for health, not for identity.
		DisableKeepAlives:      true,
		DisableCompression:     true,
		MaxResponseHeaderBytes: headerBytesMax,
	}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, CheckRedirect: stayOnHost}
	answer, err = client.Do(request)
	if err != nil {
		return nil, "", err
	}
	defer answer.Body.Close()
	read, err := io.ReadAll(io.LimitReader(answer.Body, readBytesMax))
	if err != nil {
		return answer, "", fmt.Errorf("read the answer of %s: %w", request.URL, err)
	}
	return answer, string(read), nil
}

// stayOnHost follows redirects to where the container itself is. Others are the
// answer: who can make a container redirect shall not make the node ask elsewhere.
func stayOnHost(request *http.Request, via []*http.Request) error {
	if request.URL.Hostname() != via[0].URL.Hostname() {
		return http.ErrUseLastResponse
	}
	if len(via) >= redirectsMax {
		return fmt.Errorf("stopped after %d redirects", redirectsMax)
	}
	return nil
}

func (t *Target) request(ctx context.Context, g *corev1.HTTPGetAction) (*http.Request, error) {
	port, err := t.port(g.Port)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, errRequest)
	}
	u, err := url.Parse(g.Path)
	if err != nil {
		u = &url.URL{Path: g.Path}
	}
	// Only path and query are the probe's: a whole address in the path is no host.
	at := &url.URL{
		Scheme: strings.ToLower(string(g.Scheme)), Host: t.address(g.Host, port),
		Path: u.Path, RawPath: u.RawPath, RawQuery: u.RawQuery, Fragment: u.Fragment,
	}
	if at.Scheme == "" {
		at.Scheme = "http"
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, at.String(), nil)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, errRequest)
	}
	for _, h := range g.HTTPHeaders {
		if strings.EqualFold(h.Name, "Host") {
			request.Host = h.Value
		}
		request.Header.Add(h.Name, h.Value)
	}
	// A header that is there, and be it empty, is what the pod wants.
	if _, there := request.Header["User-Agent"]; !there {
		request.Header.Set("User-Agent", userAgent)
	}
	switch accept, there := request.Header["Accept"]; {
	case !there:
		request.Header.Set("Accept", "*/*")
	case len(accept) == 1 && accept[0] == "":
		request.Header.Del("Accept")
	}
	return request, nil
}
